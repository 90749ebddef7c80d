"""The second part of a large index: what is new since all of it was written, and what has changed since."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from index.stores.base import Content
from index.stores.metadata.join import PATH, carry_over, list_files
from index.stores.records import CHUNK, File, Item
from index.stores.tables import Items, as_batch
from index.stores.writing.difference import Difference
from index.stores.writing.writer import IndexWriter
from index.vectors import Vectors

LARGE = 50_000  # items from which on an update writes a second part: of fewer it writes all again
MOST_LATER, MOST_GONE = 0.05, 0.2  # items of the second part, and gone from the first, for each of that
MOST_FLOATS = 20_000 * 256  # of the second part: a search of twice as many misses the cache of a processor


def is_small(found: Difference) -> bool:
    """Whether what has become of the files of an index fits into a second part, which is searched exactly."""
    index = found.index
    first, widest = index.first_part, max(space.dim for space in index.manifest.spaces.values())
    later = sum(index.counts) - first + len(found.new) + len(found.lost)
    return (
        first >= LARGE
        and later <= min(MOST_LATER * first, MOST_FLOATS / widest)
        and len(index.places.gone) + len(found.lost) <= MOST_GONE * first
    )


class Later:
    """The second part that an index comes to have, in the place of the one that it may have."""

    def __init__(self, found: Difference, content: Content, told: pa.Table | None = None) -> None:
        """Join what has become of the files of an index, and what a run brought of the new ones.

        What is `told` of files, as `Joined.table`, may be more than was known of the new ones alone.
        """
        self._index, self._content, self._found, self._told = found.index, content, found, told
        index = found.index
        brought = list(content.items())
        known = [index.ids_by_digest.get(item.digest, [-1])[0] for item in brought]
        self._fresh = np.array(known, np.int64) < 0
        changed = np.union1d(found.lost, [i for i in known if i >= 0]).astype(np.int64)
        start = index.first_part - len(index.places.gone)  # the first id of the second part
        self._before = {i: index.items[i] for i in {*changed.tolist(), *range(start, len(index))}}
        after = self._before | self._change(changed.tolist(), zip(known, brought, strict=True))
        after = {i: item for i, item in sorted(after.items()) if item}
        self._ids = np.array(list(after), np.int64)
        self._items = [*after.values(), *(item for item, i in zip(brought, known, strict=True) if i < 0)]
        self._gone = np.union1d(index.places.gone, index.places.of(changed[changed < start]))
        listed = found.items[np.isin(found.items, changed) & ~found.gone]
        # How many images are no longer there, and whether it differs from what the index has.
        self.removed = len(set(changed.tolist()) - after.keys() - set(listed.tolist()))
        self.is_new = bool(len(changed) or self._fresh.any()) or [*content.failures()] != index.failures

    def _change(self, ids: list[int], brought: Iterator[tuple[int, Item]]) -> dict[int, Item | None]:
        """The items of some ids with the files that they have now, in the order of the list; None without."""
        found = self._found
        rows = np.flatnonzero(np.isin(found.items, ids) & (found.places >= 0))
        paths = found.paths.take(pa.array(rows)).to_pylist()
        there = dict(zip(paths, found.places[rows].tolist(), strict=True))
        files: dict[int, list[File]] = {i: [f for f in self._before[i].files if f.path in there] for i in ids}
        for i, item in brought:
            if i >= 0:
                files[i] += item.files
        places, items = {**there, **found.new}, dict[int, Item | None]()
        for i, some in files.items():
            ordered = sorted(some, key=lambda file: places[file.path])
            items[i] = self._before[i].in_files(ordered) if ordered else None
        return items

    def write(self, writer: IndexWriter) -> None:
        """Write it beside the first part, of which no file is written again."""
        index, before = self._index, self._before.values()
        writer.go_on(index, self._gone, index.manifest.copies - sum(len(item.copies) for item in before))
        writer.add_items(self._items)
        writer.add_failures(self._content.failures())
        for table in self._tables():
            writer.add_metadata(table, index.parts_known[0] if index.parts_known else None)
        for name, space in index.manifest.spaces.items():
            writer.add_space(name, replace(space, queries=""), self._vectors(name))

    def _vectors(self, space: str) -> Iterator[Vectors]:
        read, start = self._index.read_rows, 0
        for first in range(0, len(self._ids), CHUNK):
            yield read(space, self._ids[first : first + CHUNK])
        for rows in self._content.vectors(space, read):
            yield rows[self._fresh[start : start + len(rows)]]
            start += len(rows)

    def count_without(self, table: pa.Table) -> int:
        """How many items of both parts have no row in a table of files."""
        has = pc.is_in(self._found.paths, table[PATH].combine_chunks()).to_numpy()
        first = np.setdiff1d(self._found.items[has], list(self._before))
        rows = set(table[PATH].to_pylist())
        later = sum(rows.isdisjoint(file.path for file in item.files) for item in self._items)
        return len(self._index) - len(self._before) - len(first) + later

    def _tables(self) -> Iterator[pa.Table]:
        """What is known of its files, and of those that it may get back."""
        if self._told is not None:
            own = pa.array([file.path for item in self._items for file in item.files], pa.string())
            yield self._told.filter(pc.is_in(self._told[PATH], own))
            return
        if not (tables := self._index.tables):
            return
        first, *later = tables
        paths = [file.path for item in self._before.values() for file in item.files]
        first = first.filter(pc.is_in(first[PATH], pa.array([*paths, *self._found.new], pa.string())))
        both = [list_files(Items([as_batch(some)])) for some in (self._before.values(), self._items)]
        yield carry_over(pa.concat_tables([first, *later]), *both)
