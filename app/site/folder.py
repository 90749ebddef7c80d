"""The folder of a site: files named by their content, pages that name them, and nothing else."""

import gzip
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from index.errors import UsageError
from index.io import atomic_write, content_digest, explain_disk

FORMAT = 2  # of the manifest
MANIFEST, DATA = "manifest.json", "data"


class SiteFolder:
    """Writes what is not there yet; what is named no more goes when the new manifest is in place."""

    def __init__(self, path: Path, update: bool = False) -> None:
        """Take a folder that is empty, or with `update` a site; UsageError if it is something else."""
        self.path = path
        self.manifest: dict[str, Any] = {}  # of the site that is there; empty without one
        with suppress(OSError, ValueError, AttributeError):
            known = json.loads((path / MANIFEST).read_bytes())
            self.manifest = known if known.get("format") == FORMAT else {}
        self.written = 0  # bytes
        self._named: set[str] = set()
        there = path.is_dir() and any(path.iterdir())
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file. Give a folder.")
        if there and not self.manifest:
            raise UsageError(f"{path} is no site, and not empty. Give another folder.")
        if there and not update:
            raise UsageError(f"{path} is there. Give --update to write what has changed.")

    def put(self, data: bytes, suffix: str = ".bin") -> str:
        """Write a file under the digest of its content, and return its name below the folder."""
        name = f"{DATA}/{content_digest(data)}{suffix}"
        if not self.has(name):
            self.write(name, data)
        return name

    def pack(self, data: bytes) -> str:
        """`put` it compressed: not every host compresses, and the browser can unpack it."""
        return self.put(gzip.compress(data, 9, mtime=0))

    def pack_together(self, files: list[bytes]) -> str:
        """`pack` files that belong together, as `NAME-0.bin` and so on, and return `NAME`.

        They are many: by level 9 they would lose another 4 %, in six times the time.
        """
        name = f"{DATA}/{content_digest(b''.join(files))}"
        for i, data in enumerate(files):
            if not self.has(file := f"{name}-{i}.bin"):
                self.write(file, gzip.compress(data, 7, mtime=0))
        return name

    def read(self, name: str) -> bytes:
        """Read what was packed."""
        return gzip.decompress((self.path / name).read_bytes())

    def has(self, name: str) -> bool:
        """Whether a file is there already; it is kept."""
        self._named.add(name)
        return (self.path / name).is_file()

    def write(self, name: str, data: bytes) -> None:
        """Write a file, unless it has this content."""
        self._named.add(name)
        file = self.path / name
        with explain_disk(self.path):
            if file.is_file() and file.read_bytes() == data:
                return
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file) as beside:
                beside.write_bytes(data)
        self.written += len(data)

    def finish(self, manifest: dict[str, Any]) -> int:
        """Put the new manifest in place, then remove what it does not name; return how many files went."""
        self.write(MANIFEST, json.dumps({"format": FORMAT, **manifest}, ensure_ascii=False).encode())
        gone = [
            file
            for file in (self.path / DATA).rglob("*")
            if file.is_file() and file.relative_to(self.path).as_posix() not in self._named
        ]
        for file in gone:
            file.unlink()
        return len(gone)
