"""The ledger: every paid answer of one teacher, kept in SQLite, so that none is paid for twice.

What is asked is reserved first, in the same file: several processes together never pass the budget, and
what a crash lost is known and counts as spent.
"""

import json
import os
import random
import shutil
import socket
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from platformdirs import user_cache_path

from index.errors import RetrievalError, UsageError
from index.io import content_digest
from index.progress import count, say

FORMAT = 2  # SQLite's user_version
SCHEMA = """
CREATE TABLE teacher (
    key TEXT PRIMARY KEY,
    dim INTEGER,                    -- of its vectors, once there is one
    timed INTEGER NOT NULL,         -- answers to calls that were timed,
    busy REAL NOT NULL              -- and the seconds that those calls took
);
CREATE TABLE answers (
    id INTEGER PRIMARY KEY,         -- never deleted: the largest is their number
    digest TEXT NOT NULL UNIQUE,    -- of the bytes that were sent
    vector BLOB NOT NULL,           -- little-endian float32, as it was answered
    answered REAL NOT NULL,         -- seconds since 1970
    crc INTEGER NOT NULL
);
CREATE TABLE renditions (           -- files that were sent in another form
    source TEXT PRIMARY KEY,        -- content digest of the file
    digest TEXT NOT NULL            -- of what was sent for it
) WITHOUT ROWID;
CREATE TABLE calls (                -- images asked about that have no answer
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL,
    owner TEXT NOT NULL,            -- the process that asks
    until REAL NOT NULL             -- it may be in flight until then. 0: it is lost, and counts as spent
);
CREATE INDEX calls_in_flight ON calls (digest) WHERE until > 0;
CREATE TABLE lessons (              -- what calls have taught of how to ask
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;
"""
# A row of 1024 floats is over 4096 bytes: on SQLite's usual pages each would take two.
PRAGMAS = """
PRAGMA page_size = 65536;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA wal_autocheckpoint = 256;
"""
PATIENCE = 60.0  # seconds to wait for another process that writes
IN_MEMORY = Path(":memory:")  # as SQLite calls it
SPENT = "SELECT (SELECT coalesce(max(id), 0) FROM answers) + count(*) FROM calls"
ROOM = 32_000_000  # bytes that must be free before anything is paid for: twice what is written ahead
SAME = 5.0  # seconds by which two looks at the birth of one process may differ, if the clock is set meanwhile


@dataclass(frozen=True)
class Reserved:
    """What may be asked about of some images, by digest; those already answered are in none of the three."""

    calls: dict[str, int]  # may be asked about now, each with the number of its reservation
    busy: set[str]  # another thread or process is asking about them
    denied: list[str]  # the budget has no room for them


class Ledger(AbstractContextManager["Ledger"]):
    """Answers of one teacher by the content digest of what was sent. Safe to share between threads."""

    unit = "image"  # what questions are about, for messages

    def __init__(self, path: Path, teacher_key: str) -> None:
        """Open the ledger of a teacher by its key, or start one; UsageError if the file cannot be one."""
        self.path = path
        self._lock = Lock()
        # This process: host, number and the second of its birth, for numbers are used again.
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.0f}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = _open(path, teacher_key)
        except (sqlite3.Error, OSError) as error:
            raise UsageError(f"{path} cannot be used as a ledger: {error}. Give another --ledger.") from error

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __len__(self) -> int:
        return self._one("SELECT coalesce(max(id), 0) FROM answers")

    @property
    def lost(self) -> int:
        """How many images were asked about, or are being asked about, without an answer to show for it."""
        return self._one("SELECT count(*) FROM calls")

    @property
    def spent(self) -> int:
        """What counts against the budget: answers, and calls without one that failed or are in flight."""
        return self._one(SPENT)

    @property
    def dim(self) -> int | None:
        """Length of the teacher's vectors, once there is one."""
        return self._one("SELECT dim FROM teacher")

    @property
    def rate(self) -> float | None:
        """Images a second that one call at a time is answered with, over all calls; None before the first."""
        return self._one("SELECT timed / nullif(busy, 0) FROM teacher")

    @property
    def lessons(self) -> dict[str, int]:
        """What calls have taught of how to ask, as in `Embedder.lessons`."""
        with self._reading() as db:
            return dict(db.execute("SELECT name, value FROM lessons"))

    def learn(self, lessons: Mapping[str, int]) -> None:
        """Keep what a call has taught."""
        with self._writing() as db:
            db.executemany("INSERT OR REPLACE INTO lessons VALUES (?, ?)", lessons.items())

    @property
    def digests(self) -> list[str]:
        """What was answered, in the order in which the answers came."""
        with self._reading() as db:
            return [digest for (digest,) in db.execute("SELECT digest FROM answers ORDER BY id")]

    def known(self, digests: Iterable[str]) -> set[str]:
        """Which of these images the teacher has already been asked about."""
        with self._reading() as db:
            return {digest for digest, _ in _select(db, "0", digests)}

    def answers(self, digests: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The known answers, by the digest of what was sent or of its file; RetrievalError if damaged."""
        with self._reading() as db:
            rows = _select(db, "vector", digests)
        if rows and {len(blob) for _, blob in rows} != {4 * (self.dim or 0)}:
            raise RetrievalError(damage(self.path))
        return {digest: np.frombuffer(blob, "<f4") for digest, blob in rows}

    def reserve(self, digests: Sequence[str], budget: int, seconds: float, again: bool = False) -> Reserved:
        """Set budget aside for calls, before anything is sent.

        What has an answer by now is left out, unless it is asked about `again`, to compare. Calls have ended
        after so many seconds, whatever happens to this process.

        Raises:
            RetrievalError: The ledger cannot be written.
        """
        if self.path != IN_MEMORY and shutil.disk_usage(self.path.parent).free < ROOM:
            raise RetrievalError(
                f"{self.path} has less than {ROOM // 1_000_000} MB of free disk. Nothing more was asked; "
                "what was paid for is kept."
            )
        now = time.time()
        with self._writing() as db:
            written_off = self._write_off(db, now)
            known = {digest for digest, _ in _select(db, "0", () if again else digests)}
            busy = {digest for (digest,) in db.execute("SELECT digest FROM calls WHERE until > 0")}
            wanted = [digest for digest in dict.fromkeys(digests) if digest not in known | busy]
            room = max(budget - db.execute(SPENT).fetchone()[0], 0)
            calls = {}
            for digest in wanted[:room]:
                row = (digest, self._owner, now + seconds)
                cursor = db.execute("INSERT INTO calls (digest, owner, until) VALUES (?, ?, ?)", row)
                assert cursor.lastrowid is not None
                calls[digest] = cursor.lastrowid
        if written_off:
            lost = count(written_off, self.unit)
            say(f"{lost} in flight when an earlier run ended; counted as spent.")
        return Reserved(calls, busy.intersection(digests), wanted[room:])

    def add(
        self,
        digests: Sequence[str],
        vectors: NDArray[np.float32],
        calls: Mapping[str, int] | None = None,
        sources: Mapping[str, str] | None = None,
        seconds: float = 0.0,
    ) -> None:
        """Store n answers `(n, dim)` as they came, all or none, before anyone uses them.

        An image that has got an answer meanwhile keeps the first one. `calls` are the reservations that these
        answers settle, `sources` the content digests of the files that they are about where these are others,
        both by the digest of what was sent; `seconds` is how long the call took.

        Raises:
            RetrievalError: They could not be stored.
        """
        now = time.time()
        with self._writing() as db:
            dim = db.execute("SELECT dim FROM teacher").fetchone()[0] or vectors.shape[1]
            if vectors.shape[1] != dim:
                raise RetrievalError(
                    f"{self.path} holds answers of length {dim}, not {vectors.shape[1]}. "
                    "If it is another model, give another --ledger."
                )
            db.execute(
                "UPDATE teacher SET dim = ?, timed = timed + ?, busy = busy + ?",
                (dim, len(digests) if seconds else 0, seconds),
            )
            for digest, vector in zip(digests, np.ascontiguousarray(vectors, "<f4"), strict=True):
                row = (digest, blob := vector.tobytes(), now, checksum(digest, blob))
                stored = db.execute(
                    "INSERT INTO answers (digest, vector, answered, crc) VALUES (?, ?, ?, ?) "
                    "ON CONFLICT (digest) DO NOTHING",
                    row,
                ).rowcount
                if calls:  # one that was asked about twice was paid for twice
                    settle = "DELETE FROM calls" if stored else "UPDATE calls SET until = 0"
                    db.execute(f"{settle} WHERE id = ?", (calls[digest],))
            db.executemany(
                "INSERT INTO renditions VALUES (?, ?) ON CONFLICT (source) DO NOTHING",
                [(source, digest) for digest, source in (sources or {}).items() if source != digest],
            )

    def release(self, calls: Iterable[int]) -> None:
        """Give back reservations that cost nothing."""
        with self._writing() as db:
            db.executemany("DELETE FROM calls WHERE id = ?", [(call,) for call in calls])

    def lose(self, calls: Iterable[int]) -> None:
        """Note that these calls brought no answer, and may have been charged for."""
        with self._writing() as db:
            db.executemany("UPDATE calls SET until = 0 WHERE id = ?", [(call,) for call in calls])

    def digest(self, digests: Sequence[str]) -> str:
        """Identify what these images were answered with."""
        answers = self.answers(digests)
        return content_digest(b"".join(d.encode() + answers[d].tobytes() for d in sorted(answers)))

    def _write_off(self, db: sqlite3.Connection, now: float) -> int:
        """Note as lost what was in flight in a process that is gone, or for longer than a call can take."""
        owners = [owner for (owner,) in db.execute("SELECT DISTINCT owner FROM calls WHERE until > 0")]
        lose = "UPDATE calls SET until = 0 WHERE until > 0 AND"
        count = sum(db.execute(f"{lose} owner = ?", (owner,)).rowcount for owner in filter(is_gone, owners))
        return count + db.execute(f"{lose} until < ?", (now,)).rowcount

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, on disk when it is left."""
        with self._lock:
            try:
                with self._db as db:  # which ends the transaction, one way or the other
                    db.execute("BEGIN IMMEDIATE")
                    yield db
            except sqlite3.Error as error:
                raise RetrievalError(
                    f"{self.path} could not be written: {error}. What it holds is kept."
                ) from error

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._db
            except sqlite3.Error as error:
                raise RetrievalError(f"{self.path} could not be read: {error}.") from error

    def _one(self, query: str) -> Any:
        with self._reading() as db:
            return db.execute(query).fetchone()[0]


def default_ledger(teacher_key: str) -> Path:
    """Where the answers of a teacher are kept unless the user says otherwise."""
    return user_cache_path("retrieval") / "ledgers" / f"{content_digest(teacher_key.encode())}.sqlite"


def _select(db: sqlite3.Connection, column: str, digests: Iterable[str]) -> list[tuple[str, Any]]:
    given = json.dumps(list(digests))  # one variable: SQLite limits how many a statement has
    query = f"""
        SELECT digest, {column} FROM json_each(?1) CROSS JOIN answers ON digest = value UNION ALL
        SELECT source, {column} FROM json_each(?1) CROSS JOIN renditions ON source = value
            JOIN answers USING (digest)
    """  # noqa: S608
    return db.execute(query, (given,)).fetchall()


def is_gone(owner: str) -> bool:
    """Whether the process so named has ended, as far as one can tell: only on the machine it ran on."""
    host, number, born = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    try:
        process = psutil.Process(int(number))
        if process.status() == psutil.STATUS_ZOMBIE:  # killed, and its parent has not looked yet
            return True
        return abs(process.create_time() - float(born)) > SAME
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _open(path: Path, teacher_key: str) -> sqlite3.Connection:
    """Open a ledger's file, or start one; UsageError if it is something else, or another teacher's."""
    deadline = time.monotonic() + PATIENCE
    while True:
        db = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            _prepare(db, path, teacher_key)
            return db
        except BaseException as error:
            db.close()
            # SQLite does not wait for a process that makes the same new file a WAL one: it says busy at once.
            busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
        time.sleep(random.uniform(0.01, 0.05))


def _prepare(db: sqlite3.Connection, path: Path, teacher_key: str) -> None:
    with db:
        db.execute("BEGIN")
        version = version_of(db)
    if version not in (0, FORMAT):  # somebody else's file, which the pragmas would change
        raise UsageError(f"{path} is not a ledger of this version. Give another --ledger.")
    db.executescript(PRAGMAS)
    with db:
        db.execute("BEGIN IMMEDIATE")
        if not version_of(db):  # looked at again: another process may have made a ledger of it meanwhile
            for statement in SCHEMA.split(";"):  # inside this transaction, which `executescript` would end
                db.execute(statement)
            db.execute("INSERT INTO teacher VALUES (?, NULL, 0, 0)", (teacher_key,))
            db.execute(f"PRAGMA user_version = {FORMAT}")
        (owner,) = db.execute("SELECT key FROM teacher").fetchone()
    if owner != teacher_key:
        raise UsageError(
            f"{path} holds the answers of another teacher: {owner}, not {teacher_key}. Give another --ledger."
        )


def version_of(db: sqlite3.Connection) -> int:
    """The version of a ledger; 0 of a file that is still to become one, -1 of one that is neither."""
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if tables >= {"answers", "calls", "lessons", "renditions", "teacher"}:
        return version or -1
    return -1 if tables or version else 0


def damage(path: Path) -> str:
    """What to say of a ledger that has other bytes than were written."""
    return f"{path} is damaged: see `retrieval ledger verify {path}`. Give a copy that is whole."


def checksum(digest: str, vector: bytes) -> int:
    """CRC-32 of an answer and of what it answers."""
    return zlib.crc32(vector, zlib.crc32(digest.encode()))
