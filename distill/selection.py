"""Which images are worth a query."""

from collections import Counter
from collections.abc import Sequence, Set

import faiss
import numpy as np
from numpy.typing import NDArray

from index.vectors import Vectors, scale_to_unit

CLUSTERED_DIM = 64  # principal components of the features that images are clustered by
ROUNDS = 20  # of k-means


def sample_pool(digests: Sequence[str], answered: Set[str], most: int, seed: int) -> list[int]:
    """Sample up to `most` distinct images, all of those already answered among them as far as they fit.

    Neither the names of the files nor how many were answered before changes what is sampled for a seed, so
    that a run that was interrupted goes on with the same images.

    Returns:
        Positions in the pool, by digest. Of several images with the same content only one is in it.
    """
    first = {digest: i for i, digest in reversed(list(enumerate(digests)))}
    distinct = sorted(first)
    shuffled = [distinct[i] for i in np.random.default_rng(seed).permutation(len(distinct))]
    shuffled.sort(key=lambda digest: digest not in answered)
    return [first[digest] for digest in sorted(shuffled[:most])]


def order_by_worth(
    features: Vectors, answered: NDArray[np.bool_], budget: int, how: str, seed: int
) -> list[int]:
    """Order all images, by `(n, dim)` features, so that the first `budget` are the ones to use.

    Those that are `answered`, an `(n,)` mask, are free and come before others. `kmeans` takes the image
    nearest to the centre of each of `budget` clusters, larger clusters first, which tells most about most
    images; `kcenter`, again and again, the image farthest from all that were taken, which reaches every
    corner (Sener and Savarese 2018).
    """
    rest = [int(row) for row in np.random.default_rng(seed).permutation(len(features))]
    rest.sort(key=lambda row: not answered[row])
    free = int(answered.sum())
    # What is free is used whole, unless there is too much of it.
    taken, among = (rest[:free], rest[free:]) if free < budget else ([], rest[:free])
    wanted = budget - len(taken)
    if how != "random" and 0 < wanted < len(among):
        # By their leading principal components images are clustered as well, and faster.
        unit = scale_to_unit(features)
        centred = unit - unit.mean(axis=0)
        _, axes = np.linalg.eigh(centred.T @ centred)
        points = np.ascontiguousarray(centred @ axes[:, : -CLUSTERED_DIM - 1 : -1], dtype=np.float32)
        choose = _cluster if how == "kmeans" else _spread
        taken = taken + choose(points, sorted(taken), sorted(among), wanted, seed)
    used = set(taken)
    return taken + [row for row in rest if row not in used]


def _cluster(points: Vectors, taken: list[int], among: list[int], wanted: int, seed: int) -> list[int]:
    """Of `among`, the nearest to the centres of clusters that hold nothing taken, larger clusters first."""
    rows = np.array(sorted(taken + among))
    clusters = len(taken) + wanted
    kmeans = faiss.Kmeans(points.shape[1], clusters, niter=ROUNDS, seed=seed, min_points_per_centroid=1)
    kmeans.train(points[rows])
    found = kmeans.index.search(points[rows], 1)
    distance, owner = (dict(zip(rows.tolist(), column[:, 0].tolist(), strict=True)) for column in found)
    sizes = Counter(owner.values())
    covered = {owner[row] for row in taken}
    nearest: dict[int, int] = {}
    for row in sorted(among, key=distance.__getitem__):
        if owner[row] not in covered:
            nearest.setdefault(owner[row], row)
    return [nearest[cluster] for cluster, _ in sizes.most_common() if cluster in nearest][:wanted]


def _spread(points: Vectors, taken: list[int], among: list[int], wanted: int, seed: int) -> list[int]:
    """Farthest-first traversal of `among` from what is taken, or from a random row."""
    chosen = [] if taken else [int(np.random.default_rng(seed).choice(among))]
    distance = np.full(len(points), np.inf, np.float32)
    distance[np.setdiff1d(np.arange(len(points)), among)] = -1
    for row in taken + chosen:
        distance = np.minimum(distance, ((points - points[row]) ** 2).sum(axis=1))
    while len(chosen) < wanted:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
        distance[chosen] = -1  # or a copy, at distance 0, could be chosen twice
    return chosen
