"""What is known of the items, on the disk: a row a file, in the order of the items, and columns of values.

A column is a dictionary: its values as they were written, sorted as numbers, dates or text, and for each row
its place among them. So what a filter wants of a column is a stretch of its values, found by bisection.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from itertools import accumulate
from math import inf, isfinite
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from index.errors import UsageError
from index.stores.metadata.join import PATH
from index.stores.tables import Places, iter_files, numbers, sound

ITEM, KIND = "", b"kind"  # a column that no CSV file has; what the values of others are
SEPARATOR = "; "  # of the values of files that are copies of one image
MOST_VALUES = 200  # of a column that are listed: more can be searched for, but not chosen from
MONTH = re.compile(r"\d{4}-\d{2}")  # stands for its first day
BOUND = re.compile(r"(<=|>=|<|>)\s*(.+)")  # of the values of a column; several stand between `&`


def _number(text: str) -> float:
    if not isfinite(found := float(text or "0")):
        raise ValueError(text)
    return found if text else -inf


def _date(text: str) -> float:
    found = datetime.fromisoformat(f"{text}-01" if MONTH.fullmatch(text) else text or "1970-01-01")
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() if text else -inf


# By kind, what values are sorted by, the empty one first; ValueError if one is of another kind.
READERS: dict[str, Callable[[str], Any]] = {"number": _number, "date": _date, "text": str}
ORDERED = ("number", "date")  # kinds that have bounds


def encode(table: pa.Table, files: pa.Table, like: pa.RecordBatch | None = None) -> pa.RecordBatch:
    """Bring `Joined.table` into the order of the items: `files` are theirs, as `list_files` has them.

    Rows of files that are no item's come last, with the number of items in place of an id. Columns are of the
    kind that they are of in another part, if they can be.
    """
    places = pc.index_in(table[PATH].combine_chunks(), files[PATH].combine_chunks())
    place = places.fill_null(-1).to_numpy(zero_copy_only=False)
    count = pc.count_distinct(files["item"]).as_py()
    owners = files["item"].combine_chunks().take(places).fill_null(count).to_numpy(zero_copy_only=False)
    order = np.lexsort((place, owners))
    table, owners = table.take(order), owners[order]
    columns, fields = [pa.array(owners, pa.int32())], [pa.field(ITEM, pa.int32())]
    for name in table.column_names:
        first = [] if like is None else [_kind_of(like, name)]
        values, kind = (table[name].combine_chunks(), "text") if name == PATH else _encode(table[name], first)
        columns.append(values)
        fields.append(pa.field(name, values.type, metadata={KIND: kind}))
    return pa.record_batch(columns, schema=pa.schema(fields))


def _encode(values: pa.ChunkedArray, first: Sequence[str]) -> tuple[pa.DictionaryArray, str]:
    """Sort the values of a column by what they are: of the first kinds, if all are."""
    coded = values.combine_chunks().dictionary_encode()
    texts = coded.dictionary.to_pylist()
    kind, keys = read_values(texts, first)
    order = sorted(range(len(texts)), key=keys.__getitem__)
    places = np.empty(len(texts), np.int32)
    places[order] = np.arange(len(texts), dtype=np.int32)
    codes = places[coded.indices.to_numpy()]
    return pa.DictionaryArray.from_arrays(
        pa.array(codes), coded.dictionary.take(pa.array(order, pa.int32()))
    ), kind


def read_values(texts: Sequence[str], first: Sequence[str] = ()) -> tuple[str, list[Any]]:
    """What values are, of the `first` kinds if all can be, and what each is sorted by."""
    for kind in (*first, *ORDERED):
        with suppress(ValueError):
            return kind, [(READERS[kind](text), text) for text in texts]
    return "text", [(text, text) for text in texts]


def decode(known: pa.RecordBatch) -> pa.Table:
    """Make `Joined.table` again of what `encode` made."""
    columns = {name: sound(known.column(name)) for name in (PATH, *_names(known))}
    return pa.table({PATH: columns.pop(PATH)} | {name: c.dictionary_decode() for name, c in columns.items()})


def _kind_of(known: pa.RecordBatch, name: str) -> str:
    return str(known.schema.field(name).metadata[KIND].decode())


def _names(known: pa.RecordBatch) -> list[str]:
    return [name for name in known.schema.names if name not in (ITEM, PATH)]


def read_bound(column: str, bound: str) -> tuple[str, str, float]:
    """Read a bound of a column, as `>=5`: its sign, the kind of its limit, and what that is sorted by.

    Raises:
        UsageError: It is no bound, or its limit is neither a number nor a date.
    """
    if not (found := BOUND.fullmatch(bound.strip())):
        raise UsageError(f"--where {column}: {bound!r} is no bound, as those of >=5&<20.")
    sign, text = found.groups()
    for kind in ORDERED:
        with suppress(ValueError):
            return sign, kind, READERS[kind](text)
    raise UsageError(f"--where {column}{bound}: {text!r} is neither a number nor a date as 2024-05-01.")


def refuse_kind(column: str, bound: str, kind: str, values: Iterable[str]) -> UsageError | None:
    """Say that a column has a value of another kind than a bound, if it has; the empty one is of all."""
    for value in values:
        try:
            READERS[kind](value)
        except ValueError:
            return UsageError(f"--where {column}{bound}: the column has {value!r}, which is no {kind}.")
    return None


def sort_keys(kind: str, values: Iterable[str]) -> list[float]:
    """What those of some values that are of a kind, and not empty, are sorted by."""
    keys = []
    for value in values:
        with suppress(ValueError):
            keys += [READERS[kind](value)] if value else []
    return keys


class Column:
    """One column: a place among its values for each row."""

    def __init__(self, name: str, codes: NDArray[np.int32], values: pa.Array, kind: str) -> None:
        self.name, self.codes, self._values, self._kind = name, codes, values, kind

    def key(self, value: str) -> Any:
        """What a value is sorted by."""
        return READERS[self._kind](value), value

    def value(self, code: int) -> str:
        """A value as it was written."""
        return str(sound(self._values.slice(code, 1))[0].as_py())

    def frequent(self, rows: NDArray[np.bool_] | None) -> list[str]:
        """The values of some rows, or of all, in their order: of many the most frequent 200."""
        codes = self.codes if rows is None else self.codes[rows]
        counts = np.bincount(codes, minlength=len(self._values))
        most = np.argsort(-counts, kind="stable")[:MOST_VALUES]
        return [self.value(code) for code in sorted(most.tolist()) if counts[code]]

    def matches(self, wanted: str) -> NDArray[np.bool_]:
        """Which rows have a value, one of several between commas, or one within bounds, as `>=5&<20`.

        Raises:
            UsageError: The bounds are of another kind than the values.
        """
        found = np.zeros(len(self.codes), bool)
        for first, end in self._stretches(wanted):
            found |= (self.codes >= first) & (self.codes < end)
        return found

    def _stretches(self, wanted: str) -> Iterator[tuple[int, int]]:
        if (code := self._find(wanted)) is not None:  # whatever signs are in it
            yield code, code + 1
        elif BOUND.match(wanted):
            yield self._between(wanted.split("&"))
        else:
            codes = {self._find(part.strip()) for part in wanted.split(",")}
            yield from ((code, code + 1) for code in codes if code is not None)

    def _find(self, text: str) -> int | None:
        try:
            key = self.key(text)
        except ValueError:
            return None
        codes = range(len(self._values))
        code = bisect_left(codes, key, key=lambda code: self.key(self.value(code)))
        return code if code in codes and self.value(code) == text else None

    def _between(self, bounds: Sequence[str]) -> tuple[int, int]:
        codes = range(len(self._values))
        first, end = int(bool(codes) and not self.value(0)), len(codes)  # the empty value is within no bound
        for bound in bounds:
            sign, kind, limit = read_bound(self.name, bound)
            if kind != self._kind and (wrong := refuse_kind(self.name, bound, kind, map(self.value, codes))):
                raise wrong
            bisect = bisect_left if sign in ("<", ">=") else bisect_right
            place = bisect(codes, limit, first, end, key=self._keys(kind))
            first, end = (first, place) if sign[0] == "<" else (place, end)
        return first, end

    def _keys(self, kind: str) -> Callable[[int], Any]:
        return lambda code: READERS[kind](self.value(code))


class _Part:
    """What is known of so many items, as `encode` made it: rows of some of them, and columns."""

    def __init__(self, known: pa.RecordBatch, count: int, there: NDArray[np.bool_] | None) -> None:
        owners = numbers(known.column(ITEM), np.int32)
        rows = int(owners.searchsorted(np.int32(count)))
        self.owners, self.count, self.columns = owners[:rows], count, dict[str, Column]()
        self.rows = None if there is None else there[self.owners]  # which are of items that are there
        for name in _names(known):
            values, kind = sound(known.column(name)), _kind_of(known, name)
            codes = numbers(values.indices, np.int32)[:rows]
            self.columns[name] = Column(name, codes, values.dictionary, kind)

    def of(self, item: int) -> dict[str, str]:
        first, end = self.owners.searchsorted(np.array([item, item + 1], np.int32)).tolist()
        return {
            name: SEPARATOR.join(map(column.value, dict.fromkeys(column.codes[first:end].tolist())))
            for name, column in (self.columns.items() if first < end else ())
        }

    def matches(self, column: str, wanted: str) -> NDArray[np.bool_]:
        mask = np.zeros(self.count, bool)
        mask[self.owners[self.columns[column].matches(wanted)]] = True
        return mask


class Metadata:
    """What is known of the items of a store, in one part or in several; masks are of places."""

    def __init__(
        self,
        batches: Callable[[], Iterable[pa.RecordBatch]],
        counts: Sequence[int],
        known: Sequence[pa.RecordBatch],
        places: Places | None = None,
    ) -> None:
        """Join tables of parts, how much lies in each, what `encode` made of it, and where items lie."""
        self._batches, self._total, self._places = batches, sum(counts), places or Places()
        starts = accumulate(counts, initial=0)
        parts = zip(known, counts, starts, strict=False)  # nothing may be known
        self._parts = [_Part(one, count, self._places.there(start, count)) for one, count, start in parts]

    @property
    def names(self) -> list[str]:
        """The columns."""
        return list(self._parts[0].columns) if self._parts else []

    @property
    def top_names(self) -> list[str]:
        """What is at the top of the indexed folder: folders, which end with `/`, and then files."""
        names = (files["name"] for files in iter_files(self._batches(), ["name"]))
        tops = (pc.replace_substring_regex(some, "(?s)/.*", "/").unique() for some in names)
        firsts = {name for some in tops for name in some.to_pylist()}
        return sorted(firsts, key=lambda name: (not name.endswith("/"), name))

    @cached_property
    def columns(self) -> dict[str, list[str]]:
        """The columns with their values, sorted: of a column with many the most frequent 200."""
        found = {}
        for name in self.names:
            values = (value for part in self._parts for value in part.columns[name].frequent(part.rows))
            found[name] = list(dict.fromkeys(values))[:MOST_VALUES]
            with suppress(ValueError):  # where the kinds of the parts differ, as they come
                found[name].sort(key=self._parts[0].columns[name].key)
        return found

    def of(self, item: int) -> dict[str, str]:
        """What is known of an item; where rows of its files differ, each value once, in their order."""
        place = int(self._places.of(item))
        for part in self._parts:
            if place < part.count:
                return part.of(place)
            place -= part.count
        return {}

    def starts_with(self, prefix: str) -> NDArray[np.bool_]:
        """Which items have a file with a name that starts so: `(places,)`."""
        mask = np.zeros(self._total, bool)
        for files in iter_files(self._batches(), ["name"]):
            mask[numbers(files["item"].filter(pc.starts_with(files["name"], prefix)), np.int64)] = True
        mask[self._places.gone] = False
        return mask

    def matches(self, column: str, wanted: str) -> NDArray[np.bool_]:
        """Which items have a file with what is wanted of a column, as `Column.matches`: `(places,)`."""
        mask = np.concatenate([part.matches(column, wanted) for part in self._parts])
        mask[self._places.gone] = False
        return mask
