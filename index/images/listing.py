"""Files that were found: made one by one as they are asked for, or millions of them would fill the memory."""

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import overload

from index.images.file import ImageFile, readable
from index.images.tar import Place, find_member, find_shard


@dataclass(frozen=True)
class Stretch:
    """The files of one source: their names there, in the order in which they were added."""

    make: Callable[[str, int, int, str], ImageFile]  # of a name, its two numbers and its fault
    names: list[str] = field(default_factory=list)
    # Of members of a shard and of objects two in turn: offset and size, or size and `Remote.changed`.
    numbers: "array[int]" = field(default_factory=lambda: array("q"))
    faults: dict[str, str] = field(default_factory=dict)  # why those that cannot be read cannot be, by name

    def add(self, name: str, place: Place | None = None) -> None:
        """Add a file with its numbers, if it has some, or with the reason why it cannot be read."""
        self.names.append(name)
        if isinstance(place, str):
            self.faults[name] = place
            place = 0, 0
        self.numbers.extend(place or ())

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> ImageFile:
        name = self.names[i]
        first, second = self.numbers[2 * i : 2 * i + 2] or (0, 0)
        return self.make(name, first, second, self.faults.get(name, ""))


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


def name_in_shard(shard: str, member: str) -> str:
    """What to call a member of a shard that is called so; of the shard itself the name is empty."""
    return f"{shard}/{readable(member)}" if member else shard


def file_at(path: Path, name: str, below: bool) -> ImageFile:
    """The file at a path; below the path of a shard that is one of its members."""
    shard = find_shard(path)
    if shard is None:
        return ImageFile(path, name, below)
    return ImageFile(path, name, below, *find_member(shard, path.relative_to(shard).as_posix()))
