"""What a ledger says of itself, without its teacher. Nothing here writes; no ledger is a UsageError."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.embedders.base import find_fault
from index.embedders.vectors_file import write_vectors
from index.errors import RetrievalError, UsageError
from index.teachers.ledger import FORMAT, checksum, damage, version_of

SIZE = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
CHUNK = 2048  # answers read at a time


@dataclass(frozen=True)
class Account:
    """What stands in a ledger."""

    teacher: str  # its key
    dim: int | None  # of its vectors; None before the first
    answers: int  # how many there are
    lost: int  # calls that brought no answer, and count as spent
    in_flight: int  # calls without an answer yet, or from a process that was killed
    first: str | None  # when the first answer came, UTC; None if there is none
    last: str | None  # when the last one came
    rate: float | None  # images a second that one call at a time was answered with
    tokens: int  # that answers of a chat have named
    megabytes: float  # of the file

    @property
    def spent(self) -> int:
        """What counts against a budget."""
        return self.answers + self.lost + self.in_flight

    def __str__(self) -> str:
        rate = "unknown" if self.rate is None else f"{self.rate:,.2f} answers a second, one call at a time"
        return (
            f"teacher    {self.teacher}\n"
            f"answers    {self.answers}, of length {self.dim or 'unknown'}, {self.megabytes:.2f} MB\n"
            f"answered   {self.first or '-'} to {self.last or '-'}\n"
            f"failed     {self.lost}\n"
            f"in flight  {self.in_flight}\n"
            f"spent      {self.spent}\n"
            f"rate       {rate}" + (f"\ntokens     {self.tokens:,}" if self.tokens else "")
        )


def read_account(path: Path) -> Account:
    """Read what stands in a ledger."""
    with _reading(path) as db:
        key, dim, rate = db.execute("SELECT key, dim, timed / nullif(busy, 0) FROM teacher").fetchone()
        answers, *dates = db.execute("SELECT count(*), min(answered), max(answered) FROM answers").fetchone()
        lost, in_flight = db.execute("SELECT total(until = 0), total(until > 0) FROM calls").fetchone()
        (tokens,) = db.execute("SELECT total(value) FROM lessons WHERE name LIKE 'tokens %'").fetchone()
        (size,) = db.execute(SIZE).fetchone()
    first, last = map(_date, dates)
    return Account(key, dim, answers, int(lost), int(in_flight), first, last, rate, int(tokens), size / 1e6)


def export_ledger(path: Path, out: Path) -> int:
    """Write all answers, as they came, to a file of vectors, itself a teacher; return how many."""
    account = read_account(path)
    if not account.dim:
        raise UsageError(f"{path} holds no answer yet.")
    with _reading(path) as db:
        write_vectors(out, account.dim, _chunks(db, path, account.dim))
    return account.answers


def verify_ledger(path: Path) -> list[str]:
    """Check the file, and each answer against its checksum; return what is wrong, one line each."""
    with _reading(path) as db:
        faults = [line for (line,) in db.execute("PRAGMA integrity_check(20)") if line != "ok"]
        (dim,) = db.execute("SELECT dim FROM teacher").fetchone()
        for digest, vector, crc in db.execute("SELECT digest, vector, crc FROM answers ORDER BY id"):
            if checksum(digest, vector) != crc:
                faults.append(f"{digest}: the checksum does not fit")
            elif len(vector) != 4 * dim:
                faults.append(f"{digest}: {len(vector)} bytes, not {4 * dim}")
            elif fault := find_fault(np.frombuffer(vector, "<f4")):
                faults.append(f"{digest}: {fault}")
    return faults


def _chunks(db: sqlite3.Connection, path: Path, dim: int) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
    # By what was sent and, where that is another, by the file it was made of.
    cursor = db.execute(
        "SELECT digest, vector FROM answers UNION ALL "
        "SELECT source, vector FROM renditions JOIN answers USING (digest) "
        "WHERE source NOT IN (SELECT digest FROM answers)"
    )
    while rows := cursor.fetchmany(CHUNK):
        if any(len(vector) != 4 * dim for _, vector in rows):
            raise RetrievalError(damage(path))
        vectors = np.frombuffer(b"".join(vector for _, vector in rows), "<f4").reshape(len(rows), dim)
        yield [digest for digest, _ in rows], vectors


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.is_file():
        raise UsageError(f"{path} does not exist. Give the file of a ledger.")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            if version_of(db) != FORMAT:
                raise UsageError(
                    f"{path} is not a ledger of this version. Give another, or the version that wrote it."
                )
            yield db
    except sqlite3.OperationalError as error:
        raise RetrievalError(f"{path} cannot be read: {error}. Copy it to where you may write.") from error
    except sqlite3.DatabaseError as error:
        raise UsageError(f"{path} is not a ledger, or is damaged: {error}.") from error


def _date(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
