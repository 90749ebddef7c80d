"""A run that writes an index: what it has embedded so far, kept in the index folder until that is complete.

SQLite knows the images; their vectors lie in one file for each space, which only grows. A transaction ends
after its vectors are written, so that a run which is killed loses the batches at hand and no more. What was
written last may be lost with the machine's power: checksums find that. One process at a time has it open.
"""

import os
import shutil
import sqlite3
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from index.errors import RetrievalError, UsageError
from index.images.file import ImageFile
from index.images.listing import facts_of
from index.io import require_utf8, sync
from index.progress import count, say
from index.stores.base import RowReader, Store
from index.stores.folder import MANIFEST
from index.stores.records import CHUNK, UNFINISHED, Failure, File, Item, Space
from index.stores.tables import iter_files
from index.vectors import Vectors

SCHEMA = """
PRAGMA page_size = 1024;                  -- each digest has a page of its own to be written
PRAGMA cache_size = -500;                 -- KiB, for pages and again to sort: more is hardly faster
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS run (what TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS contents (     -- what has vectors
    digest TEXT PRIMARY KEY,
    size INTEGER NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    row INTEGER NOT NULL                  -- of the vectors of this run; -1 - id in the index that is updated
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS segments (     -- what each transaction appended to the vectors
    first INTEGER NOT NULL, count INTEGER NOT NULL,                -- rows
    space TEXT NOT NULL, start INTEGER NOT NULL, size INTEGER NOT NULL, crc INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS files (        -- what is to be indexed, in order
    place INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
    size INTEGER, mtime INTEGER,          -- before it was read; NULL where that cannot be said
    digest TEXT                           -- once it is known
);
CREATE TABLE IF NOT EXISTS seen (         -- what files held when they were last looked into
    path TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, digest TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refused (place INTEGER PRIMARY KEY, path TEXT NOT NULL, reason TEXT NOT NULL);
COMMIT;
"""
_DAMAGED = "{} is damaged. Remove it, and index again"
UNUSABLE = {
    sqlite3.SQLITE_BUSY: "another process writes it. Wait until it is done",
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
}
MISSING = """
FROM files LEFT JOIN contents USING (digest) LEFT JOIN refused USING (place)
WHERE contents.digest IS NULL AND refused.place IS NULL
"""
COUNT = """
SELECT COUNT(DISTINCT digest) FROM files JOIN contents USING (digest)
WHERE place NOT IN (SELECT place FROM refused)
"""
FOUND = """
SELECT first, path, name, mtime, digest, contents.size, width, height, row
FROM (
    SELECT files.*, MIN(place) OVER (PARTITION BY digest) AS first
    FROM files WHERE digest IS NOT NULL AND place NOT IN (SELECT place FROM refused)
) JOIN contents USING (digest) ORDER BY first, place
"""


SYNC = 5.0  # seconds of work that a power cut may cost
PAGE = 256  # files that are looked up at a time


class Journal(AbstractContextManager["Journal"]):
    """The unfinished run of an index folder. Who has it open is the only one to write there."""

    def __init__(self, out: Path) -> None:
        """Open that of an index folder, which is made if it does not exist.

        Raises:
            UsageError: `out` is something else than an index, its parent does not exist, or its name is not
                UTF-8.
            RetrievalError: Another process writes it, or what is left of a run is damaged.
        """
        require_utf8(out)
        self.out, self.folder = out, out / UNFINISHED
        if not out.parent.is_dir():
            raise UsageError(f"{out.parent} does not exist. Make it, or give another --out.")
        ours = (out / MANIFEST).is_file() or self.folder.is_dir() or _is_empty(out)
        if out.exists() and not ours:
            raise UsageError(f"{out} exists and is not an index. Give another --out.")
        self.folder.mkdir(parents=True, exist_ok=True)
        # Of these methods `holds` is for all threads, and locked. The file is locked until it is closed.
        self._db = sqlite3.connect(
            self.folder / "journal.sqlite", timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            self._db.executescript(SCHEMA)
        except sqlite3.DatabaseError as error:
            self._db.close()
            if (reason := UNUSABLE.get(error.sqlite_errorcode)) is None:
                raise
            raise RetrievalError(f"{out} cannot be written: {reason.format(self.folder)}.") from error
        self._heap, self._lock = JournalVectors(self.folder), Lock()
        self._known: Store | None = None  # what is adopted as it is met
        # Images that this run embedded, in its life before, too; known before anything can break off
        self._rows, self.embedded = 0, self._count_embedded()
        self._synced = time.monotonic()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._heap.close()
        self._db.close()
        if kind is None or not self.embedded:
            shutil.rmtree(self.folder)
            if _is_empty(self.out):
                self.out.rmdir()
        elif not issubclass(kind, UsageError):
            say(f"{count(self.embedded, 'image')} embedded, and kept. Go on with --resume.")

    @property
    def _run(self) -> dict[str, str]:
        return dict(self._db.execute("SELECT what, value FROM run"))

    def start(self, identity: Mapping[str, str], resume: bool) -> bool:
        """Say by name what makes the vectors, and check what a killed run has left; `resume` goes on with it.

        Returns whether a run was begun here before and not completed.

        Raises:
            UsageError: Something is left that shall not be used, or that was made otherwise.
        """
        was_begun = bool(self._run)
        self._drop_damaged()
        self.embedded = self._count_embedded()
        if not self.embedded:
            self._db.executescript(
                "BEGIN; DELETE FROM run; DELETE FROM contents; DELETE FROM segments; DELETE FROM seen; "
                "DELETE FROM files; COMMIT;"
            )
        elif not resume:
            raise UsageError(
                f"{self.out} holds an unfinished run, with {count(self.embedded, 'image')} embedded. "
                f"Go on with --resume, or remove {self.folder} to start afresh."
            )
        left = self._run
        for what, value in identity.items():
            if left.setdefault(what, value) != value:
                raise UsageError(
                    f"The unfinished run in {self.out} has another {what}: {left[what]}, not {value}. "
                    f"Give that, or remove {self.folder} to start afresh."
                )
        self._db.executemany("INSERT OR IGNORE INTO run VALUES (?, ?)", identity.items())
        return was_begun

    @property
    def adopted(self) -> bool:
        """Whether it has taken the vectors of a store as known."""
        return "generation" in self._run

    def adopt(self, known: Store, as_met: bool = False) -> None:
        """Take the vectors of a store as known, unless they already are: all, or each as it is met."""
        generation = f"{known.manifest.generation}{' as met' if as_met else ''}"
        self._known = known if as_met else None
        if self._run.get("generation") == generation:
            return
        self._db.execute("BEGIN")
        self._db.execute("DELETE FROM contents WHERE row < 0")
        first = 0
        for batch in () if as_met else known.iter_batches():
            self._adopt_batch(batch, first)
            first += batch.num_rows
        self._db.execute("INSERT OR REPLACE INTO run VALUES ('generation', ?)", (generation,))
        self._db.execute("COMMIT")

    def _adopt_batch(self, items: pa.RecordBatch, first: int) -> None:
        """Take items as known, column by column: an object for each would take most of an update's time."""
        columns = [items[name].to_pylist() for name in ("digest", "size", "width", "height")]
        rows = range(-1 - first, -1 - first - len(items), -1)
        contents = zip(*columns, rows, strict=True)
        self._db.executemany("INSERT OR IGNORE INTO contents VALUES (?, ?, ?, ?, ?)", contents)
        for files in iter_files([items], ("path", "size", "mtime", "digest")):
            seen = zip(*(column.to_pylist() for column in files.columns[:4]), strict=True)
            self._db.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?, ?, ?)", seen)

    def list_files(self, files: Sequence[ImageFile]) -> None:
        """Say what is to be indexed. A file of the same path, size and time as before is not looked into."""
        self._db.execute("BEGIN")
        self._db.execute(
            "INSERT OR REPLACE INTO seen "
            "SELECT path, size, mtime, digest FROM files WHERE digest IS NOT NULL AND size IS NOT NULL"
        )
        self._db.execute("DELETE FROM files")
        self._db.execute("DELETE FROM refused")
        self._db.executemany(
            "INSERT OR IGNORE INTO files VALUES (?1, ?2, ?3, NULLIF(?4, -1), NULLIF(?5, -1), "
            "(SELECT digest FROM seen WHERE path = ?2 AND size = ?4 AND mtime = ?5))",
            ((place, *facts) for place, facts in enumerate(facts_of(files))),
        )
        self._db.execute("COMMIT")

    def lists(self, item: Item) -> bool:
        """Whether a file is to be indexed that has this item's path, size and time."""
        wanted = "SELECT 1 FROM files WHERE path = ? AND size = ? AND mtime = ?"
        return self._db.execute(wanted, (item.path, item.size, item.mtime)).fetchone() is not None

    def count_missing(self) -> int:
        """How many files have no vectors yet."""
        return self._db.execute(f"SELECT COUNT(*) {MISSING}").fetchone()[0]

    def missing(self) -> Iterator[tuple[int, str | None]]:
        """Yield the places of files without vectors, which may be added meanwhile, in their order.

        Beside each stands the digest of its content, if that is known.
        """
        place = -1
        query = f"SELECT place, files.digest {MISSING} AND place > ? ORDER BY place LIMIT {PAGE}"
        while page := self._db.execute(query, (place,)).fetchall():
            yield from page
            place = page[-1][0]

    def holds(self, digest: str) -> bool:
        """Whether a content has vectors. Any thread may ask."""
        with self._lock:
            if self._db.execute("SELECT 1 FROM contents WHERE digest = ?", (digest,)).fetchone():
                return True
            if self._known is None or not (ids := self._known.ids_by_digest.get(digest)):
                return False
            item, row = self._known.items[ids[0]], -1 - ids[0]
            content = digest, item.size, item.width, item.height, row
            self._db.execute("INSERT INTO contents VALUES (?, ?, ?, ?, ?)", content)
        return True

    def add(
        self,
        items: Sequence[Item],
        vectors: Mapping[str, Vectors],
        failures: Sequence[Failure],
        copies: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Add what became of files, as in `index.build.embed.Embedded`."""
        segments = [
            (self._rows, len(items), space, *self._heap.append(space, rows))
            for space, rows in vectors.items()
        ]
        contents = [
            (item.digest, item.size, item.width, item.height, self._rows + i) for i, item in enumerate(items)
        ]
        with self._lock:
            self._db.execute("BEGIN")
            self._db.executemany("INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?)", segments)
            self._db.executemany("INSERT OR IGNORE INTO contents VALUES (?, ?, ?, ?, ?)", contents)
            self._db.executemany(
                "UPDATE files SET digest = ? WHERE path = ?",
                [*((item.digest, item.path) for item in items), *((digest, path) for path, digest in copies)],
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO refused SELECT place, path, ? FROM files WHERE path = ?",
                [(failure.reason, failure.path) for failure in failures],
            )
            self._db.execute("COMMIT")
        self._rows += len(items)
        self.embedded += len(items)
        if time.monotonic() - self._synced > SYNC:
            self._heap.sync()
            with self._lock:
                self._db.execute("PRAGMA wal_checkpoint")
            self._synced = time.monotonic()

    def count_items(self) -> int:
        """How many items `items` yields."""
        return self._db.execute(COUNT).fetchone()[0]

    def items(self) -> Iterator[tuple[Item, int]]:
        """Yield what the index will hold, in its order, each with the row of its vectors for `vectors`."""
        for _, group in groupby(self._db.execute(FOUND), key=lambda found: found[0]):
            (_, *first), *others = group
            path, name, mtime, digest, size, width, height, row = first
            copies = tuple(File(path, name, mtime or 0) for _, path, name, mtime, *_ in others)
            yield Item(path, name, digest, size, width, height, mtime or 0, copies), row

    def failures(self) -> Iterator[Failure]:
        """Yield what is refused, in the order of the files."""
        for path, reason in self._db.execute("SELECT path, reason FROM refused ORDER BY place"):
            yield Failure(path, reason)

    def vectors(
        self, name: str, space: Space, rows: Sequence[int], known: RowReader | None
    ) -> Iterator[Vectors]:
        """Gather `(n, dim)` vectors of rows that `items` yielded; `known` reads those that were adopted."""
        for start in range(0, len(rows), CHUNK):
            chunk = np.asarray(rows[start : start + CHUNK])
            out = np.empty((len(chunk), space.dim), space.type.stored)
            own = chunk >= 0
            if own.any():
                out[own] = self._heap.gather(name, out, chunk[own])
            if known is not None and not own.all():
                out[~own] = known(name, -1 - chunk[~own])
            yield out

    def _count_embedded(self) -> int:
        return self._db.execute("SELECT COUNT(*) FROM contents WHERE row >= 0").fetchone()[0]

    def _drop_damaged(self) -> None:
        """Forget what was not written whole, and all that came after it."""
        segments = self._db.execute("SELECT first, space, start, size, crc FROM segments ORDER BY first")
        for first, *segment in segments.fetchall():
            if not self._heap.holds(*segment):
                self._db.execute("DELETE FROM contents WHERE row >= ?", (first,))
                self._db.execute("DELETE FROM segments WHERE first >= ?", (first,))
                break
        self._heap.cut(dict(self._db.execute("SELECT space, MAX(start + size) FROM segments GROUP BY space")))
        (self._rows,) = self._db.execute("SELECT COALESCE(MAX(first + count), 0) FROM segments").fetchone()


class JournalVectors:
    """The vectors of an unfinished run: one file of rows for each space, which only grows."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, BinaryIO] = {}

    def append(self, space: str, rows: Vectors) -> tuple[int, int, int]:
        """Append `(n, dim)` rows to a space; returns where their bytes begin, their number and checksum."""
        if space not in self._files:
            self._files[space] = self._path(space).open("ab", buffering=0)
        file, data = self._files[space], np.ascontiguousarray(rows, rows.dtype.newbyteorder("<")).tobytes()
        start, left = file.tell(), memoryview(data)
        while left:  # a disk that becomes full takes some of it before it fails
            left = left[file.write(left) :]
        return start, len(data), zlib.crc32(data)

    def holds(self, space: str, start: int, size: int, crc: int) -> bool:
        """Whether bytes are there as they were written."""
        try:
            with self._path(space).open("rb") as file:
                file.seek(start)
                return zlib.crc32(file.read(size)) == crc
        except OSError:
            return False

    def cut(self, ends: Mapping[str, int]) -> None:
        """Cut each space after so many bytes; one that is not named is emptied."""
        for file in self._folder.glob("*.rows"):
            os.truncate(file, ends.get(file.stem, 0))
            sync(file)

    def gather(self, space: str, like: Vectors, rows: NDArray[np.int64]) -> Vectors:
        """Read n rows, as `like`, mapped for this only: pages that were read do not stay in memory."""
        return np.memmap(self._path(space), like.dtype, "r").reshape(-1, like.shape[1])[rows]

    def sync(self) -> None:
        """Wait until all is on the disk."""
        for file in self._files.values():
            os.fsync(file.fileno())

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()

    def _path(self, space: str) -> Path:
        return self._folder / f"{space}.rows"


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())
