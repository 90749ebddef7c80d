"""The blind vote: rounds of two unnamed lists, dealt so that a vote is worth something, and all votes."""

import csv
import io
import os
import random
import secrets
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from platformdirs import user_data_path

from app.page.kept import judged_as
from index.evaluation.metrics import overlap_at_k
from index.search import Searcher
from index.stores.base import Store

Pair = tuple[str, str]
LIST_LENGTH = 8  # places of each list
CANDIDATES = 32  # photos tried for a round: among so many the models nearly always differ on one
MAX_OPEN = 10_000  # rounds that wait for their vote; the oldest are forgotten
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


@dataclass(frozen=True)
class Round:
    """A photo and two lists of item ids, in an order that chance chose; `key` makes it count once."""

    key: str
    query: int
    modes: Pair
    lists: tuple[list[int], list[int]]


def deal_round(
    searcher: Searcher, pair: Pair, k: int, rng: random.Random, voted: Collection[str] = ()
) -> Round | None:
    """Choose a photo of the gallery for which two stored modes differ, and an order. No model is asked.

    Photos that were voted on before come last. None if the lists are the same for all that were looked at.
    """
    items = searcher.index.items
    drawn = rng.sample(range(len(items)), min(CANDIDATES, len(items)))
    drawn.sort(key=lambda item: items[item].name in voted)
    first, second = (searcher.search_items(drawn, mode, k).ids for mode in pair)
    overlap = overlap_at_k(first, second)
    row = next((row for row in range(len(drawn)) if overlap[row] < 1), None)
    if row is None:
        return None
    lists = first[row][first[row] >= 0].tolist(), second[row][second[row] >= 0].tolist()
    if rng.random() < 0.5:
        pair, lists = pair[::-1], lists[::-1]
    return Round(secrets.token_hex(8), drawn[row], pair, lists)


class BlindTest:
    """Deals rounds and keeps them until they are voted on: several people vote at once, each on their own."""

    def __init__(self, searcher: Searcher, votes: Votes, rng: random.Random) -> None:
        """Deal from an index, and write down votes."""
        self._searcher = searcher
        self.votes = votes
        self._rng = rng
        self.open: dict[str, Round] = {}  # by their keys, until they are voted on
        self._lock = Lock()

    def deal(self, pair: Pair) -> Round | None:
        """Deal a round; None if the two modes find the same for all photos that were looked at."""
        voted = {vote.name for vote in self.votes.read()}
        dealt = deal_round(self._searcher, pair, LIST_LENGTH, self._rng, voted)
        if dealt is not None:
            with self._lock:
                self.open[dealt.key] = dealt
                if len(self.open) > MAX_OPEN:
                    del self.open[next(iter(self.open))]
        return dealt

    def vote(self, dealt: Round, choice: str) -> Vote:
        """Write down what was voted on a round, and close it; it stays open where that raises OSError."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        name = self._searcher.index.items[dealt.query].name
        vote = Vote(now, dealt.key, str(dealt.query), name, *dealt.modes, choice)
        self.votes.add(vote)
        self.open.pop(dealt.key, None)
        return vote


def _line(cells: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
