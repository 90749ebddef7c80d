"""Work that runs ahead of the user of its results, within bounds."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock
from typing import TypeVar

BATCH = 32  # images that a model is given at a time
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # microseconds on a core, and of how many; or `max` for no limit


def count_cores() -> int:
    """Count the cores that this process may use, which in a container are fewer than the machine has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        most, period = map(int, QUOTA.read_text().split())
    except (OSError, ValueError):  # there is no limit
        return cores
    return min(cores, -(-most // period))


CORES = count_cores()  # each decodes in a thread
T = TypeVar("T")
U = TypeVar("U")


def bounded_map(work: Callable[[T], U], things: Iterable[T], ahead: int, threads: int = CORES) -> Iterator[U]:
    """Map in order like `map`, in threads, with at most `ahead` results waiting: memory stays constant."""
    waiting: deque[Future[U]] = deque()
    with ThreadPoolExecutor(threads) as pool:
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


class RateLimit:
    """Lets several threads pass at most so many images a second together."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._lock = Lock()
        self._next = 0.0

    def wait(self, images: int, stop: Event) -> None:
        """Wait for the turn of so many images, or until `stop` is set."""
        with self._lock:
            turn = max(self._next, time.monotonic())
            if self._rate:
                self._next = turn + images / self._rate
        stop.wait(max(turn - time.monotonic(), 0))

    def hold(self, seconds: float) -> None:
        """Let nobody pass for so long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)
