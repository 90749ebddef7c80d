"""Choose images and ask about them: answers come from the ledger where it has them, else from the teacher."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray

from distill.examples import PoolFeatures, look
from distill.model.backbone import Backbone
from distill.selection import order_by_worth, sample_pool
from index.embedders.base import Embedder, unit_rows
from index.errors import RetrievalError
from index.images.decode import read_photo, square
from index.images.digests import digest_pool
from index.images.file import ImageFile
from index.progress import progress
from index.stores.records import Failure
from index.teachers.ask import ask_about, probe
from index.teachers.client import BudgetedTeacher
from index.teachers.cost import share_for_queries
from index.teachers.ledger import Ledger

SAME = 1e-5  # difference between coordinates of unit vectors that is no more than rounding
FEWEST = 2  # answers that a projection can be fitted to


@dataclass(frozen=True)
class QueryAnswers:
    """Answers about photos like those that will be searched with. Nothing is learnt from them.

    Attributes:
        pixels: `(m, side, side, 3)` uint8.
        vectors: `(m, teacher dim)` float32, the answers, unit rows.
    """

    pixels: NDArray[np.uint8]
    vectors: NDArray[np.float32]


@dataclass(frozen=True)
class TeacherAnswers:
    """The images that the teacher has answered for.

    Attributes:
        digests: Content digest of each of n images, in order: when each was asked about leaves no trace.
        vectors: `(n, teacher dim)` float32, the answers, unit rows.
        asked: How many of them were paid for just now.
        lost: How many images were asked about just now without getting an answer.
        seconds: How long asking took just now.
        failures: Chosen images that could not be read, or that the teacher has no answer for.
        queries: Answers about photos like those that will be searched with, if there are such photos.
    """

    digests: list[str]
    vectors: NDArray[np.float32]
    asked: int
    lost: int
    seconds: float
    failures: list[Failure]
    queries: QueryAnswers | None = None

    @property
    def count(self) -> int:
        """How many answers there are, about the pool and about query photos."""
        return len(self.digests) + (len(self.queries.pixels) if self.queries else 0)


@dataclass(frozen=True)
class Pool:
    """What may be asked about and learnt from: distinct images of a pool that can be read, by digest.

    Attributes:
        files: n image files.
        digests: Content digest of each.
        looked: What was seen of them.
        failures: Files of the pool that cannot be read, or that a file of vectors lacks.
    """

    files: list[ImageFile]
    digests: list[str]
    looked: PoolFeatures
    failures: list[Failure]


def survey_pool(
    files: Sequence[ImageFile],
    teacher: Embedder,
    ledger: Ledger,
    backbone: Backbone,
    fabric: Fabric,
    side: int,
    most: int,
    seed: int,
) -> Pool:
    """Look at a sample of a pool, of at most `most` images, and keep squares of `side` pixels.

    What the teacher cannot answer for is left out; images that the ledger has answers about come first. The
    backbone is the student's, whole.

    Raises:
        UsageError: The teacher is a file of vectors that lacks some of the images.
    """
    digests = digest_pool(files)
    missing = teacher.find_missing(files, digests)
    lacking = [Failure(files[i].location, why) for i, why in missing.items()]
    files = [file for i, file in enumerate(files) if i not in missing]
    digests = [digest for i, digest in enumerate(digests) if i not in missing]
    sample = sample_pool(digests, ledger.known(digests), most, seed)
    looked = look([files[i] for i in sample], backbone, side, fabric)
    readable = [sample[row] for row in looked.rows]
    return Pool(
        [files[i] for i in readable], [digests[i] for i in readable], looked, lacking + looked.failures
    )


def consult(
    survey: Pool,
    teacher: Embedder,
    ledger: Ledger,
    budget: int,
    select: str,
    seed: int,
    queries: Sequence[ImageFile] = (),
    replayed: Set[str] = frozenset(),
    limit: int | None = None,
) -> TeacherAnswers:
    """Choose images to ask about, and ask.

    Args:
        survey: What was seen of the pool.
        teacher: The model to ask.
        ledger: Its paid answers.
        budget: How many answers to collect.
        select: Which images to ask about, as in `order_by_worth`.
        seed: Of the choice.
        queries: Photos like those that will be searched with; as many answers as `share_for_queries` says
            are about them.
        replayed: Digests of images that nothing is asked about; answers that they have come on top.
        limit: How much may ever be spent by the ledger's account; None for as much as the budget.

    Raises:
        RetrievalError: Too few images, a spent budget, or a teacher that tells nothing apart.
    """
    if len(survey.digests) < FEWEST:
        raise RetrievalError(_too_few(len(survey.digests), survey.failures, False, ledger, budget))
    limit = budget if limit is None else limit
    about = _consult_queries(queries, survey, teacher, ledger, budget, seed, limit) if queries else None
    wanted = budget - (about.count if about else 0)
    known = ledger.known(survey.digests)
    free = np.array([digest in known for digest in survey.digests], bool)
    old = np.array([digest in replayed for digest in survey.digests], bool)
    among, told = np.flatnonzero(~old), np.flatnonzero(old & free)
    worth = among[order_by_worth(survey.looked.features[among], free[among], wanted, select, seed)]
    order = [*told.tolist(), *worth.tolist()]
    answered = ask_teacher(survey.files, survey.digests, order, teacher, ledger, limit, len(told) + wanted)
    if np.ptp(answered.vectors, axis=0).max() < SAME:
        raise RetrievalError(
            f"{teacher.name} gives all {len(answered.digests)} images the same vector: there is nothing to "
            "learn. Check the teacher, or give other images."
        )
    if about is None:
        return answered
    return replace(
        answered,
        asked=answered.asked + about.asked,
        lost=answered.lost + about.lost,
        seconds=answered.seconds + about.seconds,
        failures=[*about.failures, *answered.failures],
        queries=about.queries,
    )


def _consult_queries(
    files: Sequence[ImageFile],
    pool: Pool,
    teacher: Embedder,
    ledger: Ledger,
    budget: int,
    seed: int,
    limit: int,
) -> TeacherAnswers:
    """Ask about some query photos that are not in the pool."""
    digests = digest_pool(files)
    learnt = set(pool.digests)
    new = [i for i, digest in enumerate(digests) if digest not in learnt]
    digests, files = [digests[i] for i in new], [files[i] for i in new]
    wanted = share_for_queries(budget)
    order = np.random.default_rng(seed).permutation(sorted(range(len(digests)), key=digests.__getitem__))
    answered = ask_teacher(files, digests, order.tolist(), teacher, ledger, limit, wanted)
    place = {digest: i for i, digest in enumerate(digests)}
    side = pool.looked.pixels.shape[1]
    pixels = [square(read_photo(files[place[digest]], side).image, side) for digest in answered.digests]
    return replace(answered, digests=[], queries=QueryAnswers(np.stack(pixels), answered.vectors))


def ask_teacher(
    files: Sequence[ImageFile],
    digests: Sequence[str],
    order: Sequence[int],
    teacher: Embedder,
    ledger: Ledger,
    budget: int,
    wanted: int | None = None,
) -> TeacherAnswers:
    """Collect answers for images in a given order, from the ledger where it has them.

    Args:
        files: The pool.
        digests: Content digest of each file.
        order: Positions in the pool, best first, answered ones before others.
        teacher: The model to ask.
        ledger: Where answers come from, and are stored before use.
        budget: How much may ever be spent by the ledger's account.
        wanted: How many answers to collect; None for as many as the budget.

    Raises:
        RetrievalError: Nothing may be asked any more, too few images can be used, or the teacher failed.
    """
    wanted = budget if wanted is None else wanted
    known = ledger.known([digests[i] for i in order])
    kept = [digests[i] for i in order if digests[i] in known][:wanted]
    unknown = {files[i]: digests[i] for i in order if digests[i] not in known}
    paid = BudgetedTeacher(teacher, ledger, budget)
    failures: list[Failure] = []
    start = perf_counter()
    if unknown and len(kept) < wanted:
        probe((files[i] for i in order if digests[i] in known), paid)
    with progress(min(wanted, len(order)), "ask") as bar:
        bar.update(len(kept))
        for asked in ask_about(list(unknown), paid, wanted - len(kept)):
            failures += asked.failures
            for file, digest in asked.answered:
                if digest == unknown[file]:
                    kept.append(digest)
                else:
                    failures.append(Failure(file.location, "changed while it was read"))
                bar.update()
    seconds = perf_counter() - start
    if len(kept) < FEWEST:
        raise RetrievalError(_too_few(len(kept), failures, bool(unknown), ledger, budget, paid.complaint))
    kept.sort()
    answers = ledger.answers(kept)
    vectors = unit_rows(np.stack([answers[digest] for digest in kept]), teacher.name)
    return TeacherAnswers(kept, vectors, paid.asked, paid.lost, seconds, failures)


def _too_few(
    count: int, failures: Sequence[Failure], unknown: bool, ledger: Ledger, budget: int, complaint: str = ""
) -> str:
    if unknown and ledger.spent >= budget:
        lost = f" and {ledger.lost} failed calls" if ledger.lost else ""
        last = f" The last failure: {complaint}." if complaint else ""
        return (
            f"The budget of {budget} is spent: {ledger.path} holds {len(ledger)} answers{lost}, "
            f"{count} of them about these images.{last} Raise --budget, or give another --ledger."
        )
    reason = f" The first that cannot be used: {failures[0].path}: {failures[0].reason}." if failures else ""
    return f"Only {count} usable images with different content; at least {FEWEST} are needed.{reason}"
