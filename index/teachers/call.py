"""Buying answers: one call to a teacher whose answers have a price, with its account kept.

Each call goes this way: reserve its price; send it; store the answers and with them the reservation's end.
Whatever goes wrong after sending leaves the reservation behind, which counts as spent.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.embedders.base import Embedder, find_fault
from index.embedders.http_formats import Upload
from index.errors import CallError, RetrievalError, UnansweredError
from index.teachers.ledger import Ledger, Reserved

WORTHLESS = 12  # calls of no use at first, after which the teacher is taken to have no answers
IN_A_ROW = 4  # calls given up, or first images refused, after which the teacher itself is at fault
SMALLER = 4  # times smaller are calls after one that was paid for in vain
STEADY = 4  # calls that must succeed before they are made larger by one image again


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
class _Held:
    """An answer that is not stored yet."""

    question: Question
    rows: NDArray[np.float32]
    reserved: Reserved
    seconds: float


class Buyer:
    """A teacher, its ledger and its budget. Threads may share it.

    Until two answers agree on the length of the vectors, which all later ones must have, images are to be
    asked about one at a time, and the first answer is held back.

    Attributes:
        asked: Answers paid for through this object.
        lost: Images that this object asked about in vain, and that may have been charged for.
        complaint: What was wrong with the last answer or call that was of no use.
        answered: Whether the teacher has ever given this object an answer of use.
        turn: Taken by whoever asks, until the length of the vectors is known.
    """

    def __init__(self, teacher: Embedder, ledger: Ledger, budget: int) -> None:
        """Join them.

        Args:
            teacher: Whom to ask.
            ledger: Its answers.
            budget: How many images may ever be asked about; the ledger counts.
        """
        self.teacher, self.ledger, self.budget = teacher, ledger, budget
        self.asked = self.lost = 0
        self.complaint = ""
        self.answered = False
        self.turn = Lock()
        self._held: _Held | None = None
        self._in_a_row = self._worthless = 0
        self._most: float = teacher.calls.batch
        self._lock = Lock()  # guards the counters

    @property
    def dim(self) -> int:
        """Length of the vectors; 0 before the first answer of a teacher that does not say."""
        return self.ledger.dim or self.teacher.dim

    @property
    def most(self) -> int:
        """Images that one call may be about.

        One, until the length of the vectors is known. Few, after calls that were paid for in vain: one image
        may be at fault for all, or so many may take the teacher longer than we wait.
        """
        return int(self._most) if self.dim else 1

    def reserve(self, questions: Sequence[Question]) -> Reserved:
        """Set budget aside for one call.

        Raises:
            RetrievalError: The ledger cannot be written.
        """
        return self.ledger.reserve([q.digest for q in questions], self.budget, self.teacher.calls.seconds)

    def call(self, questions: Sequence[Question], reserved: Reserved) -> dict[str, str]:
        """Make one call; store what it brings, and note as lost what is of no use.

        Args:
            questions: All of which are reserved.
            reserved: Their reservations.

        Returns:
            What has no answer in the ledger yet, by digest, with what was wrong: nothing, if it is held back.

        Raises:
            UnansweredError: The teacher has no answer for some of them. None is stored.
            CallError: As `Embedder.embed`.
            RetrievalError: The teacher gives no answer of use to anything.
        """
        start = time.monotonic()
        rows = self._send(questions, reserved)
        seconds = time.monotonic() - start
        faults = {q.digest: find_fault(row) for q, row in zip(questions, rows, strict=True)}
        if dim := self.dim:
            if rows.shape[1] != dim:
                faults = dict.fromkeys(faults, f"answered with {rows.shape[1]} numbers, not {dim}")
        elif not faults[questions[0].digest]:
            return self._hold(_Held(questions[0], rows, reserved, seconds))
        good = [i for i, q in enumerate(questions) if not faults[q.digest]]
        if good:
            self._grow(len(questions))
            self._keep([questions[i] for i in good], rows[good], reserved, seconds)
        bad = {digest: fault for digest, fault in faults.items() if fault}
        if bad:
            self._lose([reserved.calls[digest] for digest in bad])
            self.complaint = f"{self.teacher.name} {next(iter(bad.values()))}"
            if not self.answered:
                self._count_worthless(questions[0].name)
        return bad

    def settle(self, question: Question) -> bool:
        """Store the answer that is held back for this question, where no other is to come.

        Returns:
            Whether one was.
        """
        with self._lock:  # or two threads settle the same one
            held = self._held
            if held is None or held.question.digest != question.digest:
                return False
            self._held = None
        if self.dim in (0, held.rows.shape[1]):
            self._keep([question], held.rows, held.reserved, held.seconds)
        else:
            self._lose(held.reserved.calls.values())
        return True

    def give_up(self, failure: RetrievalError) -> None:
        """Note that a call was given up; raise if that was one too many in a row."""
        with self._lock:
            self._in_a_row += 1
        if self._in_a_row >= IN_A_ROW:
            raise RetrievalError(f"{str(failure).rstrip('.')}. {self.kept()}") from failure

    def kept(self) -> str:
        """What to say to whoever paid, when there is no going on."""
        count = len(self.ledger)
        if not count:
            return "No answer came of it."
        return f"{count} answers are kept in {self.ledger.path}; run again to go on."

    def _send(self, questions: Sequence[Question], reserved: Reserved) -> NDArray[np.float32]:
        calls = [reserved.calls[q.digest] for q in questions]
        name = self.teacher.name
        try:
            rows = self.teacher.embed([q.input for q in questions])
            if len(rows) != len(questions):
                raise CallError(f"{name} gave {len(rows)} answers to {len(questions)} images.", charged=True)
        except UnansweredError:
            self.ledger.release(calls)
            raise
        except CallError as failure:
            self.complaint = str(failure)
            if failure.charged:
                self._lose(calls)
                self._shrink(len(questions))
                if not self.answered:
                    self._count_worthless(questions[0].name)
            else:
                self.ledger.release(calls)
            raise
        except BaseException:
            self._lose(calls)
            raise
        return rows

    def _hold(self, answer: _Held) -> dict[str, str]:
        held, self._held = self._held, answer
        self._note_success()
        if held is None:
            return {answer.question.digest: ""}
        if held.rows.shape != answer.rows.shape:
            self._lose(held.reserved.calls.values())
            self.complaint = (
                f"{self.teacher.name} answered with {held.rows.shape[1]} numbers, then {answer.rows.shape[1]}"
            )
            self._count_worthless(answer.question.name)
            return {answer.question.digest: ""}
        self._held = None
        for one in (held, answer):
            self._keep([one.question], one.rows, one.reserved, one.seconds)
        return {}

    def _keep(
        self, questions: Sequence[Question], rows: NDArray[np.float32], reserved: Reserved, seconds: float
    ) -> None:
        sources = {q.digest: q.source for q in questions}
        self.ledger.add([q.digest for q in questions], rows, reserved.calls, sources, seconds)
        with self._lock:
            self.asked += len(questions)
        self._note_success()

    def _lose(self, calls: Collection[int]) -> None:
        self.ledger.lose(calls)
        with self._lock:
            self.lost += len(calls)

    def _shrink(self, size: int) -> None:
        with self._lock:  # by what failed, not by what is: all lanes may fail together
            self._most = max(1, min(self._most, size // SMALLER))

    def _grow(self, size: int) -> None:
        with self._lock:
            if size >= int(self._most):
                self._most = min(self.teacher.calls.batch, self._most + 1 / STEADY)

    def _note_success(self) -> None:
        with self._lock:
            self._in_a_row, self.answered = 0, True

    def _count_worthless(self, image: str) -> None:
        with self._lock:
            self._worthless += 1
        if self._worthless >= WORTHLESS:
            raise RetrievalError(
                f"{WORTHLESS} calls were of no use. The last: {self.complaint.rstrip('.')}, for {image}. "
                f"{self.kept()}"
            )
