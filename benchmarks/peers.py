"""Graphs of other libraries over the same vectors, for `benchmarks/search.py --peers`: hnswlib and usearch.

Both keep whole vectors in memory. Each is built with its own defaults, and searched with the least effort
that finds as large a share of the ten nearest as was asked for.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

K = 10
EFFORTS = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
CHUNK = 20_000  # vectors that are added at a time
Vectors = NDArray[np.float32]
Find = Callable[[Vectors], NDArray[np.int64]]  # ids of the ten nearest of `(n, dim)` queries


@dataclass(frozen=True)
class Peer:
    """A graph that was built.

    Attributes:
        name: Of its library, with the version.
        seconds: That it took to build, on all cores.
        memory: Bytes a vector that the process grew by.
        file: Bytes a vector as it is written.
        find: Searches on one core.
        breadth: Of the search.
    """

    name: str
    seconds: float
    memory: float
    file: float
    find: Find
    breadth: int


def build_peers(gallery: Vectors, queries: Vectors, share: Callable[[NDArray[np.int64]], float],
                recall: float, folder: Path) -> list[Peer]:  # fmt: skip
    """Build both, and search them just hard enough: `share` says how many of the nearest some ids are."""
    peers = []
    for make in (_hnswlib, _usearch):
        before, start = _memory(), time.perf_counter()
        name, find, set_breadth, save = make(gallery)
        seconds = time.perf_counter() - start
        memory = (_memory() - before) / len(gallery)
        for breadth in EFFORTS:
            set_breadth(breadth)
            if share(find(queries)) >= recall:
                break
        file = folder / name.replace(" ", "-")
        save(str(file))
        size = file.stat().st_size / len(gallery)
        file.unlink()
        peers.append(Peer(name, seconds, memory, size, find, breadth))
    return peers


Made = tuple[str, Find, Callable[[int], None], Callable[[str], None]]


def _hnswlib(gallery: Vectors) -> Made:
    import hnswlib

    graph = hnswlib.Index(space="ip", dim=gallery.shape[1])
    graph.init_index(max_elements=len(gallery))  # M 16, ef_construction 200
    for start in range(0, len(gallery), CHUNK):
        graph.add_items(gallery[start : start + CHUNK], num_threads=os.cpu_count())

    def find(queries: Vectors) -> NDArray[np.int64]:
        return graph.knn_query(queries, K, num_threads=1)[0].astype(np.int64)

    return "hnswlib", find, graph.set_ef, graph.save_index


def _usearch(gallery: Vectors) -> Made:
    from usearch import __version__
    from usearch.index import Index

    graph = Index(ndim=gallery.shape[1], metric="ip", dtype="f32")  # connectivity 16, expansion_add 128
    for start in range(0, len(gallery), CHUNK):
        some = np.ascontiguousarray(gallery[start : start + CHUNK])
        graph.add(np.arange(start, start + len(some)), some, threads=os.cpu_count() or 1)

    def find(queries: Vectors) -> NDArray[np.int64]:
        return np.atleast_2d(graph.search(queries, K, threads=1).keys).astype(np.int64)

    def set_breadth(breadth: int) -> None:
        graph.expansion_search = breadth  # type: ignore[misc, unused-ignore]

    def save(file: str) -> None:
        graph.save(file)

    return f"usearch {__version__}", find, set_breadth, save


def _memory() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
