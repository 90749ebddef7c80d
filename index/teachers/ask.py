"""Asking about many images: some are decoded ahead, all lanes of the teacher are kept busy."""

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from threading import Event

from index.errors import BudgetError, ImageError, RetrievalError
from index.images.decode import read_photo
from index.images.file import ImageFile
from index.io import content_digest
from index.parallel import BATCH, WORKERS, bounded_map
from index.progress import progress
from index.stores.records import Failure
from index.teachers.call import Question
from index.teachers.client import PaidEmbedder
from index.teachers.retry import Outcome


@dataclass(frozen=True)
class Asked:
    """What became of some images.

    Attributes:
        answered: Files whose answer is in the ledger, each with the content digest of what was read.
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
        paid: Whom to ask.
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


def ask_all(files: Sequence[ImageFile], paid: PaidEmbedder) -> None:
    """Bring the answers about all files into the ledger; those without one are found out again when embedded.

    Raises:
        BudgetError: The budget ran out; another process may have spent it.
        RetrievalError: No file has an answer, or as `ask_about`.
    """
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


def digest_pool(files: Sequence[ImageFile]) -> list[str]:
    """Content digest of each file; of one that cannot be read, a digest of its path, and it fails later."""

    def digest(file: ImageFile) -> str:
        try:
            return content_digest(file.read()[0])
        except ImageError:
            return content_digest(file.location.encode())

    with ThreadPoolExecutor(WORKERS) as pool, progress(len(files), "read") as bar:
        digests = []
        for found in bounded_map(pool, digest, files, ahead=4 * BATCH):
            digests.append(found)
            bar.update()
        return digests


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
