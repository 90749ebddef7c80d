"""What each approximate index of a Milvus server finds, searched as hard as `retrieval index` decides.

    python benchmarks/milvus_recall.py idx/data-1/student.npy --uri http://127.0.0.1:19530

The gallery crowds together as the vectors of the file do; what exact search by FAISS finds is the truth. The
queries are new draws, while the effort is chosen by rows of the gallery.
"""

import time
from statistics import median

import numpy as np
from milvus import batches, draw, index, items_of, make, open_writer, parser_for

from index.stores.faiss.tuning import GIB
from index.stores.faiss.vector_index import search_exact
from index.stores.milvus.client import Address, Client
from index.stores.milvus.store import MilvusSpace
from index.stores.milvus.writer import choose_index, tune
from index.stores.options import SearchTarget
from index.stores.records import Space

K = 10
MATCH = 1e-5  # scores so near are equal
# Recall asked for, and bytes of memory for each number: with these each type of index is chosen.
ASKED = [(0.99, 2.0), (0.95, 0.5), (0.95, 0.15)]


def main() -> None:
    """Print a line for each type of index."""
    parser = parser_for(__doc__)
    parser.add_argument("--only", help="type of index to measure")
    args = parser.parse_args()
    gallery, queries = draw(args)
    least = search_exact(queries, gallery, K)[0][:, -1:] - MATCH
    dim = gallery.shape[1]
    client = Client(Address(args.uri, "benchmark_recall"))
    items = items_of(slice(0, args.count))
    for recall, share in ASKED:
        need = SearchTarget(recall, share * dim * args.count / GIB)
        kind, params = choose_index(args.count, Space("", "", dim), need)
        if args.only not in (None, kind):
            continue
        # A collection for each: Milvus 2.3.5, with its data on disk, never finished a second index of one.
        collection = make(client, Space("onnx:x", "synthetic", dim, "FLAT"))
        name = collection.student
        open_writer(collection).send(batches(items, gallery), args.count)
        client.flush(name)
        client.release_collection(name)
        client.drop_index(name, "vector")
        index(client, name, kind, params)
        client.load_collection(name)
        served = tune(collection, "student", kind, need)
        space = MilvusSpace(collection, "student")
        space._made = Space("onnx:x", "synthetic", dim, kind, probes=served.probes)
        found, times = [], []
        for query in queries:
            start = time.perf_counter()
            found.append(space.search(query[None], K)[1][0])
            times.append(1000 * (time.perf_counter() - start))
        rows = np.array([[int(space.index.ids_by_digest.digests[i], 16) for i in ids] for ids in found])
        scores = np.einsum("qd,qkd->qk", queries, gallery[rows])
        print(
            f"{kind} {params}, asked {recall}: effort {served.probes}, says {served.recall:.3f}, "
            f"finds {(scores >= least).mean():.3f}, {median(times[len(times) // 10 :]):.2f} ms",
            flush=True,
        )
        client.drop_collection(name)


if __name__ == "__main__":
    main()
