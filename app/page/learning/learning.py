"""Students that learn while a page shows how, one at a time: of the demo's photos, then of one's own."""

from collections.abc import Callable
from glob import escape
from pathlib import Path
from shutil import rmtree
from threading import Lock
from typing import Any

from app.page.background import Background
from index.errors import UsageError
from index.images.decode import decode
from index.images.left_out import EXTENSIONS, HEIC, reads_heic
from index.images.sources import find_images
from index.progress import StoppedError, watched
from index.search import Searcher, open_searcher
from index.stores.folder import MANIFEST

SENDING, SENT = "sending", "photos"  # folders of photos that a page sends, and of those that it has sent
STEP_SECONDS = 10.0  # that a step of training is given to end, once the demo is to stop
FEWEST, MOST = 40, 2000  # photos: of fewer, hardly any could be held out to measure on
MOST_BYTES = 8_000_000_000  # of all of them
SMALL = 64  # pixels that a photo is decoded to, to see that it is one


class Run(Background[Path]):
    """One student that learns.

    Attributes:
        facts: What was told of it last, by name, as in `watched`: `step` (what is done, in words), `stage`
            (how far a bar is), `training` and `steps` (losses and checks so far, of how many steps), `lists`
            (of the last check).
        stopped: Why it is to end before it has finished; empty if it is not.
    """

    def __init__(self, work: Callable[[], Path], former: "Run | None" = None) -> None:
        """Start work that makes an index folder; a run before it is ended first."""
        super().__init__(lambda _: self._do(work, former))
        self.facts: dict[str, Any] = {"step": "Starting."}
        self.stopped = ""
        self.start()

    def _do(self, work: Callable[[], Path], former: "Run | None") -> Path:
        if former:
            self.facts = {"step": "Waiting for the run before to stop."}
            former.stopped = "Stopped: another folder took its place."
            while not former.wait(1):
                pass
        with watched(self._hear):
            return work()

    def _hear(self, **facts: Any) -> None:
        if self.stopped:
            raise StoppedError(self.stopped)
        # A stage belongs to its step.
        self.facts = ({**self.facts, "stage": None} if "step" in facts else self.facts) | facts


class Inbox:
    """Takes photos by number: nothing that comes with them becomes a path."""

    def __init__(self, folder: Path) -> None:
        """Make the folder."""
        folder.mkdir(parents=True)
        self.folder = folder
        self._bytes = 0
        self._lock = Lock()

    def take(self, place: int, suffix: str, data: bytes) -> None:
        """Write a photo, with one of the suffixes of image files.

        Raises:
            ImageError: It is no image that can be read.
            UsageError: There is no room for it.
        """
        if suffix not in (EXTENSIONS | HEIC if reads_heic() else EXTENSIONS):
            raise UsageError("This is not an image file.")
        if not 0 <= place < MOST:
            raise UsageError(f"Send at most {MOST} photos.")
        decode(data, f"photo {place}", SMALL)
        with self._lock:
            if self._bytes + len(data) > MOST_BYTES:
                raise UsageError(f"Send at most {MOST_BYTES / 1e9:g} GB.")
            self._bytes += len(data)
        (self.folder / f"{place:04}{suffix}").write_bytes(data)

    def require_enough(self) -> None:
        """Raise UsageError unless there are enough photos to learn from."""
        if (found := sum(1 for _ in self.folder.iterdir())) < FEWEST:
            raise UsageError(
                f"{found} photos can be read; at least {FEWEST} are needed. Choose a folder with more."
            )


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
        """Begin with the demo's photos, or go on with the folder that was sent last and has not finished."""
        images, out = self._images, self._out
        pattern = f"{escape(out.name)}-[0-9]*/{SENT}"
        sent = max(out.absolute().parent.glob(pattern), key=lambda each: each.stat().st_mtime, default=None)
        if sent and not (sent.parent / "index" / MANIFEST).is_file():
            print(
                f"Going on with the photos that were sent: {sent}. Others begin once it is gone.", flush=True
            )
            images, out = sent, sent.parent
        self.run = Run(lambda: self._make(images, out))

    def stop(self) -> None:
        """End what learns, once its step of training has ended: from there the next start goes on."""
        self.run.stopped = "The demo has stopped. Start it again: it goes on where it was."
        stage = self.run.facts.get("stage")
        if stage and stage.label == "train" and stage.done < stage.total:
            self.run.wait(STEP_SECONDS)

    def open(self) -> Searcher:
        """Open the index that was finished last."""
        assert self.index
        return open_searcher(self.index)

    def open_inbox(self) -> int:
        """Make a new folder beside the demo's for photos, and number it; one half sent is removed."""
        with self._lock:
            number = 2
            while (folder := self._out.absolute().with_name(f"{self._out.name}-{number}")).exists():
                if (folder / SENDING).exists():
                    rmtree(folder)
                    break
                number += 1
            self._inbox = Inbox(folder / SENDING)
            self._sent += 1
            return self._sent

    def start_own(self, number: int) -> None:
        """Begin with the photos that were sent; UsageError if they are too few."""
        with self._lock:
            inbox = self.inbox_of(number)
            inbox.require_enough()
            self._inbox = None
            sent = inbox.folder.rename(inbox.folder.with_name(SENT))
            self.run = Run(lambda: self._make(sent, sent.parent), self.run)

    def inbox_of(self, number: int) -> Inbox:
        """Find what takes the folder with that number; UsageError if another has taken its place."""
        if not self._inbox or number != self._sent:
            raise UsageError("Another page has sent a folder since. Choose yours again.")
        return self._inbox

    def _make(self, images: Path | None, out: Path) -> Path:
        from app.demo import make_demo  # here: the page is there before torch is

        make_demo(images, out, self._out)
        self.index = out / "index"
        return self.index
