"""What to do when a call to a teacher fails: wait and ask again, ask about fewer images, or give up."""

import random
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field
from threading import Event

from index.errors import RefusedError, RetrievalError, TransientError, UnansweredError, UnreachableError
from index.progress import say
from index.teachers.call import Buyer, Question
from index.teachers.rate_limit import RateLimit

ATTEMPTS = 8  # of a call that brings no answer
BAD_ANSWERS = 4  # for one image, after which it is taken to have none
SHORTEST, LONGEST = 0.5, 30.0  # seconds of the first and of the longest pause between attempts
TOO_LONG = 900.0  # seconds that a teacher may want to be left alone before we give up
POLL = 0.2  # seconds between looks for an answer that another process is waiting for
SILENT = 10.0  # seconds of such waiting before it is said


@dataclass(frozen=True)
class Outcome:
    """What questions have no answer, by the digest of what was sent; all others are in the ledger.

    Attributes:
        refused: With the reason.
        denied: For which the budget has no room.
    """

    refused: dict[str, str]
    denied: set[str]


@dataclass
class _Trouble:
    """What went wrong with the questions of one group so far."""

    attempts: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    waited: float = 0.0


class Retrier:
    """Asks one thread's questions until each is answered, refused or denied.

    Attributes:
        outcome: What became of them.
    """

    def __init__(self, buyer: Buyer, pace: RateLimit, stop: Event) -> None:
        """Start with nothing asked.

        Args:
            buyer: Makes the calls.
            pace: Of all threads together.
            stop: Once it is set no further call is made, and what is open is denied.
        """
        self._buyer, self._pace, self._stop = buyer, pace, stop
        self._name = buyer.teacher.name
        self._depth = 0  # how often what is asked about now was divided
        self.outcome = Outcome({}, set())

    def ask(self, questions: list[Question]) -> None:
        """Make calls about these questions, all together.

        Raises:
            RetrievalError: The teacher or the ledger cannot be used.
        """
        trouble = _Trouble()
        while questions:
            # One image at a time at first: what is wrong with a teacher shows at little cost.
            with nullcontext() if self._buyer.dim else self._buyer.turn:
                count = self._buyer.most
                questions = questions[count:] + self._attempt(questions[:count], trouble)

    def _attempt(self, questions: list[Question], trouble: _Trouble) -> list[Question]:
        """Make one call, and return the questions that are still open after it."""
        self._pace.wait(len(questions), self._stop)
        if self._stop.is_set():
            self.outcome.denied.update(q.digest for q in questions)
            return []
        reserved = self._buyer.reserve(questions)
        self.outcome.denied.update(reserved.denied)
        busy = [q for q in questions if q.digest in reserved.busy]
        mine = [q for q in questions if q.digest in reserved.calls]
        if not mine:
            self._wait_for_others(busy, trouble)
            return busy
        try:
            faults = self._buyer.call(mine, reserved)
            trouble.attempts = 0
        except UnansweredError as answer:
            faults = {mine[i].digest: reason for i, reason in answer.reasons.items()}
            self.outcome.refused.update(faults)
            if len(faults) == len(mine):
                self._buyer.give_up(answer)
            return busy + [q for q in mine if q.digest not in faults]
        except TransientError as failure:
            return busy + self._after_silence(failure, mine, trouble)
        except RefusedError as refusal:
            if not self._buyer.answered and len(mine) == 1:
                self._buyer.give_up(refusal)
            self._divide(mine, str(refusal))
            return busy
        return busy + self._after_faults(faults, mine, trouble)

    def _wait_for_others(self, busy: list[Question], trouble: _Trouble) -> None:
        """Wait for what another thread or process is asking about."""
        if not busy or self._buyer.settle(busy[0]):
            return
        self._stop.wait(POLL)
        trouble.waited += POLL
        if trouble.waited - POLL < SILENT <= trouble.waited:
            say(
                f"{len(busy)} images are being asked about by another process, or were when it was killed on "
                f"another machine. Waiting for up to {self._buyer.teacher.calls.seconds:.0f} s."
            )

    def _after_faults(
        self, faults: dict[str, str], questions: list[Question], trouble: _Trouble
    ) -> list[Question]:
        """Give up the images that are answered wrongly again and again; return those that are still open."""
        for digest, fault in faults.items():
            trouble.bad[digest] += bool(fault)
            if trouble.bad[digest] == BAD_ANSWERS:
                self.outcome.refused[digest] = f"{self._name} {fault}, {BAD_ANSWERS} times"
                if len(faults) == len(questions):
                    self._buyer.give_up(RetrievalError(self.outcome.refused[digest]))
        return [q for q in questions if q.digest in faults and q.digest not in self.outcome.refused]

    def _after_silence(
        self, failure: TransientError, questions: list[Question], trouble: _Trouble
    ) -> list[Question]:
        """Wait to ask again, or give these questions up; return those that are still open."""
        if isinstance(failure, UnreachableError) and not self._buyer.answered:
            raise failure  # the address is wrong, more likely than not
        if failure.wait > TOO_LONG:
            raise RetrievalError(
                f"{failure}; it wants to be left alone for {failure.wait:.0f} s. {self._buyer.kept()}"
            )
        trouble.attempts += 1
        if trouble.attempts == ATTEMPTS:
            trouble.attempts = 0
            if not self._depth or len(questions) == 1:  # of the parts of a call the smallest tell most
                self._buyer.give_up(failure)
            self._divide(questions, str(failure))
            return []
        if failure.wait:
            self._pace.hold(failure.wait)  # for all threads
        # Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter
        self._stop.wait(failure.wait or random.uniform(0, min(LONGEST, SHORTEST * 2**trouble.attempts)))
        return questions

    def _divide(self, questions: list[Question], reason: str) -> None:
        """Find the images at fault for a call that failed as a whole: ask about half of them at a time."""
        if len(questions) == 1:
            self.outcome.refused[questions[0].digest] = reason
            return
        middle = len(questions) // 2
        self._depth += 1
        self.ask(questions[:middle])
        self.ask(questions[middle:])
        self._depth -= 1
