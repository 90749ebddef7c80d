"""What is asked of a teacher: questions, the groups they are asked in, and what becomes of them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.teachers.ledger import Reserved

LARGEST_CALL = 16_000_000  # bytes of images


@dataclass(frozen=True)
class Question:
    """One image to ask about.

    Attributes:
        name: Of the image, for messages.
        place: `Photo.location`.
        source: Content digest of its file.
        digest: Of what is sent.
        size: Bytes to send.
        input: What the teacher made of it.
    """

    name: str
    place: str
    source: str
    digest: str
    size: int
    input: Any


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
class Group:
    """Questions that are asked together.

    Attributes:
        open: Those without an answer yet.
        part: Whether they are part of a larger call that was given up.
        calls: How many were made about it.
        attempts: Calls in a row that brought nothing.
        waited: Seconds spent waiting for what others ask about.
    """

    open: list[Question]
    part: bool = False
    calls: int = 0
    attempts: int = 0
    waited: float = 0.0


@dataclass
class Work:
    """What one thread asks about: groups, the one at hand last, and what has become of others."""

    stop: Event
    groups: list[Group] = field(default_factory=list)
    bad: Counter[str] = field(default_factory=Counter)
    outcome: Outcome = field(default_factory=lambda: Outcome({}, set()))


@dataclass(frozen=True)
class Held:
    """An answer that is not stored yet."""

    question: Question
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
