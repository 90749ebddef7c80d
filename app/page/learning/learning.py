"""Students that learn while a page shows how, one at a time: of the demo's photos, then of one's own."""

from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from threading import Lock
from typing import Any

from app.page.background import Background
from app.page.learning.inbox import Inbox
from index.errors import RetrievalError, UsageError
from index.images.sources import find_images
from index.progress import watched
from index.search import Searcher, open_searcher


class StoppedError(RetrievalError):
    """A run was ended for the next one."""


class Run(Background[Path]):
    """One student that learns.

    Attributes:
        facts: What was told of it last, by name, as in `watched`: `step` (what is done, in words), `stage`
            (how far a bar is), `training` and `steps` (losses and checks so far, of how many steps), `lists`
            (of the last check).
    """

    def __init__(self, work: Callable[[], Path], former: "Run | None" = None) -> None:
        """Start work that makes an index folder; a run before it is ended first."""
        super().__init__(lambda _: self._do(work, former))
        self.facts: dict[str, Any] = {"step": "Starting."}
        self._stopping = False
        self.start()

    def _do(self, work: Callable[[], Path], former: "Run | None") -> Path:
        if former:
            self.facts = {"step": "Waiting for the run before to stop."}
            former._stopping = True
            while not former.wait(1):
                pass
        with watched(self._hear):
            return work()

    def _hear(self, **facts: Any) -> None:
        if self._stopping:
            raise StoppedError("Stopped: another folder took its place.")
        # A stage belongs to its step.
        self.facts = ({**self.facts, "stage": None} if "step" in facts else self.facts) | facts


class Learning:
    """The runs of one demo, and the folder that takes the visitor's photos.

    Attributes:
        run: The one that learns now, or the last that did.
        index: The index folder that was finished last; None before the first.
    """

    run: Run

    def __init__(self, images: Path | None, out: Path) -> None:
        """Prepare a demo of a folder of photos, None for those that are installed, that writes to `out`.

        Raises:
            UsageError: There is no image in the folder.
        """
        if images:
            find_images([images])
        self._images, self._out = images, out
        self._inbox: Inbox | None = None
        self._lock = Lock()
        self._sent = 0  # folders that pages began to send
        self.index: Path | None = None

    def start(self) -> None:
        """Begin with the demo's photos."""
        self.run = Run(lambda: self._make(self._images, self._out))

    def open(self) -> Searcher:
        """Open the index that was finished last."""
        assert self.index
        return open_searcher(self.index)

    def open_inbox(self) -> int:
        """Make a new folder beside the demo's for photos, and number it; an unfinished one is removed."""
        with self._lock:
            if self._inbox:
                rmtree(self._inbox.folder.parent, ignore_errors=True)
            number = 2
            while (folder := self._out.absolute().with_name(f"{self._out.name}-{number}")).exists():
                number += 1
            self._inbox = Inbox(folder / "photos")
            self._sent += 1
            return self._sent

    def take(self, number: int, place: int, suffix: str, data: bytes) -> None:
        """Take a photo of the folder with that number, as `Inbox.take`."""
        self._inbox_of(number).take(place, suffix, data)

    def start_own(self, number: int) -> None:
        """Begin with the photos that were sent; UsageError if they are too few."""
        with self._lock:
            inbox = self._inbox_of(number)
            inbox.require_enough()
            self._inbox = None
            self.run = Run(lambda: self._make(inbox.folder, inbox.folder.parent), self.run)

    def _inbox_of(self, number: int) -> Inbox:
        if not self._inbox or number != self._sent:
            raise UsageError("Another page sends a folder, or has. Choose yours again.")
        return self._inbox

    def _make(self, images: Path | None, out: Path) -> Path:
        from app.demo import make_demo  # here: the page is there before torch is

        make_demo(images, out, self._out)
        self.index = out / "index"
        return self.index
