"""A gallery in Milvus, opened: its collections, one for each space, read and searched."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from index.errors import UsageError
from index.stores.filters import Filter
from index.stores.milvus import client as milvus
from index.stores.milvus.client import Address, Client
from index.stores.records import FORMAT, UNFINISHED, Manifest, Space, from_facts
from index.stores.server import FIELDS, PAGE, Row, ServerStore, cache_folder
from index.vectors import Ids, Scored, Scores, Vectors, is_float, pack

REORDERED = 20  # candidates for each result that SCANN orders by the whole vectors
DEEPEST = 16_384  # results that a server gives at most
# A server that knows a vector by its code alone finds so many times more, which are ordered by whole vectors.
WIDE = {"IVF_SQ8": 2, "IVF_PQ": 20}
# Opening waits for all that was written; to wait again would cost each search a tenth of a second and more.
LEVEL = "Eventually"


class MilvusIndex(ServerStore):
    """A gallery in Milvus."""

    def __init__(
        self, client: Client, student: str, model: Path | None = None, allowed: Sequence[str] = ()
    ) -> None:
        """Open the gallery at the client's address; UsageError if it is none of ours.

        `student` is the student's collection, not the alias, which may come to mean another's.
        """
        self.client, self.student, self.allowed = client, student, allowed
        self.label = client.address.name
        self.unfinished = work_folder(client.address) / UNFINISHED  # unless the run was given another folder
        super().__init__(*_read_facts(client, student), cache_folder("milvus", str(self)), model)
        self.names = milvus.name_collections(self.label, self.written.spaces)  # of collections, by space
        for space, made in self.written.spaces.items():
            if not client.has_collection(name := self.names[space]):
                raise UsageError(
                    f"Collection {name} of {self} is gone. Drop {student} too, and index the images again."
                )
            index = client.describe_index(name, "vector") or {}
            milvus.check_schema(client, name, made, index.get("metric_type"))
        # The name is an alias, and the student's collection may change under it.
        now = f"{self.label}, now {student}"
        self.engine = {"Searched by": "Milvus", "Server": client.address.uri, "Collection": now}

    def __str__(self) -> str:
        return str(self.client.address)

    def query(self, space: str, fields: Sequence[str], **wanted: Any) -> list[Row]:
        """Read fields of rows, as `MilvusClient.query`."""
        asked = {"output_fields": list(fields), "timeout": milvus.SECONDS, **wanted}
        return [dict(row) for row in self.client.query(self.names[space], **asked)]

    def count(self, space: str = "student") -> int:
        """How many items there are now."""
        return int(self.query(space, ["count(*)"], consistency_level="Strong")[0]["count(*)"])

    def fetch(
        self, space: str, digests: Sequence[str], fields: Sequence[str], level: str = LEVEL
    ) -> dict[str, Row]:
        """As `ServerStore.fetch`; level `Strong` waits for all that was written before."""
        rows: dict[str, Row] = {}
        for some in milvus.among(digests):
            found = self.query(space, ["digest", *fields], filter=some, consistency_level=level)
            rows.update((row["digest"], row) for row in found)
        return rows

    def scan(self, fields: Sequence[str], space: str = "student") -> Iterator[Row]:
        """Read all rows of a space in bounded memory, by rising digest."""
        wanted = {"output_fields": ["digest", *fields], "consistency_level": "Strong"}
        pages = self.client.query_iterator(self.names[space], PAGE, timeout=milvus.SECONDS, **wanted)
        read_page = milvus.explain(self.client.address)(pages.next)
        while page := read_page():
            yield from map(dict, page)

    def sample(self, most: int, field: str, space: str = "student") -> list[Row]:
        """Read a field of some rows, whichever the server takes."""
        return self.query(space, [field], filter='digest >= ""', limit=most)

    def faults(self) -> Iterator[str]:
        """Find the collections that do not have as many items as the student's."""
        for space in self.manifest.spaces:
            if (count := self.count(space)) != self.manifest.count:
                yield f"{self.names[space]} has {count} items, not {self.manifest.count}"

    def keep(self, filter: Filter) -> str:
        """The filter that the server applies."""

        def finds(condition: str) -> bool:
            return bool(self.query("student", ["digest"], filter=condition, limit=1))

        return milvus.as_filter(filter, self.columns, finds)

    def rows(self, space: str, ids: Ids | None = None) -> Vectors:
        """As `Store.rows`."""
        wanted = range(len(self)) if ids is None else np.asarray(ids).tolist()
        return milvus.read_vectors(self.written.spaces[space], self.read(space, wanted, ["vector"]))

    def sample_rows(self, space: str, most: int) -> Vectors:
        """As `Store.sample_rows`, of items that need no ids: to give these to all would read all of it."""
        return milvus.read_vectors(self.written.spaces[space], self.sample(most, "vector", space))

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
        scores = np.empty((len(queries), k), np.float32)
        ids = np.full(scores.shape, -1, np.int64)
        for start in range(0, len(queries), together):
            some = slice(start, start + together)
            scores[some], found = self.nearest(queries[some], k, keep or "", FIELDS)
            for line, rows in enumerate(found, start):
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
                values = made.type.similarity(query[None], milvus.read_vectors(made, rows))[0]
                best = np.argsort(-values, kind="stable")[:k]
                values = values[best]
                rows = [{name: rows[i][name] for name in rows[i] if name != "vector"} for i in best]
            elif made.bits:
                values = 1 - 2 * values / np.float32(made.bits)
            scores[line, : len(rows)] = values
            found.append(rows)
        return scores, found

    def order_again(self, queries: Vectors, ids: Ids, k: int) -> Scored:
        """Order `(n, candidates)` ids by their stored vectors, which are fetched, and keep the best k."""
        return self._made.type.order_again(queries, ids, k, lambda found: self.index.rows(self._space, found))


def open_collection(where: str, model: Path | None = None, allowed: Sequence[str] = ()) -> MilvusIndex:
    """Open the gallery at `milvus://HOST:PORT/COLLECTION`; the others are as for `MilvusIndex`."""
    client = Client(address := milvus.parse_address(where))
    if (current := find_current(client)) is None:
        raise UsageError(f"There is no collection {address.name} at {address.uri}. See `retrieval index`.")
    index = MilvusIndex(client, current, model, allowed)
    _ = index.manifest  # waits for all that was written
    return index


def work_folder(address: Address) -> Path:
    """Where a run that writes a gallery works, unless it is told."""
    return cache_folder("milvus", f"work {address}")


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
