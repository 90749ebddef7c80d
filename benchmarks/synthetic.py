"""Vectors that crowd together as real embeddings do, as many as wanted."""

from collections.abc import Iterator
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

PER_CLUSTER = 32  # photos of one thing: about what the fitted collections hold of each
CHUNK = 50_000


@dataclass(frozen=True)
class Law:
    """A mixture of Gaussians with the covariances of real embeddings, put back on the unit sphere.

    Attributes:
        mean: `(dim,)` mean of the embeddings.
        between: `(dim, dim)` factor of the covariance of cluster centres.
        within: `(dim, dim)` factor of the covariance inside clusters.
        radii: Sizes of clusters, relative to that covariance: some are tight, some loose.
    """

    mean: NDArray[np.float32]
    between: NDArray[np.float32]
    within: NDArray[np.float32]
    radii: NDArray[np.float32]

    @classmethod
    def fit(cls, vectors: NDArray[np.float32]) -> "Law":
        """Fit to `(n, dim)` real embeddings: cluster them, and take both covariances whole."""
        vectors = np.ascontiguousarray(vectors, np.float32)
        kmeans = faiss.Kmeans(
            vectors.shape[1], max(len(vectors) // PER_CLUSTER, 2), seed=1, min_points_per_centroid=1
        )
        kmeans.train(vectors)
        cluster = kmeans.index.search(vectors, 1)[1][:, 0]
        residuals = vectors - kmeans.centroids[cluster]
        members = np.bincount(cluster, minlength=kmeans.k)
        degrees = len(vectors) - kmeans.k  # each centre was fitted to its own members
        within = residuals.T @ residuals / degrees
        between = np.cov(vectors.T) - within
        squares = np.bincount(cluster, (residuals**2).sum(1), kmeans.k)[members > 1]
        radii = np.sqrt(squares / (members[members > 1] - 1) / np.trace(within))
        return cls(vectors.mean(0), _factor(between), _factor(within), radii.astype(np.float32))

    def draw(self, count: int, clusters: int, seed: int = 0) -> Iterator[NDArray[np.float32]]:
        """Draw `count` unit rows in chunks, from clusters that depend on their number alone.

        Args:
            count: How many rows.
            clusters: How many clusters: the same number for a gallery and its queries.
            seed: Of the rows within their clusters.
        """
        dim = len(self.mean)
        places = np.random.default_rng(clusters)
        centres = places.standard_normal((clusters, dim), np.float32) @ self.between + self.mean
        radii = places.choice(self.radii, clusters)[:, None]
        rng = np.random.default_rng((seed, count))
        for start in range(0, count, CHUNK):
            rows = min(CHUNK, count - start)
            cluster = rng.integers(0, clusters, rows)
            drawn = rng.standard_normal((rows, dim), np.float32) @ self.within * radii[cluster]
            drawn += centres[cluster]
            yield drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def _factor(covariance: NDArray[np.floating]) -> NDArray[np.float32]:
    """A square root of `covariance`, or where that has none, of the nearest that has one."""
    values, axes = np.linalg.eigh(covariance)
    return (np.sqrt(np.maximum(values, 0))[:, None] * axes.T).astype(np.float32)
