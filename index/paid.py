"""Asking a teacher whose answers have a price: every answer is stored before use, and no budget is passed.

One question at a time goes this way: look it up; reserve its price; send it; store the answer and with it the
reservation's end. Whatever goes wrong after sending leaves the reservation behind, which counts as spent.
"""

import random
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.embedder import Embedder, find_fault, unit_rows
from index.errors import (
    BudgetError,
    CallError,
    ImageError,
    RefusedError,
    RetrievalError,
    TransientError,
    UnansweredError,
    UnreachableError,
)
from index.images import Photo
from index.ledger import Ledger, Reserved
from index.pace import Pace
from index.wire import Upload

ATTEMPTS = 8  # of a call that brings no answer
BAD_ANSWERS = 4  # for one image, after which it is taken to have none
SHORTEST, LONGEST = 0.5, 30.0  # seconds of the first and of the longest pause between attempts
TOO_LONG = 900.0  # seconds that a teacher may want to be left alone before we give up
WORTHLESS = 12  # answers at first, after which the teacher is taken to have none
IN_A_ROW = 3  # calls given up, or first images refused, after which the teacher itself is at fault
LARGEST_CALL = 16_000_000  # bytes of images
POLL = 0.2  # seconds between looks for an answer that another process is waiting for


@dataclass(frozen=True)
class Question:
    """One image to ask about.

    Attributes:
        name: Of the image, for messages.
        source: Content digest of its file.
        digest: Of what is sent.
        input: What the teacher made of it.
    """

    name: str
    source: str
    digest: str
    input: Any

    @property
    def size(self) -> int:
        """Bytes to send."""
        return len(self.input.data) if isinstance(self.input, Upload) else 0


@dataclass(frozen=True)
class Outcome:
    """What questions have no answer, by the digest of what was sent; all others are in the ledger.

    Attributes:
        refused: With the reason.
        denied: For which the budget has no room.
    """

    refused: dict[str, str]
    denied: set[str]


class PaidEmbedder:
    """A teacher, its ledger and its budget, as one embedder. Safe in several threads.

    Attributes:
        asked: Answers paid for through this object.
        lost: Images that this object asked about in vain, and that may have been charged for.
        complaint: What was wrong with the last answer or call that was of no use.
    """

    def __init__(self, teacher: Embedder, ledger: Ledger, budget: int) -> None:
        """Join them.

        Args:
            teacher: Whom to ask.
            ledger: Its answers.
            budget: How many images may ever be asked about; the ledger counts.
        """
        self.teacher, self.ledger, self.budget = teacher, ledger, budget
        self.key, self.name, self.spec, self.options = (
            teacher.key,
            teacher.name,
            teacher.spec,
            teacher.options,
        )
        self.side, self.provider, self.calls = teacher.side, teacher.provider, teacher.calls
        self.asked = self.lost = 0
        self.complaint = ""
        self._pace = Pace(teacher.calls.rate)
        self._refused: dict[str, str] = {}  # why, by digest: not to ask again in this run
        self._lock = Lock()  # guards the counters
        self._first = Lock()  # taken by turns until the length of the vectors is known
        self._held: _Held | None = None
        self._in_a_row = self._worthless = 0
        self._answered = False

    @property
    def dim(self) -> int:
        """Length of the vectors; 0 before the first answer of a teacher that does not say."""
        return self.ledger.dim or self.teacher.dim

    def prepare(self, photo: Photo) -> Question:
        """Make the question for one image.

        Raises:
            ImageError: The teacher has nothing for this image, or has refused it before.
        """
        made = self.teacher.prepare(photo)
        digest = made.digest if isinstance(made, Upload) else photo.digest
        if reason := self._refused.get(digest):
            raise ImageError(reason)
        return Question(photo.name, photo.digest, digest, made)

    def embed(self, batch: Sequence[Question]) -> NDArray[np.float32]:
        """Map n questions to `(n, dim)` float32 unit rows, asking only what the ledger does not know.

        Raises:
            UnansweredError: The teacher refused some of them.
            BudgetError: The budget has no room for some of them.
            RetrievalError: The teacher or the ledger cannot be used.
        """
        outcome = self.ask(batch)
        reasons = {i: outcome.refused[q.digest] for i, q in enumerate(batch) if q.digest in outcome.refused}
        if reasons:
            raise UnansweredError(
                f"No answer for {batch[min(reasons)].name}: {reasons[min(reasons)]}.", reasons
            )
        if outcome.denied:
            raise BudgetError(
                f"{self.name} was not asked about {len(outcome.denied)} images: {self.ledger.spent} of the "
                f"budget of {self.budget} are spent ({self.ledger.path}). Give a larger --budget."
            )
        answers = self.ledger.answers([q.digest for q in batch] + [q.source for q in batch])
        rows = [answers[q.digest] if q.digest in answers else answers[q.source] for q in batch]
        return unit_rows(np.stack(rows), self.name)

    def ask(self, questions: Sequence[Question], stop: Event | None = None) -> Outcome:
        """Bring the answers to all questions into the ledger, as far as that can be.

        Args:
            questions: What to ask.
            stop: Once it is set no further call is made, and what is open is denied. Threads that ask
                together share it: it is set as soon as one of them fails.

        Raises:
            RetrievalError: The teacher or the ledger cannot be used. What was answered is kept.
        """
        known = self.ledger.known([q.digest for q in questions] + [q.source for q in questions])
        open_questions = {q.digest: q for q in questions if q.digest not in known and q.source not in known}
        outcome = Outcome({}, set())
        for group in _groups(list(open_questions.values()), self.calls.batch):
            self._ask_until_answered(group, outcome, stop or Event())
        self._refused |= outcome.refused
        return outcome

    def _ask_until_answered(self, questions: list[Question], outcome: Outcome, stop: Event) -> None:
        """Make calls until each question is answered, refused or denied."""
        trouble = _Trouble(stop)
        while questions:
            if self.dim:
                questions = self._attempt(questions, trouble, outcome)
                continue
            with self._first:  # one image at a time: what is wrong with a teacher shows at the price of one
                count = len(questions) if self.dim else 1
                questions = questions[count:] + self._attempt(questions[:count], trouble, outcome)

    def _attempt(self, questions: list[Question], trouble: "_Trouble", outcome: Outcome) -> list[Question]:
        """Make one call, and return the questions that are still open after it."""
        if trouble.stop.is_set():
            outcome.denied.update(q.digest for q in questions)
            return []
        try:
            return self._reserve_and_call(questions, trouble, outcome)
        except BaseException:
            trouble.stop.set()
            raise

    def _reserve_and_call(
        self, questions: list[Question], trouble: "_Trouble", outcome: Outcome
    ) -> list[Question]:
        self._pace.wait(len(questions), trouble.stop)
        reserved = self.ledger.reserve([q.digest for q in questions], self.budget, self.calls.seconds)
        outcome.denied.update(reserved.denied)
        busy = [q for q in questions if q.digest in reserved.busy]
        mine = [q for q in questions if q.digest in reserved.calls]
        if not mine:
            if busy and not self._take_at_its_word(busy[0]):
                trouble.stop.wait(POLL)
            return busy
        try:
            faults = self._call(mine, reserved)
        except UnansweredError as answer:
            faults = {mine[i].digest: reason for i, reason in answer.reasons.items()}
            outcome.refused.update(faults)
            if len(faults) == len(mine):
                self._count_failure(answer)
            return busy + [q for q in mine if q.digest not in faults]
        except TransientError as failure:
            return busy + self._after_silence(failure, mine, trouble, outcome)
        except RefusedError as refusal:
            if not self._answered and len(mine) == 1:
                self._count_failure(refusal)
            self._divide(mine, str(refusal), outcome, trouble.stop)
            return busy
        return busy + self._after_faults(faults, mine, trouble, outcome)

    def _after_faults(
        self, faults: dict[str, str], questions: list[Question], trouble: "_Trouble", outcome: Outcome
    ) -> list[Question]:
        """Give up the images that are answered wrongly again and again; return those that are still open."""
        if not self._answered and all(faults.values()):
            self._worthless += 1
            if self._worthless == WORTHLESS:
                raise RetrievalError(
                    f"{self.name} {faults[questions[0].digest]}, {WORTHLESS} times. {self._kept()}"
                )
        for digest, fault in faults.items():
            trouble.bad[digest] += bool(fault)
            self.complaint = f"{self.name} {fault}" if fault else self.complaint
            if trouble.bad[digest] == BAD_ANSWERS:
                outcome.refused[digest] = f"{self.name} {fault}, {BAD_ANSWERS} times"
                if len(faults) == len(questions):
                    self._count_failure(RetrievalError(outcome.refused[digest]))
        return [q for q in questions if q.digest in faults and q.digest not in outcome.refused]

    def _call(self, questions: Sequence[Question], reserved: Reserved) -> dict[str, str]:
        """Make one call; store what it brings, and note as lost what is of no use.

        Returns:
            What has no answer in the ledger yet, by digest, with what was wrong.

        Raises:
            CallError: As `Embedder.embed`.
        """
        calls = [reserved.calls[q.digest] for q in questions]
        start = time.monotonic()
        try:
            rows = self.teacher.embed([q.input for q in questions])
            if len(rows) != len(questions):
                raise CallError(
                    f"{self.name} gave {len(rows)} answers to {len(questions)} images.", charged=True
                )
        except (CallError, UnansweredError) as failure:
            if getattr(failure, "charged", False):
                self._lose(calls)
            else:
                self.ledger.release(calls)
            raise
        except BaseException:
            self._lose(calls)
            raise
        seconds = time.monotonic() - start
        faults = {q.digest: find_fault(row) for q, row in zip(questions, rows, strict=True)}
        if dim := self.dim:
            if rows.shape[1] != dim:
                faults = dict.fromkeys(faults, f"answered with {rows.shape[1]} numbers, not {dim}")
        elif not faults[questions[0].digest]:
            return self._hold(_Held(questions[0], rows, reserved, seconds))
        good = [i for i, q in enumerate(questions) if not faults[q.digest]]
        if good:
            self._keep([questions[i] for i in good], rows[good], reserved, seconds)
        bad = {digest: fault for digest, fault in faults.items() if fault}
        if bad:
            self._lose([reserved.calls[digest] for digest in bad])
        return bad

    def _hold(self, answer: "_Held") -> dict[str, str]:
        """Keep the first answer back until a second has the same length, which all later ones must have."""
        self._in_a_row, self._answered = 0, True
        held, self._held = self._held, answer
        if held is None:
            return {answer.question.digest: ""}
        if held.rows.shape != answer.rows.shape:
            self._lose(held.reserved.calls.values())
            return {answer.question.digest: ""}
        self._held = None
        for one in (held, answer):
            self._keep([one.question], one.rows, one.reserved, one.seconds)
        return {}

    def _take_at_its_word(self, question: Question) -> bool:
        """Store the answer that is held back for this question, where no other is to come."""
        held = self._held
        if held is None or held.question.digest != question.digest:
            return False
        self._held = None
        if self.dim in (0, held.rows.shape[1]):
            self._keep([question], held.rows, held.reserved, held.seconds)
        else:
            self._lose(held.reserved.calls.values())
        return True

    def _keep(
        self, questions: Sequence[Question], rows: NDArray[np.float32], reserved: Reserved, seconds: float
    ) -> None:
        sources = {q.digest: q.source for q in questions}
        self.ledger.add([q.digest for q in questions], rows, reserved.calls, sources, seconds)
        with self._lock:
            self.asked += len(questions)
            self._in_a_row, self._answered = 0, True

    def _lose(self, calls: Collection[int]) -> None:
        self.ledger.lose(calls)
        with self._lock:
            self.lost += len(calls)

    def _after_silence(
        self, failure: TransientError, questions: list[Question], trouble: "_Trouble", outcome: Outcome
    ) -> list[Question]:
        """Wait to ask again, or give these questions up; return those that are still open."""
        self.complaint = str(failure)
        if isinstance(failure, UnreachableError) and not self._answered:
            raise failure  # the address is wrong, more likely than not
        if failure.wait > TOO_LONG:
            raise RetrievalError(
                f"{failure}; it wants to be left alone for {failure.wait:.0f} s. {self._kept()}"
            )
        trouble.attempts += 1
        if trouble.attempts == ATTEMPTS:
            trouble.attempts = 0
            self._count_failure(failure)
            self._divide(questions, str(failure), outcome, trouble.stop)
            return []
        if failure.wait:
            self._pace.hold(failure.wait)  # for all threads
        # Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter
        trouble.stop.wait(failure.wait or random.uniform(0, min(LONGEST, SHORTEST * 2**trouble.attempts)))
        return questions

    def _divide(self, questions: list[Question], reason: str, outcome: Outcome, stop: Event) -> None:
        """Find the images at fault for a call that failed as a whole: ask about half of them at a time."""
        if len(questions) == 1:
            outcome.refused[questions[0].digest] = reason
            return
        middle = len(questions) // 2
        self._ask_until_answered(questions[:middle], outcome, stop)
        self._ask_until_answered(questions[middle:], outcome, stop)

    def _count_failure(self, failure: RetrievalError) -> None:
        """Note that a call was given up; raise if that was one too many in a row."""
        with self._lock:
            self._in_a_row += 1
        if self._in_a_row >= IN_A_ROW:
            raise RetrievalError(f"{str(failure).rstrip('.')}. {self._kept()}") from failure

    def _kept(self) -> str:
        return f"{len(self.ledger)} answers are kept in {self.ledger.path}; run again to go on."


@dataclass
class _Trouble:
    """What went wrong with the questions of one group so far."""

    stop: Event
    attempts: int = 0
    bad: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Held:
    """An answer that is not stored yet."""

    question: Question
    rows: NDArray[np.float32]
    reserved: Reserved
    seconds: float


def _groups(questions: list[Question], batch: int) -> Iterator[list[Question]]:
    """Cut questions into calls, by number and by what there is to send."""
    group: list[Question] = []
    for question in questions:
        if group and (len(group) == batch or sum(q.size for q in group) + question.size > LARGEST_CALL):
            yield group
            group = []
        group.append(question)
    if group:
        yield group
