"""Tables of an index folder: Arrow files, written in bounded memory and mapped, so that little is read."""

import mmap
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from index.errors import UsageError
from index.io import Release
from index.stores.records import Failure, File, Item, columns_of
from index.vectors import Ids

AGAIN = "Index the images again, without --update or --resume."
ROWS = 1 << 14  # of a batch
LONG = pa.large_string()  # of texts in one array: those of a `pa.string` have room for 2 GiB together
FILE = pa.struct(columns_of(File))
ITEM_SCHEMA = pa.schema([*columns_of(Item), ("copies", pa.list_(FILE))])


def write_rows(file: Path, schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> int:
    """Write a table, and return how many rows it has."""
    count, remaining = 0, iter(rows)
    with pa.ipc.new_file(str(file), schema) as table:
        while chunk := list(islice(remaining, ROWS)):
            table.write_batch(pa.RecordBatch.from_pylist(chunk, schema))
            count += len(chunk)
    return count


def write_failures(file: Path, failures: Iterable[Failure]) -> int:
    """Write a file of images that were refused, and return how many."""
    return write_rows(file, pa.schema(columns_of(Failure)), map(vars, failures))


def read_failures(file: Path) -> list[Failure]:
    """Read a file of images that were refused."""
    return [Failure(**row) for batch in map_batches(file)[0] for row in sound(batch).to_pylist()]


def map_batches(file: Path) -> tuple[list[pa.RecordBatch], Release]:
    """Map a table: its parts, to be checked by `sound`, and what lets go of them; else UsageError."""
    try:
        with file.open("rb") as opened:
            mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        table = pa.ipc.open_file(pa.py_buffer(mapped))
        return [table.get_batch(i) for i in range(table.num_record_batches)], Release(mapped)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UsageError(f"{file} is damaged. {AGAIN}") from error


def sound(array: Any) -> Any:
    """Return a part of a mapped table if it can be read, which may come from anyone; UsageError if not."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        raise UsageError(f"A table of this index is damaged. {AGAIN}") from error
    return array


def numbers(array: pa.Array, dtype: type) -> NDArray[Any]:
    """The numbers of a part of a table, not copied. Arrow's own way would load pandas, if that is there."""
    if not len(sound(array)):
        return np.empty(0, dtype)
    return np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * np.dtype(dtype).itemsize)


def key_of(digest: str) -> int:
    """The 64 bits by which a digest is looked up."""
    return int(digest[-16:], 16)


def sort_keys(digests: Iterable[pa.Array]) -> NDArray[np.uint64]:
    """The `(2, items)` table that `Digests` reads: sorted keys, and the ids that have them."""
    given = np.fromiter((key_of(one) for some in digests for one in some.to_pylist()), np.uint64)
    order = np.argsort(given, kind="stable")
    return np.stack([given[order], order.astype(np.uint64)])


class Places:
    """Where items lie: ids count those that are there, places the rows of all tables, one after the other."""

    def __init__(self, gone: Ids | None = None) -> None:
        """Take the rising places of what is in the tables and is no item any more."""
        self.gone = np.empty(0, np.int64) if gone is None else gone
        self._next = self.gone - np.arange(len(self.gone))  # the id of what follows each

    def of(self, ids: Any) -> Any:
        """The places of ids."""
        return ids + self._next.searchsorted(ids, "right")

    def ids(self, places: Any) -> Any:
        """The ids of places, none of which is gone; -1 stays."""
        return places - self.gone.searchsorted(places)

    def there(self, first: int, count: int) -> NDArray[np.bool_] | None:
        """Which of so many places from the first are items: `(count,)`; None is all."""
        gone = self.gone[slice(*self.gone.searchsorted([first, first + count]))]
        if not len(gone):
            return None
        there = np.ones(count, bool)
        there[gone - first] = False
        return there


class Items(Sequence[Item]):
    """The items of mapped batches."""

    def __init__(
        self,
        batches: Sequence[pa.RecordBatch],
        release: Callable[[], object] = int,
        places: Places | None = None,
    ) -> None:
        """Join mapped batches, what lets go of them now and then, and where in them the items are."""
        self.stored = batches  # all that lies in the tables as columns, what is gone included
        self._release, self._places = release, places or Places()
        self._starts = list(accumulate((batch.num_rows for batch in batches), initial=0))

    def __len__(self) -> int:
        return self._starts[-1] - len(self._places.gone)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        place = int(self._places.of(range(len(self))[at]))
        batch = bisect_right(self._starts, place) - 1
        row = self.stored[batch].slice(place - self._starts[batch], 1)
        item = as_item(sound(row).to_pylist()[0])
        self._release()
        return item

    def __iter__(self) -> Iterator[Item]:
        for batch in self.batches():
            yield from map(as_item, sound(batch).to_pylist())

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Read the items as columns, some at a time; mapped, where none of them is gone."""
        for first, batch in zip(self._starts, self.stored, strict=False):
            there = self._places.there(first, batch.num_rows)
            yield batch if there is None else sound(batch).filter(pa.array(there))


def as_row(item: Item) -> dict[str, Any]:
    """A row of an item."""
    return {**vars(item), "copies": [vars(file) for file in item.copies]}


def as_batch(items: Iterable[Item]) -> pa.RecordBatch:
    """A part of a table of items."""
    return pa.RecordBatch.from_pylist([*map(as_row, items)], ITEM_SCHEMA)


def iter_files(batches: Iterable[pa.RecordBatch], names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield attributes of files and the `item` that each is of, counted: some first ones, then their copies.

    What a copy has no attribute of its own for is that of its item.
    """
    start = 0
    for batch in batches:
        firsts, copies = sound(batch.select(names)), sound(batch["copies"])
        items, of = pa.array(np.arange(start, start + len(batch))), pc.list_parent_indices(copies)
        files, own = copies.flatten(), FILE.names
        others = [pc.struct_field(files, n) if n in own else firsts[n].take(of) for n in names]
        yield pa.record_batch([*firsts.columns, items], [*names, "item"])
        yield pa.record_batch([*others, items.take(of)], [*names, "item"])
        start += len(batch)


def as_item(row: dict[str, Any]) -> Item:
    """An item from its row."""
    return Item(**{**row, "copies": tuple(File(**copy) for copy in row["copies"])})


class Digests(Mapping[str, list[int]]):
    """Ids of the items with a given content, found by bisection."""

    def __init__(self, keys: Sequence[NDArray[np.uint64]], items: Items, places: Places) -> None:
        """Join what `sort_keys` made of each table, the items, and where these lie."""
        self._keys, self._items, self._places = keys, items, places

    def __getitem__(self, digest: str) -> list[int]:
        try:
            key = np.uint64(key_of(digest))
        except ValueError as error:
            raise KeyError(digest) from error
        found, start = list[int](), 0
        for keys in self._keys:
            first, end = (int(keys[0].searchsorted(key, side)) for side in ("left", "right"))
            found += [start + place for place in keys[1, first:end].tolist()]
            start += keys.shape[1]
        there = [int(self._places.ids(place)) for place in found if self._places.there(place, 1) is None]
        if not (ids := [i for i in there if self._items[i].digest == digest]):
            raise KeyError(digest)
        return ids

    def __iter__(self) -> Iterator[str]:
        for batch in self._items.batches():
            yield from sound(batch.column("digest")).to_pylist()

    def __len__(self) -> int:
        return len(self._items)
