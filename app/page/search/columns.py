"""Two ways to search side by side: agreement, time."""

from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from PIL import UnidentifiedImageError

from app.page.search.query import Query, SearchRequest, View
from app.server.api import as_sentence
from app.server.metrics import STAGES
from index.errors import ImageError, RetrievalError
from index.evaluation.metrics import overlap_at_k, rank_biased_overlap
from index.search import Found, Results, Searcher

FORMATS_SHOWN = "Use JPEG, PNG, WebP, AVIF, GIF or TIFF."


@dataclass(frozen=True)
class SearchColumn:
    """What one mode finds for one photo."""

    mode: str  # one of `Searcher.modes`, or `teacher` where there is none
    found: Found | None  # the results; None where there are none
    decode_seconds: float = 0.0  # time to decode the picture for this mode's model
    missing: str = ""  # why nothing was found; empty if it was

    @property
    def hits(self) -> list[tuple[int, float]]:
        """Ids of the items with their similarities, best first."""
        return self.found.results.hits() if self.found else []

    @property
    def ids(self) -> list[int]:
        """Ids of the items, best first."""
        return [item for item, _ in self.hits]

    @property
    def parts(self) -> list[float]:
        """Seconds that it took to decode the picture, to embed it and to search; none without results."""
        found = self.found
        return [self.decode_seconds, found.embed_seconds, found.search_seconds] if found else []

    @property
    def seconds(self) -> float:
        """Time from bytes to results."""
        return sum(self.parts)


@dataclass(frozen=True)
class Agreement:
    """How alike two lists are: overlap, rank-biased overlap (p = 0.9), and the longer one's length."""

    overlap: float
    rbo: float
    depth: int


def search_column(searcher: Searcher, query: Query, mode: str, request: SearchRequest) -> SearchColumn:
    """Search in one mode. A model that fails leaves its column empty, with the reason.

    Raises:
        ImageError: The picture cannot be decoded; the message is a whole line.
    """
    if query.text is not None:
        try:
            return SearchColumn(mode, searcher.find_text(query.text, mode, request.k, request.filter))
        except RetrievalError as reason:
            return SearchColumn(mode, None, missing=as_sentence(reason))
    if mode not in searcher.modes:
        return SearchColumn(mode, None, missing=searcher.why_not(mode) or f"This index has no mode {mode!r}.")
    start = perf_counter()
    try:
        photo = query.photo(searcher.decode_side(mode))
    except ImageError as reason:
        hint = f" {FORMATS_SHOWN}" if isinstance(reason.__cause__, UnidentifiedImageError) else ""
        raise ImageError(f"Can't open {query.name}: {reason}.{hint}") from reason
    decoded = perf_counter() - start
    STAGES.labels("decode", mode).observe(decoded)
    # Part of an image of the gallery finds that image, unlike the whole, which `find` leaves out by itself.
    own = [] if query.view == View() else searcher.index.ids_by_digest.get(query.digest, [])
    try:
        found = searcher.find([photo], mode, request.k + len(own), request.filter, request.examples)
        ids, scores = found.results.ids, found.results.scores
        keep = np.flatnonzero(~np.isin(ids[0], own))[: request.k]
        rest = Results(ids[:, keep], scores[:, keep])
    except RetrievalError as reason:  # a budget is spent, an endpoint cannot be reached
        return SearchColumn(mode, None, missing=as_sentence(reason))
    return SearchColumn(mode, replace(found, results=rest), decoded)


def agreement(first: SearchColumn, second: SearchColumn) -> Agreement | None:
    """Measure how far two columns agree; None where one of them is empty."""
    if not first.ids or not second.ids:
        return None
    depth = max(len(first.ids), len(second.ids))
    one, two = (np.array([column.ids + [-1] * (depth - len(column.ids))]) for column in (first, second))
    return Agreement(float(overlap_at_k(one, two)[0]), float(rank_biased_overlap(one, two)[0]), depth)


def rank_shifts(column: SearchColumn, other: SearchColumn) -> list[int | None]:
    """Count how many ranks higher each result stands here than in the other column; None if only here."""
    there = {item: rank for rank, item in enumerate(other.ids)}
    return [there[item] - rank if item in there else None for rank, item in enumerate(column.ids)]
