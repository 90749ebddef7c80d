"""The tables of a `Journal`, and what is asked of them that is more than a line."""

import sqlite3
from pathlib import Path

from index.errors import RetrievalError

SCHEMA = """
CREATE TABLE IF NOT EXISTS run (what TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS contents (     -- what has vectors
    digest TEXT PRIMARY KEY,
    size INTEGER NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    row INTEGER NOT NULL                  -- of the vectors of this run; -1 - id in the index that is updated
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS contents_by_size ON contents (size);
CREATE TABLE IF NOT EXISTS segments (     -- what each transaction appended to the vectors
    first INTEGER NOT NULL, count INTEGER NOT NULL,                -- rows
    space TEXT NOT NULL, start INTEGER NOT NULL, size INTEGER NOT NULL, crc INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS files (        -- what is to be indexed, in order
    place INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
    size INTEGER, mtime INTEGER,          -- before it was read; NULL where that cannot be said
    digest TEXT                           -- once it is known
);
CREATE INDEX IF NOT EXISTS files_by_size ON files (size);
CREATE TABLE IF NOT EXISTS seen (         -- what files held when they were last looked into
    path TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, digest TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refused (place INTEGER PRIMARY KEY, path TEXT NOT NULL, reason TEXT NOT NULL);
"""
MISSING = """
FROM files LEFT JOIN contents USING (digest) LEFT JOIN refused USING (place)
WHERE contents.digest IS NULL AND refused.place IS NULL
"""
# Only a file of the size of another can be a copy: others need not be read twice.
DOUBTFUL = """
files.digest IS NULL AND (
    EXISTS (SELECT 1 FROM contents AS other WHERE other.size = files.size)
    OR EXISTS (SELECT 1 FROM files AS other WHERE other.size = files.size AND other.place <> files.place)
)
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


def open_tables(file: Path) -> sqlite3.Connection:
    """Open the file, and lock it until the connection is closed, or its process ends."""
    # Of the journal's methods `holds` is for all threads, and locked.
    tables = sqlite3.connect(file, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        tables.execute("PRAGMA page_size = 1024")  # each digest has a page of its own to be written
        tables.execute("PRAGMA cache_size = -500")  # KiB, for pages and again to sort: more is hardly faster
        tables.execute("PRAGMA locking_mode = EXCLUSIVE")
        tables.execute("PRAGMA journal_mode = WAL")
        tables.execute("PRAGMA synchronous = NORMAL")
        tables.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
    except sqlite3.DatabaseError as error:
        tables.close()
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise RetrievalError("another process writes it. Wait until it is done") from error
        if error.sqlite_errorcode in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise RetrievalError(f"{file.parent} is damaged. Remove it, and index again") from error
        raise
    return tables
