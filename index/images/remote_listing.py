"""Which images lie at addresses: objects by themselves, and members of shards. Many are asked for at once."""

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from index.errors import ImageError, UsageError
from index.images.file import ImageFile, readable
from index.images.left_out import Found, LeftOut
from index.images.listing import Stretch, shard_files
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

    called, objects = list[str](), Found()
    wanted = (one for one in named if not (below and left.excludes(one[0])) and is_new(one[1]))
    with ThreadPoolExecutor(LANES) as pool:
        for name, address, found in bounded_map(pool, look, wanted, 2 * LANES):
            if isinstance(found, Stretch):
                yield _objects(called, objects, below)
                yield found
                called, objects = [], Found()
            else:
                called.append(readable(name))
                objects.add(address, found)
    yield _objects(called, objects, below)


def _objects(called: list[str], objects: Found, below: bool) -> Stretch:
    def file(i: int, address: str) -> ImageFile:
        size, changed = objects.numbers_of(i)
        remote = Remote(address, 0, size, None, changed)
        return file_of(remote, called[i], below, objects.faults.get(address, ""))

    return Stretch(objects.names, file)


def _list_shard(address: str, name: str, left: LeftOut) -> Stretch:
    """Read the headers of a shard: one after the other, for a tar has no list of what is in it."""
    _, changed = ask(address)

    def make(member: str, place: tuple[int, int], called: str, fault: str) -> ImageFile:
        return file_of(Remote(address, *place, readable(member), changed), called, True, fault)

    with open_object(address) as (file, read):
        return shard_files(readable(name), left.choose(read_members(file, read)), make)
