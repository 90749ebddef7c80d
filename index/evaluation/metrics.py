"""Retrieval metrics: arrays in, arrays out, one value for each query.

`relevant` and `junk` are `(queries, items)`: whether the item at each rank of the full ranking is relevant,
or is taken out, which a relevant one never is. Values are `(queries,)`, NaN for one with nothing relevant.
"""

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating]
Ints = NDArray[np.integer]


def rank(scores: Floats, k: int | None = None) -> NDArray[np.int64]:
    """Order items by falling `(queries, items)` scores, ties by id: `(queries, k)`; None orders all."""
    n = scores.shape[1]
    if k is None or k >= n:
        return np.argsort(-scores, axis=1, kind="stable")
    if not k:
        return np.empty((len(scores), 0), np.int64)
    # Everything at least as good as the k-th best, so that ties at the edge are settled by id as well.
    edge = np.partition(scores, n - k, axis=1)[:, n - k, None]
    out = np.empty((len(scores), k), np.int64)
    for row, (line, least) in enumerate(zip(scores, edge, strict=True)):
        best = np.flatnonzero(line >= least)
        out[row] = best[np.argsort(-line[best], kind="stable")][:k]
    return out


def rank_others(similarity: Floats, k: int) -> NDArray[np.int64]:
    """List the k items nearest to each, by `(n, n)` similarities, without itself: their diagonal is lost."""
    np.fill_diagonal(similarity, -np.inf)
    return rank(similarity, min(k, len(similarity) - 1))


def average_precision(relevant: Bools) -> NDArray[np.float64]:
    """Mean over the relevant items of the precision at each one's rank."""
    hits = np.cumsum(relevant, axis=1)
    precision = hits / np.arange(1, relevant.shape[1] + 1)
    return _share((precision * relevant).sum(axis=1), relevant.sum(axis=1))


def recall_at_k(relevant: Bools, k: int) -> NDArray[np.float64]:
    """1 where something relevant is among the first k, else 0; NaN where nothing is relevant at all."""
    found, there = (np.asarray(part.any(axis=1), np.int64) for part in (relevant[:, :k], relevant))
    return _share(found, there)


def overlap_at_k(first: Ints, second: Ints) -> NDArray[np.float64]:
    """Share of the ids that two `(queries, k)` rankings have in common; negative ids pad a shorter list."""
    common = (first[:, :, None] == second[:, None, :]) & (first[:, :, None] >= 0)
    longest = np.maximum((first >= 0).sum(axis=1), (second >= 0).sum(axis=1))
    return common.sum(axis=(1, 2)) / np.maximum(longest, 1)


def rank_biased_overlap(first: Ints, second: Ints, p: float = 0.9) -> NDArray[np.float64]:
    """Extrapolated rank-biased overlap of two rankings of the same depth k.

    Equation 23 of Webber, Moffat and Zobel, "A similarity measure for indefinite rankings" (2010):
    `X_k / k * p^k + (1 - p) / p * sum_d X_d / d * p^d`, where X_d counts what the first d have in common.

    Both are `(queries, k)` ids, none twice in a row. The weight of depth d falls as p^d.
    """
    k = first.shape[1]
    depths = np.arange(1, k + 1)
    common = (first[:, :, None] == second[:, None, :]) & (first[:, :, None] >= 0)
    agreed = np.cumsum(np.cumsum(common, axis=1), axis=2)[:, depths - 1, depths - 1]
    weight = p**depths
    return agreed[:, -1] / k * p**k + (1 - p) / p * (agreed / depths * weight).sum(axis=1)


def revisited_average_precision(relevant: Bools, junk: Bools) -> NDArray[np.float64]:
    """Area under precision and recall by trapezoids, over the ranking without its junk.

    As the evaluation code of Radenovic et al., "Revisiting Oxford and Paris" (2018), computes it: the j-th
    relevant item, at rank r (both from 0), adds the mean of `j / r` (1 where r = 0) and `(j + 1) / (r + 1)`.
    """
    ranks = _ranks_without(junk)
    before = np.cumsum(relevant, axis=1) - 1
    below = np.where(ranks > 0, before / np.maximum(ranks, 1), 1.0)
    above = (before + 1) / (ranks + 1)
    return _share(((below + above) / 2 * relevant).sum(axis=1), relevant.sum(axis=1))


def revisited_precision_at_k(relevant: Bools, junk: Bools, k: int) -> NDArray[np.float64]:
    """Share of relevant items in the first k without junk, or down to the last relevant one if nearer.

    From the same code: a query with fewer than k relevant items can still reach 1.
    """
    ranks = _ranks_without(junk)
    depth = np.minimum(np.where(relevant, ranks + 1, 0).max(axis=1), k)
    return _share((relevant & (ranks < depth[:, None])).sum(axis=1), depth)


def _share(part: Floats | Ints, whole: Ints) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _ranks_without(junk: Bools) -> NDArray[np.int64]:
    """Rank of each item from 0, less the junk ahead of it; of junk, any."""
    return np.maximum(np.arange(junk.shape[1]) - np.cumsum(junk, axis=1), 0)
