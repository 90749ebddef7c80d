"""Tar shards, as WebDataset writes them: where each file lies. They are read in place, never unpacked."""

import os
import tarfile
from collections.abc import Iterator
from functools import lru_cache
from io import FileIO
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

from index.errors import ImageError, RetrievalError, in_line
from index.images.file import ImageFile, Member, readable
from index.images.kinds import name_kind
from index.images.remote import LARGEST

SUFFIX = ".tar"
LONGEST_HEADER = 1 << 20
JOINED = "another shard is joined to its end and not read: give each as a file of its own"
Place = tuple[int, int] | str  # offset and size of a member, or the reason why there are none
Members = Iterator[tuple[str, Place]]  # each by its name


def list_members(shard: Path) -> Members:
    """List the files in a shard, as `read_members`. Their names are names only: nothing is opened by them."""
    try:
        ImageFile(shard, shard.name).status()
        with FileIO(shard) as file:
            yield from read_members(file)
    except ImageError as reason:
        yield "", str(reason)
    except OSError as error:
        yield "", error.strerror or str(error)


def read_members(file: BinaryIO) -> Members:
    """Read the headers of an open tar file, not compressed, at its beginning.

    Yields:
        Each name, with offset and size or the reason why there are none, as they come. Of several files of
        one name it is the last that counts. What is broken ends with the empty name and the reason.
    """

    def read(size: int = -1, /) -> bytes:  # nothing at once that is longer than headers ever are
        if not 0 <= size <= LONGEST_HEADER:
            raise tarfile.ReadError("a header that is too long")
        return file.read(size)

    headers = SimpleNamespace(read=read, seek=file.seek, tell=file.tell)
    try:
        with tarfile.open(fileobj=headers, mode="r:") as tar:
            while (entry := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # or all of them would be kept
                if not 0 <= entry.size <= LARGEST:  # a negative one would lead back, round and round
                    raise tarfile.ReadError(f"a size of {entry.size} bytes, which cannot be")
                if not entry.isdir():
                    plain = entry.isreg() and not entry.issparse()
                    place = entry.offset_data, entry.size
                    yield _only_a_name(entry.name), place if plain else "a link or a device, not a file"
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # the mark of the end
                yield "", "the shard is broken or cut short"
            elif b"ustar" in file.read(LONGEST_HEADER).lstrip(b"\0")[: tarfile.BLOCKSIZE]:
                yield "", JOINED
    except RetrievalError:
        raise
    except Exception as error:  # broken headers raise whatever their numbers and names are bad for
        file.seek(0)
        yield "", f"broken shard: {name_kind(file.read(tarfile.BLOCKSIZE)) or in_line(error, False)}"


def find_shard(path: Path) -> Path | None:
    """The shard that has a path below it, if the path is one of a member and not of a file of its own."""
    for above in path.parents:
        if os.path.isfile(above):  # noqa: PTH113 - unlike Path's, it takes a path of any length
            return above
        if os.path.isdir(above):  # noqa: PTH112
            return None
    return None


def find_member(shard: Path, name: str) -> tuple[Member | None, str]:
    """Find a file in a shard by its name: its place, and the reason why there is none."""
    try:
        size, changed = ImageFile(shard, shard.name).status()
    except ImageError as reason:
        return None, str(reason)
    members = _members(shard, size, changed)
    # Of a shard that could not be read to its end nobody knows what it lacks.
    place = members.get(name) or members.get("") or f"{readable(shard.name)} has no such file"
    return (None, place) if isinstance(place, str) else (Member(shard, *place), "")


@lru_cache(maxsize=8)
def _members(shard: Path, size: int, changed: int) -> dict[str, Place]:
    """The members of a shard by name, as long as it is neither longer nor newer."""
    return dict(list_members(shard))


def _only_a_name(name: str) -> str:
    """A member's name as a path below its shard, from which `..` leads nowhere."""
    parts = (part for part in name.split("/") if part not in ("", "."))
    return "/".join("%2E%2E" if part == ".." else part for part in parts)
