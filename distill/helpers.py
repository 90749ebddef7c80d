"""Free networks beside the student's own: what they say of photos helps to place these."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.embedders.base import Embedder
from index.embedders.options import EmbedderOptions
from index.embedders.registry import open_embedder
from index.errors import UsageError
from index.images.file import ImageFile
from index.progress import count

ALIKE = 1e-3  # spread of unit vectors that say the same of all images


def open_helpers(helpers: Sequence[str | Embedder], device: str) -> list[Embedder]:
    """Open embedders of the whole pool by their specs, as `open_embedder` does; some may be open already."""
    lenient = EmbedderOptions(allow_missing=True)
    return [one if isinstance(one, Embedder) else open_embedder(one, device, lenient) for one in helpers]


def require_all(helper: Embedder, files: Sequence[ImageFile], digests: Sequence[str]) -> None:
    """Raise UsageError if a helper has no vector for some of the files with these digests."""
    if missing := helper.find_missing(files, digests):
        lacking = f"{len(missing)} of {count(len(files), 'image')}"
        raise UsageError(f"--helper {helper.name} lacks {lacking}. Give a vector for each, or leave it out.")


def join_helpers(
    features: NDArray[np.float32], own: int, helped: Sequence[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Put `(n, dim)` vectors of helpers before the `own` last of `(n, features)`, scaled to vary as these."""
    before, after = np.split(features, [features.shape[1] - own], axis=1)
    moved = [vectors - vectors.mean(axis=0) for vectors in helped]
    scaled = [rows * (_spread(after) / max(_spread(rows), ALIKE)) for rows in moved]
    return np.concatenate([before, *scaled, after], axis=1, dtype=np.float32)


def _spread(rows: NDArray[np.float32]) -> float:
    """Root of the mean squared distance of rows from their mean."""
    return float(np.sqrt(rows.var(axis=0, dtype=np.float64).sum()))
