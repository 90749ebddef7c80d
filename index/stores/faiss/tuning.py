"""Which FAISS index for which need, and how hard it must search to find what exact search finds."""

from dataclasses import dataclass
from itertools import cycle
from math import log2, sqrt

import numpy as np
from numpy.typing import NDArray

from index.errors import needs
from index.io import forget, take
from index.stores.faiss.codes import open_ann
from index.stores.faiss.vector_index import (
    CODE_LISTS,
    EXACT,
    SearchParams,
    VectorIndex,
    build_ann,
    explain_refusal,
    inverted_lists,
    is_graph,
    search_exact,
    set_nprobe,
)
from index.stores.options import AUTO, SearchTarget
from index.stores.records import Space
from index.timing import time_in_turns
from index.vectors import CODES, UNIT_FLOATS, Scored, Vectors, VectorType

with needs("cpu"):
    import faiss

EXACT_FLOATS = 50_000 * 256  # exact search of so many takes about as long as the embedding of one query
EXACT_CODES = 1 << 22  # bytes of codes, likewise
QUERIES = 500  # that recall is measured with
TOGETHER = 32  # of them, searched with before what was mapped for them is let go of
DEPTH = 10  # of that recall
TIMED = 100  # searches that the time of one is the median of
TIMED_FLOATS = 1 << 21  # that exact search is timed on, which takes as long for each vector of more: 8 MiB
# Candidates for each result, falling, where an index keeps no whole vectors. 1 changes no order, but gives
# every result its true score.
REFINE = (32, 16, 8, 4, 2, 1)
MOST_PROBES = 256
LEAST_BREADTH = 32  # a graph finds again what it was made of with less, but not what is new to it
MAX_LISTS = 16_384
GRAPH_LIMIT = 200_000  # vectors; more take longer to join into a graph than they are worth
GRAPH_BYTES = 272  # of links, for each vector
CODES_REACH = 0.98  # above, four bits for two numbers need too many candidates
GIB = 1 << 30


@dataclass(frozen=True)
class TunedIndex:
    """How an index is searched, and what that was measured to bring."""

    factory: str  # FAISS factory string
    asked: float  # the recall that it was asked for
    # @10 against exact search, with items of the gallery that it was not trained on, each without itself.
    recall: float
    probes: int  # `nprobe` of `SearchParams`
    refine: int  # `refine_factor` of `SearchParams`
    milliseconds: float  # median of one search on one core; 0 where a server searches

    def __str__(self) -> str:
        short = f", not the {self.asked:g} asked for" if self.recall < self.asked else ""
        time = f" in {self.milliseconds:.2f} ms" if self.milliseconds else ""
        return f"{self.factory}, recall@10 {self.recall:.3f}{short}{time}"


def count_lists(vectors: int) -> int:
    """How many inverted lists so many vectors are best divided into: about twice the root, a power of two."""
    return min(2 ** round(log2(2 * sqrt(vectors))), MAX_LISTS)


def choose_factory(count: int, dim: int, need: SearchTarget, gpu: bool = False) -> str:
    """Choose a FAISS factory: exact while that is quick, else the quickest that fits memory and device."""
    room = need.memory * GIB / count
    if need.recall == 1 or count * dim <= EXACT_FLOATS or (gpu and room >= 4 * dim):
        return EXACT
    lists = count_lists(count)
    room -= 8 + 4 * dim * (lists + 2 * dim) / count  # each has an id; centres and rotation are shared
    if gpu:
        return f"IVF{lists},SQ8"
    if count <= GRAPH_LIMIT and room >= 4 * dim + GRAPH_BYTES:
        return "HNSW32"
    if need.recall > CODES_REACH and room >= dim:
        return f"IVF{lists},SQ8"
    if dim % 4 == 0 and room >= dim / 4:
        return f"RR{dim},IVF{lists},PQ{dim // 2}x4fs"
    return f"RR{dim},IVF{lists},RaBitQfs"


def name_factory(
    factory: str, count: int, dim: int, need: SearchTarget, kind: VectorType = UNIT_FLOATS
) -> str:
    """The factory string itself, or what `auto` stands for on this machine."""
    if factory == AUTO and kind == CODES:
        scanned = need.recall == 1 or count * dim <= EXACT_CODES
        return EXACT if scanned else f"{CODE_LISTS}{count_lists(count)}"
    return choose_factory(count, dim, need, faiss.get_num_gpus() > 0) if factory == AUTO else factory


def asked_factory(space: Space, count: int) -> str:
    """The factory that an index of so many vectors was asked for, or `auto`.

    What earlier versions were asked for shows only in that they did not choose it themselves.
    """
    chosen = name_factory(AUTO, count, space.dim, SearchTarget(space.asked, space.memory), space.type)
    return space.factory if space.given or space.factory != chosen else AUTO


def build_tuned(
    vectors: Vectors, need: SearchTarget, factory: str = AUTO
) -> tuple[faiss.Index | None, TunedIndex]:
    """Build an index of `(n, dim)` unit rows and find the least effort with which it meets a need.

    They are never all in memory at once. Where no effort reaches the recall, the best there is remains.

    Returns:
        The index, None where the vectors are searched themselves, and how it is to be searched.

    Raises:
        UsageError: FAISS cannot build or search that for these vectors.
    """
    count, dim = vectors.shape
    kind = CODES if vectors.dtype == CODES.dtype else UNIT_FLOATS
    factory = name_factory(factory, count, dim, need, kind)
    if factory == EXACT:
        some = vectors[: max(TIMED_FLOATS // dim, 1)]
        milliseconds = _milliseconds(open_ann(None, some), some[:TIMED], min(DEPTH, len(some)))
        return None, TunedIndex(EXACT, need.recall, 1.0, 0, 0, milliseconds * count / len(some))
    shuffled = np.random.default_rng(0).permutation(count)
    held = min(QUERIES, -(-count // 10))
    index = build_ann(vectors, factory, shuffled[held:])
    with explain_refusal(f"--factory {factory} cannot search vectors of {dim}"):
        return index, tune(index, vectors, np.sort(shuffled[:held]), need.recall, factory)


def tune(
    index: faiss.Index, vectors: Vectors, own: NDArray[np.int64], recall: float, factory: str
) -> TunedIndex:
    """Find the fastest way to search an index of all of `(n, dim)` vectors, in their order, and set it so.

    It reaches the recall@10, less one standard error of its measurement, for `(queries,)` ids of own items.
    """
    k = max(min(DEPTH, len(vectors) - 1), 1)
    queries = take(vectors, own)
    least = _without(own, search_exact(queries, vectors, k + 1), k)[0][:, -1:]

    def shares_found(effort: SearchParams) -> NDArray[np.floating]:
        ann, found = open_ann(index, vectors, effort), []
        for start in range(0, len(queries), TOGETHER):
            found.append(ann.search(queries[start : start + TOGETHER], k + 1))
            forget(vectors)  # of which the candidates of many queries are scattered over all
        scores, ids = map(np.concatenate, zip(*found, strict=True))
        scores, _ = _without(own, (scores, ids), k)
        # By score, not by id: equal vectors may come in any order.
        return (scores >= least - 1e-5).mean(axis=1)

    # What stands inside another index sees vectors that were changed, and its scores are of those.
    whole = isinstance(index, faiss.IndexBinary | faiss.IndexHNSWFlat | faiss.IndexIVFFlat)
    ladder, first = _probes(index), 0
    enough: list[SearchParams] = []
    measured: dict[SearchParams, float] = {}
    for refine in (0,) if whole else REFINE:  # falling: fewer candidates need as many probes or more
        for place in range(first, len(ladder)):
            effort = SearchParams(ladder[place], refine)
            shares = shares_found(effort)
            measured[effort] = float(shares.mean())
            if shares.mean() - shares.std() / sqrt(len(shares)) >= recall:
                enough.append(effort)
                first = place
                break
        else:
            break
    timed = {}
    for effort in enough or [max(measured, key=measured.__getitem__)]:
        timed[effort] = _milliseconds(open_ann(index, vectors, effort), queries, k + 1)
        forget(vectors)
    effort = min(timed, key=timed.__getitem__)
    set_nprobe(index, effort.nprobe)
    return TunedIndex(factory, recall, measured[effort], effort.nprobe, effort.refine_factor, timed[effort])


def _probes(index: faiss.Index) -> list[int]:
    """Efforts to try, rising by about half."""
    lists = inverted_lists(index)
    if lists is None and not is_graph(index):
        return [0]
    least, most = (LEAST_BREADTH, 16 * LEAST_BREADTH) if lists is None else (1, min(MOST_PROBES, lists.nlist))
    steps = range(2 * (most // least).bit_length())
    return sorted({min(most, round(least * 2 ** (step / 2))) for step in steps})


def _milliseconds(ann: VectorIndex, queries: Vectors, k: int) -> float:
    """Median time of one search on one core, warmed up."""
    threads, some = faiss.omp_get_max_threads(), queries[:TIMED]
    turns = cycle(some[:, None])
    faiss.omp_set_num_threads(1)
    try:
        return float(time_in_turns([lambda: ann.search(next(turns), k)], len(some), TIMED // 10)[0])
    finally:
        faiss.omp_set_num_threads(threads)


def _without(own: NDArray[np.int64], found: Scored, k: int) -> Scored:
    """Take each query's own item out of what it found, and keep k of the rest."""
    scores, ids = found
    rest = np.argsort(ids == own[:, None], axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, rest, 1), np.take_along_axis(ids, rest, 1)
