"""A teacher whose answers have a price, as an embedder: what the ledger knows is never asked again."""

from collections.abc import Iterator, Sequence
from threading import Event

import numpy as np
from numpy.typing import NDArray

from index.embedders.base import Embedder, unit_rows
from index.embedders.http_formats import Upload
from index.errors import BudgetError, ImageError, UnansweredError
from index.images.decode import Photo
from index.teachers.call import Buyer, Question
from index.teachers.ledger import Ledger
from index.teachers.rate_limit import RateLimit
from index.teachers.retry import Outcome, Retrier

LARGEST_CALL = 16_000_000  # bytes of images


class PaidEmbedder:
    """A teacher, its ledger and its budget, as one embedder. Safe in several threads."""

    def __init__(self, teacher: Embedder, ledger: Ledger, budget: int) -> None:
        """Join them.

        Args:
            teacher: Whom to ask.
            ledger: Its answers.
            budget: How many images may ever be asked about; the ledger counts.
        """
        self.ledger, self.budget = ledger, budget
        self.key, self.name, self.spec = teacher.key, teacher.name, teacher.spec
        self.options, self.calls = teacher.options, teacher.calls
        self.side, self.provider = teacher.side, teacher.provider
        self._teacher = teacher
        self._buyer = Buyer(teacher, ledger, budget)
        self._pace = RateLimit(teacher.calls.rate)
        self._refused: dict[str, str] = {}  # why, by digest: not to ask again in this run

    @property
    def dim(self) -> int:
        """Length of the vectors; 0 before the first answer of a teacher that does not say."""
        return self._buyer.dim

    @property
    def asked(self) -> int:
        """Answers paid for through this object."""
        return self._buyer.asked

    @property
    def lost(self) -> int:
        """Images that this object asked about in vain, and that may have been charged for."""
        return self._buyer.lost

    @property
    def complaint(self) -> str:
        """What was wrong with the last answer or call that was of no use."""
        return self._buyer.complaint

    def prepare(self, photo: Photo) -> Question:
        """Make the question for one image.

        Raises:
            ImageError: The teacher has nothing for this image, or has refused it before.
        """
        made = self._teacher.prepare(photo)
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
        stop = stop or Event()
        known = self.ledger.known([q.digest for q in questions] + [q.source for q in questions])
        unknown = {q.digest: q for q in questions if q.digest not in known and q.source not in known}
        patience = Retrier(self._buyer, self._pace, stop)
        try:
            for group in _groups(list(unknown.values()), self.calls.batch):
                patience.ask(group)
        except BaseException:
            stop.set()
            raise
        self._refused |= patience.outcome.refused
        return patience.outcome


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
