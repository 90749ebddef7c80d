"""Files that were found: made one by one as they are asked for, or millions of them would fill the memory."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import overload

from index.images.file import ImageFile, readable
from index.images.left_out import Found
from index.images.tar import find_member, find_shard


@dataclass(frozen=True)
class Stretch:
    """The files of one source."""

    names: Sequence[str]  # as the source has them
    make: Callable[[int, str], ImageFile]  # of a place among them and the name there

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> ImageFile:
        return self.make(i, self.names[i])


class Listing(Sequence[ImageFile]):
    """Stretches of files, one after the other; `left_out` is, for people, what lies beside them."""

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


def shard_files(
    name: str, members: Found, make: Callable[[str, tuple[int, int], str, str], ImageFile]
) -> Stretch:
    """List the members of a shard that is called so.

    `make` makes a file of its name in the shard, its offset and size, what to call it, and its fault.
    """

    def file(i: int, member: str) -> ImageFile:
        called = f"{name}/{readable(member)}" if member else name
        return make(member, members.numbers_of(i), called, members.faults.get(member, ""))

    return Stretch(members.names, file)


def file_at(path: Path, name: str, below: bool) -> ImageFile:
    """The file at a path; below the path of a shard that is one of its members."""
    shard = find_shard(path)
    if shard is None:
        return ImageFile(path, name, below)
    return ImageFile(path, name, below, *find_member(shard, path.relative_to(shard).as_posix()))
