"""Whether files are those of an index, going by path, size and time: then there is nothing to embed."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from index.errors import ImageError
from index.images.file import ImageFile
from index.stores.base import Batch, RowReader
from index.stores.folder import Index
from index.stores.records import Failure, Item, Space
from index.stores.tables import sound
from index.vectors import Vectors


@dataclass(frozen=True)
class Unchanged:
    """What an index holds, as the `Content` of a run."""

    index: Index

    @property
    def spaces(self) -> Mapping[str, Space]:
        """The vectors that there are, by name."""
        return {name: replace(space, queries="") for name, space in self.index.manifest.spaces.items()}

    @property
    def count(self) -> int:
        """How many items there are."""
        return len(self.index)

    def items(self) -> Iterator[Item]:
        """Yield all items."""
        return self.index.iter_items()

    def failures(self) -> Iterator[Failure]:
        """Yield the images that were refused."""
        return iter(self.index.failures)

    def vectors(self, space: str, known: RowReader | None = None) -> Iterator[Vectors]:
        """As `Content.vectors`."""
        return self.index.iter_rows(space)

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield so many items at a time: all vectors are known."""
        items = self.items()
        while some := list(islice(items, size)):
            yield Batch(some, {})


Known = tuple[str, str, int, int]  # path, name, size and time of a file as an index has it


def holds_just(index: Index, files: Iterable[ImageFile]) -> bool:
    """Whether an index made of these files now would have the same items, going by path, size and time.

    One that refused a file does not count: that file is tried again. The files are in the order in which they
    would be indexed.
    """
    if index.manifest.failed:
        return False
    items = _read_known(index)
    following = next(items, None)
    copies: dict[str, list[Known]] = {}  # the files to come of each item that has more, by the next of them
    for file in files:
        path = file.location
        if following and following[0][0] == path:
            left, following = following, next(items, None)
        elif not (left := copies.pop(path, [])):
            return False
        known, *later = left
        try:
            if (path, file.name, *file.status()) != known:
                return False
        except ImageError:
            return False
        if later:
            copies[later[0][0]] = later
    return following is None and not copies


def _read_known(index: Index) -> Iterator[list[Known]]:
    """Yield the files of each item, the first one first."""
    for batch in index.iter_batches():
        columns = sound(batch).to_pydict()
        facts = zip(*(columns[name] for name in ("path", "name", "size", "mtime", "copies")), strict=True)
        for path, name, size, mtime, copies in facts:
            yield [(path, name, size, mtime), *((c["path"], c["name"], size, c["mtime"]) for c in copies)]
