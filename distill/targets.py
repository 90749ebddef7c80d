"""Fit teacher space to the teacher's answers."""

import numpy as np
from numpy.typing import NDArray

from index.teacher_space import TeacherSpace


def fit_teacher_space(vectors: NDArray[np.float32], dim: int) -> TeacherSpace:
    """Principal components of the answers, in descending order of variance.

    Args:
        vectors: `(n, teacher dim)` answers.
        dim: The student's dimension. Beyond what n answers span, the components are zero.

    Returns:
        The projection.
    """
    mean = vectors.mean(axis=0)
    _, strength, axes = np.linalg.svd(vectors - mean, full_matrices=False)
    axes[strength < 1e-6 * max(strength[0], 1e-12)] = 0
    # An axis and its opposite are as good; fix the sign, so that every machine fits the same space.
    axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)] + 1e-30)[:, None]
    components = np.zeros((dim, vectors.shape[1]), np.float32)
    components[: len(axes[:dim])] = axes[:dim]
    return TeacherSpace(mean.astype(np.float32), components)
