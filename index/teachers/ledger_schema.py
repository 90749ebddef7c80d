"""What a ledger looks like as an SQLite file, and how an empty file becomes one."""

import random
import sqlite3
import time
import zlib
from pathlib import Path

from index.errors import UsageError

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


def open_ledger_file(path: Path, teacher_key: str) -> sqlite3.Connection:
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
    db.execute("BEGIN")
    _is_empty(db, path)  # before the pragmas, which change the file: it may be somebody else's
    db.execute("COMMIT")
    _run(db, PRAGMAS)
    db.execute("BEGIN IMMEDIATE")
    if _is_empty(db, path):  # looked at again: another process may have made a ledger of it meanwhile
        _run(db, SCHEMA)
        db.execute("INSERT INTO teacher VALUES (?, NULL, 0, 0)", (teacher_key,))
        db.execute(f"PRAGMA user_version = {FORMAT}")
    (owner,) = db.execute("SELECT key FROM teacher").fetchone()
    db.execute("COMMIT" if owner == teacher_key else "ROLLBACK")
    if owner != teacher_key:
        raise UsageError(
            f"{path} holds the answers of another teacher: {owner}, not {teacher_key}. Give another --ledger."
        )


def _is_empty(db: sqlite3.Connection, path: Path) -> bool:
    """Whether a file is still to become a ledger; raise UsageError if it is neither."""
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if not tables and not version:
        return True
    if version != FORMAT or not {"answers", "calls", "lessons", "renditions", "teacher"} <= tables:
        raise UsageError(f"{path} is not a ledger of this version. Give another --ledger.")
    return False


def damage(path: Path) -> str:
    """What to say of a ledger that has other bytes than were written."""
    return f"{path} is damaged: see `retrieval ledger verify {path}`. Give a copy that is whole."


def checksum(digest: str, vector: bytes) -> int:
    """CRC-32 of an answer and of what it answers."""
    return zlib.crc32(vector, zlib.crc32(digest.encode()))


def _run(db: sqlite3.Connection, script: str) -> None:
    """Run statements inside the present transaction, which `executescript` would end."""
    for statement in script.split(";"):
        db.execute(statement)
