"""Fit teacher space to the teacher's answers."""

import numpy as np
from numpy.typing import NDArray

from index.teacher_space import TeacherSpace

FLOOR = 1e-3  # of a standard deviation, so that directions of next to no variance are not blown up


def fit_teacher_space(vectors: NDArray[np.float32], dim: int, whiten: float = 0.0) -> TeacherSpace:
    """Principal components of the answers, in descending order of variance.

    Args:
        vectors: `(n, teacher dim)` answers.
        dim: The student's dimension. Beyond what n answers span, the components are zero.
        whiten: How far the variances are made equal: each component is divided by its standard deviation to
            this power. 0 is plain PCA, 1 whitens; in between, what many images share counts for less without
            noise counting for much (Jegou and Chum 2012 whiten for this reason).

    Returns:
        The projection.
    """
    mean = vectors.mean(axis=0)
    _, strength, axes = np.linalg.svd(vectors - mean, full_matrices=False)
    deviation = strength / np.sqrt(len(vectors))
    axes[strength < 1e-6 * max(strength[0], 1e-12)] = 0
    # An axis and its opposite are as good; fix the sign, so that every machine fits the same space.
    axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)] + 1e-30)[:, None]
    axes = (axes * (deviation + FLOOR)[:, None] ** -whiten)[:dim]
    components = np.zeros((dim, vectors.shape[1]), np.float32)
    components[: len(axes)] = axes
    return TeacherSpace(mean.astype(np.float32), components)
