"""Look after an index folder: say what it is, check all of it, drop what is gone."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from index.io import chunks
from index.stores.faiss.vector_index import EXACT, SearchParams, VectorIndex, search_exact
from index.stores.folder import Index
from index.stores.records import CHUNK, UNFINISHED
from index.vectors import Vectors

SAMPLE = 200  # vectors that a FAISS file is asked for
SLACK = 0.02  # recall that may be lost from one measurement to the next


@dataclass(frozen=True)
class SpaceFacts:
    """What is told about one set of vectors.

    Attributes:
        model: Name of the embedder.
        key: Its identity.
        dim: Length of the vectors.
        factory: FAISS factory string.
        recall: Recall@10 against exact search, as measured when it was built.
        milliseconds: Median of one search on one core, likewise.
        bytes_per_vector: In the FAISS file; 0 where there is none, and the vectors are searched themselves.
    """

    model: str
    key: str
    dim: int
    factory: str
    recall: float
    milliseconds: float
    bytes_per_vector: float


@dataclass(frozen=True)
class IndexFacts:
    """What is told about an index."""

    path: str
    created: str
    sources: list[str]
    images: int
    copies: int
    refused: int
    megabytes: float
    teacher: str | None
    unfinished_run: bool
    spaces: dict[str, SpaceFacts]

    def __str__(self) -> str:
        """The facts for people, one a line."""
        lines = [
            f"images       {self.images} in {self.images + self.copies} files; {self.refused} files refused",
            f"sources      {', '.join(self.sources)}",
            f"written      {self.created}, {self.megabytes:.1f} MB",
        ]
        lines += [
            f"{name:12} {space.model}, {space.dim} dimensions; {space.factory}, "
            f"recall@10 {space.recall:.3f} in {space.milliseconds:.2f} ms, "
            f"{space.bytes_per_vector:.0f} bytes a vector"
            for name, space in self.spaces.items()
        ]
        if self.unfinished_run:
            lines.append("unfinished   a run was begun and not completed: see `retrieval index --resume`")
        return "\n".join(lines)


def describe_index(path: Path) -> IndexFacts:
    """Say what an index is, from its manifest alone.

    Raises:
        UsageError: There is none.
    """
    manifest = Index(path).manifest
    return IndexFacts(
        str(path),
        manifest.created,
        manifest.sources,
        manifest.count,
        manifest.copies,
        manifest.failed,
        sum(file.size for file in manifest.files.values()) / 1e6,
        manifest.teacher,
        (path / UNFINISHED).is_dir(),
        {
            name: SpaceFacts(
                space.name,
                space.key,
                space.dim,
                space.factory,
                space.recall,
                space.milliseconds,
                manifest.files[f"{name}.faiss"].size / manifest.count if space.factory != EXACT else 0.0,
            )
            for name, space in manifest.spaces.items()
        },
    )


def verify_index(path: Path) -> list[str]:
    """Read all of an index and check it: files, tables, vectors, and that FAISS finds them.

    Returns:
        Each fault in a line.

    Raises:
        UsageError: There is no index, or its manifest is damaged.
    """
    index = Index(path)
    if faults := list(index.faults()):
        return faults  # nothing else could be believed
    return [
        *_check_tables(index),
        *(fault for name in index.manifest.spaces for fault in _check_space(index, name)),
    ]


def _check_tables(index: Index) -> Iterator[str]:
    manifest = index.manifest
    count = copies = 0
    digests: set[str] = set()
    paths: set[str] = set()
    for item in index.iter_items():
        count, copies = count + 1, copies + len(item.copies)
        digests.add(item.digest)
        paths.update(file.path for file in item.files)
    if (count, copies) != (manifest.count, manifest.copies):
        yield f"{count} items and {copies} copies, not {manifest.count} and {manifest.copies}"
    if len(digests) < count:
        yield f"{count - len(digests)} items have the content of another"
    if len(paths) < count + copies:
        yield f"{count + copies - len(paths)} paths are there twice"
    if len(index.failures) != manifest.failed:
        yield f"{len(index.failures)} refused files, not {manifest.failed}"


def _check_space(index: Index, name: str) -> Iterator[str]:
    space, vectors, ann = index.manifest.spaces[name], index.vectors(name), index.ann(name)
    if vectors.shape != (len(index), space.dim):
        yield f"{name}: vectors {vectors.shape}, not {(len(index), space.dim)}"
        return
    wrong = sum(int(space.type.is_damaged(some).sum()) for some in chunks(vectors, CHUNK))
    if wrong:
        yield f"{name}: {wrong} vectors are not of unit length"
    if ann is None:
        return
    if (ann.ntotal, ann.d) != vectors.shape:
        yield f"{name}: the FAISS file has {ann.ntotal} vectors of {ann.d}, not {vectors.shape}"
    elif (
        recall := _recall_by_ids(VectorIndex(ann, vectors, SearchParams(space.probes, space.refine)), vectors)
    ) < space.recall - SLACK:
        yield f"{name}: the FAISS file finds {recall:.3f} of what is nearest, not {space.recall:.3f}"


def _recall_by_ids(ann: VectorIndex, vectors: Vectors) -> float:
    """Recall of an index, with the ids that it finds scored by the stored vectors: whether it is of these."""
    rows = np.unique(np.linspace(0, len(vectors) - 1, SAMPLE).astype(int))
    queries, k = vectors[rows], max(min(10, len(vectors) // 4), 1)
    worst = search_exact(queries, vectors, k)[0][:, -1:]
    ids = ann.search(queries, k)[1]
    scores, ids = ann.order_again(queries, ids, k)
    return float(((scores >= worst - 1e-5) & (ids >= 0)).mean())
