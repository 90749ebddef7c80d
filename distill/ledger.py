"""The ledger: every paid answer of one teacher, kept in SQLite, so that none is paid for twice."""

import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from index.errors import RetrievalError, UsageError
from index.images import content_digest

SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    digest TEXT PRIMARY KEY,
    vector BLOB NOT NULL,
    answered REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS teacher (key TEXT PRIMARY KEY);
"""
LOOK_UP = 500  # SQLite limits the variables of one statement


class Ledger:
    """Answers of one teacher by the content digest of the image asked about, float32 and unit length."""

    def __init__(self, path: Path, teacher_key: str) -> None:
        """Open a ledger, or start one.

        Args:
            path: The SQLite file; its folder is made if need be.
            teacher_key: The embedder's key.

        Raises:
            UsageError: The file is no ledger, or belongs to another teacher.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=60, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")  # an answer is on disk before it is used
            self._db.executescript(SCHEMA)
            self._db.execute(
                "INSERT INTO teacher SELECT ? WHERE NOT EXISTS (SELECT 1 FROM teacher)", (teacher_key,)
            )
            (owner,) = self._db.execute("SELECT key FROM teacher").fetchone()
        except (sqlite3.Error, OSError) as error:
            raise UsageError(f"{path} cannot be used as a ledger: {error}. Give another --ledger.") from error
        if owner != teacher_key:
            self.close()
            raise UsageError(f"{path} holds the answers of another teacher. Give another --ledger.")

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """How many answers have been paid for."""
        return self._db.execute("SELECT count(*) FROM answers").fetchone()[0]

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def known(self, digests: Iterable[str]) -> set[str]:
        """Which of these images the teacher has already been asked about."""
        return {digest for digest, _ in self._rows("digest, 0", list(digests))}

    def answers(self, digests: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The answers that are known, by digest."""
        rows = self._rows("digest, vector", digests)
        return {digest: np.frombuffer(blob, np.float32) for digest, blob in rows}

    def add(self, digests: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Store n answers `(n, dim)`, all or none, before anyone uses them.

        Raises:
            RetrievalError: They could not be stored.
        """
        now = time.time()
        rows = [
            (digest, np.ascontiguousarray(vector, np.float32).tobytes(), now)
            for digest, vector in zip(digests, vectors, strict=True)
        ]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT INTO answers VALUES (?, ?, ?) ON CONFLICT (digest) DO NOTHING", rows)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise RetrievalError(f"{self.path} could not store paid answers: {error}.") from error

    def digest(self, digests: Sequence[str]) -> str:
        """Identify what these images were answered with."""
        answers = self.answers(digests)
        return content_digest(b"".join(d.encode() + answers[d].tobytes() for d in sorted(answers)))

    def _rows(self, columns: str, digests: Sequence[str]) -> list[tuple[str, bytes]]:
        rows: list[tuple[str, bytes]] = []
        for start in range(0, len(digests), LOOK_UP):
            some = digests[start : start + LOOK_UP]
            marks = ",".join("?" * len(some))
            rows += self._db.execute(f"SELECT {columns} FROM answers WHERE digest IN ({marks})", some)  # noqa: S608
        return rows


def default_ledger(teacher_key: str, cache: Path) -> Path:
    """Where the answers of a teacher are kept unless the user says otherwise."""
    return cache / "ledgers" / f"{content_digest(teacher_key.encode())}.sqlite"
