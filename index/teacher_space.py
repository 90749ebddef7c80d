"""Teacher space: the teacher's vectors projected to the student's dimension, so that both can be compared."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.errors import UsageError
from index.images import content_digest

FILE = "teacher_space.npz"


@dataclass(frozen=True)
class TeacherSpace:
    """An affine projection followed by scaling to unit length.

    Attributes:
        mean: `(teacher dim,)` float32, subtracted first.
        components: `(dim, teacher dim)` float32, orthogonal rows; rows of zeros where the answers that it
            was fitted on span fewer dimensions.
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.components.ndim != 2 or self.mean.shape != self.components.shape[1:]:
            raise ValueError(f"mean {self.mean.shape} and components {self.components.shape} do not fit.")

    @property
    def dim(self) -> int:
        """The student's dimension."""
        return len(self.components)

    def fits(self, teacher_dim: int, student_dim: int) -> bool:
        """Whether it maps vectors of one length to the other."""
        return self.components.shape == (student_dim, teacher_dim)

    @cached_property
    def key(self) -> str:
        """Identity, from the values themselves."""
        return f"space:{content_digest(self.mean.tobytes() + self.components.tobytes())}"

    def project(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map `(n, teacher dim)` to `(n, dim)` float32 unit rows; a vector equal to the mean stays zero."""
        flat = (vectors - self.mean) @ self.components.T
        return (flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)).astype(np.float32)

    def save(self, path: Path) -> None:
        """Write an .npz file."""
        np.savez(path, mean=self.mean, components=self.components)

    @classmethod
    def load(cls, path: Path) -> "TeacherSpace":
        """Read what `save` wrote.

        Raises:
            UsageError: The file is not one.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(arrays["mean"], arrays["components"])
        except (OSError, KeyError, ValueError) as error:
            raise UsageError(f"{path} is not a teacher space written by `retrieval distill`.") from error
