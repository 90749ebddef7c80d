"""Student and teacher side by side: agreement, time, size."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

from index.embedder import Embedder
from index.errors import RetrievalError
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
        missing: Why the teacher found nothing; empty if it did.
    """

    student: Found
    teacher: Found | None
    overlap: float | None
    rbo: float | None
    missing: str = ""


def compare(searcher: Searcher, photo: Photo, k: int) -> Comparison:
    """Search with the student and, where there is one that answers, the teacher.

    Raises:
        RetrievalError: The student failed.
    """
    student = searcher.find([photo], "student", k)
    if "teacher" not in searcher.modes:
        return Comparison(student, None, None, None, searcher.teacher_missing)
    try:
        teacher = searcher.find([photo], "teacher", k)
    except RetrievalError as reason:  # its budget is spent, or it cannot be reached
        return Comparison(student, None, None, None, str(reason))
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
