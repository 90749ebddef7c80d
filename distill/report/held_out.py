"""What a finished student returns for photos that it did not learn from, beside what its teacher returns."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from index.embedders.base import Embedder, embed_many
from index.evaluation.metrics import overlap_at_k, rank
from index.evaluation.rankings import DEPTH


@dataclass(frozen=True)
class HeldOut:
    """Held-out photos as queries, and the photos that were learnt from as the gallery.

    Attributes:
        queries: `(m, side, side, 3)` uint8.
        gallery: `(n, side, side, 3)` uint8.
        teacher: `(m, k)` rows of the gallery that the teacher finds, k at most 10.
        student: `(m, k)` rows that the student finds.
    """

    queries: NDArray[np.uint8]
    gallery: NDArray[np.uint8]
    teacher: NDArray[np.int64]
    student: NDArray[np.int64]

    @property
    def agreement(self) -> NDArray[np.float64]:
        """`(m,)` share of the teacher's list that the student also has."""
        return overlap_at_k(self.student, self.teacher)


def search_held_out(
    student: Embedder, pixels: NDArray[np.uint8], answers: NDArray[np.float32], held: NDArray[np.bool_]
) -> HeldOut | None:
    """Search with the held-out photos among the others, with both models.

    Args:
        student: The finished student.
        pixels: `(n, side, side, 3)` uint8 of the answered photos, as the student is shown them.
        answers: `(n, teacher dim)` the teacher's vectors of them.
        held: `(n,)` which of them are held out.

    Returns:
        The lists; None if nothing is held out.
    """
    if not held.any():
        return None
    teacher = rank(answers[held] @ answers[~held].T, min(DEPTH, int((~held).sum())))
    return search_again(student, HeldOut(pixels[held], pixels[~held], teacher, teacher))


def search_again(student: Embedder, lists: HeldOut) -> HeldOut:
    """The same queries and gallery, searched by another student."""
    similarity = embed_many(student, list(lists.queries)) @ embed_many(student, list(lists.gallery)).T
    return replace(lists, student=rank(similarity, lists.teacher.shape[1]))
