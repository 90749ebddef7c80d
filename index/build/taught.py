"""What a student was taught on: where those photos were, and how far from all of them others lie."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from index.errors import ImageError, UsageError
from index.images.file import ImageFile
from index.images.sources import image_at
from index.io import atomic_write, open_npz
from index.stores.faiss.vector_index import search_exact

TAUGHT = "taught.npz"
NEAREST = 25  # taught photos that a photo is compared with: one alone may be a near copy, or an outlier
OUTLIERS = 0.1  # share of the taught photos themselves that are called far
SAME = 0.999  # similarity from which on a photo is one that was taught


@dataclass(frozen=True)
class Taught:
    """The photos that a student was taught on, in its own space."""

    locations: NDArray[np.str_]  # `(n,)` texts, `ImageFile.location` of each
    names: NDArray[np.str_]  # `(n,)` texts, `ImageFile.name` of each
    digests: NDArray[np.str_]  # `(n,)` texts, the content digest of each
    vectors: NDArray[np.float32]  # `(n, dim)` the student's vectors, unit rows
    radius: float  # mean similarity to the `NEAREST` below which a photo is far from all

    @classmethod
    def measure(
        cls, files: Sequence[ImageFile], digests: Sequence[str], vectors: NDArray[np.float32]
    ) -> Self:
        """Note n photos, 2 at least, with digests and `(n, dim)` vectors, and how far apart they lie."""
        found = search_exact(vectors, vectors, min(NEAREST, len(vectors) - 1) + 1)[0]
        radius = float(np.quantile(found[:, 1:].mean(axis=1), OUTLIERS))  # each finds itself first
        locations, names = [file.location for file in files], [file.name for file in files]
        return cls(np.array(locations), np.array(names), np.array(digests), vectors, radius)

    def are_far(self, vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether each of m photos, given by its vector, is far from all that was taught, and none of it."""
        found = search_exact(vectors, self.vectors, min(NEAREST, len(self.vectors) - 1))[0]
        return (found.mean(axis=1) < self.radius) & (found[:, 0] <= SAME)

    def find_files(self) -> list[ImageFile]:
        """Find those of the photos that are still where they were."""
        files = []
        for location, name in zip(self.locations.tolist(), self.names.tolist(), strict=True):
            file = image_at(location, name)
            with suppress(ImageError):
                file.status()
                files.append(file)
        return files

    def save(self, path: Path) -> None:
        """Write an .npz file, beside its place first; vectors take two bytes a number."""
        arrays = {**vars(self), "vectors": self.vectors.astype(np.float16)}
        with atomic_write(path) as beside, beside.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; UsageError if the file is not there, or is another."""
        try:
            with open_npz(path) as found:
                vectors, radius = found["vectors"].astype(np.float32), float(found["radius"])
                texts = found["locations"], found["names"], found["digests"]
            if vectors.ndim != 2 or {each.shape for each in texts} != {vectors.shape[:1]}:
                raise ValueError("its arrays are not of the same photos")
            return cls(*texts, vectors, radius)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"{path} does not say what the student was taught on: it is missing, broken, or the student "
                "was made by an earlier version. Distil it again: the ledger has its answers."
            ) from error
