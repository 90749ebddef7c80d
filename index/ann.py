"""FAISS: which index for how many vectors, build it, measure it, search it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.errors import RetrievalError, UsageError, needs

with needs("cpu"):
    import faiss

EXACT_LIMIT = 50_000  # up to here exact search takes about as long as the embedding of one query


def choose_factory(count: int) -> str:
    """Choose a FAISS factory string for `count` vectors: exact while that is quick, then a graph."""
    return "Flat" if count <= EXACT_LIMIT else "HNSW32"


def build_ann(vectors: NDArray[np.float32], factory: str) -> faiss.Index:
    """Build an inner-product index.

    Args:
        vectors: `(n, dim)` unit rows.
        factory: A FAISS factory string.

    Raises:
        UsageError: FAISS does not know the factory, or it does not fit these vectors.
    """
    count, dim = vectors.shape
    try:
        ann = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
        if not ann.is_trained:
            ann.train(np.ascontiguousarray(vectors))
        for start in range(0, count, 100_000):
            ann.add(np.ascontiguousarray(vectors[start : start + 100_000]))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UsageError(f"--factory {factory} cannot index {count} vectors of {dim}: {reason}") from error
    return ann


def measure_recall(ann: faiss.Index, vectors: NDArray[np.float32], k: int = 10, sample: int = 200) -> float:
    """Recall@k of an index against exact search, with some of its own vectors as queries.

    Args:
        ann: An index of all of `vectors`, in their order.
        vectors: `(n, dim)`.
        k: Depth.
        sample: How many queries.
    """
    chosen = np.random.default_rng(0).choice(len(vectors), min(sample, len(vectors)), replace=False)
    queries = np.ascontiguousarray(vectors[np.sort(chosen)])
    k = min(k, len(vectors))
    truth = search_exact(queries, vectors, k)[0]
    found, _ = ann.search(queries, k)
    # By score, not by id: equal vectors may come in any order.
    return float((found >= truth[:, -1:] - 1e-5).mean())


def search_exact(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Exact inner-product search: `(n, k)` scores and ids."""
    return faiss.knn(queries, np.ascontiguousarray(vectors), k, metric=faiss.METRIC_INNER_PRODUCT)


def use_gpu(device: str, gpus: int, kind: str) -> bool:
    """Whether to search on a GPU.

    Args:
        device: `auto`, `cpu` or `cuda`.
        gpus: How many this build of FAISS sees.
        kind: Class of the index. FAISS has no HNSW for GPUs.
    """
    return device != "cpu" and gpus > 0 and "HNSW" not in kind


def to_device(ann: faiss.Index, device: str) -> faiss.Index:
    """Move an index to the GPU where that is wanted and possible."""
    gpus = faiss.get_num_gpus()
    if not use_gpu(device, gpus, type(ann).__name__):
        return ann
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, ann)


def write_ann(ann: faiss.Index, path: Path) -> None:
    """Write an index to a file."""
    faiss.write_index(ann, str(path))


def read_ann(path: Path) -> faiss.Index:
    """Read what `write_ann` wrote.

    Raises:
        RetrievalError: The file is missing or broken.
    """
    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        raise RetrievalError(f"{path} cannot be read. Index the images again.") from error


def check_factory(factory: str, dim: int) -> None:
    """Raise UsageError, before any work, if FAISS does not know a factory for vectors of this length."""
    try:
        faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UsageError(f"--factory {factory} cannot index vectors of {dim}: {reason}") from error
