"""What lies beside the photos of a folder or in a shard and is not taken: counted, so that it can be told."""

import os
from collections import Counter
from collections.abc import Iterable
from typing import TypeVar

EXTENSIONS = frozenset(
    ".jpg .jpeg .jpe .jfif .mpo .png .webp .gif .bmp .tif .tiff .avif .jp2 .ppm .pgm".split()
)
UNREAD = frozenset(  # photos and drawings all the same
    ".heic .heif .hif .jxl .svg .psd .exr .hdr .dng .cr2 .cr3 .nef .arw .raf .orf .rw2 .pef .srw".split()
)
FOLDERS = frozenset(  # beside those named with a dot in front
    "@eadir #recycle #snapshot $recycle.bin __macosx thumbnails thumbs lost+found".split()
)
Place = TypeVar("Place")
REPEATED = "names that a shard has twice"  # the last file of the name counts


class LeftOut:
    """Decides by their names what is taken below a folder or in a shard, and counts the rest."""

    def __init__(self) -> None:
        self._formats: Counter[str] = Counter()
        self._folders: Counter[str] = Counter()
        self._files: Counter[str] = Counter()

    def takes_folder(self, name: str) -> bool:
        """Whether to look into a folder: not if it holds thumbnails, deleted files or what is hidden."""
        hidden = name.startswith(".") or name.lower() in FOLDERS
        if hidden:
            self._folders[name] += 1
        return not hidden

    def takes(self, name: str) -> bool:
        """Whether a file is taken, by the last part of its name."""
        extension = _extension(name)
        if extension in UNREAD:
            self._formats[extension] += 1
        if extension in EXTENSIONS and name.startswith("."):
            self._files["hidden files"] += 1
            return False
        return extension in EXTENSIONS

    def takes_member(self, name: str) -> bool:
        """Whether a member of a shard is taken, by its path."""
        *folders, last = name.split("/")
        return self.takes(last) and all(map(self.takes_folder, folders))

    def once(self, members: Iterable[tuple[str, Place]]) -> Iterable[tuple[str, Place]]:
        """Members of a shard, each name once; of several files of one name it is the last that counts."""
        found: dict[str, Place] = {}
        for name, place in members:
            self._files[REPEATED] += name in found and _extension(name) in EXTENSIONS
            found[name] = place
        return found.items()

    def __str__(self) -> str:
        """What was left out, for people; empty if there was nothing."""
        parts = []
        if self._formats:
            count = sum(self._formats.values())
            parts.append(f"{count} files of formats that are not read ({_list(self._formats)}): convert them")
        if self._folders:
            count = sum(self._folders.values())
            parts.append(f"{count} folders ({_list(self._folders)}): name one itself to take it")
        parts += [f"{count} {kind}" for kind, count in self._files.items() if count]
        return "; ".join(parts)


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122


def _list(counted: Counter[str], most: int = 6) -> str:
    names = ", ".join(f"{count} {name}" for name, count in counted.most_common(most))
    return names + (", ..." if len(counted) > most else "")
