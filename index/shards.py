"""Tar shards, as WebDataset writes them: where each file lies. They are read in place, never unpacked."""

import os
import tarfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from index.errors import ImageError
from index.image_file import ImageFile, Member

SUFFIX = ".tar"


def list_members(shard: Path) -> Iterator[tuple[str, Member | str]]:
    """List the files in a shard. Their names are names only: nothing is opened by them.

    Args:
        shard: A tar file that is not compressed.

    Yields:
        Each name, with the place or the reason why there is none, as they come. Of several files of one name
        it is the last that counts. What is broken ends with the empty name and the reason.
    """
    try:
        ImageFile(shard, shard.name).status()
        with shard.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (entry := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined] # or all of them would be kept
                if not entry.isdir():
                    plain = entry.isreg() and not entry.issparse()
                    place = Member(shard, entry.offset_data, entry.size)
                    yield _only_a_name(entry.name), place if plain else "a link or a device, not a file"
            if not _ends_properly(file, tar.offset):
                yield "", "the shard is broken or cut short"
    except ImageError as reason:
        yield "", str(reason)
    except Exception as error:  # broken headers raise whatever their numbers and names are bad for
        yield "", f"broken shard: {' '.join(str(error).split())}"


def find_shard(path: Path) -> Path | None:
    """The shard that has a path below it, if the path is one of a member and not of a file of its own."""
    for above in path.parents:
        if os.path.isfile(above):  # noqa: PTH113 - unlike Path's, it takes a path of any length
            return above
        if os.path.isdir(above):  # noqa: PTH112
            return None
    return None


def find_member(shard: Path, name: str) -> Member | str:
    """Find a file in a shard by its name: its place, or the reason why there is none."""
    try:
        size, changed = ImageFile(shard, shard.name).status()
    except ImageError as reason:
        return str(reason)
    return _members(shard, size, changed).get(name, f"{shard.name} has no such file")


@lru_cache(maxsize=8)
def _members(shard: Path, size: int, changed: int) -> dict[str, Member | str]:
    """The members of a shard by name, as long as it is neither longer nor newer."""
    return dict(list_members(shard))


def _only_a_name(name: str) -> str:
    """A member's name as a path below its shard, from which `..` leads nowhere."""
    parts = (part for part in name.split("/") if part not in ("", "."))
    return "/".join("%2E%2E" if part == ".." else part for part in parts)


def _ends_properly(file: BinaryIO, offset: int) -> bool:
    """Whether a block of zeros, the mark of the end, stands where tarfile found no further header."""
    file.seek(offset)
    return file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)
