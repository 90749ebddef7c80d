"""What a student has cost, and after how many images it is cheaper than its teacher."""

import math
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.ask import TeacherAnswers
from index.embedders.onnx import OnnxEmbedder
from index.teachers.ledger import Ledger
from index.timing import time_in_turns

TIMED = 8  # images that a student's speed is measured on


def reckon(
    answered: TeacherAnswers,
    ledger: Ledger,
    price: float | None,
    train_seconds: float,
    student_seconds: float,
) -> dict[str, Any]:
    """Reckon what one student has cost.

    Its answers count, whether they were paid for in this run or before; so do all failed calls. `price` is
    that of a thousand answers, if it is known, `student_seconds` how long the student takes for one image.

    Returns:
        `failed_calls`, `ask_seconds` (of this run), `price`, `money`, and how many images must be embedded
        before the student is the cheaper way to do it: `break_even` in queries or money, which it does not
        cost, and `break_even_time` in time, None if the teacher is as fast; `student_seconds` and
        `teacher_seconds` for an image, None before the first answer.
    """
    paid, rate = answered.count + ledger.lost, ledger.rate
    teacher_seconds = 1 / rate if rate else 0.0
    fixed = paid * teacher_seconds + train_seconds
    return {
        "failed_calls": ledger.lost,
        "ask_seconds": answered.seconds,
        "price": price,
        "money": None if price is None else paid * price / 1000,
        "break_even": paid,
        "break_even_time": break_even(fixed, teacher_seconds, student_seconds),
        "teacher_seconds": teacher_seconds or None,
        "student_seconds": student_seconds,
    }


def break_even(fixed: float, dear: float, cheap: float) -> int | None:
    """Count the uses after which `fixed` at first and `cheap` for each cost less than `dear` for each."""
    return math.ceil(fixed / (dear - cheap)) if dear > cheap else None


def seconds_per_image(student: OnnxEmbedder, images: NDArray[np.uint8]) -> float:
    """Measure the median time of one of the `(n, side, side, 3)` uint8 images, after a warm-up."""
    each = cycle(images[:TIMED])
    return float(time_in_turns([lambda: student.embed([next(each)])], TIMED)[0]) / 1000
