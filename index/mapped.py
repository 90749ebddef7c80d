"""Vectors mapped from a file, read from end to end without all of them coming to stay in memory."""

import mmap
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

FEW = 4096  # scattered rows that are read before what was mapped for them is let go of


def chunks(vectors: NDArray[np.float32], rows: int) -> Iterator[NDArray[np.float32]]:
    """Yield `vectors` some rows at a time, contiguous; a chunk is to be used before the next is asked for.

    Args:
        vectors: `(n, dim)`, in memory or mapped from a file that is only read.
        rows: How many at a time.
    """
    for start in range(0, len(vectors), rows):
        yield np.ascontiguousarray(vectors[start : start + rows])
        forget(vectors)


def take(vectors: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Copy the vectors of some rows, which are rising.

    The system maps a stretch of the file around each of them, so that a sample of one in fifty maps it all.
    """
    taken = np.empty((len(rows), vectors.shape[1]), np.float32)
    for start in range(0, len(rows), FEW):
        some = rows[start : start + FEW]
        np.take(vectors, some, axis=0, out=taken[start : start + len(some)])
        forget(vectors)
    return taken


def forget(vectors: NDArray[np.float32]) -> None:
    """Let go of what was read of a mapped file, which the system else counts as memory of this process.

    It stays in the system's cache while there is room. Nothing happens to an array that is not mapped.
    """
    base = vectors.base
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
