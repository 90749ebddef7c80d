"""Votes on pairs of models: a file that only grows, and what it says so far."""

import csv
import io
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from threading import Lock

from platformdirs import user_data_path

from app.page.kept import judged_as
from index.stores.base import Store

Pair = tuple[str, str]
CHOICES = ("left", "right", "none")
FORMULA = tuple("=+-@")  # what a spreadsheet takes a cell for that begins like this


@dataclass(frozen=True)
class Vote:
    """One line of the file of votes, in its words."""

    time: str  # UTC, ISO 8601
    round: str  # identity of the round
    query: str  # id of the item that was searched with
    name: str  # its name
    left: str  # search mode of the left list
    right: str  # of the right one
    choice: str  # `left`, `right`, or `none` for no difference

    def __post_init__(self) -> None:
        if self.choice not in CHOICES:
            raise ValueError(f"A vote is one of {', '.join(CHOICES)}, not {self.choice!r}.")

    @property
    def winner(self) -> str | None:
        """The mode that was voted for, if one was."""
        return {"left": self.left, "right": self.right, "none": None}[self.choice]


HEAD = [field.name for field in fields(Vote)]


@dataclass(frozen=True)
class Tally:
    """What was voted on one pair of modes, in either order: votes for each, and for neither."""

    pair: Pair
    wins: tuple[int, int]
    undecided: int

    @property
    def decided(self) -> int:
        """Votes for one of the two."""
        return sum(self.wins)

    @property
    def share(self) -> float:
        """Share of the decided votes, of which there are some, that went to the first of the pair."""
        return self.wins[0] / self.decided

    @property
    def interval(self) -> tuple[float, float]:
        """The share's 95 % confidence interval, by Wilson: right also for few votes."""
        from scipy.stats import binomtest  # here: it takes a second to load

        low, high = binomtest(self.wins[0], self.decided).proportion_ci(method="wilson")
        return float(low), float(high)


class Votes:
    """The file of votes: a line is added for each, and none is ever changed."""

    def __init__(self, path: Path) -> None:
        """Name the file; it is made with the first vote."""
        self.path = path
        self._lock = Lock()

    def read(self) -> list[Vote]:
        """Read all votes. A line that a crash cut short is left out."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")  # a letter may be cut, too
        except FileNotFoundError:
            return []
        votes = []
        for row in csv.reader(io.StringIO(text)):
            with suppress(TypeError, ValueError):  # the head, or half a line
                votes.append(Vote(*row))
        return votes

    def add(self, vote: Vote) -> None:
        """Write a vote, unless its round was voted on before; raises OSError where it cannot be written."""
        with self._lock:
            if any(earlier.round == vote.round for earlier in self.read()):
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                file.seek(0)
                kept = file.read()
                if not kept:
                    file.write(_line(HEAD))
                elif kept.count(b'"') % 2:  # cut within a name, which would go on to the end
                    file.write(b'"\n')
                elif not kept.endswith(b"\n"):
                    file.write(b"\n")
                file.write(_line(astuple(vote)))
                file.flush()
                os.fsync(file.fileno())

    def as_csv(self) -> str:
        """Write all votes for a spreadsheet, with the head: it must not take a name for a formula."""
        rows = [
            astuple(replace(vote, name=f"'{vote.name}") if vote.name.startswith(FORMULA) else vote)
            for vote in self.read()
        ]
        return b"".join(map(_line, [HEAD, *rows])).decode()


def default_votes(index: Store) -> Votes:
    """Open the votes on an index, in the user's data folder."""
    return Votes(user_data_path("retrieval") / "votes" / f"{judged_as(index)}.csv")


def count_votes(votes: Iterable[Vote], pair: Pair) -> Tally:
    """Count the votes on a pair of modes, whichever was on the left."""
    winners = [vote.winner for vote in votes if {vote.left, vote.right} == set(pair)]
    return Tally(pair, (winners.count(pair[0]), winners.count(pair[1])), winners.count(None))


def _line(cells: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
