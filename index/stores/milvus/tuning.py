"""Which index a Milvus server shall build for which need, and how hard it must search."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from index.errors import RetrievalError
from index.stores.faiss_tuning import DEPTH, MAX_LISTS, TunedIndex, choose_factory
from index.stores.options import SearchTarget
from index.stores.records import Space
from index.vectors import Vectors

EFFORTS = (32, 48, 64, 96, 128, 192, 256, 384, 512)  # breadth of a graph, or lists to visit
HARDEST = 2048
REORDERED = 20  # candidates for each result that SCANN orders by the whole vectors
MOST_GROWTH = 4
QUERIES = 200  # that recall is measured with
DEEP = 10  # times as many results as are wanted, of which the best are taken for the nearest there are
# A server that knows a vector by its code alone finds so many times more, which are ordered by whole vectors.
WIDE = {"IVF_SQ8": 2, "IVF_PQ": 20}

Search = Callable[[Vectors, int, Mapping[str, int]], Vectors]


def choose_index(count: int, dim: int, need: SearchTarget) -> tuple[str, dict[str, Any]]:
    """Choose type and parameters of an index, as `choose_factory` does of a FAISS index.

    Args:
        count: Vectors.
        dim: Their length.
        need: What is asked of the index.
    """
    factory = choose_factory(count, dim, need)
    if factory == "Flat":
        return "FLAT", {}
    if factory.startswith("HNSW"):
        return "HNSW", {"M": 32, "efConstruction": 128}
    lists = {"nlist": min(int(factory.split("IVF")[1].split(",")[0]), MAX_LISTS)}
    if "SQ8" in factory:
        return "IVF_SQ8", lists
    if "x4fs" in factory:
        return "SCANN", lists | {"with_raw_data": "true"}  # the server takes no True
    parts = next(parts for parts in range(max(dim // 8, 1), 0, -1) if dim % parts == 0)
    return "IVF_PQ", lists | {"m": parts, "nbits": 8}  # as many bytes as RaBitQ takes


def serves(there: Mapping[str, Any] | None, kind: str, params: Mapping[str, Any]) -> bool:
    """Whether an index, as the server describes it, still does for what `choose_index` would choose now."""
    if there is None or there["index_type"] != kind:
        return False
    # Of a gallery that has grown, lists become long; up to so many times they are not worth a new index.
    return MOST_GROWTH * int(there.get("nlist", MAX_LISTS)) >= int(params.get("nlist", 0))


def search_params(made: Space, k: int) -> dict[str, int]:
    """What the server is told with each search for k results."""
    return _params(made.factory, made.probes, k)


def how_wide(kind: str) -> int:
    """How many times more a server with such an index shall find than is wanted."""
    return WIDE.get(kind, 1)


def tune(kind: str, queries: Vectors, search: Search, need: SearchTarget) -> TunedIndex:
    """Find the least effort that a need takes, measured against what the most finds, and deeper.

    Args:
        kind: Type of the index.
        queries: `(n, dim)` stored vectors to search with, each without itself.
        search: Returns `(n, k)` similarities of whole vectors, falling, for queries, k and parameters.
        need: What is asked.

    Raises:
        RetrievalError: The server does not find what it holds.
    """
    if kind == "FLAT":
        return TunedIndex(kind, need.recall, 1.0, 0, 0, 0.0)
    k = DEPTH + 1
    deep = np.concatenate(
        [search(some[None], DEEP * k, _params(kind, HARDEST, DEEP * k)) for some in queries]
    )
    least = deep[:, k - 1 : k]
    if not np.isfinite(least).all():
        raise RetrievalError("The server finds too few of its vectors. Index again once it is at rest.")
    recall = 0.0
    for effort in EFFORTS:
        recall = float((search(queries, k, _params(kind, effort, k)) >= least - 1e-5)[:, 1:].mean())
        if recall >= need.recall:
            break
    return TunedIndex(kind, need.recall, recall, effort, 0, 0.0)


def _params(kind: str, effort: int, k: int) -> dict[str, int]:
    if kind == "FLAT":
        return {}
    if kind == "HNSW":
        return {"ef": max(effort, k)}
    return {"nprobe": effort} | ({"reorder_k": REORDERED * k} if kind == "SCANN" else {})
