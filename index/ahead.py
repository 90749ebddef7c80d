"""Work that runs ahead of whoever uses its results, within bounds."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

BATCH = 32  # images that a model is given at a time
WORKERS = 2  # threads that decode
T = TypeVar("T")
U = TypeVar("U")


def map_ahead(
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
