"""A gallery in Milvus, opened to be searched: what `index.stores.base.Store` asks for."""

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
from index.stores.filters import Filter
from index.stores.folder import ERRORS, read_failures
from index.stores.metadata import MOST_VALUES
from index.stores.milvus.client import FIELDS, as_filter, as_item, connect, parse_address
from index.stores.milvus.collection import DEEPEST, Collection, find_current
from index.stores.milvus.students import find_student
from index.stores.milvus.tuning import how_wide, search_params
from index.stores.records import Failure, Item
from index.vectors import Scored, Vectors

REMEMBERED = 100_000  # items whose fields are kept after they were found
# Opening waits for all that was written; to wait again would cost each search a tenth of a second and more.
LEVEL = "Eventually"


class MilvusIndex:
    """A gallery in Milvus. Ids are given to items as they are first seen; `pin` gives them to all."""

    remote = True

    def __init__(self, collection: Collection, student_file: Path, allowed: Sequence[str] = ()) -> None:
        """Open a gallery.

        Args:
            collection: Its collections.
            student_file: The student's ONNX file.
            allowed: As in `stores.base.Store`.
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

    def __str__(self) -> str:
        return str(self.collection.address)

    def __len__(self) -> int:
        return max(self.manifest.count, len(self.ids_by_digest))

    @property
    def label(self) -> str:
        """Its name on the page."""
        return self.collection.address.name

    @property
    def engine(self) -> dict[str, str]:
        """What searches it: the name is an alias, and the student's collection may change under it."""
        return {
            "Searched by": "Milvus",
            "Server": self.collection.address.uri,
            "Collection": f"{self.label}, now {self.collection.student}",
        }

    def companion(self, name: str) -> Path:
        """What lies beside the student's file."""
        return self.model_file.with_name(name)

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
        return np.array([found[digest]["vector"] for digest in digests], np.float32)

    def open_space(self, space: str, device: str) -> "MilvusSpace":
        """Make a space ready to be searched: the server is, whatever the device here."""
        return MilvusSpace(self, space)

    def require_model(self, space: str, key: str, name: str) -> None:
        """Refuse a model that is not the one which made the vectors of a space.

        Raises:
            UsageError: Names both models.
        """
        made_by = self.manifest.spaces[space]
        if made_by.key != key:
            raise UsageError(
                f"{self} was made with another {space}: {made_by.name} ({made_by.key[-8:]}), "
                f"not {name} ({key[-8:]}). Index the images again, or give that model."
            )


class MilvusSpace:
    """One space of a gallery in Milvus."""

    def __init__(self, index: MilvusIndex, space: str) -> None:
        self._index, self._space = index, space
        self._made = index.manifest.spaces[space]

    def search(self, queries: Vectors, k: int, keep: str | None = None) -> Scored:
        """Find the k nearest of each of `(n, dim)` unit rows, with the server's own filter."""
        index = self._index
        k = min(k, DEEPEST)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        ids = np.full((len(queries), k), -1, np.int64)
        params, wide = search_params(self._made, k), how_wide(self._made.factory)
        found = index.collection.search(self._space, queries, k, params, wide, keep or "", FIELDS)
        for line, hits in enumerate(found):
            index.remember({row["digest"]: row for _, row in hits})
            ids[line, : len(hits)] = [index.ids_by_digest.of(row["digest"]) for _, row in hits]
            scores[line, : len(hits)] = [score for score, _ in hits]
        return scores, ids

    def order_again(self, queries: Vectors, ids: NDArray[np.int64], k: int) -> Scored:
        """Order `(n, candidates)` ids by their stored vectors, which are fetched, and keep the best k."""
        found = np.unique(ids[ids >= 0])
        scores = np.full(ids.shape, -np.inf, np.float32)
        if len(found):
            similarity = self._made.type.similarity(queries, self._index.rows(self._space, found))
            there = ids >= 0
            places = np.searchsorted(found, np.where(there, ids, found[0]))
            scores = np.where(there, np.take_along_axis(similarity, places, 1), scores)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)


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
            # Of what is shown all have ids; another photo is looked for once, by whoever has not pinned.
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
        allowed: As in `stores.base.Store`.

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
