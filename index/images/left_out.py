"""What lies beside the photos of a folder or in a shard and is not taken: counted, so that it can be told."""

import os
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cache
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from threading import Lock

from index.images.tar import Members, Place
from index.progress import count

EXTENSIONS = frozenset(
    ".jpg .jpeg .jpe .jfif .mpo .png .apng .webp .gif .bmp .tif .tiff .avif .avifs .jp2 .j2k .j2c .jpc .jpf "
    ".jpx .ppm .pgm .pbm .pnm .pfm".split()
)
UNREAD = frozenset(  # photos and drawings all the same
    ".jxl .jxr .wdp .svg .eps .ai .pdf .psd .psb .xcf .tga .ico .icns .cur .dib .pcx .qoi .dds .wmf .emf "
    ".exr .hdr .dcm .dng .raw .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .raf .orf .rw2 .rwl .pef .ptx .srw "
    ".3fr .fff .erf .gpr .iiq .kdc .dcr .mef .mos .mrw .x3f".split()
)
VIDEOS = frozenset(".mp4 .mov .m4v .3gp .avi .mkv .webm .mts .m2ts .insv".split())
ARCHIVES = frozenset(".tar .gz .tgz .bz2 .xz .zst .zip .7z .rar".split())
HEIC = frozenset(".heic .heics .heif .heifs .hif".split())  # what phones write
FOLDERS = frozenset(  # beside those named with a dot in front
    "@eadir/@recycle/#recycle/#snapshot/$recycle.bin/system volume information/__macosx/thumbnails/thumbs/"
    "lost+found".split("/")
)
REPEATED = "names that a shard has twice"  # the last file of the name counts


@cache
def reads_heic() -> bool:
    """Whether the package is installed that decodes HEIC."""
    return find_spec("pillow_heif") is not None


class LeftOut:
    """Decides what is taken below folders, in shards and of lists, each path once, and counts the rest."""

    def __init__(self, exclude: Sequence[str] = ()) -> None:
        """Take patterns of what is left out beside: as a shell's, where `*` and `?` match slashes too.

        One without a slash is matched with each part of a path, others with the path below the folder, in the
        shard or in the list.
        """
        self._patterns = {asked: asked.removeprefix("./").rstrip("/") for asked in exclude}
        self._excluded: Counter[str] = Counter()  # by pattern, as it was asked for
        self._taken = EXTENSIONS | HEIC if reads_heic() else EXTENSIONS
        self._formats: Counter[str] = Counter()
        self._folders: Counter[str] = Counter()
        self._files: Counter[str] = Counter()
        self._lock = Lock()  # several shards are listed at once
        self._seen: set[str] = set()

    def is_new(self, path: str) -> bool:
        """Whether a path, or an address, was not asked about before."""
        known = path in self._seen
        self._seen.add(path)
        return not known

    def excludes(self, path: str) -> bool:
        """Whether a path, as it is written in its source, is one of those that are not wanted."""
        for asked, pattern in self._patterns.items():
            parts = path.split("/")
            if "/" in pattern:  # the path, and those of the folders above it
                parts = list(accumulate(parts, "{}/{}".format))
            if any(fnmatchcase(part, pattern) for part in parts):
                self._count(self._excluded, asked)
                return True
        return False

    def takes_folder(self, path: str) -> bool:
        """Whether to look into a folder: not if it holds thumbnails, deleted files or what is hidden."""
        if self.excludes(path):
            return False
        name = path.rpartition("/")[2]
        hidden = name.startswith(".") or name.lower() in FOLDERS
        self._count(self._folders, name, hidden)
        return not hidden

    def takes(self, path: str) -> bool:
        """Whether a file is taken, by its path below the folder."""
        hidden, extension = path.rpartition("/")[2].startswith("."), _extension(path)
        if extension not in self._taken:
            self._count(self._formats, extension, extension in UNREAD or extension in HEIC)
            self._count(self._files, "videos", extension in VIDEOS)
            self._count(self._files, "archives: name a .tar itself to take it", extension in ARCHIVES)
            self._count(self._files, "files without an extension", not extension and not hidden)
            return False
        if self.excludes(path):
            return False
        self._count(self._files, "hidden files", hidden)
        return not hidden

    def choose(self, members: Members, shard: Path | None = None) -> Members:
        """Choose from what `read_members` yields what is new, each name once: the last file of it counts.

        Without the path of the `shard`, as of one at an address, all are new: nothing else can name them.
        """
        found: dict[str, Place] = {}
        for name, place in members:
            self._count(self._files, REPEATED, name in found and _extension(name) in self._taken)
            found[name] = place
        takes_folder = cache(self.takes_folder)  # counts each once
        for name, place in found.items():
            folders = accumulate(name.split("/")[:-1], "{}/{}".format)
            taken = not name or (self.takes(name) and all(map(takes_folder, folders)))
            if taken and (shard is None or self.is_new(f"{shard}/{name}")):
                yield name, place

    def _count(self, kinds: Counter[str], kind: str, one: bool = True) -> None:
        if one:
            with self._lock:
                kinds[kind] += 1

    def __str__(self) -> str:
        """What was left out, for people; empty if there was nothing."""
        parts = []
        if number := sum(self._formats.values()):
            files = f"{count(number, 'file')} of formats that are not read ({_list(self._formats)})"
            otherwise = ", or install pillow-heif, which reads HEIC" if HEIC & self._formats.keys() else ""
            parts.append(f"{files}: convert them{otherwise}")
        if self._folders:
            folders = count(sum(self._folders.values()), "folder")
            parts.append(f"{folders} ({_list(self._folders)}): name one itself to take it")
        parts += [f"{number} {kind}" for kind, number in self._files.items()]
        parts += [f"{self._excluded[asked] or 'nothing'} by --exclude {asked}" for asked in self._patterns]
        return "; ".join(parts)


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122


def _list(counted: Counter[str], most: int = 6) -> str:
    names = ", ".join(f"{times} {name}" for name, times in counted.most_common(most))
    return names + (", ..." if len(counted) > most else "")
