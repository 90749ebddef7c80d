"""Whether an index holds the files that are there now, as they are: then an update has nothing to do."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from index.errors import ImageError
from index.images.file import ImageFile
from index.stores.folder import Index


@dataclass(frozen=True, slots=True)
class _Known:
    """A file as an index has it, and the copies of it that come later."""

    facts: tuple[str, str, int, int]  # path, name, size, time
    copies: list[dict[str, Any]]

    @property
    def next_copy(self) -> "_Known":
        copy, *others = self.copies
        return _Known((copy["path"], copy["name"], self.facts[2], copy["mtime"]), others)


def holds_just(index: Index, files: Iterable[ImageFile]) -> bool:
    """Whether an index made of these files now would have the same items, going by path, size and time.

    Args:
        index: Any index. One that refused a file does not count: that file is tried again.
        files: In the order in which they would be indexed.
    """
    if index.manifest.failed:
        return False
    items = _read_known(index)
    following = next(items, None)
    copies: dict[str, _Known] = {}  # the next one of each item that has more
    for file in files:
        path = file.location
        if following and following.facts[0] == path:
            known, following = following, next(items, None)
        elif path in copies:
            known = copies.pop(path)
        else:
            return False
        try:
            if (path, file.name, *file.status()) != known.facts:
                return False
        except ImageError:
            return False
        if known.copies:
            copies[known.next_copy.facts[0]] = known.next_copy
    return following is None and not copies


def _read_known(index: Index) -> Iterator[_Known]:
    for batch in index.iter_batches():
        columns = batch.to_pydict()
        facts = zip(*(columns[name] for name in ("path", "name", "size", "mtime")), strict=True)
        yield from map(_Known, facts, columns["copies"])
