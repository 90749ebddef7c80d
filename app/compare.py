"""Student and teacher side by side: agreement, time, size."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

from index.embedder import Embedder
from index.images import Photo
from index.metrics import overlap_at_k, rank_biased_overlap
from index.search import Found, Searcher


@dataclass(frozen=True)
class Comparison:
    """What both models find for one photo.

    Attributes:
        student: The student's results.
        teacher: The teacher's; None where there is no teacher.
        overlap: Share of the k results that both have; None without a teacher.
        rbo: Rank-biased overlap (p = 0.9); None without a teacher.
    """

    student: Found
    teacher: Found | None
    overlap: float | None
    rbo: float | None


def compare(searcher: Searcher, photo: Photo, k: int) -> Comparison:
    """Search with the student and, where there is one, the teacher.

    Raises:
        RetrievalError: A model failed.
    """
    student = searcher.find([photo], "student", k)
    if "teacher" not in searcher.modes:
        return Comparison(student, None, None, None)
    teacher = searcher.find([photo], "teacher", k)
    lists = student.results.ids, teacher.results.ids
    return Comparison(student, teacher, float(overlap_at_k(*lists)[0]), float(rank_biased_overlap(*lists)[0]))


def milliseconds_per_image(model: Embedder, photos: Sequence[Photo], rounds: int = 5) -> float:
    """Median time to prepare and embed one photo at a time, after a warm-up round.

    Args:
        model: The embedder.
        photos: Photos to embed.
        rounds: How often each is embedded.
    """
    times = []
    for turn in range(rounds + 1):
        for photo in photos:
            start = perf_counter()
            model.embed([model.prepare(photo)])
            if turn:
                times.append(perf_counter() - start)
    return 1000 * median(times)
