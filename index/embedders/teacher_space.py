"""Principal components, and teacher space: the teacher's vectors projected to the student's length."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from index.errors import UsageError
from index.io import atomic_write, content_digest, open_npz
from index.vectors import scale_to_unit

TEACHER_SPACE = "teacher_space.npz"
FLOOR = 1e-3  # of a standard deviation, so that directions of next to no variance are not blown up


@dataclass(frozen=True)
class Projection:
    """An affine projection, then scaling to unit length; components are orthogonal, the last may be zeros."""

    mean: NDArray[np.float32]  # `(source dim,)`, subtracted first
    components: NDArray[np.float32]  # `(dim, source dim)`

    def __post_init__(self) -> None:
        if self.components.ndim != 2 or self.mean.shape != self.components.shape[1:]:
            raise ValueError(f"mean {self.mean.shape} and components {self.components.shape} do not fit.")

    @classmethod
    def fit(cls, vectors: NDArray[np.float32], dim: int, whiten: float = 0.0) -> Self:
        """Fit `dim` principal components to `(n, source dim)` vectors, in descending order of variance.

        Each component is divided by its standard deviation to the power `whiten`: 0 is PCA, 1 whitens; in
        between, what many images share counts for less without noise counting for much (Jegou and Chum 2012
        whiten for this reason).
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
        return cls(mean.astype(np.float32), components)

    @property
    def dim(self) -> int:
        """The dimension that it projects to."""
        return len(self.components)

    def project(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map `(n, source dim)` to `(n, dim)` float32 unit rows; a vector equal to the mean stays zero."""
        return scale_to_unit((vectors - self.mean) @ self.components.T).astype(np.float32)


@dataclass(frozen=True)
class TeacherSpace(Projection):
    """The projection fitted to the teacher's answers, and its file."""

    def fits(self, teacher_dim: int, student_dim: int) -> bool:
        """Whether it maps vectors of one length to the other."""
        return self.components.shape == (student_dim, teacher_dim)

    @cached_property
    def key(self) -> str:
        """Identity, from the values themselves."""
        return f"space:{content_digest(self.mean.tobytes() + self.components.tobytes())}"

    def save(self, path: Path) -> None:
        """Write an .npz file, beside its place first."""
        with atomic_write(path) as beside, beside.open("wb") as file:
            np.savez(file, mean=self.mean, components=self.components)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; UsageError if the file is another."""
        try:
            with open_npz(path) as arrays:
                return cls(arrays["mean"], arrays["components"])
        except (OSError, KeyError, ValueError) as error:
            raise UsageError(f"{path} is not a teacher space written by `retrieval distill`.") from error
