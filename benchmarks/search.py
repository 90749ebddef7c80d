"""Our search against bare FAISS calls on the same index, with vectors that crowd together as an index's do.

    python benchmarks/search.py index/data-1/student.npy --folder scratch
    python benchmarks/search.py index/data-1/student.npy --folder scratch --count 10000000 --no-bare
    python benchmarks/search.py index/data-1/student.npy --folder scratch --no-bare --peers

Both are asked the same queries in turns, one at a time on one core. The bare call is FAISS's own refinement
with all vectors in memory, where the index refines; ours maps them from a file, all of which was read before.
`--peers` has hnswlib and usearch (`pip install hnswlib usearch`) search the same vectors as well.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from peers import build_peers
from synthetic import PER_CLUSTER, Law

from index.io import chunks
from index.search import Searcher
from index.stores.faiss.tuning import TunedIndex, build_tuned
from index.stores.faiss.vector_index import CHUNK, EXACT, inverted_lists, read_ann, search_exact, write_ann
from index.stores.folder import Index
from index.stores.options import SearchTarget
from index.stores.records import Space

K = 10
MATCH = 1e-5  # scores so near are equal


def draw_gallery(law: Law, count: int, folder: Path) -> NDArray[np.float32]:
    """Draw the gallery into a file, unless it is there, and map it."""
    file = folder / f"gallery-{count}.npy"
    if not file.is_file():
        beside = file.with_suffix(".partial")
        with beside.open("wb") as rows:
            header = {"descr": "<f4", "fortran_order": False, "shape": (count, len(law.mean))}
            np.lib.format.write_array_header_1_0(rows, header)
            for chunk in law.draw(count, max(count // PER_CLUSTER, 1)):
                rows.write(chunk.tobytes())
        beside.rename(file)
    return np.load(file, mmap_mode="r", allow_pickle=False)


def build(
    gallery: NDArray[np.float32], factory: str, need: SearchTarget, file: Path, peak: "Peak"
) -> TunedIndex:
    """Build and tune an index into a file, unless it is there, and print what that took."""
    remembered = file.with_suffix(".json")
    if not remembered.is_file():
        start = time.perf_counter()
        index, served = build_tuned(gallery, need, factory)
        seconds = time.perf_counter() - start
        write_ann(as_flat(gallery) if index is None else index, file)
        print(f"built in {seconds:.0f} s on {os.cpu_count()} cores, {peak}", flush=True)
        remembered.write_text(json.dumps(asdict(served)))
    return TunedIndex(**json.loads(remembered.read_text()))


class Peak(Thread):
    """The most memory that this process has had, looked at ten times a second.

    What is mapped of the gallery is told apart: it is the system's cache, which it takes back when it must.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.own = self.mapped = 0.0
        self.start()

    def run(self) -> None:
        """Look."""
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            kib = {name: int(value.split()[0]) for name, value in (x.split(":") for x in lines if "Rss" in x)}
            self.own = max(self.own, kib["RssAnon"] / 2**20)
            self.mapped = max(self.mapped, kib["RssFile"] / 2**20)
            time.sleep(0.1)

    def __str__(self) -> str:
        return f"peak memory {self.own:.1f} GiB, and {self.mapped:.1f} GiB of files in the system's cache"


def as_flat(gallery: NDArray[np.float32]) -> faiss.Index:
    """FAISS's exact index, which holds the vectors once more."""
    index = faiss.IndexFlatIP(gallery.shape[1])
    for some in chunks(gallery, CHUNK):
        index.add(some)
    return index


def as_searcher(gallery: NDArray[np.float32], file: Path, served: TunedIndex) -> Searcher:
    """What `retrieval search` would open, without photos and models."""
    space = Space("synthetic", "synthetic", gallery.shape[1], **asdict(served))

    class Gallery(Index):
        def __init__(self) -> None:
            self.path, self.manifest = file, SimpleNamespace(spaces={"student": space})  # type: ignore[assignment]

        def __len__(self) -> int:
            return len(gallery)

        def _parts(self, _space: str) -> list[NDArray[np.float32]]:
            return [gallery]

        def ann(self, _space: str) -> faiss.Index | None:
            return None if served.factory == EXACT else read_ann(file)

    student: Any = SimpleNamespace(key="synthetic", name="synthetic")
    return Searcher(Gallery(), student, device="cpu")


def as_faiss(gallery: NDArray[np.float32], file: Path, served: TunedIndex) -> faiss.Index:
    """The same index as FAISS alone would be used."""
    index = faiss.read_index(str(file))
    if served.probes:
        name = "efSearch" if inverted_lists(index) is None else "nprobe"
        faiss.ParameterSpace().set_index_parameter(index, name, served.probes)
    if not served.refine:
        return index
    refined = faiss.IndexRefineFlat(index, faiss.swig_ptr(np.ascontiguousarray(gallery)))  # copies them
    refined.k_factor = served.refine
    return refined


def in_turns(
    ways: dict[str, Callable[[NDArray[np.float32]], Any]], queries: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    """Milliseconds of each query in each way, the first tenth being warm-up and left out.

    Returns:
        For each way `(queries, 2)`: by the clock, and of the processor, which other programs disturb less.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn, query in enumerate(queries):
        for name in list(ways) if turn % 2 else list(ways)[::-1]:
            start = time.perf_counter(), time.thread_time()
            ways[name](query[None])
            times[name].append((time.perf_counter() - start[0], time.thread_time() - start[1]))
    return {name: 1000 * np.array(values[len(queries) // 10 :]) for name, values in times.items()}


def recall(scores: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """Share of the results that are among the true ones, by score."""
    return float((scores >= truth[:, -1:] - MATCH).mean())


def find_peers(
    gallery: NDArray[np.float32],
    queries: NDArray[np.float32],
    truth: NDArray[np.float32],
    need: float,
    folder: Path,
) -> dict[str, Callable[[NDArray[np.float32]], Any]]:
    """Build what other libraries have, say what that took, and return how they are searched."""

    def share(ids: NDArray[np.int64]) -> float:
        return recall(np.einsum("qd,qkd->qk", queries, gallery[ids]), truth)

    found = build_peers(gallery, queries, share, need, folder)
    for peer in found:
        print(
            f"{peer.name}: built in {peer.seconds:.0f} s, {peer.memory:.0f} bytes a vector in memory",
            end=", ",
        )
        print(f"{peer.file:.0f} in its file, breadth {peer.breadth}", end=", ")
        print(f"recall@10 on new queries {share(peer.find(queries)):.3f}", flush=True)
    return {peer.name: peer.find for peer in found}


def main() -> None:
    """Print one block of figures for each factory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "vectors", type=Path, help="student.npy of an index, which the synthetic ones resemble"
    )
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--factory", action="append", help="may be repeated; auto if not given")
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--memory", type=float, default=1.0)
    parser.add_argument(
        "--folder", type=Path, required=True, help="keeps gallery and indexes for the next run"
    )
    parser.add_argument(
        "--no-bare", action="store_true", help="leave the bare calls out: they need more memory"
    )
    parser.add_argument("--peers", action="store_true", help="hnswlib and usearch too, which must be there")
    args = parser.parse_args()
    args.folder.mkdir(exist_ok=True)
    peak = Peak()
    law = Law.fit(np.load(args.vectors, allow_pickle=False))
    gallery = draw_gallery(law, args.count, args.folder)
    queries = np.concatenate(list(law.draw(args.queries, max(args.count // PER_CLUSTER, 1), seed=1)))
    truth_file = args.folder / f"truth-{args.count}-{args.queries}.npy"
    if not truth_file.is_file():
        np.save(truth_file, search_exact(queries, gallery, K)[0])
    truth = np.load(truth_file)
    peers = find_peers(gallery, queries, truth, args.recall, args.folder) if args.peers else {}
    for factory in args.factory or ["auto"]:
        asked = f"{args.recall:g}-{args.memory:g}"  # an index for another need is another one
        file = args.folder / f"{factory.replace(',', '-')}-{args.count}-{asked}.faiss"
        served = build(gallery, factory, SearchTarget(args.recall, args.memory), file, peak)
        size = file.stat().st_size / len(gallery)
        print(f"{served}\n{size:.1f} bytes a vector in the FAISS file")
        faiss.omp_set_num_threads(1)
        searcher = as_searcher(gallery, file, served)
        ways: dict[str, Callable[[NDArray[np.float32]], Any]] = {
            "ours": lambda query, searcher=searcher: searcher.search(query, "student", K)  # type: ignore[misc]
        }
        print(f"recall@10 on new queries {recall(searcher.search(queries, 'student', K).scores, truth):.3f}")
        if not args.no_bare:
            gallery.max()  # the bare call has all vectors in memory, and so has ours now
            bare = as_faiss(gallery, file, served)
            ways["bare"] = lambda query, bare=bare: bare.search(query, K)  # type: ignore[misc]
        times = in_turns(ways | peers, queries)
        for name, values in times.items():
            clock, processor = np.median(values, axis=0)
            print(f"{name}: p50 {clock:.3f} ms, p95 {np.percentile(values[:, 0], 95):.3f} ms", end=", ")
            print(f"of the processor {processor:.3f} ms at p50")
        if "bare" in times:
            clock, processor = np.median(times["ours"], axis=0) / np.median(times["bare"], axis=0)
            print(f"ours / bare at p50 {clock:.3f}, of the processor {processor:.3f}", flush=True)
        print(peak, flush=True)
        faiss.omp_set_num_threads(os.cpu_count() or 1)


if __name__ == "__main__":
    main()
