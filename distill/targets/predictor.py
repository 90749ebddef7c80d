"""Predict the teacher's answers to images it was not asked about, and say how far to trust that.

The whole ImageNet backbone, at its own input size, knows much that a short student at a small size does not.
Kernel ridge regression from its features to the answers tells where an image without an answer probably
belongs. It costs no query.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

WIDTH = 0.25  # of the kernel, relative to the median squared distance of the answered images
PENALTIES = np.geomspace(1e-4, 10, 21)  # that are tried, relative to the mean eigenvalue of the kernel
LEAST_FREEDOM = 1e-3  # of a leave-one-out residual: below it the fit has no residual to divide by


@dataclass(frozen=True)
class Predictor:
    """Kernel ridge regression with a Gaussian kernel."""

    known: NDArray[np.float32]  # `(n, features)` float32, centred features of the answered images
    centre: NDArray[np.float32]  # `(features,)` what was subtracted from them
    weights: NDArray[np.float64]  # `(n, dim)` float64, the dual coefficients
    mean: NDArray[np.float64]  # `(dim,)` the mean answer, which is predicted where nothing is near
    width: float  # factor of the squared distance in the kernel
    # `(n, dim)` float32, what is predicted for each answered image by all the others
    left_out: NDArray[np.float32]
    # Share of the answers' variance that `left_out` explains; 0 or less for a teacher that the features tell
    # nothing about
    explained: float

    @classmethod
    def fit(cls, features: NDArray[np.float32], answers: NDArray[np.float32]) -> Self:
        """Fit to `(n, features)` of n answered images, 2 at least, and `(n, dim)` answers.

        The penalty is the one with the smallest leave-one-out error. The leave-one-out residual of a linear
        smoother is its residual over one minus its leverage (Allen 1974), so that every penalty costs one
        product of matrices. The mean that is predicted around leaves the answer out, too: of noise, an answer
        mirrored in a mean that holds it would look like knowledge.
        """
        centre = features.mean(axis=0)
        known = features - centre
        squared = _squared_distances(known, known)
        median = float(np.median(squared[~np.eye(len(known), dtype=bool)]))
        width = WIDTH / max(median, 1e-12)
        mean = answers.mean(axis=0, dtype=np.float64)
        targets = answers - mean
        values, vectors = np.linalg.eigh(np.exp(-width * squared).astype(np.float64))
        values, rotated = values.clip(0), vectors.T @ targets
        constant, others = vectors.sum(axis=0), max(len(known) - 1, 1)
        best, error, residual = 0.0, np.inf, targets * (1 + 1 / others)
        for penalty in PENALTIES * values.mean():
            kept = values / (values + penalty)
            freedom = 1 - vectors**2 @ kept
            if freedom.min() < LEAST_FREEDOM:
                continue
            found = (targets - vectors @ (kept[:, None] * rotated)) / freedom[:, None]
            found += ((1 - vectors @ (kept * constant)) / freedom)[:, None] * targets / others
            if (found**2).sum() < error:
                best, error, residual = penalty, float((found**2).sum()), found
        weights = vectors @ (rotated / (values + best)[:, None]) if np.isfinite(error) else 0 * targets
        total = max(float((targets**2).sum()), 1e-12)
        left_out = (answers - residual + targets / others).astype(np.float32)  # around the mean of all
        return cls(known, centre, weights, mean, width, left_out, 1 - error / total)

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Predict `(m, dim)` answers to images with `(m, features)`."""
        kernel = np.exp(-self.width * _squared_distances(features - self.centre, self.known))
        return (kernel @ self.weights + self.mean).astype(np.float32)


def _squared_distances(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T
    return squares.clip(0)
