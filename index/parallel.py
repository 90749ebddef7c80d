"""Work that runs ahead of the user of its results, within bounds."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

BATCH = 32  # images that a model is given at a time
# As many as this process may use, which in a container is fewer than the machine has.
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
WORKERS = CORES  # threads that decode
T = TypeVar("T")
U = TypeVar("U")


def bounded_map(
    pool: ThreadPoolExecutor, work: Callable[[T], U], things: Iterable[T], ahead: int
) -> Iterator[U]:
    """Map in order like `map`, with at most `ahead` results waiting: memory stays constant."""
    waiting: deque[Future[U]] = deque()
    try:
        for thing in things:
            waiting.append(pool.submit(work, thing))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
