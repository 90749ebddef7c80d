"""Read photos once and decode them once, as far as memory has room for what is needed again."""

from collections.abc import Sequence
from threading import Lock

from index.errors import ImageError
from index.images.decode import Photo, decode_file
from index.images.file import ImageFile, digest_pool

ROOM = 1 << 29  # bytes of photos that are kept

Bytes = tuple[bytes, int]  # as `ImageFile.read` gives them


class PhotoReader:
    """Reads photos and keeps them while there is room: decoded, or else their bytes. Safe in threads."""

    def __init__(self, room: int | None = None) -> None:
        """Keep up to `room` bytes; None for `ROOM`."""
        self._room = ROOM if room is None else room
        self._bytes: dict[ImageFile, Bytes | ImageError] = {}
        self._photos: dict[ImageFile, tuple[Photo, int]] = {}  # and the side that it was decoded for
        self._lock = Lock()

    def __reduce__(self) -> tuple[type["PhotoReader"], tuple[int]]:
        """Go to another process without what is kept, and keep nothing there."""
        return PhotoReader, (0,)

    def digest(self, files: Sequence[ImageFile]) -> list[str]:
        """Digest the content of each file, as `digest_pool`."""
        return digest_pool(files, self._read_bytes)

    def read(self, file: ImageFile, side: int) -> Photo:
        """Read a photo and decode it at least `side` pixels wide and high, as `read_photo`."""
        photo, decoded = self._photos.get(file, (None, 0))
        if photo and (decoded >= side or photo.image.size == (photo.width, photo.height)):
            return photo
        photo = decode_file(file, *self._read_bytes(file), side)
        if self._has_room(3 * photo.image.width * photo.image.height):
            self._photos[file] = photo, side
        return photo

    def forget(self) -> None:
        """Let go of all that is kept, and keep nothing more."""
        self._room, self._bytes, self._photos = 0, {}, {}

    def _read_bytes(self, file: ImageFile) -> Bytes:
        if (kept := self._bytes.get(file)) is None:
            try:
                kept = file.read()
            except ImageError as reason:
                kept = reason
            if self._has_room(0 if isinstance(kept, ImageError) else len(kept[0])):
                self._bytes[file] = kept
        if isinstance(kept, ImageError):
            raise kept
        return kept

    def _has_room(self, size: int) -> bool:
        """Take up room for so many bytes, if there is."""
        with self._lock:
            if size > self._room:
                return False
            self._room -= size
            return True
