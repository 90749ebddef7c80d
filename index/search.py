"""Search an index by image or words: with the student, the teacher, or both, on one side each or in turn."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from time import perf_counter

import numpy as np

from index.embedders.base import Embedder, embed_checked
from index.embedders.onnx import OnnxEmbedder
from index.embedders.options import EmbedderOptions
from index.embedders.registry import is_file_spec
from index.embedders.teacher_space import TEACHER_SPACE, TeacherSpace
from index.errors import UsageError
from index.feedback import Examples, as_floats, rocchio
from index.images.decode import Photo
from index.images.sources import image_at
from index.rankers.asking import FIRST, Reranker
from index.rankers.registry import RankerSpec
from index.stores.base import Searchable, Store
from index.stores.filters import Filter
from index.stores.registry import open_store
from index.teachers.spec import TeacherSpec, TextSpec
from index.text.models import Text, TextQueries
from index.vectors import Ids, Scores, Vectors

# mode: (the model that embeds the query, the space that is searched)
MODES = {
    "student": ("student", "student"),
    "teacher": ("teacher", "teacher"),
    "asymmetric": ("student", "projected"),
}
RERANK = "rerank"  # the student finds, the teacher or a ranker orders what it found
RERANKED = 100  # how many
ALL, NO_EXAMPLES = Filter(), Examples()


@dataclass(frozen=True)
class Results:
    """Ranked lists, one a query."""

    ids: Ids  # `(queries, k)` items, best first, ties by rising id; -1 pads a short list at its end
    # `(queries, k)` cosine similarities, or what a ranker's order is worth, 1 / rank; falling, -inf for id -1
    scores: Scores

    def __post_init__(self) -> None:
        if self.ids.ndim != 2 or self.ids.shape != self.scores.shape:
            raise ValueError(f"ids {self.ids.shape} and scores {self.scores.shape} do not fit.")
        if np.count_nonzero(self.scores[:, 1:] > self.scores[:, :-1]):  # a fifth of the time of any()
            raise ValueError("Scores must fall.")

    def __len__(self) -> int:
        return len(self.ids)

    def hits(self, row: int = 0) -> list[tuple[int, float]]:
        """List the ids of a query's items with their similarities, without what pads the list."""
        pairs = zip(self.ids[row].tolist(), self.scores[row].tolist(), strict=True)
        return [(item, score) for item, score in pairs if item >= 0]


@dataclass(frozen=True)
class Found:
    """Results with what they took, in seconds for the whole batch of queries."""

    results: Results
    embed_seconds: float
    search_seconds: float


class Searcher:
    """An open index with the models that embed queries for it."""

    def __init__(
        self, index: Store, student: Embedder, teacher: Embedder | None = None, device: str = "auto"
    ) -> None:
        """Join an index and the models that made it, else UsageError; the device is where FAISS searches."""
        self.index = index
        self.models: dict[str, Embedder] = {"student": student}
        if teacher is not None and "teacher" in index.manifest.spaces:
            self.models["teacher"] = teacher
        for space, model in self.models.items():
            index.require_model(space, model.key, model.name)
        alone = "This index was made without a teacher. Index again with --teacher."
        self.teacher_missing = "" if "teacher" in self.models else alone  # why there is none
        self.text: TextQueries | None = None  # makes queries of words, if that was asked for
        self.reranker: Reranker | None = None  # orders again in the teacher's place, if that was asked for
        self.ranker_missing = ""  # why there is none, if the student was taught by one
        self.device = device
        self._spaces: dict[str, Searchable] = {}
        self._lock = Lock()

    @property
    def modes(self) -> list[str]:
        """The modes that this index, these models and a ranker allow."""
        return [*self.vector_modes, *([RERANK] if self.reranker else [])]

    @property
    def vector_modes(self) -> list[str]:
        """Those that compare vectors alone: a ranker orders in the teacher's place."""
        return [mode for mode in self._modes_of(self.models) if mode != RERANK or not self.reranker]

    @cached_property
    def stored_modes(self) -> list[str]:
        """The modes in which the gallery's own vectors can be searched with, models or not."""
        return self._modes_of(self.index.manifest.spaces)

    def _modes_of(self, models: Collection[str]) -> list[str]:
        spaces = self.index.manifest.spaces
        modes = [mode for mode, (model, space) in MODES.items() if model in models and space in spaces]
        return [*modes, RERANK] if "teacher" in modes else modes

    @property
    def text_modes(self) -> list[str]:
        """The modes that can be searched in by words: the teacher itself is not needed, its vectors are."""
        return [mode for mode in self.stored_modes if self.text and not self._why_no_words(mode)]

    def _why_no_words(self, mode: str) -> str:
        if mode in ("teacher", RERANK) and self.index.manifest.spaces["student"].queries:
            return "its teacher's vectors are of the teacher before. Index again with --update."
        if mode == "teacher" or (self.text and self.text.space):
            return ""
        return f"its student came without {TEACHER_SPACE}. Index again with the student in its folder."

    def why_not(self, mode: str) -> str:
        """Why there is no such mode; empty where there is one, or never is."""
        if mode in self.modes or mode not in (*MODES, RERANK):
            return ""
        if mode == "asymmetric" and "teacher" in self.index.manifest.spaces:
            return f"Its student came without {TEACHER_SPACE}: it learnt nothing, or lies alone."
        return (self.ranker_missing if mode == RERANK else "") or self.teacher_missing

    def decode_side(self, mode: str = "") -> int:
        """How wide and high, in pixels, a photo must at least be decoded for a mode, or else for all."""
        model = self.models.get(MODES[mode][0]) if mode in MODES else None
        takers = [model] if model else [*self.models.values(), self.reranker]
        return max(taker.decode_side for taker in takers if taker)

    def find(
        self,
        photos: Sequence[Photo],
        mode: str,
        k: int,
        filter: Filter | None = None,
        examples: Examples = NO_EXAMPLES,
    ) -> Found:
        """Embed photos and find k results for each, in one of `modes`; filter None wants any.

        A photo never finds itself, nor a copy of itself. For mode `rerank` the teacher is asked once a photo,
        a ranker, if there is one, in its place: its scores are 1 / rank, and the cut is of the student's.

        Raises:
            UsageError: The index has no such mode, or no such column, or k is not positive.
            RetrievalError: A model failed.
        """
        self._require(mode, self.modes, k)
        self.index.keep(filter or ALL)  # a wrong column shows before a teacher is paid
        start = perf_counter()
        vectors = self._embed("student" if mode == RERANK else MODES[mode][0], photos, examples)
        by_ranker = mode == RERANK and self.reranker is not None
        again = self._embed("teacher", photos, examples) if mode == RERANK and not by_ranker else None
        embedded = perf_counter()
        known = self._ids([*examples.like, *examples.unlike])
        own = [[*self._ids([photo]), *known] for photo in photos]
        if by_ranker:
            found = self.search(vectors, "student", max(k, FIRST), own, filter)
            results = self._rank_again(photos, found.ids, k)
        else:
            results = self.search(vectors, mode, k, own, filter, again)
        return Found(results, embedded - start, perf_counter() - embedded)

    def _rank_again(self, photos: Sequence[Photo], ids: Ids, k: int) -> Results:
        """Let the ranker order the first of each `(queries, n)` ids, which -1 pads, and keep k."""
        ids = ids.copy()
        for photo, line in zip(photos, ids, strict=True):
            first = line[:FIRST][line[:FIRST] >= 0]
            line[: len(first)] = first[self.order_again(photo, first)]
        scores = np.where(ids >= 0, 1 / np.arange(1, ids.shape[1] + 1, dtype=np.float32), -np.inf)
        return Results(ids[:, :k], scores[:, :k])

    def order_again(self, photo: Photo, ids: Ids) -> list[int]:
        """Let the ranker order `(n,)` items for a photo: their positions, best first."""
        assert self.reranker is not None
        items = [self.index.items[item] for item in ids.tolist()]
        files = [image_at(item.path, item.name, self.index.allowed) for item in items]
        return self.reranker.order(photo, files, [item.digest for item in items])

    def digests_of(self, ids: Ids) -> list[str]:
        """The content digests of `(n,)` items."""
        return [self.index.items[item].digest for item in ids.tolist()]

    def find_text(self, text: Text, mode: str, k: int, filter: Filter | None = None) -> Found:
        """Embed words and search with them, as `find`, in one of `text_modes`: they stand for either query.

        Raises:
            UsageError: As `find`, or there is no text model.
            RetrievalError: The text model failed.
        """
        if self.text is None:
            raise UsageError("Words are searched with by a text model of the teacher. Give --text-teacher.")
        if mode in self.stored_modes and (reason := self._why_no_words(mode)):
            there = ", ".join(self.text_modes)
            raise UsageError(f"Words search {self.index} in mode {there} alone: {reason}")
        self._require(mode, self.text_modes, k)
        self.index.keep(filter or ALL)
        start = perf_counter()
        again = self.text.embed(text)
        vectors = again if mode == "teacher" else self.text.project(again)
        embedded = perf_counter()
        results = self.search(vectors, mode, k, (), filter, again)
        return Found(results, embedded - start, perf_counter() - embedded)

    def search(
        self,
        vectors: Vectors,
        mode: str,
        k: int,
        exclude: Sequence[Sequence[int]] = (),
        filter: Filter | None = None,
        teacher_vectors: Vectors | None = None,
    ) -> Results:
        """Find k results for each of `(n, dim)` unit rows of the model that embeds queries in this mode.

        It is one of `stored_modes`. For `rerank` the student's rows are given, and the teacher's of the same
        queries: they order the first 100, and the cut is of their scores. `exclude` has ids to leave out for
        each query.

        Raises:
            UsageError: The index has no such mode or column, or k is not positive.
        """
        self._require(mode, self.stored_modes, k)
        k, filter = min(k, len(self.index)), filter or ALL
        if mode == RERANK:
            if teacher_vectors is None:
                raise UsageError("Mode rerank takes the vectors of both models: give `teacher_vectors` too.")
            found = self.search(vectors, "student", max(k, RERANKED), exclude, replace(filter, cut=0.0))
            scores, ids = self.open_space("teacher").order_again(teacher_vectors, found.ids, k)
            return _ranked(scores, ids, k, (), filter)
        depth = min(k + max(map(len, exclude)), len(self.index)) if exclude else k
        scores, ids = self.open_space(MODES[mode][1]).search(vectors, depth, self.index.keep(filter))
        if filter.selects and not np.count_nonzero(ids >= 0):  # of a server, which filters by itself
            raise self.index.matches_nothing(filter)
        return _ranked(scores, ids, k, exclude, filter)

    def _embed(self, name: str, photos: Sequence[Photo], examples: Examples = NO_EXAMPLES) -> Vectors:
        model = self.models[name]
        vectors = embed_checked(model, [model.prepare(photo) for photo in photos], [p.name for p in photos])
        return self._move(name, vectors, examples)

    def _move(self, name: str, vectors: Vectors, examples: Examples) -> Vectors:
        if not examples:
            return vectors
        return rocchio(vectors, self._rows(name, examples.like), self._rows(name, examples.unlike))

    def _rows(self, name: str, examples: Sequence[Photo | int]) -> Vectors:
        items = [each for each in examples if isinstance(each, int)]
        photos = [each for each in examples if not isinstance(each, int)]
        rows = [as_floats(self.index.rows(name, np.array(items, np.int64)))] if items else []
        rows += [as_floats(self._embed(name, photos))] if photos else []
        return np.concatenate(rows) if rows else np.empty((0, 0), np.float32)

    def _ids(self, images: Sequence[Photo | int]) -> list[int]:
        known = self.index.ids_by_digest
        own = ([each] if isinstance(each, int) else known.get(each.digest, []) for each in images)
        return [item for some in own for item in some]

    def search_items(
        self,
        items: Sequence[int],
        mode: str,
        k: int,
        filter: Filter | None = None,
        examples: Examples = NO_EXAMPLES,
    ) -> Results:
        """Find k results for each item of the gallery by its stored vectors, in one of `stored_modes`.

        No model is asked, and no item finds itself, nor a copy of itself.

        Raises:
            UsageError: As `search`.
        """
        self._require(mode, self.stored_modes, k)
        known = self._ids([*examples.like, *examples.unlike])
        own = [[*self.index.ids_by_digest[self.index.items[item].digest], *known] for item in items]
        rows, model = np.asarray(items, np.int64), "student" if mode == RERANK else MODES[mode][0]
        again = self._move("teacher", self.index.rows("teacher", rows), examples) if mode == RERANK else None
        vectors = self._move(model, self.index.rows(model, rows), examples)
        return self.search(vectors, mode, k, own, filter, again)

    def _require(self, mode: str, modes: Sequence[str], k: int) -> None:
        if mode not in modes:
            there = dict.fromkeys([*modes, *self.stored_modes])
            only = f"{self.index} cannot be searched in mode {mode!r}, only {', '.join(there)}."
            raise UsageError(f"{only} {self.why_not(mode)}".strip())
        if k < 1:
            raise UsageError(f"-k must be at least 1, not {k}.")

    def open_space(self, space: str) -> Searchable:
        """Open a space once, for everyone."""
        if opened := self._spaces.get(space):
            return opened
        with self._lock:  # pages are served by several threads
            if space not in self._spaces:
                self._spaces[space] = self.index.open_space(space, self.device)
            return self._spaces[space]


def _ranked(scores: Scores, ids: Ids, k: int, exclude: Sequence[Sequence[int]], filter: Filter) -> Results:
    """Leave out what is excluded, order ties by id, keep k and what passes the cut."""
    excluding = any(exclude)
    if excluding:
        out = np.array([np.isin(line, own) for line, own in zip(ids, exclude, strict=True)])
        ids, scores = np.where(out, -1, ids), np.where(out, np.float32(-np.inf), scores)
    if excluding or ids.shape[1] > k or np.count_nonzero(scores[:, 1:] == scores[:, :-1]):
        order, rows = np.lexsort((ids, -scores))[:, :k], np.arange(len(ids))[:, None]
        ids, scores = ids[rows, order], scores[rows, order]
    if filter.cut:
        below = ~filter.clear(scores)
        ids[below], scores[below] = -1, -np.inf
    return Results(ids, scores)


def open_searcher(
    where: str | Path,
    teacher: TeacherSpec | None = None,
    device: str = "auto",
    with_teacher: bool = True,
    model: Path | None = None,
    allowed: Sequence[str] = (),
    text: TextSpec | None = None,
    ranker: RankerSpec | None = None,
) -> Searcher:
    """Open a gallery by name, as `open_store`, with its student, teacher, the teacher's text model, a ranker.

    The teacher is where it is now; without a spec, where and how it was, if it is a file: an address or a
    callable must be given again. One that is only remembered may be gone: then the student searches alone,
    and `teacher_missing` says why. Queries to a paid teacher go into its ledger and count against the budget.
    So it is with the ranker that the student was taught by, where no teacher is there to order results again.

    Raises:
        UsageError: No index there, or a model is not the one that made it.
    """
    index = open_store(where, model, allowed)
    searcher = _open_models(index, teacher, device, with_teacher)
    if text is not None:
        searcher.text = _open_text(index, text, device)
    known = RankerSpec.remembered(index.read_run())
    if ranker is not None:
        if known and ranker.spec == known.spec and ranker.options == EmbedderOptions():
            ranker = replace(ranker, options=known.options, orders_only=known.orders_only)
        searcher.reranker = ranker.open_reranker(device)
    elif known and with_teacher and RERANK not in searcher.modes:
        searcher.reranker, searcher.ranker_missing = known.reopen(device, index.remote)
    return searcher


def _open_text(index: Store, text: TextSpec, device: str) -> TextQueries:
    """Open a text model and what takes its vectors to those of the gallery, which must have some."""
    beside, spaces = index.companion(TEACHER_SPACE), index.manifest.spaces
    if spaces["student"].bits:
        raise UsageError(f"{index} holds codes, which words do not search. Index without --codes.")
    space = TeacherSpace.load(beside) if beside.is_file() else None
    if space is not None and space.dim != spaces["student"].dim:
        raise UsageError(f"{beside} is of another student. Index again with the files of one `distill`.")
    if space is None and ("teacher" not in spaces or spaces["student"].queries):  # those of the one before
        raise UsageError(
            f"{index} cannot be searched by words: its student came without {TEACHER_SPACE}. "
            "Index again with the student where `distill` wrote it."
        )
    dim = space.components.shape[1] if space else spaces["teacher"].dim
    return TextQueries(text.open(device), dim, space)


def _open_models(index: Store, teacher: TeacherSpec | None, device: str, with_teacher: bool) -> Searcher:
    """Join a gallery with its student and, as far as that can be had, its teacher."""
    manifest, made = index.manifest, index.manifest.spaces["student"]
    student = OnnxEmbedder(index.model_file, device, bits=made.bits, floats=bool(made.rescore))
    searcher = Searcher(index, student, None, device)
    given = asked = teacher or TeacherSpec()
    if given.spec in (None, manifest.teacher) and given.options == EmbedderOptions():  # as it was
        asked = replace(given, spec=manifest.teacher, options=EmbedderOptions(**manifest.teacher_options))
    if asked.spec is None or not with_teacher:
        return searcher
    if not given.spec and (index.remote or not is_file_spec(asked.spec)):
        # An index comes from anywhere: it must not choose what code runs, or who is sent queries and the key.
        searcher.teacher_missing = f"Made with {asked.spec}. Give --teacher {asked.spec} to ask it again."
        return searcher
    try:
        return Searcher(index, student, asked.open(device), device)
    except UsageError as reason:
        if given.spec:
            raise
        searcher.teacher_missing = f"{reason} Give --teacher."
        return searcher
