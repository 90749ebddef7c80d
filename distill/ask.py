"""Collect the teacher's answers: from the ledger where it has them, for money where not, within the budget."""

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from index.embedder import Embedder, unit_rows
from index.errors import ImageError, RetrievalError
from index.images import ImageFile, content_digest, read_photo, square
from index.ledger import Ledger
from index.paid import Outcome, PaidEmbedder, Question
from index.pipeline import BATCH, WORKERS, map_ahead
from index.progress import progress
from index.store import Failure

FEWEST = 2  # answers that a projection can be fitted to


@dataclass(frozen=True)
class Answered:
    """The images that the teacher has answered for, in the order of their digests.

    That order does not tell which was answered when: a student does not depend on interruptions.

    Attributes:
        digests: Content digest of each of n images.
        pixels: `(n, side, side, 3)` uint8.
        vectors: `(n, teacher dim)` float32, the answers, unit rows.
        asked: How many of them were paid for just now.
        lost: How many images were asked about just now without getting an answer.
        failures: Chosen images that could not be read, or that the teacher has no answer for.
    """

    digests: list[str]
    pixels: NDArray[np.uint8]
    vectors: NDArray[np.float32]
    asked: int
    lost: int
    failures: list[Failure]


@dataclass(frozen=True)
class _Prepared:
    file: ImageFile
    pixels: NDArray[np.uint8]
    question: Question


def digest_pool(files: Sequence[ImageFile]) -> list[str]:
    """Content digest of each file; of one that cannot be read, a digest of its path, and it fails later."""

    def digest(file: ImageFile) -> str:
        try:
            return content_digest(file.path.read_bytes())
        except OSError:
            return content_digest(str(file.path).encode(errors="surrogateescape"))

    with ThreadPoolExecutor(WORKERS) as pool, progress(len(files), "read") as bar:
        digests = []
        for found in map_ahead(pool, digest, files, ahead=4 * BATCH):
            digests.append(found)
            bar.update()
        return digests


def ask_teacher(
    files: Sequence[ImageFile],
    digests: Sequence[str],
    order: Sequence[int],
    teacher: Embedder,
    ledger: Ledger,
    budget: int,
    side: int,
) -> Answered:
    """Collect answers for images in a given order, from the ledger where it has them, up to the budget.

    Args:
        files: The pool.
        digests: Content digest of each file.
        order: Positions in the pool, best first.
        teacher: The model to ask.
        ledger: Where answers come from, and are stored before use.
        budget: How many images to collect, and how much may ever be spent by the ledger's account.
        side: Pixels to keep of each image.

    Raises:
        RetrievalError: Nothing may be asked any more, too few images can be read, or the teacher failed.
    """
    paid = PaidEmbedder(teacher, ledger, budget)
    known = ledger.known([digests[i] for i in order])
    free = [files[i] for i in order if digests[i] in known]
    open_files = [files[i] for i in order if digests[i] not in known]

    def look(file: ImageFile) -> tuple[str, NDArray[np.uint8]] | Failure:
        try:
            photo = read_photo(file, side)
        except ImageError as reason:
            return Failure(str(file.path), str(reason))
        if photo.digest not in known:
            return Failure(str(file.path), "changed while it was read")
        return photo.digest, square(photo.image, side)

    def prepare(file: ImageFile) -> _Prepared | Failure:
        try:
            photo = read_photo(file, max(side, teacher.side))
            return _Prepared(file, square(photo.image, side), paid.prepare(photo))
        except ImageError as reason:
            return Failure(str(file.path), str(reason))

    kept: dict[str, NDArray[np.uint8]] = {}
    failures: list[Failure] = []
    with ThreadPoolExecutor(WORKERS) as pool, progress(min(budget, len(order)), "ask") as bar:
        for seen in map_ahead(pool, look, free[:budget], ahead=2 * BATCH):
            if isinstance(seen, Failure):
                failures.append(seen)
            else:
                kept.update([seen])
            bar.update()

        ahead = (paid.calls.lanes + 1) * paid.calls.batch + BATCH
        outcomes = map_ahead(pool, prepare, open_files, ahead=ahead)
        for chunk, outcome in _ask_in_lanes(paid, outcomes, budget - len(kept), failures):
            for prepared in chunk:
                digest = prepared.question.digest
                if digest in outcome.refused:
                    failures.append(Failure(str(prepared.file.path), outcome.refused[digest]))
                elif digest not in outcome.denied:
                    kept[prepared.question.source] = prepared.pixels
                    bar.update()
        if ledger.buried:
            bar.write(
                f"{ledger.buried} images were being asked about when an earlier run ended; they count as spent."
            )
    if len(kept) < FEWEST:
        raise RetrievalError(_too_few(len(kept), failures, bool(open_files), ledger, budget))
    chosen = sorted(kept)
    answers = ledger.answers(chosen)
    vectors = unit_rows(np.stack([answers[digest] for digest in chosen]), teacher.name)
    pixels = np.stack([kept[digest] for digest in chosen])
    return Answered(chosen, pixels, vectors, paid.asked, paid.lost, failures)


def _ask_in_lanes(
    paid: PaidEmbedder, outcomes: Iterator[_Prepared | Failure], wanted: int, failures: list[Failure]
) -> Iterator[tuple[list[_Prepared], Outcome]]:
    """Ask until so many are answered, the budget is spent or nothing is left, with all lanes busy.

    Yields:
        What was asked about together, and what became of it, as it comes home.
    """
    flying: dict[Future[Outcome], list[_Prepared]] = {}
    with ThreadPoolExecutor(paid.calls.lanes) as lanes:
        try:
            while True:
                # One more than there are lanes waits to take off.
                while len(flying) <= paid.calls.lanes and wanted > 0:
                    chunk = _take(outcomes, min(paid.calls.batch, wanted), failures)
                    if not chunk:
                        wanted = 0
                        break
                    flying[lanes.submit(paid.ask, [prepared.question for prepared in chunk])] = chunk
                    wanted -= len(chunk)
                if not flying:
                    return
                home, _ = wait(flying, return_when=FIRST_COMPLETED)
                for future in home:
                    outcome = future.result()
                    wanted = 0 if outcome.denied else wanted + len(outcome.refused)
                    yield flying.pop(future), outcome
        except BaseException:
            paid.stop()
            for future in flying:
                future.cancel()
            raise


def _take(outcomes: Iterator[_Prepared | Failure], count: int, failures: list[Failure]) -> list[_Prepared]:
    """Take up to `count` images that could be read, and note those that could not."""
    chunk: list[_Prepared] = []
    while len(chunk) < count and (some := list(islice(outcomes, count - len(chunk)))):
        chunk += [outcome for outcome in some if isinstance(outcome, _Prepared)]
        failures += [outcome for outcome in some if isinstance(outcome, Failure)]
    return chunk


def _too_few(count: int, failures: Sequence[Failure], open_files: bool, ledger: Ledger, budget: int) -> str:
    if open_files and ledger.spent >= budget:
        lost = f" and {ledger.lost} calls in vain" if ledger.lost else ""
        return (
            f"The budget of {budget} is spent: {ledger.path} holds {len(ledger)} answers{lost}, "
            f"{count} of them about these images. Raise --budget, or give another --ledger."
        )
    reason = f" The first that cannot be used: {failures[0].path}: {failures[0].reason}." if failures else ""
    return f"Only {count} usable images with different content; at least {FEWEST} are needed.{reason}"
