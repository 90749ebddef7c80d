"""Binary codes searched by Hamming distance, and ordered again by the floats of the query."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from index.errors import needs
from index.stores.faiss.vector_index import SearchParams, VectorIndex, as_scores, search_all, search_exact
from index.vectors import CODES, Ids, Scored, Vectors, is_float, pack

with needs("cpu"):
    import faiss

SHORT = 8  # bytes of a code up to which a fast scan takes less than comparing bits
BY_HEAP = 12  # `implem` of a fast scan that keeps the ids of equals in order


class CodeIndex(VectorIndex):
    """Inverted lists of codes, or the codes alone: row i of them is its item i."""

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
            return self._search_all(queries, k)
        distances, ids = self.index.search(np.ascontiguousarray(queries), k)
        scores = as_scores(distances, ids, self.vectors)
        if len(lacking := np.flatnonzero(ids[:, -1] < 0)):  # fewer than k are in the lists that were visited
            scores[lacking], ids[lacking] = search_exact(queries[lacking], self.vectors, k)
        return scores, ids

    def _search_all(self, queries: Vectors, k: int) -> Scored:
        """As `search_all`; of short codes by FAISS's fast scan, which looks up what four bits add."""
        if k == 0 or self.vectors.shape[1] > SHORT:
            return search_all(queries, self.vectors, k)
        bits = np.unpackbits(queries.view(np.uint8), axis=1, count=self._packed.d, bitorder="little")
        distances, ids = self._packed.search(bits.astype(np.float32), k)
        return as_scores(np.rint(distances), ids, self.vectors), ids

    @cached_property
    def _packed(self) -> "faiss.IndexPQFastScan":
        """The codes as those of a product quantizer that has the 16 corners of a cube for each four bits.

        Squared distances of corners are those of Hamming. FAISS scales what it looks up so that the largest
        is 255, and rounds: one more table, in which every code has 0, has a 5, so that each bit adds 51.
        """
        tables = 2 * self.vectors.shape[1] + 1
        corners = np.zeros((tables, 16, 4), np.float32)
        corners[:-1] = np.arange(16)[:, None] >> np.arange(4) & 1
        corners[-1, 1:] = 2, 1, 0, 0
        plain = faiss.IndexPQ(4 * tables, tables, 4)
        faiss.copy_array_to_vector(corners.ravel(), plain.pq.centroids)
        plain.is_trained = True
        plain.add_sa_codes(np.pad(self.vectors, ((0, 0), (0, 1))))
        packed = faiss.IndexPQFastScan(plain)
        packed.implem = BY_HEAP
        return packed

    def order_again(self, queries: Vectors, ids: Ids, k: int) -> Scored:
        """Order `(n, candidates)` ids by their codes, and keep the best k."""
        return CODES.order_each(queries, ids, k, self.vectors.__getitem__)


def open_ann(
    index: "faiss.Index | faiss.IndexBinary | None",
    vectors: Vectors,
    effort: SearchParams | None = None,
    device: str = "cpu",
    rescore: int = 0,
) -> VectorIndex:
    """Join an index and the floats or codes it was made of; codes are searched on the CPU."""
    if vectors.dtype == CODES.dtype:
        return CodeIndex(index, vectors, effort, rescore=rescore)
    return VectorIndex(index, vectors, effort, device)
