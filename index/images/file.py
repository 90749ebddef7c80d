"""One file to read, or one member of a tar shard: named, and read without waiting for what may never come."""

import os
import posixpath
import stat
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from index.errors import ImageError
from index.images.remote import MAX_BYTES, Remote
from index.io import content_digest
from index.parallel import BATCH, bounded_map
from index.progress import progress

URI = "file://"
LATEST = (1 << 63) - 1  # in the year 2262; disks take later times, tables do not
KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # for a writer into a pipe; files are read as ever


@dataclass(frozen=True, slots=True)
class Member:
    """Where a file lies in a tar shard: the offset of its first byte, and how many it has."""

    shard: Path
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file to read."""

    # Absolute, links kept. A member of a shard lies below the path of the shard; at an address: `location`.
    path: Path
    name: str  # what to call it in messages
    below: bool = False  # whether that is its path below a folder of images, which identifies it there
    member: Member | Remote | None = None  # where it lies in a shard or at an address, if it does
    fault: str = ""  # why it cannot be read, if listing it found that out

    @property
    def location(self) -> str:
        """Its path as text that JSON and Parquet take. `sources.image_at` makes a file of it again."""
        return self.member.location if isinstance(self.member, Remote) else path_to_text(self.path)

    def read(self) -> tuple[bytes, int]:
        """Read its bytes, and when it, or the shard of a member, was changed: in nanoseconds since 1970.

        Raises:
            ImageError: It cannot be read; the message is the reason.
            RetrievalError: It lies in a store that cannot be asked.
        """
        size, changed = self.status()
        if size > MAX_BYTES:
            raise ImageError(f"too large: {size >> 20} MiB, the limit is {MAX_BYTES >> 20} MiB")
        if isinstance(self.member, Remote):
            return self.member.read(size), changed
        try:
            with open(self._on_disk, "rb", 0, opener=lambda path, how: os.open(path, how | NO_WAIT)) as file:
                if self.member is None:
                    return file.read(), changed
                file.seek(self.member.offset)
                data = file.read(size)
        except (OSError, ValueError) as error:
            raise ImageError(getattr(error, "strerror", None) or str(error)) from error
        if len(data) < size:
            raise ImageError("the shard ends within it")
        return data, changed

    def read_unchanged(self, digest: str) -> bytes:
        """Read its bytes; ImageError, too, if that is not their content digest, as when it was indexed."""
        data, _ = self.read()
        if content_digest(data) != digest:
            raise ImageError("it has changed since it was indexed")
        return data

    def status(self) -> tuple[int, int]:
        """Its size in bytes and when it was changed, without reading it; errors are as in `read`."""
        if self.fault:
            raise ImageError(self.fault)
        if isinstance(self.member, Remote):
            return self.member.status()
        try:
            found = self._on_disk.stat()
        except (OSError, ValueError) as error:  # of a name that no file can have, too
            raise ImageError(getattr(error, "strerror", None) or str(error)) from error
        if not stat.S_ISREG(found.st_mode):
            raise ImageError(f"{KINDS.get(stat.S_IFMT(found.st_mode), 'a device')}, not a file")
        return self.member.size if self.member else found.st_size, time_of(found)

    @property
    def _on_disk(self) -> Path:
        return self.member.shard if isinstance(self.member, Member) else self.path


def time_of(found: os.stat_result) -> int:
    """When a file was changed, in nanoseconds since 1970: at most what takes 64 bits, to 1677 and 2262."""
    return max(-LATEST, min(found.st_mtime_ns, LATEST))


def path_to_text(path: Path) -> str:
    """A path as text that is valid UTF-8: itself, or, of an absolute one that is not, its `file:` address."""
    text = str(path)
    return path.as_uri() if _has_stray_bytes(text) else text


def text_to_path(text: str) -> Path:
    """The path that `path_to_text` made this of."""
    if text.startswith(URI):
        return Path(os.fsdecode(unquote_to_bytes(text.removeprefix(URI))))
    return Path(text)


def plain_path(text: str) -> str:
    """The form that all ways to write a path share: `/` for each step, nothing needless, composed letters."""
    return posixpath.normpath(unicodedata.normalize("NFC", text).replace("\\", "/"))


def readable(name: str) -> str:
    r"""A name as text that every file and terminal takes: bytes that are not UTF-8 are written as `\xff`."""
    return os.fsencode(name).decode(errors="backslashreplace") if _has_stray_bytes(name) else name


def _has_stray_bytes(text: str) -> bool:
    """Whether a file's name has bytes that are not UTF-8; Python keeps each as half of a surrogate pair."""
    return not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)


def digest_pool(
    files: Sequence[ImageFile], read: Callable[[ImageFile], tuple[bytes, int]] = lambda file: file.read()
) -> list[str]:
    """Content digest of each file; of one that cannot be read, a digest of its path, and it fails later."""

    def digest(file: ImageFile) -> str:
        try:
            return content_digest(read(file)[0])
        except ImageError:
            return content_digest(file.location.encode())

    digests = []
    with progress(len(files), "read") as bar:
        for found in bounded_map(digest, files, ahead=4 * BATCH):
            digests.append(found)
            bar.update()
    return digests
