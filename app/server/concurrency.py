"""One searcher for many users at once: bounded, timed, and the same index from beginning to end."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import BoundedSemaphore
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.server.metrics import FAILED, STAGES
from index.embedders.base import embed_checked
from index.errors import NoMatchError, RetrievalError, UsageError, needs
from index.feedback import Examples
from index.images.decode import Photo
from index.io import content_digest
from index.parallel import CORES
from index.search import MODES, NO_EXAMPLES, RERANK, Found, Searcher
from index.stores.filters import Filter
from index.text.models import Text

with needs("demo"):
    from anyio import CapacityLimiter
    from anyio.to_thread import run_sync

TURN_SECONDS = 30.0  # seconds that a search waits for its turn
MOST_WAITING = 64  # requests for one lane; more are told to come back
MOST_FOR_STUDENT = 256  # the same for the student, which takes milliseconds for each
TEXT = "text"  # the lane of the text model, as if it were a mode
T = TypeVar("T")


class BusyError(RetrievalError):
    """More is asked for than can be answered in time."""


class SharedSearcher(Searcher):
    """Searches with each model in a lane of its own, so that nobody waits behind another model.

    The student's session is shared by as many threads as there are cores, a teacher by as many as its
    endpoint is asked by at a time; later ones wait. The index is read whole at once: if its folder
    is replaced, the old one is searched until `app.server.app.serve` has opened the new one.
    """

    def __init__(self, searcher: Searcher) -> None:
        """Take over an open searcher; raises RetrievalError if its index was replaced meanwhile."""
        vars(self).update(vars(searcher))
        models = self.models | ({TEXT: self.text.model} if self.text else {})
        # A teacher in a file takes every core for one call.
        lanes = {name: model.calls.concurrency if model.calls.paid else 1 for name, model in models.items()}
        lanes["student"] = CORES
        if self.reranker:
            lanes[RERANK] = self.reranker.calls.concurrency
        self._turns = {name: BoundedSemaphore(width) for name, width in lanes.items()}
        self._limiters = {name: CapacityLimiter(width) for name, width in lanes.items()}
        self._running = dict.fromkeys(lanes, 0)  # that `run` has in hand
        for mode in self.stored_modes:  # those without their model too: the tabs search with stored vectors
            if mode in MODES:
                self.open_space(MODES[mode][1])
        self.index.pin()
        # The first search with a session is slow; it should be nobody's.
        data = b"warm up"
        grey = Photo("warm up", data, content_digest(data), Image.new("RGB", (256, 256), "grey"), 256, 256)
        super().find([grey], "student", 1)

    def lane(self, mode: str) -> str:
        """Name the lane of a mode: the model that embeds the query, the teacher where both do, a ranker's."""
        if mode == TEXT or (mode == RERANK and self.reranker):
            return mode
        return MODES[mode][0] if mode in MODES else "teacher"

    def lane_of_item(self, mode: str) -> str:
        """Name the lane of a search with an image of the index: of these only a ranker is shown the photo."""
        return RERANK if mode == RERANK and self.reranker else "student"

    def find(
        self,
        photos: Sequence[Photo],
        mode: str,
        k: int,
        filter: Filter | None = None,
        examples: Examples = NO_EXAMPLES,
    ) -> Found:
        """Search as `Searcher.find`; raises BusyError if its turn does not come in time."""
        self._require(mode, self.modes, k)
        with self._turn(mode):
            return _observed(super().find(photos, mode, k, filter, examples), mode)

    def find_text(self, text: Text, mode: str, k: int, filter: Filter | None = None) -> Found:
        """Search as `Searcher.find_text`; raises BusyError if its turn does not come in time."""
        if self.text is None:
            return super().find_text(text, mode, k, filter)  # which refuses
        if (known := self.text_modes) and mode not in known:
            raise UsageError(f"No mode {mode!r} for words here, only {', '.join(known)}.")
        with self._turn(TEXT):
            return _observed(super().find_text(text, mode, k, filter), mode)

    async def run(self, mode: str, work: Callable[[], T]) -> T:
        """Do work of this mode in a thread of its lane; raises BusyError if too many wait already."""
        lane = self.lane(mode) if self.lane(mode) in self._limiters else "student"  # the work refuses it
        most = MOST_FOR_STUDENT if lane == "student" else MOST_WAITING
        if self._running[lane] >= self._limiters[lane].total_tokens + most:
            raise BusyError("Too many searches at once. Try again in a moment.")
        self._running[lane] += 1
        try:
            return await run_sync(work, limiter=self._limiters[lane])
        finally:
            self._running[lane] -= 1

    def embed_inputs(self, inputs: Sequence[Any], names: Sequence[str]) -> NDArray[np.float32]:
        """Embed what the student's `prepare` made of n photos to `(n, dim)` float32; BusyError as `find`."""
        with self._turn("student"), STAGES.labels("embed", "student").time():
            return embed_checked(self.models["student"], inputs, names)

    @contextmanager
    def _turn(self, mode: str) -> Iterator[None]:
        model = self.lane(mode)
        start = perf_counter()
        try:
            if not self._turns[model].acquire(timeout=TURN_SECONDS):
                raise BusyError(f"The {model} is busy with other searches. Try again in a moment.")
            STAGES.labels("wait", mode).observe(perf_counter() - start)
            try:
                yield
            finally:
                self._turns[model].release()
        except NoMatchError:
            raise
        except RetrievalError:
            FAILED.labels(mode).inc()
            raise


def _observed(found: Found, mode: str) -> Found:
    STAGES.labels("embed", mode).observe(found.embed_seconds)
    STAGES.labels("search", mode).observe(found.search_seconds)
    return found
