"""Which index a Milvus server shall build for which target, and how hard it must search."""

from collections.abc import Mapping
from dataclasses import replace
from math import log2, sqrt
from typing import Any

import numpy as np

from index.errors import RetrievalError
from index.stores.faiss.tuning import (
    CODES_REACH,
    DEPTH,
    EXACT_FLOATS,
    GIB,
    GRAPH_BYTES,
    GRAPH_LIMIT,
    MAX_LISTS,
    TunedIndex,
)
from index.stores.milvus.store import MilvusIndex, MilvusSpace
from index.stores.options import SearchTarget
from index.vectors import Scores

EFFORTS = (32, 48, 64, 96, 128, 192, 256, 384, 512)  # breadth of a graph, or lists to visit
HARDEST = 2048
MOST_GROWTH = 4
QUERIES = 200  # that recall is measured with
TOGETHER = 10  # of them in one request: their answers may hold many whole vectors
DEEP = 10  # times as many results as are wanted, of which the best are taken for the nearest there are


def choose_index(count: int, dim: int, target: SearchTarget) -> tuple[str, dict[str, Any]]:
    """Choose type and parameters of an index of `(count, dim)` vectors: exact while that is quick."""
    room = target.memory * GIB / count
    if target.recall == 1 or count * dim <= EXACT_FLOATS:
        return "FLAT", {}
    if count <= GRAPH_LIMIT and room >= 4 * dim + GRAPH_BYTES:
        return "HNSW", {"M": 32, "efConstruction": 128}
    lists = {"nlist": min(2 ** round(log2(2 * sqrt(count))), MAX_LISTS)}
    if target.recall > CODES_REACH and room >= dim:
        return "IVF_SQ8", lists
    if room >= dim / 4:
        return "SCANN", lists | {"with_raw_data": "true"}  # the server takes no True
    parts = next(parts for parts in range(max(dim // 8, 1), 0, -1) if dim % parts == 0)
    return "IVF_PQ", lists | {"m": parts, "nbits": 8}


def serves(there: Mapping[str, Any] | None, kind: str, params: Mapping[str, Any]) -> bool:
    """Whether an index, as the server describes it, still does for what `choose_index` would choose now."""
    if there is None or there["index_type"] != kind:
        return False
    # Of a gallery that has grown, lists become long; up to so many times they are not worth a new index.
    return MOST_GROWTH * int(there.get("nlist", MAX_LISTS)) >= int(params.get("nlist", 0))


def tune(index: MilvusIndex, space: str, kind: str, target: SearchTarget) -> TunedIndex:
    """Find the least effort that reaches the recall, measured against what the most finds, and deeper."""
    if kind == "FLAT":
        return TunedIndex(kind, target.recall, 1.0, 0, 0, 0.0)
    k, made = DEPTH + 1, index.written.spaces[space]  # each query finds itself
    rows = index.client.query(
        index.name(space), filter='digest >= ""', limit=QUERIES, output_fields=["vector"]
    )
    queries = np.array([row["vector"] for row in rows], made.dtype)

    def search(k: int, effort: int, together: int) -> Scores:
        searched = MilvusSpace(index, space, replace(made, factory=kind, probes=effort))
        parts = range(0, len(queries), together)
        return np.concatenate([searched.nearest(queries[i : i + together], k)[0] for i in parts])

    least = search(DEEP * k, HARDEST, 1)[:, k - 1 : k]
    if not np.isfinite(least).all():
        raise RetrievalError("The server finds too few of its vectors. Index again once it is at rest.")
    recall = 0.0
    for effort in EFFORTS:
        recall = float((search(k, effort, TOGETHER) >= least - 1e-5)[:, 1:].mean())
        if recall >= target.recall:
            break
    return TunedIndex(kind, target.recall, recall, effort, 0, 0.0)
