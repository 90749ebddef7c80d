"""A rate limit that threads keep together."""

import time
from threading import Event, Lock


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
