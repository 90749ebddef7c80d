"""The blind vote: rounds of two unnamed lists, and the votes, which are never lost and never changed."""

import csv
import io
import math
import os
import random
import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from platformdirs import user_data_path

from index.images import content_digest
from index.metrics import overlap_at_k
from index.search import Searcher
from index.store import Index

Pair = tuple[str, str]
CHOICES = ("left", "right", "none")
TRIED = (
    32  # photos looked at for a round: among so many, one on which the models differ is nearly always found
)


@dataclass(frozen=True)
class Round:
    """A photo and two lists, in an order that chance chose.

    Attributes:
        key: Identity of the round: it counts once.
        query: Item that is searched with.
        modes: Search modes of the left and the right list.
        lists: Their item ids.
    """

    key: str
    query: int
    modes: Pair
    lists: tuple[list[int], list[int]]


@dataclass(frozen=True)
class Vote:
    """One line of the file of votes, in its words.

    Attributes:
        time: UTC, ISO 8601.
        round: Identity of the round.
        query: Id of the item that was searched with.
        name: Its name.
        left: Search mode of the left list.
        right: Of the right one.
        choice: `left`, `right`, or `none` for no difference.
    """

    time: str
    round: str
    query: str
    name: str
    left: str
    right: str
    choice: str

    def __post_init__(self) -> None:
        if self.choice not in CHOICES:
            raise ValueError(f"A vote is one of {', '.join(CHOICES)}, not {self.choice!r}.")

    @property
    def winner(self) -> str | None:
        """The mode that was voted for, if one was."""
        return {"left": self.left, "right": self.right, "none": None}[self.choice]


@dataclass(frozen=True)
class Tally:
    """What was voted on one pair of modes, in either order.

    Attributes:
        pair: The two modes.
        wins: Votes for each.
        undecided: Votes for neither.
    """

    pair: Pair
    wins: tuple[int, int]
    undecided: int

    @property
    def decided(self) -> int:
        """Votes for one of the two."""
        return sum(self.wins)

    @property
    def share(self) -> float:
        """Share of the decided votes that went to the first of the pair; NaN if there are none."""
        return self.wins[0] / self.decided if self.decided else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The share's 95 % confidence interval."""
        return wilson_interval(self.wins[0], self.decided)


class Votes:
    """The file of votes: a line is added for each, and none is ever changed."""

    def __init__(self, path: Path) -> None:
        """Name the file; it is made with the first vote."""
        self.path = path
        self._lock = Lock()

    def read(self) -> list[Vote]:
        """All votes. A line that a crash cut short is left out."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        votes = []
        for row in csv.reader(io.StringIO(text)):
            try:
                votes.append(Vote(*row))
            except (TypeError, ValueError):  # the head, or half a line
                continue
        return votes

    def add(self, vote: Vote) -> None:
        """Write a vote, unless its round was voted on before.

        Raises:
            OSError: It could not be written.
        """
        with self._lock:
            if any(earlier.round == vote.round for earlier in self.read()):
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                if file.tell() == 0:
                    file.write(_line([field.name for field in fields(Vote)]))
                elif not self.path.read_bytes().endswith(b"\n"):
                    file.write(b"\n")
                file.write(_line(astuple(vote)))
                file.flush()
                os.fsync(file.fileno())

    def as_csv(self) -> str:
        """All votes as the file has them, with its head."""
        lines = [
            _line([field.name for field in fields(Vote)]),
            *(_line(astuple(vote)) for vote in self.read()),
        ]
        return b"".join(lines).decode()


def default_votes(index: Index) -> Votes:
    """The votes on an index, in the user's data folder: an index that is made again keeps them."""
    models = [
        index.manifest.spaces[name].key for name in ("student", "teacher") if name in index.manifest.spaces
    ]
    key = content_digest("\n".join([str(index.path.resolve()), *models]).encode())
    return Votes(user_data_path("retrieval") / "votes" / f"{key}.csv")


def deal_round(
    searcher: Searcher, pair: Pair, k: int, rng: random.Random, voted: Collection[str] = ()
) -> Round | None:
    """Choose a photo of the gallery for which two modes differ, and an order.

    Args:
        searcher: The index. Its models are not asked.
        pair: Two of its `stored_modes`.
        k: Length of the lists.
        rng: Chance.
        voted: Names of photos that were voted on before; they come last.

    Returns:
        The round; None if the lists are the same for all photos that were looked at.
    """
    items = searcher.index.items
    drawn = rng.sample(range(len(items)), min(TRIED, len(items)))
    drawn.sort(key=lambda item: items[item].name in voted)
    first, second = (searcher.search_items(drawn, mode, k).ids for mode in pair)
    overlap = overlap_at_k(first, second)
    differ = [row for row in range(len(drawn)) if overlap[row] < 1]
    if not differ:
        return None
    row = differ[0]
    lists = first[row][first[row] >= 0].tolist(), second[row][second[row] >= 0].tolist()
    turn = rng.random() < 0.5
    return Round(
        secrets.token_hex(8),
        drawn[row],
        (pair[1], pair[0]) if turn else pair,
        (lists[1], lists[0]) if turn else lists,
    )


def cast_vote(votes: Votes, index: Index, dealt: Round, choice: str) -> Vote:
    """Write down what was voted on a round.

    Raises:
        ValueError: No such choice.
        OSError: It could not be written.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    name = index.items[dealt.query].name
    vote = Vote(now, dealt.key, str(dealt.query), name, *dealt.modes, choice)
    votes.add(vote)
    return vote


def count_votes(votes: Iterable[Vote], pair: Pair) -> Tally:
    """Count the votes on a pair of modes, whichever was on the left."""
    winners = [vote.winner for vote in votes if {vote.left, vote.right} == set(pair)]
    return Tally(pair, (winners.count(pair[0]), winners.count(pair[1])), winners.count(None))


def wilson_interval(wins: int, votes: int, z: float = 1.959964) -> tuple[float, float]:
    """The score interval of a share: right also for few votes and for shares near 0 and 1.

    Wilson, "Probable inference, the law of succession, and statistical inference" (1927).

    Args:
        wins: Votes for.
        votes: All votes.
        z: Quantile of the normal distribution; the default is for 95 %.

    Returns:
        Lower and upper bound; 0 and 1 without any vote.
    """
    if votes == 0:
        return 0.0, 1.0
    share, spread = wins / votes, z * z / votes
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / votes + spread / 4 / votes)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _line(cells: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
