"""Asking about many images: some are decoded ahead, as many calls are made at a time as the teacher takes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Event
from typing import Generic, TypeVar

from index.errors import ImageError
from index.images.decode import Photo, read_photo
from index.images.file import ImageFile
from index.parallel import bounded_map
from index.stores.records import Failure
from index.teachers.client import BudgetedTeacher
from index.teachers.questions import Question, Work

T = TypeVar("T")
Read = Callable[[ImageFile, int], Photo]  # reads and decodes, as `read_photo`
Prepared = tuple[T, Question]  # what a question is about, and the question


@dataclass(frozen=True)
class Asked(Generic[T]):
    """What became of some images."""

    answered: list[tuple[T, str]]  # files with an answer, and the content digest of what was read
    failures: list[Failure]  # files that cannot be read, or that the teacher has no answer for
    denied: int = 0  # how many the budget had no room for


def ask_about(
    files: Sequence[ImageFile], paid: BudgetedTeacher, wanted: int, read: Read = read_photo
) -> Iterator[Asked[ImageFile]]:
    """Bring answers into the ledger until there are enough, the budget is spent or no file is left.

    Files come best first: one that cannot be answered for is replaced by the next. What was asked about
    together is yielded as it comes home.

    Raises:
        RetrievalError: The teacher or the ledger cannot be used. What was answered is kept.
    """

    def prepare(file: ImageFile) -> Prepared[ImageFile] | Failure:
        try:
            return file, paid.prepare(read(file, paid.decode_side))
        except ImageError as reason:
            return Failure(file.location, str(reason))

    ahead = (paid.calls.concurrency + 1) * paid.calls.batch
    yield from ask_prepared(bounded_map(prepare, files, ahead), paid, wanted)


def probe(files: Iterable[ImageFile], paid: BudgetedTeacher, read: Read = read_photo) -> None:
    """Probe with the first of these images that has an answer, if the budget has room for more than that."""
    if paid.ledger.spent + 1 >= paid.budget:
        return
    for file in files:
        try:
            question = paid.prepare(read(file, paid.decode_side))
        except ImageError:
            continue
        if paid.probe(question):
            return


def ask_prepared(
    prepared: Iterator[Prepared[T] | Failure], paid: BudgetedTeacher, wanted: int
) -> Iterator[Asked[T]]:
    """`ask_about` what was prepared elsewhere."""
    in_flight: dict[Future[Work], list[Prepared[T]]] = {}
    stop = Event()
    with ThreadPoolExecutor(paid.calls.concurrency) as callers:
        try:
            while wanted > 0 or in_flight:
                # One more than may be asked about at a time is ready.
                while len(in_flight) <= paid.calls.concurrency and wanted > 0:
                    chunk, failures = _take(prepared, min(paid.calls.batch, wanted))
                    if chunk:
                        in_flight[callers.submit(paid.ask, [question for _, question in chunk], stop)] = chunk
                    wanted = wanted - len(chunk) if chunk else 0
                    yield Asked([], failures)
                for future in wait(in_flight, return_when=FIRST_COMPLETED).done:
                    done = future.result()
                    wanted = 0 if done.denied else wanted + len(done.refused)
                    yield _sort(in_flight.pop(future), done)
        except BaseException:
            stop.set()
            for future in in_flight:
                future.cancel()
            raise


def _take(prepared: Iterator[Prepared[T] | Failure], count: int) -> tuple[list[Prepared[T]], list[Failure]]:
    """Take up to `count` images that could be read, and with them those that could not."""
    chunk: list[Prepared[T]] = []
    failures: list[Failure] = []
    while len(chunk) < count and (one := next(prepared, None)):
        if isinstance(one, Failure):
            failures.append(one)
        else:
            chunk.append(one)
    return chunk, failures


def _sort(chunk: Sequence[Prepared[T]], done: Work) -> Asked[T]:
    asked: Asked[T] = Asked([], [], len(done.denied))
    for about, question in chunk:
        if question.digest in done.refused:
            asked.failures.append(Failure(question.place, done.refused[question.digest]))
        elif question.digest not in done.denied:
            asked.answered.append((about, question.source))
    return asked
