"""Vectors mapped from a file, read from end to end without all of them coming to stay in memory."""

import mmap
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def chunks(vectors: NDArray[np.float32], rows: int) -> Iterator[NDArray[np.float32]]:
    """Yield `vectors` some rows at a time, contiguous; a chunk is to be used before the next is asked for.

    Args:
        vectors: `(n, dim)`, in memory or mapped from a file that is only read.
        rows: How many at a time.
    """
    for start in range(0, len(vectors), rows):
        yield np.ascontiguousarray(vectors[start : start + rows])
        forget(vectors)


def forget(vectors: NDArray[np.float32]) -> None:
    """Let go of what was read of a mapped file, which the system else counts as memory of this process.

    It stays in the system's cache while there is room. Nothing happens to an array that is not mapped.
    """
    base = vectors.base
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
