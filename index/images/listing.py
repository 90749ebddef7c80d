"""Files that were found: made one by one as they are asked for, or millions of them would fill the memory."""

import os
import re
import stat
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from index.errors import ImageError, UsageError
from index.images.file import ImageFile, readable, time_of
from index.images.left_out import LeftOut
from index.images.remote import Remote, ask, check, hide_secrets, open_object
from index.images.tar import SUFFIX, Place, find_member, find_shard, read_members
from index.parallel import bounded_map

Facts = tuple[str, str, int, int]  # location, name, size and time of a file; -1 where these cannot be said


@dataclass(frozen=True)
class Stretch:
    """The files of one source: their names there, in the order in which they were added."""

    make: Callable[[str, int, int, str], ImageFile]  # of a name, its two numbers and its fault
    names: list[str] = field(default_factory=list)
    # Of members of a shard and of objects two in turn: offset and size, or size and `Remote.changed`.
    numbers: "array[int]" = field(default_factory=lambda: array("q"))
    faults: dict[str, str] = field(default_factory=dict)  # why those that cannot be read cannot be, by name
    root: str = ""  # the folder below which they lie as plain files, if they do

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
    """Stretches of files, one after the other."""

    def __init__(self, stretches: Sequence[Stretch]) -> None:
        self._stretches = stretches
        self._starts = list(accumulate(map(len, stretches), initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    def __iter__(self) -> Iterator[ImageFile]:
        return (stretch[i] for stretch in self._stretches for i in range(len(stretch)))

    def facts(self) -> Iterator[Facts]:
        """As `facts_of`; an `ImageFile` of each would take most of the time."""
        for stretch in self._stretches:
            for i, name in enumerate(stretch.names):
                path, found = f"{stretch.root}/{name}", None
                if stretch.root and path.isascii() and name not in stretch.faults:
                    with suppress(OSError, ValueError):
                        found = os.stat(path)  # noqa: PTH116
                if found and stat.S_ISREG(found.st_mode):
                    yield path, name, found.st_size, time_of(found)
                else:
                    yield from facts_of([stretch[i]])

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        i = range(len(self))[at]  # counts from the end too, and no further than that
        stretch = bisect_right(self._starts, i) - 1
        return self._stretches[stretch][i - self._starts[stretch]]


def facts_of(files: Iterable[ImageFile]) -> Iterator[Facts]:
    """Yield of each file what tells whether it has changed."""
    if isinstance(files, Listing):
        yield from files.facts()
        return
    for file in files:
        try:
            yield file.location, file.name, *file.status()
        except ImageError:
            yield file.location, file.name, -1, -1


def name_in_shard(shard: str, member: str) -> str:
    """What to call a member of a shard that is called so; of the shard itself the name is empty."""
    return f"{shard}/{readable(member)}" if member else shard


def file_at(path: Path, name: str, below: bool) -> ImageFile:
    """The file at a path; below the path of a shard that is one of its members."""
    shard = find_shard(path)
    if shard is None:
        return ImageFile(path, name, below)
    return ImageFile(path, name, below, *find_member(shard, path.relative_to(shard).as_posix()))


LANES = 16  # requests at a time
MOST_IN_RANGE = 10_000_000  # addresses that one range names; more are a slip of the hand
_RANGE = re.compile(r"(.*?)\{(\d{1,18})\.\.(\d{1,18})\}(.*)", re.DOTALL)


def expand(address: str) -> Iterator[str]:
    """Write out ranges of numbers, as a shell does: `{08..10}` is 08, 09, 10; UsageError: one is too long."""
    found = _RANGE.fullmatch(address)
    if found is None:
        yield check(address)
        return
    before, first, last, after = found.groups()
    if (named := int(last) - int(first) + 1) > MOST_IN_RANGE:
        raise UsageError(
            f"{{{first}..{last}}} names {named:,} addresses. Name at most {MOST_IN_RANGE:,} by one range."
        )
    for number in range(int(first), int(last) + 1):
        yield from expand(f"{before}{number:0{len(first)}}{after}")


def list_addresses(names: Iterable[str], beside: str, below: bool, left: LeftOut) -> Iterator[Stretch]:
    """Ask about addresses, and look into the shards among them.

    A name that is no address lies `beside` others. What is not `below`, but named by itself, has to be there,
    and so have shards: UsageError says that it is not.
    """

    def address_of(name: str) -> str:
        return name if "://" in name else f"{beside}/{name}"

    def file(name: str, size: int, changed: int, fault: str) -> ImageFile:
        address = address_of(name)
        remote = Remote(address, 0, size, None, changed)
        return ImageFile(Path(address), readable(name), below, remote, fault)

    def look(name: str) -> tuple[str, Stretch | Place]:
        address = address_of(name)
        is_shard = address.partition("?")[0].endswith(SUFFIX)
        try:
            check(address)
        except UsageError as reason:
            if is_shard or not below:
                raise
            told = str(reason).removeprefix(f"{hide_secrets(address)}: ")
            return readable(hide_secrets(name)), readable(told)
        try:
            return name, _list_shard(address, name, left) if is_shard else ask(address)
        except ImageError as reason:
            if is_shard or not below:  # an update would take all of a shard's images for gone
                raise UsageError(f"{address} cannot be read: {reason}.") from reason
            return name, str(reason)

    objects = Stretch(file)
    wanted = (n for n in names if not (below and left.excludes(n)) and left.is_new(address_of(n)))
    for name, found in bounded_map(look, wanted, 2 * LANES, LANES):
        if isinstance(found, Stretch):
            yield objects
            yield found
            objects = Stretch(file)
        else:
            objects.add(name, found)
    yield objects


def _list_shard(address: str, name: str, left: LeftOut) -> Stretch:
    """Read the headers of a shard: one after the other, for a tar has no list of what is in it."""
    size, changed = ask(address)

    def make(member: str, offset: int, size: int, fault: str) -> ImageFile:
        remote = Remote(address, offset, size, readable(member), changed)
        return ImageFile(Path(remote.location), name_in_shard(readable(name), member), True, remote, fault)

    files = Stretch(make)
    with open_object(address, size) as file:
        for found in left.choose(read_members(file)):
            files.add(*found)
    return files
