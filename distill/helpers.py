"""Free networks beside the student's own: what they say of photos helps to place these."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.embedders.base import Embedder, unit_rows
from index.embedders.registry import open_embedder
from index.errors import UsageError

ALIKE = 1e-3  # spread of unit vectors that say the same of all images


def open_helpers(specs: Sequence[str], device: str) -> list[Embedder]:
    """Open embedders, as `open_embedder` does, that embed the whole pool; UsageError for an endpoint."""
    if paid := next((spec for spec in specs if spec.startswith(("http://", "https://"))), None):
        raise UsageError(f"--helper sees every photo: {paid} may cost money. Give a file or a function.")
    return [open_embedder(spec, device) for spec in specs]


def embed_helped(helper: Embedder, inputs: Sequence[Any]) -> NDArray[np.float32]:
    """Embed n prepared inputs, as many at a time as it takes, to `(n, dim)` unit rows."""
    size = helper.calls.batch
    parts = [helper.embed(inputs[start : start + size]) for start in range(0, len(inputs), size)]
    return unit_rows(np.concatenate(parts), helper.name)


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
