"""Binary codes searched by Hamming distance, and ordered again by the floats of the query."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from index.errors import needs
from index.stores.faiss.vector_index import SearchParams, VectorIndex, as_scores, search_all, search_exact
from index.vectors import CODES, Ids, Scored, Vectors, is_float, pack, unpack

with needs("cpu"):
    import faiss

LOOKED_UP = 128  # bits; longer codes are counted no slower than looked up
BLOCK, RESERVOIR = 96, 14  # codes that are looked up together, and FAISS's number of how: the quickest


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
        bits = 8 * self.vectors.shape[1]
        if self.index is None and bits > LOOKED_UP:
            return search_all(queries, self.vectors, k)
        if self.index is None:
            products, ids = self._tables.search(unpack(queries), k)
            scores = np.rint(products) / np.float32(bits)
        else:
            distances, ids = self.index.search(np.ascontiguousarray(queries), k)
            scores = as_scores(distances, ids, self.vectors)
        # Fewer than k are in the lists that were visited, or tables leave out what differs in every bit.
        if len(lacking := np.flatnonzero(ids[:, -1] < 0)):
            scores[lacking], ids[lacking] = search_exact(queries[lacking], self.vectors, k)
        return scores, ids

    @cached_property
    def _tables(self) -> "faiss.IndexPQFastScan":
        """The codes as a product quantizer's that has all signs of four bits: as exact, in half of the time.

        What it looks up is rounded by less than what one bit makes.
        """
        count, size = self.vectors.shape
        plain = faiss.IndexPQ(8 * size, 2 * size, 4, faiss.METRIC_INNER_PRODUCT)
        signs = unpack(np.arange(16, dtype=np.uint8)[:, None])[:, :4]
        faiss.copy_array_to_vector(np.tile(signs.ravel(), 2 * size), plain.pq.centroids)
        faiss.copy_array_to_vector(np.ravel(self.vectors), plain.codes)
        plain.is_trained, plain.ntotal = True, count
        tables = faiss.IndexPQFastScan(plain, BLOCK)
        tables.implem = RESERVOIR
        return tables

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
