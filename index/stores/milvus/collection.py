"""The collections of a gallery in Milvus, read: what is there, whatever it will be searched with."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from index.errors import UsageError
from index.stores.milvus.client import (
    FACTS,
    FIELDS,
    METRIC,
    SECONDS,
    Address,
    any_of,
    as_item,
    check_schema,
    collection_name,
    explain,
)
from index.stores.records import FORMAT, Manifest, Space
from index.vectors import Vectors

if TYPE_CHECKING:
    from pymilvus import MilvusClient

PAGE = 4096  # rows that are read at a time
REORDERED = 20  # candidates for each result that SCANN orders by the whole vectors
DEEPEST = 16_384  # results that a server gives at most
# A server that knows a vector by its code alone finds so many times more, which are ordered by whole vectors.
WIDE = {"IVF_SQ8": 2, "IVF_PQ": 20}


class Collection:
    """The collections of a gallery, by space: what reads them knows no models."""

    def __init__(self, address: Address, client: "MilvusClient", student: str) -> None:
        """Open them.

        Args:
            address: Of the gallery.
            client: As `connect` returned it.
            student: The student's collection: not the alias, which may come to mean another student's.

        Raises:
            UsageError: There is none, or it is not one of ours.
        """
        self.address, self.client, self.student = address, client, student
        with explain(address):
            described = client.describe_collection(student)
        self.manifest, self.columns = _read_facts(student, described.get("properties", {}).get(FACTS))
        for space, made in self.manifest.spaces.items():
            with explain(address):
                name = self.name(space)
                if not client.has_collection(name):
                    raise UsageError(
                        f"Collection {name} of {address} is gone. Drop {student} too, and index the images "
                        "again."
                    )
                index = client.describe_index(name, "vector") or {}
                check_schema(name, client.describe_collection(name), made.dim, index.get("metric_type"))

    def name(self, space: str) -> str:
        """The collection of a space."""
        spaces = self.manifest.spaces
        return collection_name(self.address.name, spaces["student"].key, space, spaces[space].key)

    def count(self) -> int:
        """How many items there are now."""
        with explain(self.address):
            counted = self.client.query(
                self.student, output_fields=["count(*)"], consistency_level="Strong", timeout=SECONDS
            )
        return int(counted[0]["count(*)"])

    def fetch(
        self, space: str, digests: Sequence[str], fields: Sequence[str], level: str = "Strong"
    ) -> dict[str, dict[str, Any]]:
        """Read rows by digest; what is not there is left out.

        Args:
            space: Of which space.
            digests: Of the rows wanted.
            fields: To read, beside the digest.
            level: `Strong` waits for all that was written before, `Eventually` does not.
        """
        rows: dict[str, dict[str, Any]] = {}
        for start in range(0, len(digests), PAGE):
            with explain(self.address):
                found = self.client.query(
                    self.name(space),
                    filter=any_of(list(digests[start : start + PAGE])),
                    output_fields=["digest", *fields],
                    consistency_level=level,
                    timeout=SECONDS,
                )
            rows.update((row["digest"], dict(row)) for row in found)
        return rows

    def search(
        self,
        space: str,
        queries: Vectors,
        k: int,
        kind: str,
        effort: int,
        keep: str = "",
        fields: Sequence[str] = (),
    ) -> list[list[tuple[float, dict[str, Any]]]]:
        """Search with `(n, dim)` queries.

        Args:
            space: Of which space.
            queries: What to search with.
            k: How many results.
            kind: Type of the index.
            effort: How hard it searches.
            keep: The filter.
            fields: To read, beside the digest.

        Returns:
            For each query similarities, falling, and rows.
        """
        wide, found = WIDE.get(kind, 1), []
        with explain(self.address):
            answer = self.client.search(
                self.name(space),
                data=queries,
                filter=keep,
                limit=min(k * wide, DEEPEST),
                output_fields=["digest", *fields, *(["vector"] if wide > 1 else [])],
                search_params={"metric_type": METRIC, "params": search_params(kind, effort, k)},
                timeout=SECONDS,
            )
            for query, hits in zip(queries, answer, strict=True):
                rows = [(hit["distance"], {**hit["entity"], "digest": hit["digest"]}) for hit in hits]
                found.append(self._order(space, query, [row for _, row in rows], k) if wide > 1 else rows)
        return found

    def _order(
        self, space: str, query: Vectors, rows: list[dict[str, Any]], k: int
    ) -> list[tuple[float, dict[str, Any]]]:
        """The best k of some rows, by their whole vectors."""
        kind = self.manifest.spaces[space].type
        vectors = np.array([row.pop("vector") for row in rows], kind.dtype).reshape(-1, len(query))
        scores = kind.similarity(query[None], vectors)[0]
        return [(float(scores[i]), rows[i]) for i in np.argsort(-scores, kind="stable")[:k]]

    def scan(self, fields: Sequence[str], space: str = "student") -> Iterator[list[dict[str, Any]]]:
        """Read all rows of a space, some at a time, by rising digest."""
        with explain(self.address):
            rows = self.client.query_iterator(
                self.name(space), PAGE, output_fields=["digest", *fields], consistency_level="Strong"
            )
        while True:
            with explain(self.address):
                page = rows.next()
            if not page:
                return
            yield [dict(row) for row in page]

    def iter_batches(self) -> Iterator[pa.RecordBatch]:
        """As `Known.iter_batches`."""
        for page in self.scan(FIELDS):
            yield pa.RecordBatch.from_pylist([asdict(as_item(row)) for row in page])

    def read_rows(self, space: str, ids: NDArray[np.int64]) -> Vectors:
        """Never called: a server keeps the vectors that it has."""
        raise NotImplementedError


def search_params(kind: str, effort: int, k: int) -> dict[str, int]:
    """What a server is told with each search for k results."""
    if kind == "FLAT":
        return {}
    if kind == "HNSW":
        return {"ef": max(effort, k)}
    return {"nprobe": effort} | ({"reorder_k": REORDERED * k} if kind == "SCANN" else {})


def find_current(client: "MilvusClient", address: Address) -> str | None:
    """The student's collection that the alias points to now, if there is one.

    Raises:
        UsageError: The name is that of a collection, or of an alias that others gave to theirs.
    """
    with explain(address):
        if not client.has_collection(address.name):
            return None
        described = client.describe_collection(address.name)
    found = described["collection_name"]
    if found == address.name or FACTS not in described.get("properties", {}):
        raise UsageError(
            f"{address} is a collection that `retrieval index` did not make. Give another --collection."
        )
    return found


def _read_facts(name: str, text: str | None) -> tuple[Manifest, list[str]]:
    """Read what was written beside the vectors. It comes from elsewhere: it names nothing that is opened."""
    try:
        facts = json.loads(text or "")
        spaces = {str(space): Space(**made) for space, made in facts["manifest"].pop("spaces").items()}
        manifest = Manifest(**facts["manifest"], spaces=spaces)
        if manifest.format != FORMAT or "student" not in spaces:
            raise ValueError(manifest.format)
        return manifest, [str(column) for column in facts["columns"]]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(
            f"Collection {name} was not made by this `retrieval index`. Give another --collection."
        ) from error
