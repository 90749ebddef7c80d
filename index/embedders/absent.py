"""A teacher that cannot be asked any more: its ledger and what was made with it remain."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.embedders.base import Calls, Embedder
from index.embedders.options import EmbedderOptions
from index.errors import ImageError, UsageError
from index.images.decode import Photo


class AbsentEmbedder(Embedder):
    """Stands for a teacher by its key, so that its answers are found. It has none of its own."""

    side, provider, calls = 0, "none", Calls(batch=1)

    def __init__(self, key: str, name: str, dim: int, spec: str, options: EmbedderOptions) -> None:
        self.key, self.name, self.dim, self.spec, self.options = key, name, dim, spec, options

    def prepare(self, photo: Photo) -> Any:
        """Raise ImageError."""
        raise ImageError(f"{self.name} cannot be asked")

    def embed(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        """Raise UsageError."""
        raise UsageError(f"{self.name} cannot be asked. Give --teacher.")
