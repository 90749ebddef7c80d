"""Files that were found: made one by one as they are asked for, or millions of them would fill the memory."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Protocol, overload

from index.images.file import ImageFile, Member, readable, text_to_path
from index.images.left_out import Members
from index.images.tar import find_member, find_shard


class Stretch(Protocol):
    """The files of one source."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> ImageFile: ...


class Listing(Sequence[ImageFile]):
    """Stretches of files, one after the other.

    Attributes:
        left_out: What lies beside them and was not taken, for people; empty if there was nothing.
    """

    def __init__(self, stretches: Sequence[Stretch], left_out: str = "") -> None:
        self._stretches, self.left_out = stretches, left_out
        self._starts = list(accumulate(map(len, stretches), initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    def __iter__(self) -> Iterator[ImageFile]:
        return (stretch[i] for stretch in self._stretches for i in range(len(stretch)))

    @overload
    def __getitem__(self, at: int) -> ImageFile: ...
    @overload
    def __getitem__(self, at: slice) -> list[ImageFile]: ...
    def __getitem__(self, at: int | slice) -> ImageFile | list[ImageFile]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        i = range(len(self))[at]  # counts from the end too, and no further than that
        stretch = bisect_right(self._starts, i) - 1
        return self._stretches[stretch][i - self._starts[stretch]]


@dataclass(frozen=True)
class FolderFiles:
    """What lies below a folder.

    Attributes:
        root: The folder.
        names: Paths below it.
        faults: Why those that cannot be read cannot be, where that is known.
    """

    root: Path
    names: Sequence[str]
    faults: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> ImageFile:
        name = self.names[i]
        return ImageFile(self.root / name, readable(name), below=True, fault=self.faults.get(name, ""))


@dataclass(frozen=True)
class NamedFiles:
    """What was named, by itself or in a list.

    Attributes:
        folder: What relative paths are relative to.
        names: Paths, as text.
        below: As in `ImageFile`.
    """

    folder: Path
    names: Sequence[str]
    below: bool

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> ImageFile:
        return file_at(self.folder / text_to_path(self.names[i]), readable(self.names[i]), self.below)


@dataclass(frozen=True)
class ShardFiles:
    """What lies in a shard.

    Attributes:
        shard: The shard.
        name: What to call it.
        members: What is taken of it.
    """

    shard: Path
    name: str
    members: Members

    def __len__(self) -> int:
        return len(self.members.names)

    def __getitem__(self, i: int) -> ImageFile:
        member = self.members.names[i]
        name = f"{self.name}/{readable(member)}" if member else self.name
        place = Member(self.shard, *self.members.place(i))
        fault = self.members.faults.get(member, "")
        return ImageFile(self.shard / member, name, True, None if fault else place, fault)


def file_at(path: Path, name: str, below: bool) -> ImageFile:
    """The file at a path; below the path of a shard that is one of its members."""
    shard = find_shard(path)
    if shard is None:
        return ImageFile(path, name, below)
    found = find_member(shard, path.relative_to(shard).as_posix())
    if isinstance(found, Member):
        return ImageFile(path, name, below, found)
    return ImageFile(path, name, below, fault=found)
