"""Search an index by image: with the student, the teacher, or one's query in the other's gallery."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from index.ann import to_device
from index.embedder import Embedder, OnnxEmbedder, embed_checked, is_file_spec
from index.errors import UsageError
from index.images import Photo
from index.options import EmbedderOptions
from index.store import Index
from index.teacher import TeacherSpec

if TYPE_CHECKING:
    import faiss

# mode: (the model that embeds the query, the space that is searched)
MODES = {
    "student": ("student", "student"),
    "teacher": ("teacher", "teacher"),
    "asymmetric": ("student", "projected"),
}


@dataclass(frozen=True)
class Results:
    """Ranked lists, one a query.

    Attributes:
        ids: `(queries, k)` int64 item ids, best first, ties by rising id; -1 pads a short list at its end.
        scores: `(queries, k)` float32 cosine similarities, falling; -inf where the id is -1.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.ids.ndim != 2 or self.ids.shape != self.scores.shape:
            raise ValueError(f"ids {self.ids.shape} and scores {self.scores.shape} do not fit.")
        if (self.scores[:, 1:] > self.scores[:, :-1]).any():
            raise ValueError("Scores must fall.")

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Found:
    """Results with what they took, in seconds for the whole batch of queries."""

    results: Results
    embed_seconds: float
    search_seconds: float


class Searcher:
    """An open index with the models that embed queries for it."""

    def __init__(
        self, index: Index, student: Embedder, teacher: Embedder | None = None, device: str = "auto"
    ) -> None:
        """Join an index and its models.

        Args:
            index: The index.
            student: The model that made it.
            teacher: The teacher that made its teacher space, to search with it as well.
            device: Where FAISS searches: `auto`, `cpu` or `cuda`.

        Raises:
            UsageError: A model is not the one that made the index.

        Attributes:
            teacher_missing: Why there is no teacher; empty if there is one.
        """
        self.index = index
        self.models: dict[str, Embedder] = {"student": student}
        if teacher is not None and "teacher" in index.manifest.spaces:
            self.models["teacher"] = teacher
        for space, model in self.models.items():
            index.require_model(space, model.key, model.name)
        self.teacher_missing = "" if "teacher" in self.models else "This index was made without a teacher."
        self._device = device
        self._anns: dict[str, faiss.Index] = {}
        self._lock = Lock()

    @cached_property
    def modes(self) -> list[str]:
        """The modes that this index and these models allow."""
        spaces = self.index.manifest.spaces
        return [mode for mode, (model, space) in MODES.items() if model in self.models and space in spaces]

    @cached_property
    def stored_modes(self) -> list[str]:
        """The modes in which the gallery's own vectors can be searched with, models or not."""
        spaces = self.index.manifest.spaces
        return [mode for mode, (model, space) in MODES.items() if model in spaces and space in spaces]

    def find(self, photos: Sequence[Photo], mode: str, k: int) -> Found:
        """Embed photos and search with them. A photo never finds itself, nor a copy of itself.

        Args:
            photos: The queries.
            mode: One of `modes`.
            k: How many results each.

        Raises:
            UsageError: The index has no such mode.
            RetrievalError: The model failed.
        """
        self._require_mode(mode)
        model = self.models[MODES[mode][0]]
        start = perf_counter()
        vectors = embed_checked(model, [model.prepare(photo) for photo in photos], [p.name for p in photos])
        embedded = perf_counter()
        own = [self.index.ids_by_digest.get(photo.digest, []) for photo in photos]
        results = self.search(vectors, mode, k, own)
        return Found(results, embedded - start, perf_counter() - embedded)

    def search(
        self, vectors: NDArray[np.float32], mode: str, k: int, exclude: Sequence[Sequence[int]] = ()
    ) -> Results:
        """Search with vectors.

        Args:
            vectors: `(n, dim)` unit rows of the model that embeds queries in this mode.
            mode: One of `stored_modes`.
            k: How many results each.
            exclude: For each query, ids to leave out.

        Raises:
            UsageError: The index has no such mode, or k is not positive.
        """
        self._require_mode(mode, self.stored_modes)
        if k < 1:
            raise UsageError(f"-k must be at least 1, not {k}.")
        exclude = exclude or [()] * len(vectors)
        k = min(k, len(self.index))
        depth = min(k + max(map(len, exclude), default=0), len(self.index))
        scores, ids = self._ann(MODES[mode][1]).search(np.ascontiguousarray(vectors), depth)
        out = Results(np.full((len(vectors), k), -1), np.full((len(vectors), k), -np.inf, np.float32))
        for row, own in enumerate(exclude):
            keep = (ids[row] >= 0) & ~np.isin(ids[row], own)
            best, score = ids[row][keep], scores[row][keep]
            order = np.lexsort((best, -score))[:k]
            out.ids[row, : len(order)] = best[order]
            out.scores[row, : len(order)] = score[order]
        return out

    def search_items(self, items: Sequence[int], mode: str, k: int) -> Results:
        """Search with images of the gallery by their stored vectors: no model is asked.

        Args:
            items: Ids of n items; none finds itself, nor a copy of itself.
            mode: One of `stored_modes`.
            k: How many results each.

        Raises:
            UsageError: The index has no such mode.
        """
        self._require_mode(mode, self.stored_modes)
        vectors = self.index.vectors(MODES[mode][0])[np.asarray(items, np.int64)]
        own = [self.index.ids_by_digest[self.index.items[item].digest] for item in items]
        return self.search(vectors, mode, k, own)

    def _require_mode(self, mode: str, modes: Sequence[str] | None = None) -> None:
        modes = modes or self.modes
        if mode not in modes:
            raise UsageError(
                f"{self.index.path} cannot be searched in mode {mode!r}, only {', '.join(modes)}."
            )

    def _ann(self, space: str) -> "faiss.Index":
        with self._lock:  # pages are served by several threads
            if space not in self._anns:
                self._anns[space] = to_device(self.index.ann(space), self._device)
            return self._anns[space]


def open_searcher(
    path: Path, teacher: TeacherSpec | None = None, device: str = "auto", with_teacher: bool = True
) -> Searcher:
    """Open an index folder by name, with the student that it keeps and the teacher that it remembers.

    Args:
        path: The index folder.
        teacher: Where the teacher is now; without a spec, where and how it was, if it is a file: an address
            or a callable must be given again. Queries to a paid teacher go into its ledger, too, and count
            against the budget.
        device: `auto`, `cpu` or `cuda`.
        with_teacher: Whether to open a teacher at all. One that is only remembered may be gone: then the
            index is searched with the student alone, and `teacher_missing` says why.

    Raises:
        UsageError: No index there, or a model is not the one that made it.
    """
    index = Index(path)
    searcher = Searcher(index, OnnxEmbedder(index.model_file, device), None, device)
    given = teacher or TeacherSpec()
    asked = _remember(index, given)
    if asked.spec is None or not with_teacher:
        return searcher
    if not given.spec and not is_file_spec(asked.spec):
        # An index comes from anywhere: it must not choose what code runs, or who is sent queries and the key.
        searcher.teacher_missing = f"Made with {asked.spec}. Give --teacher {asked.spec} to ask it again."
        return searcher
    try:
        return Searcher(index, searcher.models["student"], asked.open(device), device)
    except UsageError as reason:
        if given.spec:
            raise
        searcher.teacher_missing = f"{reason} Give --teacher."
        return searcher


def _remember(index: Index, given: TeacherSpec) -> TeacherSpec:
    """Fill in what is not given of the teacher that the index was made with."""
    manifest = index.manifest
    if given.spec not in (None, manifest.teacher) or given.options != EmbedderOptions():
        return given
    return replace(given, spec=manifest.teacher, options=EmbedderOptions(**manifest.teacher_options))
