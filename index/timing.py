"""Time pieces of work beside one another."""

from collections.abc import Callable, Sequence
from time import perf_counter

import numpy as np
from numpy.typing import NDArray


def time_in_turns(
    works: Sequence[Callable[[], object]], rounds: int, warm_up: int = 1, share: float = 0.5
) -> NDArray[np.float64]:
    """Time works in turns, which a busy machine slows alike: milliseconds, at a quantile of rounds."""
    seconds = []
    for _ in range(warm_up + rounds):
        marks = [perf_counter()]
        for work in works:
            work()
            marks.append(perf_counter())
        seconds.append(np.diff(marks))
    return 1000 * np.quantile(seconds[warm_up:], share, axis=0)
