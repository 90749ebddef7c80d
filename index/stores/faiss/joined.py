"""Indexes of the parts of a gallery, searched one after the other."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from math import ceil

import numpy as np
from numpy.typing import NDArray

from index.stores.faiss.vector_index import VectorIndex
from index.stores.tables import Places
from index.vectors import CODES, UNIT_FLOATS, Ids, Scored, Vectors, is_float, pack

SPARE = 2  # results that are asked for beyond those wanted, and twice as many as are likely to be gone


class JoinedIndex:
    """Parts whose rows are places, one part after the other; scores of any two can be compared."""

    def __init__(
        self, parts: Sequence[VectorIndex], places: Places, fetch: Callable[[Ids], Vectors], rescore: int = 0
    ) -> None:
        """Join parts, where their items lie, what reads vectors by ids, and `CodeIndex.rescore`."""
        self._places, self._fetch, self._rescore = places, fetch, rescore
        self._type = CODES if parts[0].vectors.dtype == CODES.dtype else UNIT_FLOATS
        counts = [len(part.vectors) for part in parts]
        starts = [0, *accumulate(counts[:-1])]
        self._parts = list(zip(parts, starts, map(places.there, starts, counts), strict=True))

    def search(self, queries: Vectors, k: int, keep: NDArray[np.bool_] | None = None) -> Scored:
        """As `VectorIndex.search` and, of codes, as `CodeIndex.search`; `keep` is of places."""
        if self._type == CODES and is_float(queries):
            return self.order_again(queries, self.search(pack(queries), max(k, self._rescore), keep)[1], k)
        all_scores, all_places = [], []
        for part, start, there in self._parts:
            if keep is None and there is not None:
                scores, places = _search_rest(part, there, queries, k)
            else:
                wanted = None if keep is None else keep[start : start + len(part.vectors)]
                scores, places = part.search(queries, min(k, len(part.vectors)), wanted)
            all_scores.append(scores)
            all_places.append(np.where(places < 0, -1, places + start))
        scores, places = np.concatenate(all_scores, 1), np.concatenate(all_places, 1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, best, 1), self._places.ids(np.take_along_axis(places, best, 1))

    def order_again(self, queries: Vectors, ids: Ids, k: int) -> Scored:
        """As `VectorIndex.order_again`."""
        return self._type.order_each(queries, ids, k, self._fetch)


def _search_rest(part: VectorIndex, there: NDArray[np.bool_], queries: Vectors, k: int) -> Scored:
    """Search what is there: ask for some more, and filter only where too few of these are."""
    count = int(np.count_nonzero(there))
    depth = k + SPARE + 2 * ceil(k * (1 - count / len(there)))
    scores, places = part.search(queries, min(depth, len(there)))
    gone = ~there[places] | (places < 0)
    scores[gone], places[gone] = -np.inf, -1
    k = min(k, count)
    if len(lacking := np.flatnonzero((~gone).sum(1) < k)):
        scores[lacking], places[lacking] = -np.inf, -1
        scores[lacking, :k], places[lacking, :k] = part.search(queries[lacking], k, there)
    return scores, places
