"""Open a ranker by name; the kinds that take a few lines are here."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from index.embedders.base import Calls, Embedder
from index.embedders.callable import CallableEmbedder
from index.embedders.options import EmbedderOptions
from index.embedders.registry import open_embedder
from index.errors import RefusedError, UsageError
from index.images.decode import Photo
from index.rankers.base import EmbedderRanker, Ranker


class CallableRanker(EmbedderRanker):
    """A callable that takes a query and a list of candidates, upright RGB images, and answers with positions.

    Where it is and what tells it from others is as for `CallableEmbedder`.
    """

    def __init__(self, call: str | Callable[..., Any], options: EmbedderOptions) -> None:
        """Import it; see `CallableEmbedder`."""
        self._code = CallableEmbedder(call, options)
        super().__init__("rank", self._code)

    def order(self, query: Image.Image, candidates: Sequence[Image.Image]) -> list[int]:
        """Call it; see `Ranker.order`."""
        try:
            return [int(place) for place in self._code.call(query, list(candidates))]
        except (Exception, SystemExit) as error:
            line = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
            raise RefusedError(f"{self.name} raised {line}") from error


class VectorsRanker(EmbedderRanker):
    """A teacher with vectors and without a price, of which only the orders are used: for honest tables."""

    def __init__(self, teacher: Embedder) -> None:
        """Take the teacher.

        Raises:
            UsageError: Its vectors have a price, and would be paid for once for each list.
        """
        if teacher.calls.paid:
            raise UsageError(f"--orders-only takes an ONNX file or a file of vectors, not {teacher.name}.")
        super().__init__("orders", teacher)
        self.calls = Calls(batch=1)

    def prepare(self, photo: Photo) -> NDArray[np.float32]:
        """The teacher's vector."""
        return self._embedder.embed([self._embedder.prepare(photo)])[0]

    def order(self, query: NDArray[np.float32], candidates: Sequence[NDArray[np.float32]]) -> list[int]:
        """By falling similarity."""
        return np.argsort(-(np.stack(candidates) @ query), kind="stable").tolist()


def open_ranker(spec: str, device: str, options: EmbedderOptions, orders_only: bool = False) -> Ranker:
    """Open the ranker that `spec` names.

    Args:
        spec: The address of a rerank endpoint, a file of preferences (.csv, .parquet), or a Python callable.
        device: `auto`, `cpu` or `cuda`.
        options: What the spec does not say.
        orders_only: Whether `spec` is of a teacher with vectors, as for `open_embedder`.

    Raises:
        UsageError: It cannot be opened.
    """
    if orders_only:
        return VectorsRanker(open_embedder(spec, device, options))
    if spec.startswith(("http://", "https://")):
        from index.rankers.endpoint import EndpointRanker

        return EndpointRanker(spec, options)
    if spec.endswith((".csv", ".parquet")):
        from index.rankers.preferences import PreferencesRanker

        return PreferencesRanker(Path(spec), options)
    if ":" in spec:
        return CallableRanker(spec, options)
    raise UsageError(
        f"{spec} is no ranker. Give the address of a rerank endpoint, a .csv or .parquet of "
        "query,better,worse, file.py:function, or a teacher with --orders-only."
    )
