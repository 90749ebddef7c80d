"""The vectors of an unfinished run: one file for each space, which only grows."""

import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from index.io import sync
from index.vectors import Vectors


class JournalVectors:
    """Files of rows in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, BinaryIO] = {}

    def append(self, space: str, rows: Vectors) -> tuple[int, int, int]:
        """Append `(n, dim)` rows to a space; returns where their bytes begin, their number and checksum."""
        if space not in self._files:
            self._files[space] = self._path(space).open("ab", buffering=0)
        file, data = self._files[space], np.ascontiguousarray(rows, rows.dtype.newbyteorder("<")).tobytes()
        start, left = file.tell(), memoryview(data)
        while left:  # a disk that becomes full takes some of it before it fails
            left = left[file.write(left) :]
        return start, len(data), zlib.crc32(data)

    def holds(self, space: str, start: int, size: int, crc: int) -> bool:
        """Whether bytes are there as they were written."""
        try:
            with self._path(space).open("rb") as file:
                file.seek(start)
                return zlib.crc32(file.read(size)) == crc
        except OSError:
            return False

    def cut(self, ends: Mapping[str, int]) -> None:
        """Cut each space after so many bytes; one that is not named is emptied."""
        for file in self._folder.glob("*.rows"):
            os.truncate(file, ends.get(file.stem, 0))
            sync(file)

    def gather(self, space: str, like: Vectors, rows: NDArray[np.int64]) -> Vectors:
        """Read n rows, as `like`, mapped for this only: pages that were read do not stay in memory."""
        return np.memmap(self._path(space), like.dtype, "r").reshape(-1, like.shape[1])[rows]

    def sync(self) -> None:
        """Wait until all is on the disk."""
        for file in self._files.values():
            os.fsync(file.fileno())

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()

    def _path(self, space: str) -> Path:
        return self._folder / f"{space}.rows"
