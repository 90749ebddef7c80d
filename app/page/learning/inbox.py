"""Photos that a browser sends, one by one, into a folder of their own."""

from pathlib import Path
from threading import Lock

from index.errors import UsageError
from index.images.decode import decode
from index.images.left_out import EXTENSIONS, HEIC, reads_heic

FEWEST, MOST = 40, 2000  # photos: of fewer, hardly any could be held out to measure on
MOST_BYTES = 8_000_000_000  # of all of them
SMALL = 64  # pixels that a photo is decoded to, to see that it is one


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
            raise UsageError("That is no image file.")
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
            raise UsageError(f"{found} photos can be read, and at least {FEWEST} are needed.")
