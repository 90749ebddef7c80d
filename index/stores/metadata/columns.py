"""What is known of the items, on the disk: a row a file, in the order of the items, and columns of values.

A column is a dictionary: its values as they were written, sorted as numbers, dates or text, and for each row
its place among them. So what a filter wants of a column is a stretch of its values, found by bisection.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
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
        column, kind = table[name].combine_chunks(), "text"
        if name != PATH:
            first = [] if like is None else [_kind_of(like, name)]
            kind, texts = sort_values(column.unique().to_pylist(), first)
            values = pa.array(texts, column.type)
            column = pa.DictionaryArray.from_arrays(pc.index_in(column, values), values)
        columns.append(column)
        fields.append(pa.field(name, column.type, metadata={KIND: kind}))
    return pa.record_batch(columns, schema=pa.schema(fields))


def sort_values(values: Collection[str], first: Sequence[str] = ()) -> tuple[str, list[str]]:
    """What values are, of the `first` kinds if all can be, and the values in their order."""
    for kind in (*first, *ORDERED):
        with suppress(ValueError):
            return kind, sorted(values, key=lambda value: (READERS[kind](value), value))
    return "text", sorted(values)


def decode(known: pa.RecordBatch) -> pa.Table:
    """Make `Joined.table` again of what `encode` made."""
    columns = {name: sound(known.column(name)).dictionary_decode() for name in _names(known)}
    return pa.table({PATH: sound(known.column(PATH))} | columns)


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


def require_kind(column: str, bound: str, kind: str, values: Iterable[str]) -> None:
    """Raise UsageError if a column has a value of another kind than a bound; the empty one is of all."""
    for value in values:
        try:
            READERS[kind](value)
        except ValueError as error:
            said = f"--where {column}{bound}: the column has {value!r}, which is no {kind}."
            raise UsageError(said) from error


def sort_keys(kind: str, values: Iterable[str]) -> list[float]:
    """What those of some values that are of a kind, and not empty, are sorted by."""
    keys = []
    for value in values:
        with suppress(ValueError):
            keys += [READERS[kind](value)] if value else []
    return keys


class Column(Sequence[str]):
    """The values of a column as they were written, sorted; `codes` are the place of each row's among them."""

    def __init__(self, name: str, codes: NDArray[np.int32], values: pa.Array, kind: str) -> None:
        self.name, self.codes, self._values, self._kind = name, codes, values, kind

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, code: Any) -> Any:
        return str(sound(self._values.slice(code, 1))[0].as_py())

    def key(self, value: str) -> Any:
        """What a value is sorted by."""
        return READERS[self._kind](value), value

    def frequent(self, rows: NDArray[np.bool_] | None) -> list[str]:
        """The values of some rows, or of all, in their order: of many the most frequent 200."""
        codes = self.codes if rows is None else self.codes[rows]
        counts = np.bincount(codes, minlength=len(self))
        most = np.argsort(-counts, kind="stable")[:MOST_VALUES]
        return [self[code] for code in sorted(most.tolist()) if counts[code]]

    def matches(self, wanted: str) -> NDArray[np.bool_]:
        """Which rows have a value, one of several between commas, or one within bounds, as `>=5&<20`.

        Raises:
            UsageError: The bounds are of another kind than the values.
        """
        if (code := self._find(wanted)) is not None:  # whatever signs are in it
            return self.codes == code
        if BOUND.match(wanted):
            first, end = self._between(wanted.split("&"))
            return (self.codes >= first) & (self.codes < end)
        some = {self._find(part.strip()) for part in wanted.split(",")}
        return np.isin(self.codes, [code for code in some if code is not None])

    def _find(self, text: str) -> int | None:
        try:
            code = bisect_left(self, self.key(text), key=self.key)
        except ValueError:
            return None
        return code if code < len(self) and self[code] == text else None

    def _between(self, bounds: Sequence[str]) -> tuple[int, int]:
        first, end = int(len(self) > 0 and not self[0]), len(self)  # the empty value is within no bound
        for bound in bounds:
            sign, kind, limit = read_bound(self.name, bound)
            if kind != self._kind:
                require_kind(self.name, bound, kind, self)
            bisect = bisect_left if sign in ("<", ">=") else bisect_right
            place = bisect(self, limit, first, end, key=READERS[kind])
            first, end = (first, place) if sign[0] == "<" else (place, end)
        return first, end


class _Part:
    """What is known of the items from place `start` on, as `encode` made it: rows of some, and columns."""

    def __init__(self, known: pa.RecordBatch, start: int, count: int, places: Places) -> None:
        owners, there = numbers(known.column(ITEM), np.int32), places.there(start, count)
        rows = int(owners.searchsorted(np.int32(count)))
        self.start, self.owners, self.columns = start, owners[:rows], dict[str, Column]()
        self.rows = None if there is None else there[self.owners]  # which are of items that are there
        for name in _names(known):
            values, kind = sound(known.column(name)), _kind_of(known, name)
            codes = numbers(values.indices, np.int32)[:rows]
            self.columns[name] = Column(name, codes, values.dictionary, kind)


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
        parts = zip(known, starts, counts, strict=False)  # nothing may be known
        self._parts = [_Part(one, start, count, self._places) for one, start, count in parts]
        self.names = list(self._parts[0].columns) if self._parts else []  # of the columns

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
        known, place = dict[str, str](), int(self._places.of(item))
        for part in self._parts:
            owner = place - part.start
            first, end = part.owners.searchsorted(np.array([owner, owner + 1], np.int32)).tolist()
            for name, column in part.columns.items() if first < end else ():
                codes = dict.fromkeys(column.codes[first:end].tolist())
                known[name] = SEPARATOR.join(column[code] for code in codes)
        return known

    def starts_with(self, prefix: str) -> NDArray[np.bool_]:
        """Which items have a file with a name that starts so: `(places,)`."""
        mask = np.zeros(self._total, bool)
        for files in iter_files(self._batches(), ["name"]):
            mask[numbers(files["item"].filter(pc.starts_with(files["name"], prefix)), np.int64)] = True
        mask[self._places.gone] = False
        return mask

    def matches(self, column: str, wanted: str) -> NDArray[np.bool_]:
        """Which items have a file with what is wanted of a column, as `Column.matches`: `(places,)`."""
        mask = np.zeros(self._total, bool)
        for part in self._parts:
            mask[part.start :][part.owners[part.columns[column].matches(wanted)]] = True
        mask[self._places.gone] = False
        return mask
