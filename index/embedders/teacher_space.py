"""Teacher space: the teacher's vectors projected to the student's dimension, so that both can be compared."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from index.embedders.projection import Projection
from index.errors import UsageError
from index.io import content_digest

FILE = "teacher_space.npz"


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
