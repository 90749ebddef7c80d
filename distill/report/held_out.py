"""What a finished student returns for photos that it did not learn from, beside what its teacher returns."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.embedders.base import Embedder, embed_many
from index.evaluation.metrics import overlap_at_k, rank
from index.evaluation.rankings import DEPTH
from index.evaluation.verdict import estimate_mean

POOL_PHOTOS = "photos of the pool that it did not learn from"
QUERY_PHOTOS = "query photos"


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Held-out photos as queries, and the photos that were learnt from as the gallery."""

    queries: NDArray[np.uint8]  # `(m, side, side, 3)` uint8
    gallery: NDArray[np.uint8]  # `(n, side, side, 3)` uint8
    teacher: NDArray[np.int64]  # `(m, k)` rows of the gallery that the teacher finds, k at most 10
    student: NDArray[np.int64]  # `(m, k)` rows that the student finds
    population: str = POOL_PHOTOS  # what the queries are, for people
    start: float | None = None  # agreement of the student's backbone, before anything was learnt
    ceiling: float | None = None  # agreement of the teacher's own vectors in as many dimensions

    def searched(self, similarity: NDArray[np.float32]) -> "HeldOut":
        """Search with the student, whose `(m, n)` similarities are given."""
        return replace(self, student=rank(similarity, self.teacher.shape[1]))

    @property
    def agreement(self) -> NDArray[np.float64]:
        """Compute the `(m,)` share of the teacher's list that the student also has."""
        return overlap_at_k(self.student, self.teacher)

    @property
    def facts(self) -> dict[str, Any]:
        """Sum up the agreement: its mean and 95 % interval, on what, and among how many photos."""
        mean, interval = estimate_mean(self.agreement)
        return {
            "held_out": len(self.queries),
            "among": len(self.gallery),
            "population": self.population,
            "overlap@10": mean,
            "interval": list(interval),
            "start": self.start,
            "ceiling": self.ceiling,
        }


def search_with_teacher(
    queries: tuple[NDArray[np.uint8], NDArray[np.float32]],
    gallery: tuple[NDArray[np.uint8], NDArray[np.float32]],
    population: str = POOL_PHOTOS,
) -> HeldOut | None:
    """Search with the teacher alone: its lists stand for the student's too at first; None without queries.

    Queries and gallery are `(n, side, side, 3)` uint8, as the student is shown them, with `(n, dim)` answers.
    """
    if not len(queries[0]):
        return None
    teacher = rank(queries[1] @ gallery[1].T, min(DEPTH, len(gallery[1])))
    return HeldOut(queries[0], gallery[0], teacher, teacher, population)


def search_again(student: Embedder, lists: HeldOut) -> HeldOut:
    """Search the same gallery with the same queries, by another student."""
    return lists.searched(
        embed_many(student, list(lists.queries)) @ embed_many(student, list(lists.gallery)).T
    )
