"""Tables of an index folder: Arrow files, written in bounded memory and mapped, so that little is read."""

import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from index.errors import UsageError
from index.io import Release
from index.stores.records import Failure, File, Item, columns_of

AGAIN = "Index the images again, without --update or --resume."
ROWS = 1 << 14  # of a batch
ITEM_SCHEMA = pa.schema([*columns_of(Item), ("copies", pa.list_(pa.struct(columns_of(File))))])
FAILURE_SCHEMA = pa.schema(columns_of(Failure))


def write_rows(file: Path, schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> int:
    """Write a table, and return how many rows it has."""
    count, remaining = 0, iter(rows)
    with pa.ipc.new_file(str(file), schema) as table:
        while chunk := list(islice(remaining, ROWS)):
            table.write_batch(pa.RecordBatch.from_pylist(chunk, schema))
            count += len(chunk)
    return count


def map_batches(file: Path) -> tuple[list[pa.RecordBatch], Release]:
    """Map a table, and return its parts and what lets go of them, which are to be checked by `sound`.

    Raises:
        OSError: It cannot be read.
        ValueError: It is damaged, as far as its outline tells; or an ArrowException.
    """
    with file.open("rb") as opened:
        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    table = pa.ipc.open_file(pa.py_buffer(mapped))
    return [table.get_batch(i) for i in range(table.num_record_batches)], Release(mapped)


def sound(array: Any) -> Any:
    """Return a part of a mapped table if it can be read, which may come from anyone; UsageError if not."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        raise UsageError(f"A table of this index is damaged. {AGAIN}") from error
    return array


def numbers(array: pa.Array, dtype: type) -> NDArray[Any]:
    """The numbers of a part of a table, not copied. Arrow's own way would load pandas, if that is there."""
    sound(array)
    return np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * np.dtype(dtype).itemsize)


def key_of(digest: str) -> int:
    """The 64 bits by which a digest is looked up."""
    return int(digest[-16:], 16)


def sort_keys(keys: Iterable[int]) -> NDArray[np.uint64]:
    """The `(2, items)` table that `Digests` reads: sorted keys, and the ids that have them."""
    given = np.fromiter(keys, np.uint64)
    order = np.argsort(given, kind="stable")
    return np.stack([given[order], order.astype(np.uint64)])


class Items(Sequence[Item]):
    """The items of mapped batches, all but the last of which have `ROWS` rows."""

    def __init__(self, batches: Sequence[pa.RecordBatch], release: Callable[[], object] = int) -> None:
        """Join mapped batches and what lets go of them now and then."""
        self.batches, self._release = batches, release
        self._count = sum(batch.num_rows for batch in batches)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        i = range(len(self))[at]
        item = as_item(sound(self.batches[i // ROWS].slice(i % ROWS, 1)).to_pylist()[0])
        self._release()
        return item

    def __iter__(self) -> Iterator[Item]:
        for batch in self.batches:
            yield from map(as_item, sound(batch).to_pylist())


def as_item(row: dict[str, Any]) -> Item:
    """An item from its row."""
    return Item(**{**row, "copies": tuple(File(**copy) for copy in row["copies"])})


class Digests(Mapping[str, list[int]]):
    """Ids of the items with a given content, found by bisection."""

    def __init__(self, keys: NDArray[np.uint64], items: Items) -> None:
        """Join what `sort_keys` made and the items."""
        self._keys, self._items = keys, items

    def __getitem__(self, digest: str) -> list[int]:
        try:
            key = np.uint64(key_of(digest))
        except ValueError as error:
            raise KeyError(digest) from error
        first, end = (int(self._keys[0].searchsorted(key, side)) for side in ("left", "right"))
        found = [i for i in self._keys[1, first:end].tolist() if self._items[i].digest == digest]
        if not found:
            raise KeyError(digest)
        return found

    def __iter__(self) -> Iterator[str]:
        for batch in self._items.batches:
            yield from sound(batch.column("digest")).to_pylist()

    def __len__(self) -> int:
        return len(self._items)
