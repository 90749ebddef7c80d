"""Asking about many images: some are decoded ahead, all lanes of the teacher are kept busy."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from threading import Event

from index.embedders.base import Embedder
from index.errors import BudgetError, ImageError, RetrievalError
from index.images.decode import read_photo
from index.images.file import ImageFile
from index.parallel import WORKERS, bounded_map
from index.progress import progress
from index.stores.records import Failure
from index.teachers.client import PaidEmbedder
from index.teachers.cost import make_bill
from index.teachers.questions import Outcome, Question


@dataclass(frozen=True)
class Asked:
    """What became of some images.

    Attributes:
        answered: Files with an answer in the ledger, each with the content digest of what was read.
        failures: Files that cannot be read, or that the teacher has no answer for.
        denied: How many the budget had no room for.
    """

    answered: list[tuple[ImageFile, str]]
    failures: list[Failure]
    denied: int = 0


@dataclass(frozen=True)
class _Prepared:
    file: ImageFile
    question: Question


def ask_about(files: Sequence[ImageFile], paid: PaidEmbedder, wanted: int) -> Iterator[Asked]:
    """Bring answers into the ledger until so many are there, the budget is spent or no file is left.

    Args:
        files: What to ask about, best first. One that cannot be answered for is replaced by the next.
        paid: The teacher to ask.
        wanted: How many answers.

    Yields:
        What was asked about together, as it comes home.

    Raises:
        RetrievalError: The teacher or the ledger cannot be used. What was answered is kept.
    """

    def prepare(file: ImageFile) -> _Prepared | Failure:
        try:
            return _Prepared(file, paid.prepare(read_photo(file, paid.side)))
        except ImageError as reason:
            return Failure(file.location, str(reason))

    with ThreadPoolExecutor(WORKERS) as workers:
        yield from _fly(
            bounded_map(workers, prepare, files, (paid.calls.concurrency + 1) * paid.calls.batch),
            paid,
            wanted,
        )


def _fly(prepared: Iterator[_Prepared | Failure], paid: PaidEmbedder, wanted: int) -> Iterator[Asked]:
    flying: dict[Future[Outcome], list[_Prepared]] = {}
    stop = Event()
    with ThreadPoolExecutor(paid.calls.concurrency) as callers:
        try:
            while wanted > 0 or flying:
                # One more than there are lanes waits to take off.
                while len(flying) <= paid.calls.concurrency and wanted > 0:
                    chunk, failures = _take(prepared, min(paid.calls.batch, wanted))
                    if chunk:
                        flying[callers.submit(paid.ask, [one.question for one in chunk], stop)] = chunk
                    wanted = wanted - len(chunk) if chunk else 0
                    yield Asked([], failures)
                for future in wait(flying, return_when=FIRST_COMPLETED).done:
                    outcome = future.result()
                    wanted = 0 if outcome.denied else wanted + len(outcome.refused)
                    yield _sort(flying.pop(future), outcome)
        except BaseException:
            stop.set()
            for future in flying:
                future.cancel()
            raise


def ask_ahead(files: Iterable[ImageFile], teacher: Embedder) -> Iterable[ImageFile]:
    """Bring a paid teacher's answers about all files into its ledger, if the budget allows all of them.

    Files without an answer are found out again when they are embedded.

    Returns:
        The files.

    Raises:
        BudgetError: The budget is too small, and nothing was asked; or another process has spent it.
        RetrievalError: No file has an answer, or as `ask_about`.
    """
    if not isinstance(teacher, PaidEmbedder):
        return files
    files, paid = list(files), teacher
    if not files:
        return files
    bill = make_bill(files, paid, paid.ledger, paid.budget)
    bill.require_budget()
    if bill.answered and bill.queries and bill.spent + bill.queries < bill.budget:
        probe(files, paid)
    denied, failures = 0, []
    with progress(len(files), "ask") as bar:
        for asked in ask_about(files, paid, len(files)):
            denied += asked.denied
            failures += asked.failures
            bar.update(len(asked.answered) + len(asked.failures))
    if denied:
        raise BudgetError(
            f"{paid.ledger.spent} of the budget of {paid.budget} are spent, and images are left. What was "
            f"answered is kept in {paid.ledger.path}. Give a larger --budget."
        )
    if not paid.dim:
        raise RetrievalError(f"No image has an answer. The first: {failures[0].path}: {failures[0].reason}.")
    return files


def probe(files: Iterable[ImageFile], paid: PaidEmbedder) -> None:
    """Ask again about the first of these images that has an answer, as `PaidEmbedder.probe`.

    Raises:
        RetrievalError: The teacher answers otherwise than before.
    """
    for file in files:
        try:
            photo = read_photo(file, paid.side)
        except ImageError:
            continue
        if paid.ledger.known([photo.digest]):
            paid.probe(photo)
            return


def _take(prepared: Iterator[_Prepared | Failure], count: int) -> tuple[list[_Prepared], list[Failure]]:
    """Take up to `count` images that could be read, and with them those that could not."""
    chunk: list[_Prepared] = []
    failures: list[Failure] = []
    while len(chunk) < count and (some := list(islice(prepared, count - len(chunk)))):
        chunk += [one for one in some if isinstance(one, _Prepared)]
        failures += [one for one in some if isinstance(one, Failure)]
    return chunk, failures


def _sort(chunk: Sequence[_Prepared], outcome: Outcome) -> Asked:
    asked = Asked([], [], len(outcome.denied))
    for one in chunk:
        digest = one.question.digest
        if digest in outcome.refused:
            asked.failures.append(Failure(one.file.location, outcome.refused[digest]))
        elif digest not in outcome.denied:
            asked.answered.append((one.file, one.question.source))
    return asked
