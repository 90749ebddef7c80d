"""Decide what to do when a call to a teacher fails: ask again, ask about fewer images, or give up.

`decide` reads no clock, draws no lot and remembers nothing: its tests are a table.
"""

from dataclasses import dataclass

from index.errors import (
    CallError,
    GarbledError,
    RefusedError,
    RetrievalError,
    TransientError,
    UnansweredError,
    UnreachableError,
)

ATTEMPTS = 8  # of a call that brings no answer
BAD_ANSWERS = 4  # for one image, after which it is taken to have none
IN_A_ROW = 4  # calls given up, or first images refused, after which the teacher itself is at fault
USELESS = 12  # calls of no use at first, after which the teacher is taken to have no answers
SHORTEST, LONGEST = 0.5, 30.0  # seconds of the first and of the longest pause between attempts
TOO_LONG = 900.0  # seconds that a teacher may want to be left alone before we give up


class BadAnswerError(CallError):
    """An answer that came and was charged for, and is no vector of the teacher's."""


@dataclass(frozen=True)
class State:
    """What is known when a call has failed."""

    name: str = ""  # of the first image that it failed for
    images: int = 1  # how many it failed for
    attempts: int = 1  # calls in a row without an answer; of a bad answer, how many this image had
    whole: bool = True  # whether it failed for all images that it was about
    part: bool = False  # whether they were part of a larger call that was given up
    answered: bool = True  # whether the teacher has ever given an answer of use
    given_up: int = 0  # calls given up in a row, by all threads
    useless: int = 0  # calls charged for and of no use, before two answers agreed


@dataclass(frozen=True)
class Retry:
    """Ask again, after up to so many seconds, or after just as many where the teacher named them."""

    after: float = 0.0
    exact: bool = False


@dataclass(frozen=True)
class Split:
    """Ask about each half, to find the image at fault; it may tell against the teacher itself."""

    counts: bool = False


@dataclass(frozen=True)
class Refuse:
    """Take the images for ones without an answer; it may tell against the teacher itself."""

    counts: bool = False


@dataclass(frozen=True)
class Abort:
    """Ask no more, for this reason; without one, for what the failure says itself."""

    reason: str = ""


def decide(state: State, failure: RetrievalError) -> Retry | Split | Refuse | Abort:
    """Decide what to do about what `Embedder.embed` raised, or about a `BadAnswerError` for one image."""
    if state.useless >= USELESS:
        return Abort(f"{USELESS} calls were of no use. The last: {_line(failure)}, for {state.name}")
    if isinstance(failure, TransientError):
        return _decide_after_silence(state, failure)
    if isinstance(failure, RefusedError):
        return _give_up(state, failure, counts=state.images == 1 and not state.answered)
    if isinstance(failure, BadAnswerError) and state.attempts < BAD_ANSWERS:
        return Retry()
    if isinstance(failure, BadAnswerError | UnansweredError):  # they say which images are at fault
        decision = _give_up(state, failure, counts=state.whole)
        return Refuse(decision.counts) if isinstance(decision, Split) else decision
    return Abort()


def _decide_after_silence(state: State, failure: TransientError) -> Retry | Split | Refuse | Abort:
    if isinstance(failure, UnreachableError) and not state.answered:
        return Abort()  # the address is wrong, more likely than not
    if failure.wait > TOO_LONG:
        return Abort(f"{failure}; it wants to be left alone for {failure.wait:.0f} s")
    # An answer that cannot be read is paid for each time; the other images of a call are innocent of it.
    most = BAD_ANSWERS if isinstance(failure, GarbledError) and state.images == 1 else ATTEMPTS
    if state.attempts < most:
        pause = min(LONGEST, SHORTEST * 2**state.attempts)
        return Retry(failure.wait, exact=True) if failure.wait else Retry(pause)
    # Of the parts of a call the smallest tell most.
    return _give_up(state, failure, counts=state.images == 1 or not state.part)


def _give_up(state: State, failure: RetrievalError, counts: bool) -> Split | Refuse | Abort:
    if counts and state.given_up + 1 >= IN_A_ROW:
        return Abort(_line(failure))
    return Split(counts) if state.images > 1 else Refuse(counts)


def _line(failure: RetrievalError) -> str:
    return str(failure).rstrip(".")
