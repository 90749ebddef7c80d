"""Whether files are those of an index, going by path, size and time: then there is nothing to update."""

from collections.abc import Iterable, Iterator

from index.errors import ImageError
from index.images.file import ImageFile
from index.stores.folder import Index
from index.stores.tables import sound

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
