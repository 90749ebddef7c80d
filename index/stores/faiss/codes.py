"""Binary codes searched by Hamming distance, and ordered again by the floats of the query."""

import numpy as np
from numpy.typing import NDArray

from index.errors import needs
from index.stores.faiss.vector_index import SearchParams, VectorIndex, as_scores, search_all, search_exact
from index.vectors import CODES, Ids, Scored, Vectors, is_float, pack

with needs("cpu"):
    import faiss


class CodeIndex(VectorIndex):
    """Inverted lists of codes, or the codes alone: row i of them is its item i."""

    def __init__(
        self,
        index: "faiss.IndexBinary | None",
        vectors: Vectors,
        effort: SearchParams | None = None,
        rescore: int = 0,
    ) -> None:
        """Join an index and its codes; so many results are ordered again by the floats of the query."""
        super().__init__(index, vectors, effort)
        self.rescore = rescore

    def search(self, queries: Vectors, k: int, keep: NDArray[np.bool_] | None = None) -> Scored:
        """As `VectorIndex.search`, for codes or for the `(n, bits)` floats that they are the signs of.

        What is kept is compared as a whole: no index of codes takes a filter.
        """
        if is_float(queries):
            found = self.search(pack(queries), min(max(k, self.rescore), len(self.vectors)), keep)
            return self.order_again(queries, found[1], k)
        if keep is not None:
            return search_exact(queries, self.vectors, k, np.flatnonzero(keep))
        if self.index is None:
            return search_all(queries, self.vectors, k)
        distances, ids = self.index.search(np.ascontiguousarray(queries), k)
        scores = as_scores(distances, ids, self.vectors)
        if len(lacking := np.flatnonzero(ids[:, -1] < 0)):  # fewer than k are in the lists that were visited
            scores[lacking], ids[lacking] = search_exact(queries[lacking], self.vectors, k)
        return scores, ids

    def order_again(self, queries: Vectors, ids: Ids, k: int) -> Scored:
        """Order `(n, candidates)` ids by their codes, and keep the best k; a query at a time."""
        found = [
            CODES.order_again(query[None], line[None], k, self.vectors.__getitem__)
            for query, line in zip(queries, ids, strict=True)
        ]
        scores, best = map(np.concatenate, zip(*found, strict=True))
        return scores, best


def open_ann(
    index: "faiss.Index | faiss.IndexBinary | None",
    vectors: Vectors,
    effort: SearchParams | None = None,
    device: str = "cpu",
    rescore: int = 0,
) -> VectorIndex:
    """Join an index and the floats or codes it was made of; codes are searched on the CPU."""
    if vectors.dtype == CODES.dtype:
        return CodeIndex(index, vectors, effort, rescore)
    return VectorIndex(index, vectors, effort, device)
