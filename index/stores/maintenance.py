"""Look after a gallery: say what it is, and check all of it."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from index.progress import count
from index.stores.base import Store
from index.stores.folder import LATER
from index.stores.registry import open_store

SAMPLE = 200  # vectors that are searched for
SLACK = 0.02  # recall that may be lost from one measurement to the next


@dataclass(frozen=True)
class SpaceFacts:
    """What is told about one set of vectors."""

    model: str  # name of the embedder
    key: str  # its identity
    dim: int
    bits: int  # of a code; 0 where its vectors are none
    rescore: int  # results that the floats of a query order again
    factory: str  # FAISS factory string, or a server's type of index
    asked: float  # the recall that it was asked for
    recall: float  # @10 against exact search, as measured when it was built
    milliseconds: float  # median of one search on one core, likewise; 0 where a server searches
    bytes_per_vector: float  # of what is searched; 0 on a server


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
    columns: list[str]  # of metadata
    parts: int  # two after an update of a large index

    def __str__(self) -> str:
        lines = [f"images       {self.images}", f"written      {self.created}"]
        if self.megabytes:
            lines[0] += (
                f" in {count(self.images + self.copies, 'file')}; {count(self.refused, 'file')} refused"
            )
            lines[1] += f", {self.megabytes:.1f} MB"
            lines.insert(1, f"sources      {', '.join(self.sources)}")
        for name, space in self.spaces.items():
            size = f"{space.bits} bits" if space.bits else f"{space.dim} dimensions"
            if space.rescore:
                size += f", the first {space.rescore} ordered again by floats"
            line = f"{name:12} {space.model}, {size}; {space.factory}, "
            line += f"recall@10 {space.recall:.3f} of {space.asked:g} asked"
            if self.megabytes:
                line += f" in {space.milliseconds:.2f} ms, {space.bytes_per_vector:.0f} bytes a vector"
            lines.append(line)
        if self.columns:
            lines.append(f"columns      {', '.join(self.columns)}")
        if self.parts > 1:
            lines.append("parts        2; `retrieval index compact` makes one of them")
        if self.unfinished_run:
            lines.append("unfinished   a run was begun and not completed: see `retrieval index --resume`")
        return "\n".join(lines)


def describe_index(where: str | Path) -> IndexFacts:
    """Say what a gallery is, from its manifest and metadata; UsageError if there is none."""
    store = open_store(where)
    manifest, spaces = store.manifest, {}
    for name, space in manifest.spaces.items():
        file = manifest.files.get(f"{name}.faiss")
        size = file.size / max(manifest.count, 1) if file else space.vector_bytes if manifest.files else 0
        told = {field.name: getattr(space, field.name) for field in fields(SpaceFacts)[1:-1]}
        spaces[name] = SpaceFacts(space.name, bytes_per_vector=size, **told)
    return IndexFacts(
        str(store),
        manifest.created,
        manifest.sources,
        manifest.count,
        manifest.copies,
        manifest.failed,
        sum(file.size for file in manifest.files.values()) / 1e6,
        manifest.teacher,
        store.unfinished.is_dir(),
        spaces,
        list(store.columns),
        1 + any(name.startswith(LATER) for name in manifest.files),
    )


def verify_index(where: str | Path) -> list[str]:
    """Check files, items and vectors of a gallery, and that a search finds them; list faults in lines."""
    store = open_store(where)
    if faults := list(store.faults()):
        return faults  # nothing else could be believed
    return [
        *_check_items(store),
        *(fault for name in store.manifest.spaces for fault in _check_space(store, name)),
    ]


def _check_items(store: Store) -> Iterator[str]:
    manifest = store.manifest
    count = copies = 0
    digests: set[str] = set()
    paths: set[str] = set()
    for item in store.items:
        count, copies = count + 1, copies + len(item.copies)
        digests.add(item.digest)
        paths.update(file.path for file in item.files)
    if (count, copies) != (manifest.count, manifest.copies if manifest.files else copies):
        yield f"{count} items and {copies} copies, not {manifest.count} and {manifest.copies}"
    if len(digests) < count:
        yield f"{count - len(digests)} items have the content of another"
    if len(paths) < count + copies:
        yield f"{count + copies - len(paths)} paths are there twice"
    if manifest.files and len(store.failures) != manifest.failed:
        yield f"{len(store.failures)} refused files, not {manifest.failed}"


def _check_space(store: Store, name: str) -> Iterator[str]:
    """Check the vectors of a space, and that a search finds what is nearest, unless it compares them all."""
    if faults := list(store.check_space(name)):
        yield from (f"{name}: {fault}" for fault in faults)
        return
    made, count = store.manifest.spaces[name], len(store)
    k, sample = max(min(10, count // 4), 1), np.unique(np.linspace(0, count - 1, SAMPLE).astype(int))
    queries, wrong, searches = store.rows(name, sample), 0, bool(made.probes or made.refine)
    nearest = np.full((len(sample), k), -np.inf, np.float32)
    for rows in store.iter_rows(name):
        wrong += int(made.type.is_damaged(rows).sum())
        if searches:
            scores = np.concatenate([nearest, made.type.similarity(queries, rows)], axis=1)
            nearest = -np.partition(-scores, k - 1, axis=1)[:, :k]
    if wrong:
        yield f"{name}: {wrong} vectors are not of unit length"
    if not searches:
        return
    space = store.open_space(name, "cpu")
    ids = space.search(queries, k)[1]
    # By their stored vectors: an index of others finds ids too.
    scores, ids = space.order_again(queries, ids, k)
    recall = float(((scores >= nearest.min(axis=1, keepdims=True) - 1e-5) & (ids >= 0)).mean())
    if recall < made.recall - SLACK:
        finder = store.engine["Searched by"]
        yield f"{name}: {finder} finds {recall:.3f} of what is nearest, not {made.recall:.3f}"
