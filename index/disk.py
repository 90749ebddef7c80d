"""What files need beyond writing: to be on the disk before they count, and errors that say what to do."""

import errno
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from index.errors import RetrievalError, UsageError

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def sync(path: Path) -> None:
    """Wait until a file, or the list of the files in a folder, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_digest(path: Path) -> str:
    """`images.content_digest` of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def require_utf8(folder: Path) -> None:
    """Refuse, before any work, a folder that could not be written or read.

    Raises:
        UsageError: Its name is not UTF-8.
    """
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{folder} is not UTF-8, and neither Parquet nor FAISS takes such a name. Give another folder."
        ) from error


@contextmanager
def explain_disk(folder: Path) -> Iterator[None]:
    """Turn what a disk can do to a writer into one line with the remedy.

    Args:
        folder: What is written.

    Raises:
        UsageError: Writing is not allowed there.
        RetrievalError: The disk is full, or fails.
    """
    try:
        yield
    except sqlite3.Error as error:
        full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        raise _explain(folder, errno.ENOSPC if full else None, str(error)) from error
    except OSError as error:
        raise _explain(folder, error.errno, error.strerror or str(error)) from error


def _explain(folder: Path, code: int | None, reason: str) -> RetrievalError:
    if code in FULL:
        return RetrievalError(f"The disk of {folder} is full. Free some space, then go on with --resume.")
    if code in FORBIDDEN:
        return UsageError(f"{folder} cannot be written: {reason}. Give another folder, or allow it.")
    return RetrievalError(f"{folder} cannot be written: {reason}.")
