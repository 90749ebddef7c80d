"""What has become of the files of an index, going by path, name, size and time: it may be nothing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from index.images.file import ImageFile
from index.images.listing import facts_of
from index.stores.folder import Index
from index.stores.metadata.join import list_files
from index.stores.tables import LONG, ROWS, numbers
from index.vectors import Ids

FACTS = pa.schema([("path", LONG), ("name", LONG), ("size", pa.int64()), ("mtime", pa.int64())])


@dataclass(frozen=True)
class Difference:
    """Files as they are listed now, and the files of an index, of each item the first one first."""

    index: Index
    paths: pa.ChunkedArray  # of its files
    firsts: NDArray[np.bool_]  # `(known,)` whether they are the first ones of their items
    items: Ids  # `(known,)` ids of these
    places: Ids  # `(known,)` places in the list, -1 where a file is not there as it was
    gone: NDArray[np.bool_]  # `(known,)` whether no file of its path is listed
    new: Mapping[str, int]  # places in the list, by path, of files that the index has not so

    @classmethod
    def between(cls, index: Index, files: Iterable[ImageFile]) -> "Difference":
        """Compare the files of an index with those that are listed now, in the order of the list."""
        known = list_files(index.items, FACTS.names)
        facts, batches = facts_of(files), []
        while some := list(islice(facts, ROWS)):
            columns = map(pa.array, zip(*some, strict=True), FACTS.types)
            batches.append(pa.record_batch([*columns], schema=FACTS))
        listed = pa.Table.from_batches(batches, FACTS)
        found = pc.index_in(listed["path"], known["path"].combine_chunks())
        same = pc.is_valid(found)
        for name in ("name", "size", "mtime"):
            same = pc.and_(same, pc.equal(listed[name], known[name].take(found)))
        unchanged = numbers(pc.fill_null(same, False).cast(pa.uint8()).combine_chunks(), np.bool_)
        at = numbers(pc.fill_null(found, -1).combine_chunks(), np.int32)
        places, gone = np.full(len(known), -1), np.ones(len(known), bool)
        places[at[unchanged]] = np.flatnonzero(unchanged)
        gone[at[at >= 0]] = False
        new = np.flatnonzero(~unchanged)
        paths = listed["path"].take(pa.array(new)).to_pylist()
        new_places = dict(zip(paths, new.tolist(), strict=True))
        items = numbers(known["item"].combine_chunks(), np.int64)
        firsts = np.zeros(len(items), bool)
        firsts[np.unique(items, return_index=True)[1]] = True
        return cls(index, known["path"], firsts, items, places, gone, new_places)

    @cached_property
    def lost(self) -> Ids:
        """The `(n,)` rising ids of items that have lost files, or of which these are other ones."""
        return np.unique(self.items[self.places < 0])

    @property
    def is_none(self) -> bool:
        """Whether an index made of the files now would have the same items; in one part, in their order.

        One that refused a file does not count: that file is tried again.
        """
        if self.index.manifest.failed or len(self.new) or len(self.lost):
            return False
        order = np.argsort(self.items, kind="stable")
        rising = np.diff(self.places[order]) > 0
        among, parted = rising[np.diff(self.items[order]) == 0].all(), len(self.index.prefixes) > 1
        return bool(among and (parted or (np.diff(self.places[self.firsts]) > 0).all()))
