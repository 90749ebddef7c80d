"""What vectors are: the type of their numbers, what makes one sound, and how near two of them are.

Whatever holds vectors takes `(n, dim)` rows of any type, and leaves to `VectorType` what their numbers mean:
`dim` counts the numbers of a row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import UsageError

Vectors = NDArray[np.float32]  # `(n, dim)` rows of a `VectorType`, in memory or mapped from a file
Scores = NDArray[np.float32]  # similarities: the larger, the nearer
Ids = NDArray[np.int64]
Scored = tuple[Scores, Ids]  # `(n, k)` scores, falling, and ids; -inf and -1 where none is left


@dataclass(frozen=True)
class VectorType:
    """How the vectors of a space are stored and compared. The default: unit rows, by their inner product."""

    dtype: str = "float32"  # of their numbers, as NumPy names it
    metric: str = "inner_product"  # what compares two of them

    def __post_init__(self) -> None:
        if (self.dtype, self.metric) not in KNOWN:
            raise UsageError(
                f"Vectors of {self.dtype} compared by {self.metric} need a later version of this program."
            )

    @property
    def stored(self) -> np.dtype[np.float32]:
        """The numbers as they lie in files, whatever the machine: little-endian."""
        return np.dtype(self.dtype).newbyteorder("<")

    def to_bytes(self, rows: Vectors) -> bytes:
        """The bytes of `(n, dim)` rows as they lie in files."""
        return np.ascontiguousarray(rows, self.stored).tobytes()

    def similarity(self, queries: Vectors, rows: Vectors) -> Scores:
        """Compare `(n, dim)` queries, of codes or of their floats, with `(m, dim)` rows: `(n, m)` scores."""
        if self == CODES:
            signs = unpack(rows)
            if is_float(queries):
                return queries @ signs.T / np.abs(queries).sum(axis=1, keepdims=True).clip(1e-12)
            return unpack(queries) @ signs.T / np.float32(signs.shape[1])
        return queries @ rows.T

    def order_again(self, queries: Vectors, ids: Ids, k: int, fetch: Callable[[Ids], Vectors]) -> Scored:
        """Order `(n, candidates)` ids, -1 for none, by vectors that `fetch` brings, and keep the best k."""
        found = np.unique(ids[ids >= 0])
        scores = np.full(ids.shape, -np.inf, np.float32)
        if len(found):
            places = np.searchsorted(found, np.where(ids >= 0, ids, found[0]))
            similarity = self.similarity(queries, fetch(found))
            scores = np.where(ids >= 0, np.take_along_axis(similarity, places, 1), scores)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)

    def order_each(self, queries: Vectors, ids: Ids, k: int, fetch: Callable[[Ids], Vectors]) -> Scored:
        """As `order_again`, a query at a time."""
        each = zip(queries[:, None], ids[:, None], strict=True)
        found = [self.order_again(query, line, k, fetch) for query, line in each]
        scores, best = map(np.concatenate, zip(*found, strict=True))
        return scores, best

    def is_damaged(self, rows: Vectors) -> NDArray[np.bool_]:
        """Which of `(n, dim)` rows are no vectors of this type: `(n,)`. Codes all are."""
        if self == CODES:
            return np.zeros(len(rows), bool)
        return ~(np.abs(np.linalg.norm(rows, axis=1) - 1) < 1e-3)  # also true for NaN


KNOWN = {("float32", "inner_product"), ("uint8", "hamming")}
UNIT_FLOATS = VectorType()
# Eight bits a number. A score is the mean of what two signs make, 1 where they are the same and -1 where they
# are not; of the floats of a query each counts for as much as it is far from 0.
CODES = VectorType("uint8", "hamming")


def scale_to_unit(rows: NDArray[Any]) -> NDArray[Any]:
    """Scale `(n, dim)` rows to unit length; zeros stay zeros."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def is_float(queries: Vectors) -> bool:
    """Whether queries of codes are the floats that codes are the signs of."""
    return queries.dtype != np.uint8


def pack(floats: NDArray[Any]) -> NDArray[Any]:
    """The `(n, bits / 8)` codes of the signs of `(n, bits)` floats, bits in the order of FAISS."""
    return np.packbits(floats > 0, axis=1, bitorder="little")


def unpack(codes: NDArray[Any]) -> Vectors:
    """The `(n, bits)` signs, 1 and -1 as float32, of `(n, bits / 8)` codes."""
    return np.unpackbits(codes, axis=1, bitorder="little") * np.float32(2) - 1
