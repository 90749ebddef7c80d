"""Which images lie at addresses: objects by themselves, and members of shards. Many are asked for at once."""

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from index.errors import ImageError, UsageError
from index.images.file import ImageFile, readable
from index.images.left_out import LeftOut
from index.images.listing import Stretch, name_in_shard
from index.images.remote import Remote, ask, check, hide_secrets, open_object
from index.images.tar import SUFFIX, read_members
from index.parallel import bounded_map

LANES = 16  # requests at a time
_RANGE = re.compile(r"(.*?)\{(\d+)\.\.(\d+)\}(.*)", re.DOTALL)


def file_of(remote: Remote, name: str, below: bool, fault: str = "") -> ImageFile:
    """The file of these bytes."""
    return ImageFile(Path(remote.location), name, below, remote, fault)


def expand(address: str) -> Iterator[str]:
    """Write out ranges of numbers, as a shell does: `{08..10}` is 08, 09, 10."""
    found = _RANGE.fullmatch(address)
    if found is None:
        yield check(address)
        return
    before, first, last, after = found.groups()
    for number in range(int(first), int(last) + 1):
        yield from expand(f"{before}{number:0{len(first)}}{after}")


def list_addresses(
    named: Iterable[tuple[str, str]], is_new: Callable[[str], bool], below: bool, left: LeftOut
) -> Iterator[Stretch]:
    """Ask about addresses, and look into the shards among them.

    `named` is what to call each, and the address. What is not `below`, but named by itself, has to be there,
    and so have shards: UsageError says that it is not.
    """

    def look(one: tuple[str, str]) -> tuple[str, str, Stretch | tuple[int, int] | str]:
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

    objects, called = _objects(below)
    wanted = (one for one in named if not (below and left.excludes(one[0])) and is_new(one[1]))
    with ThreadPoolExecutor(LANES) as pool:
        for name, address, found in bounded_map(pool, look, wanted, 2 * LANES):
            if isinstance(found, Stretch):
                yield objects
                yield found
                objects, called = _objects(below)
            else:
                objects.add(address, found)
                if readable(name) != address:
                    called[address] = readable(name)
    yield objects


def _objects(below: bool) -> tuple[Stretch, dict[str, str]]:
    """A stretch of objects, and what to call those that are not called by their address."""
    called: dict[str, str] = {}

    def file(address: str, size: int, changed: int, fault: str) -> ImageFile:
        return file_of(Remote(address, 0, size, None, changed), called.get(address, address), below, fault)

    return Stretch(file), called


def _list_shard(address: str, name: str, left: LeftOut) -> Stretch:
    """Read the headers of a shard: one after the other, for a tar has no list of what is in it."""
    _, changed = ask(address)

    def make(member: str, offset: int, size: int, fault: str) -> ImageFile:
        remote = Remote(address, offset, size, readable(member), changed)
        return file_of(remote, name_in_shard(readable(name), member), True, fault)

    files = Stretch(make)
    with open_object(address) as (file, read):
        for found in left.choose(read_members(file, read)):
            files.add(*found)
    return files
