"""Work that is done once, in a thread of its own, while a page is looked at."""

import logging
import os
import sys
from collections.abc import Callable
from threading import Lock, Thread, get_native_id
from typing import Generic, TypeVar

from index.errors import RetrievalError

T = TypeVar("T")
Progress = Callable[[float], None]


class Background(Generic[T]):
    """Does work once and keeps its result for everyone who asks."""

    def __init__(self, work: Callable[[Progress], T], polite: bool = False) -> None:
        """Take the work, which is given a function to report its progress to, and do not start it yet.

        If it is `polite`, it and the threads that it starts let others go first, as far as the system can.
        """
        self._work, self._polite = work, polite
        self._lock = Lock()
        self._thread: Thread | None = None
        self.done = 0.0  # share of the work that is done, from 0 to 1
        self.result: T | None = None  # what it brought; None before it has ended
        self.error = ""  # why it failed; empty if it did not
        self._told = True  # whether someone who waited has seen that error

    @property
    def ended(self) -> bool:
        """Whether there is a result, or a reason why there is none."""
        return self.result is not None or bool(self.error)

    def start(self) -> None:
        """Begin, unless it has begun. What failed is tried again, once someone has seen why it failed."""
        with self._lock:
            running = self._thread is not None and self._thread.is_alive()
            if running or self.result is not None or not self._told:
                return
            self.done, self.error = 0.0, ""
            self._thread = Thread(target=self._run, daemon=True)
            self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait for the end, so long at most, and say whether it has come."""
        if self._thread is not None:
            self._thread.join(seconds)
        self._told = self._told or bool(self.error)
        return self.ended

    def _run(self) -> None:
        try:
            if self._polite and sys.platform == "linux":  # which alone knows this for threads
                os.setpriority(os.PRIO_PROCESS, get_native_id(), 10)
            self.result = self._work(self._report)
        except RetrievalError as error:  # an index without a teacher, a model that fails
            logging.getLogger(__name__).warning("%s", error)
            self.error, self._told = str(error), False
        except Exception as error:  # the page must say so, whatever it was
            logging.getLogger(__name__).exception("Background work failed.")
            self.error, self._told = str(error) or type(error).__name__, False

    def _report(self, done: float) -> None:
        self.done = done
