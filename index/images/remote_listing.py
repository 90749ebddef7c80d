"""Which images lie at addresses: objects by themselves, and members of shards. Many are asked for at once."""

import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from index.errors import ImageError, UsageError
from index.images.file import ImageFile, readable
from index.images.left_out import LeftOut, Members
from index.images.remote import Remote, ask, check, hide_secrets, open_object
from index.images.tar import SUFFIX, read_members
from index.parallel import bounded_map

LANES = 16  # requests at a time
_RANGE = re.compile(r"(.*?)\{(\d+)\.\.(\d+)\}(.*)", re.DOTALL)


@dataclass(frozen=True)
class RemoteFiles:
    """Objects, each an image.

    Attributes:
        below: As in `ImageFile`.
        names: What to call each.
        addresses: Of each.
        facts: Size and `Remote.changed` of each in turn.
        faults: Why those that cannot be read cannot be, by address.
    """

    below: bool
    names: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    facts: "array[int]" = field(default_factory=lambda: array("q"))
    faults: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> ImageFile:
        address = self.addresses[i]
        remote = Remote(address, 0, self.facts[2 * i], None, self.facts[2 * i + 1])
        return file_of(remote, self.names[i], self.below, self.faults.get(address, ""))

    def add(self, name: str, address: str, found: tuple[int, int] | str) -> None:
        """Add an object, with size and `Remote.changed` or the reason why it cannot be read."""
        self.names.append(readable(name))
        self.addresses.append(address)
        if isinstance(found, str):
            self.faults[address] = found
            found = 0, 0
        self.facts.extend(found)


@dataclass(frozen=True)
class RemoteShard:
    """What lies in a shard.

    Attributes:
        address: Of the shard.
        name: What to call it.
        changed: `Remote.changed` of all.
        members: What is taken of it.
    """

    address: str
    name: str
    changed: int
    members: Members

    def __len__(self) -> int:
        return len(self.members.names)

    def __getitem__(self, i: int) -> ImageFile:
        member = self.members.names[i]
        remote = Remote(self.address, *self.members.place(i), readable(member), self.changed)
        name = f"{self.name}/{readable(member)}".removesuffix("/")
        return file_of(remote, name, True, self.members.faults.get(member, ""))


def file_of(remote: Remote, name: str, below: bool, fault: str = "") -> ImageFile:
    """The file of these bytes."""
    return ImageFile(Path(remote.location), name, below, remote, fault)


def expand(address: str) -> Iterator[str]:
    """Write out ranges of numbers, as a shell does: `{08..10}` is 08, 09, 10.

    Raises:
        UsageError: It is no address that is read.
    """
    found = _RANGE.fullmatch(address)
    if found is None:
        yield check(address)
        return
    before, first, last, after = found.groups()
    for number in range(int(first), int(last) + 1):
        yield from expand(f"{before}{number:0{len(first)}}{after}")


def list_addresses(
    named: Iterable[tuple[str, str]], is_new: Callable[[str], bool], below: bool, left: LeftOut
) -> Iterator[RemoteFiles | RemoteShard]:
    """Ask about addresses, and look into the shards among them.

    Args:
        named: What to call each, and the address.
        is_new: Whether an address did not come before.
        below: As in `ImageFile`. What is named by itself has to be there, and so have shards.
        left: Decides what of a shard is taken.

    Raises:
        UsageError: What has to be there is not, or an address of it is not read.
        RetrievalError: A store cannot be asked.
    """

    def look(one: tuple[str, str]) -> tuple[str, str, RemoteShard | tuple[int, int] | str]:
        name, address = one
        is_shard = address.partition("?")[0].endswith(SUFFIX)
        try:
            check(address)
        except UsageError as reason:
            if is_shard or not below:
                raise
            return hide_secrets(name), hide_secrets(address), str(reason)
        try:
            return name, address, _list_shard(address, name, left) if is_shard else ask(address)
        except ImageError as reason:
            if is_shard or not below:  # an update would take all of a shard's images for gone
                raise UsageError(f"{address} cannot be read: {reason}.") from reason
            return name, address, str(reason)

    files = RemoteFiles(below)
    wanted = (one for one in named if not (below and left.excludes(one[0])) and is_new(one[1]))
    with ThreadPoolExecutor(LANES) as pool:
        for name, address, found in bounded_map(pool, look, wanted, 2 * LANES):
            if isinstance(found, RemoteShard):
                yield files
                yield found
                files = RemoteFiles(below)
            else:
                files.add(name, address, found)
    yield files


def _list_shard(address: str, name: str, left: LeftOut) -> RemoteShard:
    """Read the headers of a shard: one after the other, for a tar has no list of what is in it."""
    _, changed = ask(address)
    with open_object(address) as file:
        return RemoteShard(address, readable(name), changed, left.choose(read_members(file)))
