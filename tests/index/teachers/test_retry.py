"""What is done about a failed call, as a table."""

import pytest

from index.errors import (
    CallError,
    GarbledError,
    RefusedError,
    TransientError,
    UnansweredError,
    UnreachableError,
)
from index.teachers.retry import (
    ATTEMPTS,
    BAD_ANSWERS,
    IN_A_ROW,
    LONGEST,
    SHORTEST,
    TOO_LONG,
    USELESS,
    Abort,
    BadAnswerError,
    Refuse,
    Retry,
    Split,
    State,
    decide,
)

SILENCE, REFUSAL, NONSENSE = TransientError("no answer."), RefusedError("HTTP 422."), BadAnswerError("zeros")
PROSE = GarbledError("The second one.")
NAMED, NOBODY = UnansweredError("too dark", {0: "too dark"}), UnreachableError("nobody there")
LAST = {"given_up": IN_A_ROW - 1}


@pytest.mark.parametrize(
    ("state", "failure", "decision"),
    [
        # No answer came: pauses grow up to a bound, unless the teacher names one.
        ({"attempts": 1}, SILENCE, Retry(2 * SHORTEST)),
        ({"attempts": 2}, SILENCE, Retry(4 * SHORTEST)),
        ({"attempts": 7}, SILENCE, Retry(LONGEST)),
        ({"attempts": 1}, TransientError("later", wait=7), Retry(7, exact=True)),
        ({"attempts": 1}, TransientError("later", wait=TOO_LONG), Retry(TOO_LONG, exact=True)),
        ({}, TransientError("later", wait=7200), Abort("later; it wants to be left alone for 7200 s")),
        # In the end the call is given up; its smaller parts say little of the teacher, one image says much.
        ({"attempts": ATTEMPTS, "images": 8}, SILENCE, Split(counts=True)),
        ({"attempts": ATTEMPTS, "images": 4, "part": True}, SILENCE, Split()),
        ({"attempts": ATTEMPTS, "part": True}, SILENCE, Refuse(counts=True)),
        ({"attempts": ATTEMPTS, "images": 8, **LAST}, SILENCE, Abort("no answer")),
        ({"attempts": ATTEMPTS, "images": 4, "part": True, **LAST}, SILENCE, Split()),
        # An answer that cannot be read is paid for each time.
        ({"attempts": BAD_ANSWERS - 1}, PROSE, Retry(8 * SHORTEST)),
        ({"attempts": BAD_ANSWERS}, PROSE, Refuse(counts=True)),
        ({"attempts": BAD_ANSWERS, "images": 2}, PROSE, Retry(16 * SHORTEST)),
        # Nobody is there.
        ({"answered": False}, NOBODY, Abort()),
        ({"attempts": 1}, NOBODY, Retry(2 * SHORTEST)),
        # The call was refused for what it asked.
        ({"images": 8}, REFUSAL, Split()),
        ({"images": 8, "answered": False, **LAST}, REFUSAL, Split()),
        ({}, REFUSAL, Refuse()),
        (LAST, REFUSAL, Refuse()),
        ({"answered": False}, REFUSAL, Refuse(counts=True)),
        ({"answered": False, **LAST}, REFUSAL, Abort("HTTP 422")),
        # An answer is no vector; the images at fault are known.
        ({"attempts": 1}, NONSENSE, Retry()),
        ({"attempts": BAD_ANSWERS}, NONSENSE, Refuse(counts=True)),
        ({"attempts": BAD_ANSWERS, "whole": False, **LAST}, NONSENSE, Refuse()),
        ({"attempts": BAD_ANSWERS, **LAST}, NONSENSE, Abort("zeros")),
        ({"images": 2, "whole": False}, NAMED, Refuse()),
        ({"images": 2}, NAMED, Refuse(counts=True)),
        (LAST, NAMED, Abort("too dark")),
        # Nothing but calls that were charged for and brought nothing.
        ({"useless": USELESS - 1, "answered": False}, NONSENSE, Retry()),
        (
            {"useless": USELESS, "answered": False, "name": "3.png"},
            TransientError("half an answer.", charged=True),
            Abort("12 calls were of no use. The last: half an answer, for 3.png"),
        ),
        # Whatever else is wrong stays wrong.
        ({}, CallError("HTTP 401. Check the key."), Abort()),
    ],
)  # fmt: skip
def test_what_is_done_about_a_failed_call(state, failure, decision):
    assert decide(State(**state), failure) == decision
