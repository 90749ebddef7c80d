"""Choose images and ask about them: answers come from the ledger where it has them, else from the teacher."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray

from distill.examples import hold_out
from distill.options import FEWEST, Options
from distill.photos import PhotoReader
from distill.pool import Pool
from distill.selection import order_by_worth
from index.embedders.base import Embedder, unit_rows
from index.errors import RetrievalError, UsageError
from index.images.decode import MARGIN, square
from index.images.file import ImageFile
from index.images.sources import find_images
from index.progress import count, progress
from index.stores.records import Failure
from index.teachers.ask import ask_about, probe
from index.teachers.client import BudgetedTeacher
from index.teachers.cost import share_for_queries
from index.teachers.ledger import Ledger

SAME = 1e-5  # difference between coordinates of unit vectors that is no more than rounding


@dataclass(frozen=True)
class Task:
    """A student to make: whose answers it learns, and how."""

    teacher: Embedder
    ledger: Ledger  # of the teacher's answers
    options: Options
    fabric: Fabric  # what it is trained with


@dataclass(frozen=True)
class QueryAnswers:
    """Answers about photos like those that will be searched with. Nothing is learnt from them."""

    pixels: NDArray[np.uint8]  # `(m, side, side, 3)` uint8
    vectors: NDArray[np.float32]  # `(m, teacher dim)` float32, the answers, unit rows


@dataclass(frozen=True)
class TeacherAnswers:
    """The images that the teacher has answered for."""

    # Content digest of each of n images, in order: when each was asked about leaves no trace
    digests: list[str]
    vectors: NDArray[np.float32]  # `(n, teacher dim)` float32, the answers, unit rows
    asked: int  # how many of them were paid for just now
    lost: int  # how many images were asked about just now without getting an answer
    seconds: float  # how long asking took just now
    failures: list[Failure]  # chosen images that could not be read, or that the teacher has no answer for
    # Answers about photos like those that will be searched with, if there are such photos
    queries: QueryAnswers | None = None
    # Digests of such photos that have an answer, from this run or one that it goes on from
    known_queries: Set[str] = frozenset()
    # Digests of photos that the students of several budgets are measured on: none of them learns from one
    measured: Set[str] = frozenset()
    # Digests of photos that the weights to start from have learnt: to measure on them would tell nothing
    learnt: Set[str] = frozenset()

    @property
    def held(self) -> NDArray[np.bool_]:
        """Choose the answers that are not learnt from: an `(n,)` mask."""
        return hold_out(self.digests, 0.0 if self.queries else None, self.learnt)

    @property
    def count(self) -> int:
        """Count the answers about the pool and about query photos."""
        return len(self.digests) + (len(self.queries.pixels) if self.queries else 0)


def consult(
    task: Task,
    pool: Pool,
    replayed: Set[str] = frozenset(),
    limit: int | None = None,
    budget: int | None = None,
) -> TeacherAnswers:
    """Choose images to ask about, and ask: about query photos as many as `share_for_queries` says.

    About images of the digests `replayed` nothing is asked; answers that those in the pool have come on top.
    The budget is how many answers to collect, the limit how much may ever be spent by the ledger's account;
    None for as many as the options say, and as much.

    Raises:
        RetrievalError: Too few images, a spent budget, or a teacher that tells nothing apart.
    """
    teacher, ledger, options = task.teacher, task.ledger, task.options
    budget = options.budget if budget is None else budget
    if len(pool.digests) < FEWEST:
        raise RetrievalError(_too_few(len(pool.digests), pool.failures))
    limit = budget if limit is None else limit
    about = _consult_queries(task, pool, replayed, limit) if options.queries else None
    wanted = budget - (about.count if about else 0)
    known = ledger.known(pool.digests)
    free = np.array([digest in known or digest in pool.also for digest in pool.digests], bool)
    among = np.array([i for i, digest in enumerate(pool.digests) if digest not in replayed], np.int64)
    told = [i for i, digest in enumerate(pool.digests) if digest in replayed and digest in known]
    worth = among[order_by_worth(pool.features[among], free[among], wanted, options.select, options.seed)]
    order, wanted = [*told, *worth.tolist()], len(told) + wanted
    answered = ask_teacher(pool.files, pool.digests, order, teacher, ledger, limit, wanted, pool.reader)
    if np.ptp(answered.vectors, axis=0).max() < SAME:
        raise RetrievalError(
            f"{teacher.name} gives all {len(answered.digests)} images the same vector: there is nothing to "
            "learn. Check the teacher, or give other images."
        )
    if about is None:
        return answered
    counted = ("asked", "lost", "seconds", "failures")
    both: dict[str, Any] = {name: getattr(about, name) + getattr(answered, name) for name in counted}
    return replace(about, digests=answered.digests, vectors=answered.vectors, **both)


def _consult_queries(task: Task, pool: Pool, replayed: Set[str], limit: int) -> TeacherAnswers:
    """Ask about some query photos that are neither in the pool nor replayed."""
    given, reader, others = find_images(task.options.queries), pool.reader, {*pool.digests, *replayed}
    both = zip(reader.digest(given), given, strict=True)
    found = {digest: file for digest, file in both if digest not in others}
    if len(found) < FEWEST:
        raise UsageError(
            f"--queries needs {FEWEST} photos that are not in the pool; {len(found)} here. "
            "Give more, or none."
        )
    digests, wanted = sorted(found), share_for_queries(task.options.budget)
    order = np.random.default_rng(task.options.seed).permutation(len(digests)).tolist()
    files = [found[digest] for digest in digests]
    answered = ask_teacher(files, digests, order, task.teacher, task.ledger, limit, wanted, reader)
    side = pool.pixels.shape[1]
    pixels = [
        square(reader.read(found[digest], MARGIN * side).image, side, reduced=True)
        for digest in answered.digests
    ]
    queries = QueryAnswers(np.stack(pixels), answered.vectors)
    return replace(answered, digests=[], queries=queries, known_queries=frozenset(answered.digests))


def ask_teacher(
    files: Sequence[ImageFile],
    digests: Sequence[str],
    order: Sequence[int],
    teacher: Embedder,
    ledger: Ledger,
    budget: int,
    wanted: int | None = None,
    reader: PhotoReader | None = None,
) -> TeacherAnswers:
    """Collect `wanted` answers, or as many as the budget, for images of a pool, best first.

    They come from the ledger where it has them: `order`, which are positions, names such images before
    others. The budget is how much may ever be spent by the ledger's account. A reader has read the files.

    Raises:
        RetrievalError: Nothing may be asked any more, too few images can be used, or the teacher failed.
    """
    wanted = budget if wanted is None else wanted
    known = ledger.known([digests[i] for i in order])
    kept = [digests[i] for i in order if digests[i] in known][:wanted]
    unknown = {files[i]: digests[i] for i in order if digests[i] not in known}
    paid, reader = BudgetedTeacher(teacher, ledger, budget), reader or PhotoReader(0)
    failures: list[Failure] = []
    start = perf_counter()
    if unknown and len(kept) < wanted:
        probe((files[i] for i in order if digests[i] in known), paid, reader.read)
    with progress(min(wanted, len(order)), "ask") as bar:
        bar.update(len(kept))
        for asked in ask_about(list(unknown), paid, wanted - len(kept), reader.read):
            failures += asked.failures
            for file, digest in asked.answered:
                if digest == unknown[file]:
                    kept.append(digest)
                else:
                    failures.append(Failure(file.location, "changed while it was read"))
                bar.update()
    seconds = perf_counter() - start
    if len(kept) < FEWEST:
        if not unknown or ledger.spent < budget:
            raise RetrievalError(_too_few(len(kept), failures))
        lost = f" and {count(ledger.lost, 'failed call')}" if ledger.lost else ""
        last = f" The last failure: {paid.complaint}." if paid.complaint else ""
        raise RetrievalError(
            f"The budget of {budget} is spent: {ledger.path} holds {count(len(ledger), 'answer')}{lost}, "
            f"{len(kept)} of them about these images.{last} Raise --budget, or give another --ledger."
        )
    kept.sort()
    answers = ledger.answers(kept)
    vectors = unit_rows(np.stack([answers[digest] for digest in kept]), teacher.name)
    return TeacherAnswers(kept, vectors, paid.asked, paid.lost, seconds, failures)


def _too_few(usable: int, failures: Sequence[Failure]) -> str:
    told = f"Only {count(usable, 'usable image')} with different content; at least {FEWEST} are needed."
    if failures:
        told += f" The first that cannot be used: {failures[0].path}: {failures[0].reason}."
    return told
