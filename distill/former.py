"""What a new student takes over from the one before it: weights to start from, and a space to stay in."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from distill.placement import Placement
from index.embedders.teacher_space import TeacherSpace


@dataclass(frozen=True)
class Former:
    """The student that a new one takes the place of."""

    key: str  # its embedder's key
    rows: NDArray[np.int64]  # `(n,)` places, in the pool of the new student, of photos that it embedded
    vectors: NDArray[np.float32]  # `(n, dim)` float32, its vectors of them, unit rows
    # State of its network to start from; None starts where every student does
    weights: Mapping[str, Tensor] | None = None

    def align(self, placement: Placement) -> Placement:
        """Turn all places as one, so that those of its photos come nearest to its vectors.

        A turn changes no similarity among the places: the new student ranks as it would have. That its
        vectors can also be compared with the former one's costs nothing (orthogonal Procrustes, Schönemann
        1966).
        """
        left, _, right = np.linalg.svd(placement.rows[self.rows].T @ self.vectors)
        turn = (left @ right).astype(np.float32)
        space = placement.space
        return replace(
            placement, rows=placement.rows @ turn, space=TeacherSpace(space.mean, turn.T @ space.components)
        )
