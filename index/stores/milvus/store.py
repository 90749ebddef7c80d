"""A gallery in Milvus, opened to be searched: the read side of the store."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from index.errors import RetrievalError, UsageError
from index.io import content_digest
from index.stores.base import Store
from index.stores.filters import Filter
from index.stores.folder import ERRORS, read_failures
from index.stores.metadata import MOST_VALUES
from index.stores.milvus.client import FIELDS, as_filter, as_item, connect, parse_address
from index.stores.milvus.collection import DEEPEST, Collection, find_current
from index.stores.records import Failure, Item
from index.stores.students import find_student
from index.vectors import Scored, Vectors

REMEMBERED = 100_000  # items that keep their fields after they were found
# Opening waits for all that was written; to wait again would cost each search a tenth of a second and more.
LEVEL = "Eventually"


class MilvusIndex(Store):
    """A gallery in Milvus. Ids are given to items as they are first seen; `pin` gives them to all."""

    remote = True
    ids_by_digest: "_Ids"

    def __init__(self, collection: Collection, student_file: Path, allowed: Sequence[str] = ()) -> None:
        """Open a gallery.

        Args:
            collection: Its collections.
            student_file: The student's ONNX file.
            allowed: As in `Store`.
        """
        self.collection, self.model_file, self.allowed = collection, student_file, allowed

        self.path = user_cache_path("retrieval") / "milvus" / content_digest(str(self).encode())
        self.data = self.path
        refused = self.data / ERRORS  # of the last run, if it was here
        self.failures: list[Failure] = read_failures(refused) if refused.is_file() else []
        self.columns: dict[str, list[str]] = {name: [] for name in collection.columns}
        self.items = _Items(self)
        self.ids_by_digest = _Ids(self)
        self._rows: dict[str, dict[str, Any]] = {}
        self.manifest = replace(collection.manifest, count=collection.count())
        # The name is an alias, and the student's collection may change under it.
        now = f"{self.label}, now {collection.student}"
        self.engine = {"Searched by": "Milvus", "Server": collection.address.uri, "Collection": now}

    def __str__(self) -> str:
        return str(self.collection.address)

    def __len__(self) -> int:
        return max(self.manifest.count, len(self.ids_by_digest))

    @property
    def label(self) -> str:
        """Its name on the page."""
        return self.collection.address.name

    def pin(self) -> None:
        """Give every item an id, and count the values of the metadata."""
        columns: dict[str, Counter[str]] = {name: Counter() for name in self.columns}
        for page in self.collection.scan(["more"] if columns else []):
            for row in page:
                self.ids_by_digest.of(row["digest"])
                for name, value in row["more"]["metadata"].items() if columns else ():
                    columns[name][value] += 1
        self.columns = {name: sorted(dict(c.most_common(MOST_VALUES))) for name, c in columns.items()}
        self.data.mkdir(parents=True, exist_ok=True)

    def row(self, item: int) -> dict[str, Any]:
        """The fields of an item.

        Raises:
            RetrievalError: It is gone, or the server is.
        """
        digest = self.ids_by_digest.digests[item]
        found = self._rows.get(digest)  # another thread may forget it at any moment
        if found is None:
            rows = self.collection.fetch("student", [digest], FIELDS, LEVEL)
            self.remember(rows)
            found = rows.get(digest)
        if found is None:
            raise RetrievalError("This image has been removed from the collection. Open the page again.")
        return found

    def remember(self, rows: Mapping[str, dict[str, Any]]) -> None:
        """Keep fields that came with results, as long as they are few."""
        if len(self._rows) > REMEMBERED:
            self._rows = {}
        self._rows.update(rows)

    def metadata_of(self, item: int) -> dict[str, str]:
        """The metadata of one item."""
        return self.row(item)["more"]["metadata"]

    def keep(self, narrow: Filter) -> str:
        """The filter that the server applies."""
        return as_filter(narrow, list(self.columns))

    def rows(self, space: str, ids: NDArray[np.int64] | None = None) -> Vectors:
        """The `(len(ids), dim)` vectors of some items; None takes all, which must be pinned."""
        all_digests = self.ids_by_digest.digests
        digests = all_digests if ids is None else [all_digests[i] for i in np.asarray(ids).tolist()]
        found = self.collection.fetch(space, digests, ["vector"], LEVEL)
        if missing := [digest for digest in digests if digest not in found]:
            raise RetrievalError(f"{len(missing)} images have been removed from {self}. Open the page again.")
        return np.array([found[digest]["vector"] for digest in digests], self.manifest.spaces[space].dtype)

    def open_space(self, space: str, device: str) -> "MilvusSpace":
        """Make a space ready to be searched: the server is, whatever the device here."""
        return MilvusSpace(self, space)


class MilvusSpace:
    """One space of a gallery in Milvus."""

    def __init__(self, index: MilvusIndex, space: str) -> None:
        self.index, self._space = index, space
        self._made = index.manifest.spaces[space]

    def search(self, queries: Vectors, k: int, keep: str | None = None) -> Scored:
        """Find the k nearest of each of `(n, dim)` unit rows, with the server's own filter."""
        index = self.index
        k = min(k, DEEPEST)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        ids = np.full((len(queries), k), -1, np.int64)
        effort = self._made.factory, self._made.probes
        found = index.collection.search(self._space, queries, k, *effort, keep or "", FIELDS)
        for line, hits in enumerate(found):
            index.remember({row["digest"]: row for _, row in hits})
            ids[line, : len(hits)] = [index.ids_by_digest.of(row["digest"]) for _, row in hits]
            scores[line, : len(hits)] = [score for score, _ in hits]
        return scores, ids

    def order_again(self, queries: Vectors, ids: NDArray[np.int64], k: int) -> Scored:
        """Order `(n, candidates)` ids by their stored vectors, which are fetched, and keep the best k."""
        return self._made.type.order_again(queries, ids, k, lambda found: self.index.rows(self._space, found))


class _Ids(Mapping[str, list[int]]):
    """Ids by digest. One that was not seen yet is looked for on the server."""

    def __init__(self, index: MilvusIndex) -> None:
        self.digests: list[str] = []
        self._index, self._ids, self._lock = index, dict[str, int](), Lock()

    def of(self, digest: str) -> int:
        """The id of an item, given to it if it has none yet."""
        with self._lock:
            if digest not in self._ids:
                self._ids[digest] = len(self.digests)
                self.digests.append(digest)
            return self._ids[digest]

    def __getitem__(self, digest: str) -> list[int]:
        if digest not in self._ids:
            # Of what is shown all have ids; another photo is looked for once, unless pinned.
            if len(self._ids) >= self._index.manifest.count:
                raise KeyError(digest)
            rows = self._index.collection.fetch("student", [digest], FIELDS, LEVEL)
            if digest not in rows:
                raise KeyError(digest)
            self._index.remember(rows)
        return [self.of(digest)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.digests)

    def __len__(self) -> int:
        return len(self.digests)


class _Items(Sequence[Item]):
    """Items by id, read when they are looked at."""

    def __init__(self, index: MilvusIndex) -> None:
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, item: int) -> Item: ...
    @overload
    def __getitem__(self, item: slice) -> list[Item]: ...
    def __getitem__(self, item: int | slice) -> Item | list[Item]:
        if isinstance(item, slice):
            return [self[i] for i in range(*item.indices(len(self)))]
        return as_item(self._index.row(item))


def open_collection(where: str, model: Path | None = None, allowed: Sequence[str] = ()) -> MilvusIndex:
    """Open a gallery by its address.

    Args:
        where: `milvus://HOST:PORT/COLLECTION`.
        model: The student's ONNX file; None takes what an index run on this machine has kept of it.
        allowed: As in `Store`.

    Raises:
        UnreachableError: Nobody answers there.
        UsageError: There is no such gallery, or the student is another or not here.
    """
    address = parse_address(where)
    client = connect(address)
    current = find_current(client, address)
    if current is None:
        raise UsageError(f"There is no collection {address.name} at {address.uri}. See `retrieval index`.")
    collection = Collection(address, client, current)
    student = model or find_student(collection.manifest.spaces["student"].key, address)
    return MilvusIndex(collection, student, allowed)
