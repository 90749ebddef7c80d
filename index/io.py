"""Files and bytes: digests, writes that last, errors of a disk in one line, vectors mapped from a file."""

import errno
import hashlib
import mmap
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from time import monotonic
from typing import Any
from zipfile import is_zipfile

import numpy as np
from numpy.typing import NDArray

from index.errors import RetrievalError, UsageError
from index.vectors import Vectors

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)

FEW = 1024  # scattered rows that are read before what was mapped for them is let go of


def content_digest(data: bytes) -> str:
    """Return the 32 hexadecimal digits that identify these bytes everywhere (BLAKE2b, 128 bits)."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def sync(path: Path) -> None:
    """Wait until a file, or the list of the files in a folder, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_write(path: Path, durable: bool = False) -> Iterator[Path]:
    """Yield a name beside a file to write to, which takes the place of the file in one step if all goes well.

    Others may read it, or write the same, meanwhile. If durable, it is on the disk when this returns: a power
    cut then leaves the old file or the new.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}")
    try:
        yield beside
        if durable:
            sync(beside)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


@contextmanager
def open_npz(path: Path) -> Iterator[Any]:
    """Open an .npz file to read it in this block; what is wrong with it is a ValueError in plain words."""
    if not is_zipfile(path):
        raise ValueError("it is cut short, or no .npz file")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except Exception as error:  # NumPy, zipfile and zlib each raise their own of what is damaged
        if "Object arrays" in str(error):
            raise ValueError("it has Python objects where numbers must be") from error
        if isinstance(error, ValueError | KeyError):
            raise
        raise ValueError("its bytes are not those that were written") from error


def file_digest(path: Path) -> str:
    """`content_digest` of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def require_utf8(folder: Path) -> None:
    """Raise UsageError, before any work, for a folder with a name that is not UTF-8."""
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{folder} is not UTF-8, and neither Parquet nor FAISS takes such a name. Give another folder."
        ) from error


@contextmanager
def explain_disk(folder: Path, once_free: str = "try again") -> Iterator[None]:
    """Turn what a disk does to a writer of a folder into one line: UsageError where it is not allowed.

    `once_free` says what to do once a full disk has room.
    """
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        code, reason = getattr(error, "errno", None), getattr(error, "strerror", None) or str(error)
        if code in FULL or getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            full = f"The disk of {folder} is full. Free some space, then {once_free}."
            raise RetrievalError(full) from error
        if code in FORBIDDEN:
            forbidden = f"{folder} cannot be written: {reason}. Give another folder, or allow it."
            raise UsageError(forbidden) from error
        raise RetrievalError(f"{folder} cannot be written: {reason}.") from error


def chunks(vectors: Vectors, rows: int) -> Iterator[Vectors]:
    """Yield `(n, dim)` vectors so many rows at a time, contiguous, to be used before the next."""
    for start in range(0, len(vectors), rows):
        yield np.ascontiguousarray(vectors[start : start + rows])
        forget(vectors)


def take(vectors: Vectors, rows: NDArray[np.int64]) -> Vectors:
    """Copy the vectors of some rows, which are rising.

    The system maps a stretch of the file around each of them, so that a sample of one in fifty maps it all.
    """
    taken = np.empty((len(rows), vectors.shape[1]), vectors.dtype)
    for start in range(0, len(rows), FEW):
        some = rows[start : start + FEW]
        np.take(vectors, some, axis=0, out=taken[start : start + len(some)])
        forget(vectors)
    return taken


HELD = 1.0  # seconds between two times that what was read here and there is let go of


class Release:
    """Lets go, now and then, of what was read of a mapped file: a server would come to hold all of it."""

    def __init__(self, mapped: Vectors | mmap.mmap) -> None:
        self._mapped, self._last = mapped, monotonic()

    def __call__(self, now: bool = False) -> None:
        """Let go if it is time, or of much that was read `now`."""
        if now or monotonic() - self._last > HELD:
            forget(self._mapped)
            self._last = monotonic()


def forget(mapped: Vectors | mmap.mmap) -> None:
    """Let go of what was read of a mapped file, which the system else counts as memory of this process.

    It stays in the system's cache while there is room. Nothing happens to an array that is not mapped.
    """
    base: object = mapped
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
