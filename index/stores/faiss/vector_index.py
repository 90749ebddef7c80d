"""FAISS: build an index, write and read it, search it, and order what it found by the stored vectors."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.errors import RetrievalError, UsageError, needs
from index.io import Release, chunks, take
from index.vectors import CODES, Ids, Scored, Scores, Vectors

with needs("cpu"):
    import faiss

EXACT = "Flat"  # the factory of no index: the stored vectors themselves are searched, without a second copy
CODE_LISTS = "BIVF"  # begins the factory of inverted lists of codes
CHUNK = 50_000  # vectors read at a time: bounds the memory
TRAIN_PER_LIST = 40  # vectors that the centre of each list is learnt from
LEAST_TRAINING = 65_536
METRIC = faiss.METRIC_INNER_PRODUCT  # of `UNIT_FLOATS`
KMEANS_ROUNDS = 10
QUERY_BITS = 8  # of RaBitQ's rounding of the query
FEW = 20_000  # vectors that are searched exactly as quickly as any index searches more
MAPPED_FROM = 1 << 28  # bytes of an index file that is mapped; a smaller one is a tenth faster from memory
LEAST_DEPTH = 10  # an index is tuned at this depth; fewer results need as many candidates
FAR = 128  # candidates for each result where all that is wanted lies far away: codes tell little of it
MOST_READ = 4096  # candidates whose vectors one search of many queries reads before they are let go of
TAKES_FILTER = faiss.IndexIVF | faiss.IndexPreTransform
GPU_DEPTH = 2048  # results that FAISS finds on a GPU at most


@dataclass(frozen=True)
class SearchParams:
    """How hard an index searches."""

    nprobe: int = 0  # lists that are visited, or the breadth of a search in a graph; 0: no choice
    # Candidates for each result, which the stored vectors then score; 0 where the index keeps whole vectors.
    refine_factor: int = 0


class VectorIndex:
    """A FAISS index together with the vectors it was made of: row i of them is its item i."""

    def __init__(
        self,
        index: faiss.Index | None,
        vectors: Vectors,
        effort: SearchParams | None = None,
        device: str = "cpu",
        rescore: int = 0,
    ) -> None:
        """Join an index, or none, and its vectors; `auto` or `cuda` moves it to the GPU where FAISS can.

        Of codes so many results are ordered again by the floats of the query, to `rescore` them.
        """
        self.vectors, self.rescore = vectors, rescore
        self.effort = effort or SearchParams()
        if index is not None:
            set_nprobe(index, self.effort.nprobe)
        self.index = to_device(index, vectors, device)
        self._on_gpu = self.index is not index
        self._release = Release(vectors)

    def search(self, queries: Vectors, k: int, keep: NDArray[np.bool_] | None = None) -> Scored:
        """Find the k nearest of `(n, dim)` queries; `keep`, `(items,)`, says whether an item may be found."""
        require_length(queries, self.vectors)
        queries = np.ascontiguousarray(queries, self.vectors.dtype)
        rows = selector = params = None
        if keep is not None:
            rows = np.flatnonzero(keep)
            if len(rows) <= FEW:
                return search_exact(queries, self.vectors, k, rows)
            selector = faiss.IDSelectorBitmap(np.packbits(keep, bitorder="little"))
        if self.index is None:
            return search_all(queries, self.vectors, k, selector)
        if rows is not None:
            # The nearest of a share lie farther away than those of all: as many must be met on the way.
            params = self._parameters(selector, -(-len(self.vectors) // len(rows)))
        refine = self.effort.refine_factor
        depth = min(max(k, LEAST_DEPTH) * refine if refine else k, len(self.vectors))
        if (rows is not None and params is None) or (self._on_gpu and depth > GPU_DEPTH):
            return search_exact(queries, self.vectors, k, rows)
        try:
            scores, ids = self.index.search(queries, depth, params=params)
        except RuntimeError:
            if params is None:
                raise
            return search_exact(queries, self.vectors, k, rows)  # this kind of lists takes no filter
        enough = min(k, depth) if rows is None else min(depth, len(rows))
        lacking = np.flatnonzero(ids[:, enough - 1] < 0)  # near them is less than that, or hardly any is kept
        if refine:
            scores, ids = self.order_again(queries, ids, k)
        scores[ids < 0] = -np.inf
        if len(lacking):
            found = self._search_everywhere(queries[lacking], ids.shape[1], selector, rows)
            scores[lacking], ids[lacking] = found
        return scores, ids

    def order_again(self, queries: Vectors, ids: Ids, k: int) -> Scored:
        """As the function `order_again`, by the vectors of this index, of which few stay mapped."""
        if len(queries) > 1 and ids.size > MOST_READ:
            halves = zip(np.array_split(queries, 2), np.array_split(ids, 2), strict=True)
            found = [self.order_again(*half, k) for half in halves]
            scores, best = map(np.concatenate, zip(*found, strict=True))
        else:
            scores, best = order_again(queries, ids, self.vectors, k)
        self._release(ids.size > MOST_READ)
        return scores, best

    def _search_everywhere(
        self, queries: Vectors, k: int, selector: "faiss.IDSelector | None", rows: Ids | None
    ) -> Scored:
        """Search all lists, or all vectors where there are none."""
        assert self.index is not None  # without one nothing is lacking
        lists = inverted_lists(self.index)
        params = None if lists is None else self._parameters(selector, len(self.vectors))
        if params is None:
            return search_exact(queries, self.vectors, k, rows)
        depth = min(FAR * max(k, LEAST_DEPTH), len(self.vectors))
        return order_again(queries, self.index.search(queries, depth, params=params)[1], self.vectors, k)

    def _parameters(self, selector: "faiss.IDSelector | None", wider: int) -> "faiss.SearchParameters | None":
        """FAISS's parameters of a search among some, so much wider; None where this index takes none."""
        if isinstance(self.index, faiss.IndexHNSW):
            return faiss.SearchParametersHNSW(sel=selector, efSearch=self.index.hnsw.efSearch * wider)
        lists = inverted_lists(self.index) if isinstance(self.index, TAKES_FILTER) else None
        if lists is None:  # on a GPU, or a factory string that is not one of ours
            return None
        nprobe = min(lists.nprobe * wider, lists.nlist)
        if isinstance(lists, faiss.IndexIVFRaBitQ | faiss.IndexIVFRaBitQFastScan):
            inner = faiss.IVFRaBitQSearchParameters(sel=selector, nprobe=nprobe, qb=lists.qb)
        else:
            inner = faiss.SearchParametersIVF(sel=selector, nprobe=nprobe)
        if isinstance(self.index, faiss.IndexPreTransform):
            return faiss.SearchParametersPreTransform(index_params=inner)
        return inner


def require_length(queries: Vectors, vectors: Vectors) -> None:
    """Raise UsageError for `(n, dim)` queries of another length than vectors."""
    if (given := queries.shape[1]) != (dim := vectors.shape[1]):
        raise UsageError(
            f"A query of {given} numbers does not search vectors of {dim}. Give the model of these."
        )


def order_again(queries: Vectors, ids: Ids, vectors: Vectors, k: int) -> Scored:
    """Order candidates by the stored vectors and keep the best k.

    Queries are `(n, dim)`, ids `(n, candidates)`, -1 at the end of a row is none; of the vectors, which are
    contiguous, only those of the candidates are read.
    """
    require_length(queries, vectors)  # FAISS would read on, past the memory
    queries, ids = np.ascontiguousarray(queries, vectors.dtype), np.ascontiguousarray(ids, np.int64)
    (count, dim), candidates, point = queries.shape, ids.shape[1], faiss.swig_ptr
    scores, best = np.empty((count, k), np.float32), np.empty((count, k), np.int64)
    given, found = (point(queries), point(vectors), point(ids)), (point(scores), point(best))
    faiss.knn_inner_products_by_idx(*given, dim, count, len(vectors), candidates, k, *found, candidates)
    np.putmask(scores, best < 0, -np.inf)
    return scores, best


def search_exact(queries: Vectors, vectors: Vectors, k: int, rows: Ids | None = None) -> Scored:
    """Search exactly, all items or only those `(m,)` rows, in chunks, and leave no vectors in memory."""
    queries = np.ascontiguousarray(queries, vectors.dtype)
    best = faiss.ResultHeap(len(queries), k, keep_max=True)
    if rows is None:
        parts = chunks(vectors, CHUNK)
    else:
        parts = (take(vectors, rows[start : start + CHUNK]) for start in range(0, len(rows), CHUNK))
    start = 0
    for some in parts:
        scores, places = search_all(queries, some, min(k, len(some)))
        best.add_result(scores, places + start if rows is None else rows[places + start])
        start += len(some)
    best.finalize()
    best.D[best.I < 0] = -np.inf
    return best.D, best.I


def search_all(queries: Vectors, vectors: Vectors, k: int, keep: "faiss.IDSelector | None" = None) -> Scored:
    """Exact search of contiguous vectors where they are, as FAISS's own flat index does it."""
    if vectors.dtype == CODES.dtype:
        distances, ids = faiss.knn_hamming(queries, vectors, k, variant="mc")
        return as_scores(distances, ids, vectors), ids
    scores, ids = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    given, found = map(faiss.swig_ptr, (queries, vectors)), map(faiss.swig_ptr, (scores, ids))
    faiss.knn_inner_product(*given, vectors.shape[1], len(queries), len(vectors), k, *found, keep)
    np.putmask(scores, ids < 0, -np.inf)
    return scores, ids


def as_scores(distances: NDArray[np.number], ids: Ids, codes: Vectors) -> Scores:
    """Scores, as `CODES` has them, of `(n, k)` Hamming distances."""
    bits = np.float32(8 * codes.shape[1])
    return np.where(ids < 0, np.float32(-np.inf), (bits - 2 * distances.astype(np.float32)) / bits)


def build_ann(vectors: Vectors, factory: str, training: Ids | None = None) -> faiss.Index | None:
    """Build an index of `(n, dim)` vectors, chunk by chunk; None for `EXACT`, which needs none.

    `training` are `(m,)` ids of items it may be trained on, None is all; no more are read than it needs.

    Raises:
        UsageError: FAISS does not know the factory, or it does not fit these vectors.
    """
    if factory == EXACT:
        return None
    count, dim = vectors.shape
    allowed = np.arange(count) if training is None else training
    with explain_refusal(f"--factory {factory} cannot index {count} vectors of {dim}"):
        index, enough = _make(factory, dim), LEAST_TRAINING
        if (lists := inverted_lists(index)) is not None:  # bounds the time that training takes
            lists.cp.niter, lists.cp.max_points_per_centroid = KMEANS_ROUNDS, TRAIN_PER_LIST
            lists.cp.min_points_per_centroid = 1  # a warning less
            enough = max(enough, TRAIN_PER_LIST * lists.nlist)
            if hasattr(lists, "qb"):
                lists.qb = QUERY_BITS
        if not index.is_trained:
            index.train(take(vectors, np.sort(allowed[:enough])))
        for some in chunks(vectors, CHUNK):
            index.add(some)
    return index


def inverted_lists(index: faiss.Index) -> "faiss.IndexIVF | None":
    """The inverted lists in an index, as the class they are, if it has any."""
    if isinstance(index, faiss.IndexBinary):
        return index
    lists = faiss.try_extract_index_ivf(index)
    return None if lists is None else faiss.downcast_index(lists)


def is_graph(index: faiss.Index) -> bool:
    """Whether an index, or what is inside one that changes or refines vectors, searches an HNSW graph."""
    while isinstance(index, faiss.IndexPreTransform | faiss.IndexRefine):
        inner = index.index if isinstance(index, faiss.IndexPreTransform) else index.base_index
        index = faiss.downcast_index(inner)
    return isinstance(index, faiss.IndexHNSW)


def set_nprobe(index: faiss.Index, nprobe: int) -> None:
    """Set how many lists an index visits, or how broadly it searches its graph; 0 leaves it as it is."""
    if not nprobe:
        return
    if isinstance(index, faiss.IndexBinary):
        index.nprobe = nprobe
        return
    name = "nprobe" if inverted_lists(index) is not None else "efSearch"
    faiss.ParameterSpace().set_index_parameter(index, name, nprobe)


def use_gpu(device: str, gpus: int, kind: str) -> bool:
    """Whether FAISS's GPUs take classes of index, named by `kind`: they have neither graphs nor fast scan."""
    return device != "cpu" and gpus > 0 and not any(name in kind for name in ("HNSW", "FastScan", "RaBitQ"))


def to_device(index: faiss.Index | None, vectors: Vectors, device: str) -> faiss.Index | None:
    """Move an index, or the vectors that need none, to the GPU where that is wanted and possible."""
    moved = faiss.IndexFlatIP(vectors.shape[1]) if index is None else index
    kind = f"{type(moved).__name__} {type(inverted_lists(moved)).__name__}"
    if not use_gpu(device, faiss.get_num_gpus(), kind):
        return index
    moved = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, moved)
    if index is None:
        for some in chunks(vectors, CHUNK):
            moved.add(some)
    return moved


def write_ann(index: faiss.Index, path: Path) -> None:
    """Write an index to a file."""
    write = faiss.write_index_binary if isinstance(index, faiss.IndexBinary) else faiss.write_index
    write(index, str(path))


def read_ann(path: Path, codes: bool = False) -> faiss.Index:
    """Read what `write_ann` wrote; of a large one, pages come into memory as they are searched."""
    try:
        if codes:
            return faiss.read_index_binary(str(path))
        mapped = path.stat().st_size >= MAPPED_FROM
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    except (OSError, RuntimeError) as error:
        raise RetrievalError(f"{path} cannot be read. Index the images again.") from error


def check_factory(factory: str, dim: int) -> None:
    """Raise UsageError, before any work, if FAISS does not know a factory for vectors of this length."""
    with explain_refusal(f"--factory {factory} cannot index vectors of {dim}"):
        _make(factory, dim)


def _make(factory: str, dim: int) -> faiss.Index:
    """Make an empty index that takes vectors by their order, and can be written and read again."""
    if found := re.search(r"[A-Za-z]+(-\d+|0+(?![\d.]))|(HNSW|NSG)1(?!\d)", factory):
        raise RuntimeError(f"{found[0]} is too small a number")
    if factory.startswith(CODE_LISTS):
        return faiss.index_binary_factory(8 * dim, factory)
    index = faiss.index_factory(dim, factory, METRIC)
    if isinstance(index, faiss.IndexIDMap):
        raise RuntimeError("IDMap takes ids, and vectors have none here")
    if isinstance(index, faiss.IndexLattice):
        raise RuntimeError("FAISS writes a lattice, but does not read it again")
    return index


@contextmanager
def explain_refusal(what: str) -> Iterator[None]:
    """Turn what FAISS refuses into one UsageError: what, why in its own words, and the remedy."""
    try:
        yield
    except RuntimeError as error:
        reason = re.split(r"\.(?:cpp|h):\d+: ", " ".join(str(error).split()))[-1]
        raise UsageError(f"{what}: {reason}. Give another, or leave it at auto.") from error
