"""Writing to Milvus and searching in it, by this program and by a bare pymilvus loop on the same server.

    python benchmarks/milvus.py idx/data-1/student.npy --uri http://127.0.0.1:19530

Both take turns: blocks of rows go into a collection each, then single queries to the same collection, at the
same settings and for the same fields. The vectors crowd together as those of the file do. Both collections
are dropped at the end. What exact search by FAISS finds is the truth.
"""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from synthetic import PER_CLUSTER, Law

from index.stores.base import Batch
from index.stores.faiss.vector_index import search_exact
from index.stores.milvus.client import (
    METRICS,
    Address,
    Client,
    as_property,
    as_row,
    create_collection,
    name_collections,
)
from index.stores.milvus.store import MilvusIndex, MilvusSpace, search_params
from index.stores.milvus.writer import MOST_ROWS, MilvusWriter
from index.stores.options import IndexOptions
from index.stores.records import FORMAT, Item, Manifest, Space
from index.stores.server import FIELDS

K = 10
BLOCKS = 10
MATCH = 1e-5  # scores so near are equal


def make(client: Client, space: Space) -> MilvusIndex:
    """Make an empty gallery of one space."""
    name = name_collections(client.address.name, {"student": space})["student"]
    client.drop_collection(name)
    manifest = Manifest(FORMAT, 0, "", [], 0, 0, 0, None, {}, {"student": space})
    create_collection(client, name, space, as_property(manifest, []))
    index(client, name, "FLAT", {})
    client.load_collection(name)
    return MilvusIndex(client, name)


def index(client: Any, name: str, kind: str, params: Mapping[str, int]) -> None:
    """Build an index and wait for it."""
    wanted = client.prepare_index_params()
    wanted.add_index("vector", index_type=kind, metric_type=METRICS["inner_product"], params=dict(params))
    client.create_index(name, wanted)


def items_of(rows: slice) -> list[Item]:
    """Made-up items."""
    return [
        Item(f"/photos/{i}.jpg", f"{i}.jpg", f"{i:032x}", 10**6, 640, 480, 10**18)
        for i in range(rows.start, rows.stop)
    ]


def batches(items: list[Item], vectors: NDArray[np.float32]) -> Iterator[Batch]:
    """What a run hands to a store."""
    for start in range(0, len(items), MOST_ROWS):
        part = items[start : start + MOST_ROWS]
        made = {item.digest: vectors[start + i] for i, item in enumerate(part)}
        yield Batch(part, {"student": made})


def open_writer(gallery: MilvusIndex) -> MilvusWriter:
    """Take a gallery that `make` made, to be written."""
    writer = MilvusWriter(gallery.client.address)
    writer.client, writer.gallery, writer.options = gallery.client, gallery, IndexOptions()
    return writer


def insert(client: Any, collections: Sequence[MilvusIndex], gallery: NDArray[np.float32]) -> None:
    """Print the rates of both ways, block by block in turns."""
    ours, bare = collections
    rates: dict[str, list[float]] = {"ours": [], "bare": []}
    size = len(gallery) // BLOCKS
    writer = open_writer(ours)
    for block in range(BLOCKS):
        rows = slice(block * size, (block + 1) * size)
        items, vectors = items_of(rows), gallery[rows]
        for way in ("ours", "bare") if block % 2 else ("bare", "ours"):
            start = time.perf_counter()
            if way == "ours":
                writer.send(batches(items, vectors), size)
            else:
                for first in range(0, size, MOST_ROWS):
                    part = zip(items[first : first + MOST_ROWS], vectors[first:], strict=False)
                    client.insert(bare.student, [as_row(item, {}) | {"vector": v} for item, v in part])
            rates[way].append(size / (time.perf_counter() - start))
    ratios = [a / b for a, b in zip(rates["ours"], rates["bare"], strict=True)][1:]
    print(
        f"insert: {median(rates['ours'][1:]):.0f} rows/s, bare {median(rates['bare'][1:]):.0f}, "
        f"ratio {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        flush=True,
    )


def search(
    client: Any, collection: MilvusIndex, made: Space, queries: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Print the median times of both ways, query by query in turns, and return the scores that ours finds."""
    space = MilvusSpace(collection, "student")
    space._made = made
    params = {"metric_type": METRICS["inner_product"], "params": search_params(made.factory, made.probes, K)}
    fields = ["digest", *FIELDS]
    times: dict[str, list[float]] = {"ours": [], "bare": [], "bare, ids alone": []}
    scores = []
    for turn, query in enumerate(queries):
        for way in list(times) if turn % 2 else list(times)[::-1]:
            start = time.perf_counter()
            if way == "ours":
                scores.append(space.search(query[None], K)[0])
            else:
                wanted = fields if way == "bare" else []
                found = client.search(
                    collection.student, data=query[None], limit=K, output_fields=wanted, search_params=params
                )
                [[hit["distance"] for hit in hits] for hits in found]
            times[way].append(1000 * (time.perf_counter() - start))
    medians = {way: median(values[len(queries) // 10 :]) for way, values in times.items()}
    told = ", ".join(f"{way} {value:.2f} ms" for way, value in medians.items())
    print(f"search {made.factory}: {told}; ratio {medians['ours'] / medians['bare']:.2f}", flush=True)
    return np.concatenate(scores)


def parser_for(description: str | None) -> argparse.ArgumentParser:
    """The arguments that benchmarks of a server share."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("vectors", type=Path, help="student.npy of an index, to resemble")
    parser.add_argument("--uri", default="http://127.0.0.1:19530")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=300)
    return parser


def draw(args: argparse.Namespace) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The gallery, and queries that are new draws of the same law."""
    law = Law.fit(np.load(args.vectors, allow_pickle=False))
    clusters = max(args.count // PER_CLUSTER, 1)
    gallery = np.concatenate(list(law.draw(args.count, clusters)))
    queries = np.concatenate(list(law.draw(args.queries, clusters, seed=1)))
    return gallery, queries


def main() -> None:
    """Print the figures."""
    args = parser_for(__doc__).parse_args()
    gallery, queries = draw(args)
    truth = search_exact(queries, gallery, K)[0]
    addresses = [Address(args.uri, name) for name in ("benchmark_ours", "benchmark_bare")]
    clients = [Client(address) for address in addresses]
    client = clients[0].bare  # what the bare loop calls
    dim = gallery.shape[1]
    collections = [make(client, Space("onnx:x", "synthetic", dim, "FLAT")) for client in clients]
    try:
        insert(client, collections, gallery)
        ours = collections[0]
        print(f"{ours.count()} rows are there", flush=True)
        client.drop_collection(collections[1].student)
        client.flush(ours.student)
        for made, params in (
            (Space("onnx:x", "synthetic", dim, "FLAT"), {}),
            (Space("onnx:x", "synthetic", dim, "HNSW", probes=64), {"M": 32, "efConstruction": 128}),
        ):
            client.release_collection(ours.student)
            client.drop_index(ours.student, "vector")
            index(client, ours.student, made.factory, params)
            client.load_collection(ours.student)
            scores = search(client, ours, made, queries)
            print(f"recall@{K} {made.factory}: {(scores >= truth[:, -1:] - MATCH).mean():.4f}", flush=True)
    finally:
        for collection in collections:
            client.drop_collection(collection.student)


if __name__ == "__main__":
    main()
