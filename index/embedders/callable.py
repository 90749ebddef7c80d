"""A Python callable as an embedder: whatever turns a list of Pillow images into an array."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from index.embedders.base import Calls, Embedder
from index.embedders.options import EmbedderOptions
from index.errors import CallError, RefusedError, UsageError
from index.images.decode import Photo

SIDE = 512  # pixels; images come with twice that on their longer side at most, which bounds the memory


class ObjectEmbedder(Embedder):
    """`package.module:attribute`, called with a list of n upright RGB images, to answer with `(n, dim)`.

    Its identity is its name: if its vectors change while the name stays, give it an attribute `key`, a text
    that changes with them. Its answers are remembered like those of an endpoint, for it may ask one.
    """

    side = SIDE
    provider = "python"

    def __init__(self, spec: str, options: EmbedderOptions) -> None:
        """Import it, with the current folder searched first, as `python -m` does.

        Raises:
            UsageError: There is no such thing, or it cannot be called.
        """
        module, _, attribute = spec.partition(":")
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.insert(0, here)
        try:
            found = importlib.import_module(module)
            for name in attribute.split("."):
                found = getattr(found, name)
        except (Exception, SystemExit) as error:  # importing runs the module, which may raise anything
            raise UsageError(f"{spec} cannot be imported: {_line(error)}.") from error
        if not callable(found):
            raise UsageError(f"{spec} cannot be called. It must take a list of images and return an array.")
        self._call = found
        self.key = f"python:{spec}#{getattr(found, 'key', '')}"
        self.name = self.spec = spec
        self.dim = 0  # known from the ledger or from the first answer
        self.options = options
        self.calls = Calls(options.batch, rate=options.rate, paid=True)

    def prepare(self, photo: Photo) -> Image.Image:
        """The image, made smaller if it is very large."""
        image = photo.image.copy()
        image.thumbnail((2 * SIDE, 2 * SIDE), Image.Resampling.BICUBIC)
        return image

    def embed(self, batch: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Call it with n images.

        Returns:
            `(n, dim)` float32 as answered: of any length, and perhaps not finite.

        Raises:
            RefusedError: It raised something. That is taken to have cost nothing.
            CallError: What it returned is no array of n rows.
        """
        try:
            answer = self._call(list(batch))
        except (Exception, SystemExit) as error:
            raise RefusedError(f"{self.name} raised {_line(error)}") from error
        try:
            with np.errstate(over="ignore"):  # becomes infinite, and is refused as that
                rows = np.asarray(answer).astype(np.float32)
        except (ValueError, TypeError) as error:
            raise CallError(
                f"{self.name} returned {type(answer).__name__}, no array.", charged=True
            ) from error
        if rows.ndim != 2 or len(rows) != len(batch):
            raise CallError(f"{self.name} returned {rows.shape} for {len(batch)} images.", charged=True)
        return rows


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
