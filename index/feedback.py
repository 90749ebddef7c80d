"""Relevance feedback: a query drawn to some examples and away from others, by Rocchio's formula."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.errors import UsageError
from index.images.decode import Photo
from index.vectors import Vectors, is_float, unpack

LIKE, UNLIKE = 0.75, 0.5  # weights of the examples' means beside 1 of the query


@dataclass(frozen=True)
class Examples:
    """Images to find more of, and less of: photos, or ids of the gallery. Neither is found itself."""

    like: Sequence[Photo | int] = ()
    unlike: Sequence[Photo | int] = ()

    def __bool__(self) -> bool:
        return bool(self.like or self.unlike)


def rocchio(queries: Vectors, like: Vectors, unlike: Vectors) -> Vectors:
    """Move `(n, dim)` queries by means of `(m, dim)` examples, codes as signs; else UsageError."""
    moved = as_floats(queries).copy()
    for rows, weight in ((like, LIKE), (unlike, -UNLIKE)):
        if len(rows):
            moved += weight * as_floats(rows).mean(axis=0)
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    if (lengths < 1e-6).any():
        raise UsageError("The examples cancel the query out. Take one of them off.")
    return moved / lengths


def as_floats(rows: NDArray) -> Vectors:
    """Unit rows: of codes, their signs."""
    return rows if is_float(rows) else unpack(rows) / np.float32(np.sqrt(8 * rows.shape[1]))
