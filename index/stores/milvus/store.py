"""A gallery in Milvus, opened: its collections, one for each space, read and searched."""

import json
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from platformdirs import user_cache_path

from index.errors import RetrievalError, UsageError
from index.io import content_digest
from index.stores.base import Store
from index.stores.filters import Filter
from index.stores.folder import ERRORS, read_failures
from index.stores.metadata.columns import (
    BOUND,
    MOST_VALUES,
    SEPARATOR,
    find_misfit,
    read_bound,
    read_values,
    refuse_kind,
)
from index.stores.milvus import client as milvus
from index.stores.milvus.client import Client
from index.stores.records import FORMAT, Item, Manifest, Space, from_facts
from index.stores.students import find_student
from index.vectors import Ids, Scored, Scores, Vectors, is_float, pack

PAGE = 4096  # rows that are read at a time
SAMPLE = 1000  # rows that tell the values of a column, for a message
REORDERED = 20  # candidates for each result that SCANN orders by the whole vectors
DEEPEST = 16_384  # results that a server gives at most
# A server that knows a vector by its code alone finds so many times more, which are ordered by whole vectors.
WIDE = {"IVF_SQ8": 2, "IVF_PQ": 20}

Row = dict[str, Any]
REMEMBERED = 100_000  # items that keep their fields after they were found
# Opening waits for all that was written; to wait again would cost each search a tenth of a second and more.
LEVEL = "Eventually"


class MilvusIndex(Store):
    """A gallery in Milvus. Ids are given to items as they are first seen; `pin` gives them to all."""

    remote = True
    ids_by_digest: "_Ids"

    def __init__(
        self, client: Client, student: str, model: Path | None = None, allowed: Sequence[str] = ()
    ) -> None:
        """Open the gallery at the client's address.

        `student` is the student's collection, not the alias, which may come to mean another's; `model` is the
        student's file, None what an index run on this machine kept of it. UsageError: it is none of ours.
        """
        self.client, self.student, self._model, self.allowed = client, student, model, allowed
        self.written, columns = _read_facts(client, student)
        self.names = milvus.name_collections(self.label, self.written.spaces)  # of collections, by space
        for space, made in self.written.spaces.items():
            if not client.has_collection(name := self.names[space]):
                raise UsageError(
                    f"Collection {name} of {self} is gone. Drop {student} too, and index the images again."
                )
            index = client.describe_index(name, "vector") or {}
            milvus.check_schema(client, name, made, index.get("metric_type"))
        self.path = self.data = user_cache_path("retrieval") / "milvus" / content_digest(str(self).encode())
        refused = self.data / ERRORS  # of the last run, if it was here
        self.failures = read_failures(refused) if refused.is_file() else []
        self.columns = {name: [] for name in columns}
        self.items, self.ids_by_digest = _Items(self), _Ids(self)
        self._rows: dict[str, Row] = {}
        # The name is an alias, and the student's collection may change under it.
        now = f"{self.label}, now {student}"
        self.engine = {"Searched by": "Milvus", "Server": client.address.uri, "Collection": now}

    def __str__(self) -> str:
        return str(self.client.address)

    def __len__(self) -> int:
        return max(self.manifest.count, len(self.ids_by_digest))

    @cached_property
    def manifest(self) -> Manifest:  # type: ignore[override]
        """What it is, with the items that there were when that was first asked for."""
        return replace(self.written, count=self.count())

    @property
    def label(self) -> str:
        """Its name on the page."""
        return self.client.address.name

    def count(self, space: str = "student") -> int:
        """How many items there are now."""
        counted = self.client.query(
            self.names[space], output_fields=["count(*)"], consistency_level="Strong", timeout=milvus.SECONDS
        )
        return int(counted[0]["count(*)"])

    def fetch(
        self, space: str, digests: Sequence[str], fields: Sequence[str], level: str = "Strong"
    ) -> dict[str, Row]:
        """Read fields of rows, by digest; level `Strong` waits for all that was written before."""
        wanted = {"output_fields": ["digest", *fields], "consistency_level": level, "timeout": milvus.SECONDS}
        rows: dict[str, Row] = {}
        for start in range(0, len(digests), PAGE):
            some = json.dumps(digests[start : start + PAGE])
            found = self.client.query(self.names[space], filter=f"digest in {some}", **wanted)
            rows.update((row["digest"], dict(row)) for row in found)
        return rows

    def scan(self, fields: Sequence[str], space: str = "student") -> Iterator[list[Row]]:
        """Read all rows of a space, some at a time, by rising digest."""
        wanted = {
            "output_fields": ["digest", *fields],
            "consistency_level": "Strong",
            "timeout": milvus.SECONDS,
        }
        rows = self.client.query_iterator(self.names[space], PAGE, **wanted)
        while True:
            with milvus.explain(self.client.address):
                page = rows.next()
            if not page:
                return
            yield [dict(row) for row in page]

    def sample(self, most: int, field: str, space: str = "student") -> list[Row]:
        """Read a field of some rows, whichever the server takes."""
        wanted = {"limit": most, "output_fields": [field], "timeout": milvus.SECONDS}
        return list(self.client.query(self.names[space], filter='digest >= ""', **wanted))

    @property
    def model_file(self) -> Path:  # type: ignore[override]
        """The student that made it; UsageError if it is not on this machine."""
        return self._model or find_student(self.manifest.spaces["student"].key, self)

    def pin(self) -> None:
        """Give every item an id, and count the values of the metadata."""
        self.columns = self._list_values(self._seen(["more"] if self.columns else []))
        self.data.mkdir(parents=True, exist_ok=True)

    def _list_values(self, rows: Iterable[Row]) -> dict[str, list[str]]:
        """The columns of the metadata with their values in some rows, in order, the most frequent 200."""
        columns: dict[str, Counter[str]] = {name: Counter() for name in self.columns}
        for row in rows:
            for name, value in row["more"]["metadata"].items() if columns else ():
                columns[name].update(value if isinstance(value, list) else [value])
        most = {name: list(dict(counts.most_common(MOST_VALUES))) for name, counts in columns.items()}
        return {name: [value for _, value in sorted(read_values(some)[1])] for name, some in most.items()}

    def iter_items(self) -> Iterator[Item]:
        """Read the gallery in bounded memory, and give every item an id."""
        return map(milvus.as_item, self._seen(milvus.FIELDS))

    def _seen(self, fields: Sequence[str]) -> Iterator[Row]:
        for page in self.scan(fields):
            for row in page:
                self.ids_by_digest.of(row["digest"])
                yield row

    def faults(self) -> Iterator[str]:
        """Find the collections that do not have as many items as the student's."""
        for space in self.manifest.spaces:
            if (count := self.count(space)) != self.manifest.count:
                yield f"{self.names[space]} has {count} items, not {self.manifest.count}"

    def row(self, item: int) -> Row:
        """The fields of an item; RetrievalError if it is gone, or the server is."""
        digest = self.ids_by_digest.digests[item]
        # Another thread may forget it at any moment.
        if found := self._rows.get(digest) or self.look_up(digest):
            return found
        raise RetrievalError("This image has been removed from the collection. Open the page again.")

    def look_up(self, digest: str) -> Row | None:
        """The fields of a content, read from the server; None if it is not there."""
        rows = self.fetch("student", [digest], milvus.FIELDS, LEVEL)
        self.remember(rows)
        return rows.get(digest)

    def remember(self, rows: Mapping[str, Row]) -> None:
        """Keep fields that came with results, as long as they are few."""
        if len(self._rows) > REMEMBERED:
            self._rows = {}
        self._rows.update(rows)

    def metadata_of(self, item: int) -> dict[str, str]:
        """The metadata of one item."""
        known = self.row(item)["more"]["metadata"]
        return {n: SEPARATOR.join(v) if isinstance(v, list) else v for n, v in known.items()}

    def keep(self, filter: Filter) -> str:
        """The filter that the server applies."""

        def finds(condition: str) -> bool:
            one = {"limit": 1, "output_fields": ["digest"], "timeout": milvus.SECONDS}
            return bool(self.client.query(self.student, condition, **one))

        return milvus.as_filter(filter, self.columns, finds)

    def matches_nothing(self, filter: Filter) -> UsageError:
        """As of `Store`; it goes by the values of some items, unless the values of all were counted."""
        known = self.columns
        if filter.columns and not any(known.values()):
            known = self._list_values(self.sample(SAMPLE, "more"))
        for column, wanted in filter.columns.items():
            bounded = BOUND.match(wanted) and wanted not in known[column]
            for bound in wanted.split("&") if bounded else ():
                kind = read_bound(column, bound)[1]
                if misfit := find_misfit(kind, known[column]):
                    return refuse_kind(column, bound, kind, misfit)
        return filter.matches_nothing(known)

    def rows(self, space: str, ids: Ids | None = None) -> Vectors:
        """The `(len(ids), dim)` vectors of some items; None takes all."""
        wanted = range(len(self)) if ids is None else np.asarray(ids).tolist()
        if max(wanted, default=-1) >= len(self.ids_by_digest.digests):  # not all items were seen yet
            deque(self._seen([]), maxlen=0)
        digests = [self.ids_by_digest.digests[i] for i in wanted]
        found = self.fetch(space, digests, ["vector"], LEVEL)
        if missing := [digest for digest in digests if digest not in found]:
            raise RetrievalError(f"{len(missing)} images have been removed from {self}. Open the page again.")
        vectors = [found[digest]["vector"] for digest in digests]
        return milvus.read_vectors(self.manifest.spaces[space], vectors)

    def sample_rows(self, space: str, most: int) -> Vectors:
        """As `Store.sample_rows`, of items that need no ids: to give these to all would read all of it."""
        vectors = [row["vector"] for row in self.sample(most, "vector", space)]
        return milvus.read_vectors(self.manifest.spaces[space], vectors)

    def open_space(self, space: str, device: str) -> "MilvusSpace":
        """Make a space ready to be searched: the server is, whatever the device here."""
        return MilvusSpace(self, space)


class MilvusSpace:
    """One space of a gallery in Milvus."""

    def __init__(self, index: MilvusIndex, space: str, made: Space | None = None) -> None:
        self.index, self._space, self._made = index, space, made or index.written.spaces[space]

    def search(self, queries: Vectors, k: int, keep: str | None = None) -> Scored:
        """Find the k nearest of each of `(n, dim)` queries, with the server's own filter."""
        index, k = self.index, min(k, DEEPEST)
        # So many queries at a time that the server answers soon: of each it may order many more than k.
        together = max(PAGE // (k * WIDE.get(self._made.factory, 1)), 1)
        parts = (queries[i : i + together] for i in range(0, len(queries), together))
        answers = [self.nearest(some, k, keep or "", milvus.FIELDS) for some in parts]
        scores = np.concatenate([np.empty((0, k), np.float32), *(scores for scores, _ in answers)])
        found = [rows for _, some in answers for rows in some]
        ids = np.full(scores.shape, -1, np.int64)
        for line, rows in enumerate(found):
            index.remember({row["digest"]: row for row in rows})
            ids[line, : len(rows)] = [index.ids_by_digest.of(row["digest"]) for row in rows]
        return scores, ids

    def nearest(
        self, queries: Vectors, k: int, keep: str = "", fields: Sequence[str] = ()
    ) -> tuple[Scores, list[list[Row]]]:
        """Find the k nearest of `(n, dim)` queries under a filter: `(n, k)` falling scores, and rows."""
        made, data, depth = self._made, queries, k * WIDE.get(self._made.factory, 1)
        if made.bits and is_float(queries):  # which order again what their codes find
            data, depth = pack(queries), max(k, made.rescore)
        again = depth > k or data is not queries
        params = search_params(made.factory, made.probes, k)
        answer = self.index.client.search(
            self.index.names[self._space],
            data=data,
            filter=keep,
            limit=min(depth, DEEPEST),
            output_fields=["digest", *fields, *(["vector"] if again else [])],
            search_params={"metric_type": milvus.METRICS[made.metric], "params": params},
            timeout=milvus.SECONDS,
        )
        scores, found = np.full((len(queries), k), -np.inf, np.float32), []
        for line, (query, hits) in enumerate(zip(queries, answer, strict=True)):
            rows = [{**hit["entity"], "digest": hit["digest"]} for hit in hits]
            values = np.array([hit["distance"] for hit in hits], np.float32)
            if again:
                vectors = milvus.read_vectors(made, [row.pop("vector") for row in rows])
                values = made.type.similarity(query[None], vectors)[0]
                best = np.argsort(-values, kind="stable")[:k]
                rows, values = [rows[i] for i in best], values[best]
            elif made.bits:
                values = 1 - 2 * values / np.float32(made.bits)
            scores[line, : len(rows)] = values
            found.append(rows)
        return scores, found

    def order_again(self, queries: Vectors, ids: Ids, k: int) -> Scored:
        """Order `(n, candidates)` ids by their stored vectors, which are fetched, and keep the best k."""
        return self._made.type.order_again(queries, ids, k, lambda found: self.index.rows(self._space, found))


class _Ids(Mapping[str, list[int]]):
    """Ids by digest. One that was not seen yet is looked for on the server."""

    def __init__(self, index: MilvusIndex) -> None:
        self.digests: list[str] = []
        self._index, self._ids, self._lock = index, dict[str, int](), Lock()

    def of(self, digest: str) -> int:
        with self._lock:
            if digest not in self._ids:
                self._ids[digest] = len(self.digests)
                self.digests.append(digest)
            return self._ids[digest]

    def __getitem__(self, digest: str) -> list[int]:
        # Of what is shown all have ids; another photo is looked for once, by a gallery that is not pinned.
        seen_all = len(self._ids) >= self._index.manifest.count
        if digest not in self._ids and (seen_all or self._index.look_up(digest) is None):
            raise KeyError(digest)
        return [self.of(digest)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.digests)

    def __len__(self) -> int:
        return len(self.digests)


class _Items(Sequence[Item]):
    def __init__(self, index: MilvusIndex) -> None:
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, item: Any) -> Any:
        return milvus.as_item(self._index.row(item))


def open_collection(where: str, model: Path | None = None, allowed: Sequence[str] = ()) -> MilvusIndex:
    """Open the gallery at `milvus://HOST:PORT/COLLECTION`; the others are as for `MilvusIndex`."""
    client = Client(address := milvus.parse_address(where))
    current = find_current(client)
    if current is None:
        raise UsageError(f"There is no collection {address.name} at {address.uri}. See `retrieval index`.")
    index = MilvusIndex(client, current, model, allowed)
    _ = index.manifest  # waits for all that was written
    return index


def search_params(kind: str, effort: int, k: int) -> dict[str, int]:
    """What a server is told with each search for k results."""
    if kind in ("FLAT", "BIN_FLAT", "HNSW"):
        return {"ef": max(effort, k)} if kind == "HNSW" else {}
    return {"nprobe": effort} | ({"reorder_k": REORDERED * k} if kind == "SCANN" else {})


def find_current(client: Client) -> str | None:
    """The student's collection that the alias points to now; UsageError if others use the name."""
    if not client.has_collection(client.address.name):
        return None
    described = client.describe_collection(client.address.name)
    found = described["collection_name"]
    if found == client.address.name or milvus.FACTS not in described.get("properties", {}):
        raise UsageError(
            f"{client.address} is a collection that `retrieval index` did not make. "
            "Give another --collection."
        )
    return str(found)


def _read_facts(client: Client, name: str) -> tuple[Manifest, list[str]]:
    """Read what was written beside the vectors. It comes from elsewhere: it names nothing that is opened."""
    try:
        facts = json.loads(client.describe_collection(name).get("properties", {}).get(milvus.FACTS) or "")
        manifest = from_facts(facts["manifest"])
        if manifest.format != FORMAT or "student" not in manifest.spaces:
            raise ValueError(manifest.format)
        return manifest, [str(column) for column in facts["columns"]]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(
            f"Collection {name} was not made by this `retrieval index`. Give another --collection."
        ) from error
