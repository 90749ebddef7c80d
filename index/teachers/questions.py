"""What is asked of a teacher: questions, the groups they are asked in, and what becomes of them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import CallError, GarbledError, RetrievalError, TransientError
from index.teachers.ledger import Reserved

LARGEST_CALL = 16_000_000  # bytes of images


@dataclass(frozen=True)
class Question:
    """One image to ask about."""

    name: str  # of the image, for messages
    place: str  # `Photo.location`
    source: str  # content digest of its file
    digest: str  # of what is sent
    size: int  # bytes to send
    input: Any  # what the teacher made of it


@dataclass
class Divided:
    """A call that was refused, and made again in parts."""

    left: int  # of its questions, without an answer yet
    largest: int = 0  # questions of the largest part that was answered


@dataclass
class Group:
    """Questions that are asked together."""

    open: list[Question]  # those without an answer yet
    part: bool = False  # whether they are part of a larger call that was given up
    of: Divided | None = None  # that call, if it was refused
    calls: int = 0  # how many were made about it
    attempts: int = 0  # calls in a row that brought nothing
    waited: float = 0.0  # seconds spent waiting for what others ask about


@dataclass
class Work:
    """What one thread asks about, and what has no answer, by the digest of what was sent."""

    stop: Event
    refused: dict[str, str]  # with the reason
    denied: set[str] = field(default_factory=set)  # for which the budget has no room
    groups: list[Group] = field(default_factory=list)  # still to be asked about, the one at hand last
    bad: Counter[str] = field(default_factory=Counter)  # answers of no use
    unpaid: set[str] = field(default_factory=set)  # digests refused without a charge, to be asked again later

    def count(self, failure: CallError, questions: Sequence[Question], group: Group) -> int:
        """Count a failed call, and return how many failed in a row, or how many bad answers its image had."""
        group.attempts += 1
        if not isinstance(failure, GarbledError) or len(questions) > 1:
            return group.attempts
        self.bad[questions[0].digest] += 1
        return self.bad[questions[0].digest]

    def refuse(self, questions: Sequence[Question], reason: str, failure: RetrievalError) -> None:
        """Give questions up; the teacher may answer later those that it was silent about."""
        self.refused.update({question.digest: reason for question in questions})
        if isinstance(failure, TransientError) and not failure.charged:
            self.unpaid.update(question.digest for question in questions)


@dataclass(frozen=True)
class Answer:
    """What a call brought, before it is stored."""

    questions: Sequence[Question]
    rows: NDArray[np.float32]
    reserved: Reserved
    seconds: float


def cut_groups(questions: list[Question], batch: int) -> Iterator[list[Question]]:
    """Cut questions into calls, by number and by what there is to send."""
    group: list[Question] = []
    for question in questions:
        if group and (len(group) == batch or sum(q.size for q in group) + question.size > LARGEST_CALL):
            yield group
            group = []
        group.append(question)
    if group:
        yield group
