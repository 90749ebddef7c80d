"""Exact rankings of a whole gallery, in every mode, and how far they agree with the teacher's."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from index.embedders.teacher_space import Projection
from index.errors import UsageError
from index.evaluation.metrics import overlap_at_k, rank, rank_biased_overlap
from index.evaluation.verdict import half_width
from index.images.decode import Photo
from index.progress import progress, say
from index.rankers.asking import FIRST
from index.search import MODES, RERANK, RERANKED, Searcher
from index.vectors import CODES, UNIT_FLOATS, Ids, Vectors, VectorType, is_float, pack

DEPTH = 10  # of the agreement with the teacher
CHUNK = 256  # queries ranked at a time: bounds the memory
LEARN_FROM = 10_000  # gallery vectors that whitening is learnt from, at most

Scores = dict[str, float]
ByMode = dict[str, Scores]
Values = Mapping[str, NDArray[np.float64]]
Compared = tuple[Vectors, Vectors, VectorType]  # rows of queries, rows of items, and what they are
Rankings = Iterator[tuple[slice, Ids]]  # which queries, and their `(queries, items)` rankings
LeaveOut = Sequence[Sequence[int]]  # for each query, ids that end its ranking
Read = Callable[[int], Photo]


@dataclass(frozen=True)
class Options:
    """How to rank."""

    modes: Sequence[str] | None = None  # to evaluate; None takes all that the index has
    whiten: float | None = None  # power of whitening, as in `Projection.fit`, learnt from the gallery

    def __post_init__(self) -> None:
        if self.whiten is not None and not 0 <= self.whiten <= 1:
            raise UsageError(f"--whiten must lie between 0 and 1, not {self.whiten}.")


def check_modes(searcher: Searcher, options: Options) -> None:
    """Raise UsageError, before any work, if the index does not have a mode, or codes would be whitened."""
    if options.whiten is not None and searcher.index.manifest.spaces["student"].bits:
        raise UsageError("--whiten is for vectors, and this index holds codes. Leave it out.")
    for mode in options.modes or ():
        if mode not in searcher.modes:
            only = f"{searcher.index.path} has no mode {mode!r}, only {', '.join(searcher.modes)}."
            raise UsageError(f"{only} {searcher.why_not(mode)}".strip())


def score_modes(
    searcher: Searcher,
    vectors: Mapping[str, Vectors],
    score: Callable[[Ids, slice], Values],
    options: Options,
    read: Read,
    leave_out: LeaveOut = (),
    gallery: Ids | None = None,
) -> ByMode:
    """Rank the gallery exactly for every query and average what the rankings are worth.

    Args:
        searcher: The index and its models.
        vectors: `(n, dim)` unit rows of the queries, by model.
        score: Maps `(q, items)` rankings and the rows of their queries to values of `(q,)`, NaN for a query
            that has no answer.
        options: Modes and whitening.
        read: Reads the photo of a query, by its row, for a ranker.
        leave_out: For each query, ids that end its ranking, whatever their similarity.
        gallery: `(items,)` ids of the items to rank; the rankings hold places in this list. None ranks all.

    Returns:
        For each mode the means of the values, and under `NAME ±` half of their 95 % intervals; with a teacher
        also `overlap@10`, its 10th percentile over the queries `overlap@10 p10`, and `RBO`, against the
        teacher's ranking, whitened if the others are.
    """
    leave_out = leave_out or [[]] * len(vectors["student"])

    @cache
    def rows_of(mode: str) -> Compared:
        model, space = MODES[mode]
        queries, items = vectors[model], searcher.index.rows(space, gallery)
        if options.whiten is None:
            return queries, items, searcher.index.manifest.spaces[space].type
        some = np.linspace(0, len(items) - 1, min(LEARN_FROM, len(items))).astype(int)
        learnt = Projection.fit(items[some], items.shape[1], options.whiten)
        return learnt.project(queries), learnt.project(items), UNIT_FLOATS

    truth = None
    if "teacher" in searcher.modes:
        truth = np.concatenate([best for _, best in _rank(rows_of("teacher"), leave_out, DEPTH)])
    scores = {}
    for mode in options.modes or searcher.modes:
        parts: dict[str, list[NDArray[np.float64]]] = {}
        compared = rows_of("student" if mode == RERANK else mode)
        find = partial(_find, compared, leave_out, searcher.index.manifest.spaces["student"].rescore)
        if mode == RERANK and searcher.reranker:
            rankings = _rank_again(find, searcher, read, leave_out, gallery)
        elif mode == RERANK:
            rankings = _rerank(find(), rows_of("teacher"), leave_out, RERANKED)
        else:
            rankings = find()
        for rows, ranking in rankings:
            values = dict(score(ranking, rows))
            if truth is not None:
                both = ranking[:, :DEPTH], truth[rows]
                values |= {f"overlap@{DEPTH}": overlap_at_k(*both), "RBO": rank_biased_overlap(*both)}
            for name, value in values.items():
                parts.setdefault(name, []).append(value)
        scores[mode] = _means({name: np.concatenate(part) for name, part in parts.items()})
    return scores


def _find(compared: Compared, leave_out: LeaveOut, rescore: int) -> Rankings:
    """Rank all; where items are codes they find, and the floats of the queries order what they found."""
    queries, items, kind = compared
    if kind == CODES and is_float(queries):
        found = _rank((pack(queries), items, kind), leave_out)
        return _rerank(found, compared, leave_out, rescore)
    return _rank(compared, leave_out)


def _rank(compared: Compared, leave_out: LeaveOut, depth: int | None = None) -> Rankings:
    queries, items, kind = compared
    for start in range(0, len(queries), CHUNK):
        rows = slice(start, start + CHUNK)
        similarity = kind.similarity(queries[rows], items)
        for line, ids in zip(similarity, leave_out[rows], strict=True):
            line[ids] = -np.inf
        yield rows, rank(similarity, depth)


def _first(line: Ids, most: int, left_out: Sequence[int]) -> Ids:
    """The part of a ranking that is ordered again, in place: what is left out stands at its end."""
    return line[: min(most, len(line) - len(left_out))]


def _rerank(rankings: Rankings, compared: Compared, leave_out: LeaveOut, most: int) -> Rankings:
    """Order the first of each ranking again by other vectors, as `Searcher.search` does by the teacher's."""
    queries, items, kind = compared
    for rows, ranking in rankings:
        for row, line in enumerate(ranking, rows.start):
            first = _first(line, most, leave_out[row])
            similarity = kind.similarity(queries[row : row + 1], items[first])[0]
            first[:] = first[np.argsort(-similarity, kind="stable")]
        yield rows, ranking


def _rank_again(
    find: Callable[[], Rankings], searcher: Searcher, read: Read, leave_out: LeaveOut, gallery: Ids | None
) -> Rankings:
    """Let the ranker order the first of each ranking, as `Searcher.find`, for several queries at a time."""
    reranker, count = searcher.reranker, len(leave_out)
    assert reranker is not None
    if price := reranker.describe_price(count):
        say(price)

    def first_of(row: int, line: Ids) -> tuple[Ids, Ids]:
        first = _first(line, FIRST, leave_out[row])
        return first, first if gallery is None else gallery[first]

    def order(row: int, line: Ids) -> None:
        first, ids = first_of(row, line)
        first[:] = first[searcher.order_again(read(row), ids)]
        bar.update()

    searches = (
        (read(row).digest, searcher.digests_of(first_of(row, line)[1]))
        for rows, ranking in find()
        for row, line in enumerate(ranking, rows.start)
    )
    reranker.require_room(searches, count)
    with ThreadPoolExecutor(reranker.calls.concurrency) as threads, progress(count, "rank") as bar:
        for rows, ranking in find():
            list(threads.map(order, range(rows.start, rows.stop), ranking))
            yield rows, ranking


def _means(values: Values) -> Scores:
    known = {name: value[~np.isnan(value)] for name, value in values.items()}
    means = {name: float(value.mean()) for name, value in known.items() if len(value)}
    means |= {f"{name} ±": half_width(value) for name, value in known.items() if len(value) > 1}
    overlap = values.get(f"overlap@{DEPTH}")
    if overlap is not None:
        means[f"overlap@{DEPTH} p10"] = float(np.percentile(overlap, 10))
    return means
