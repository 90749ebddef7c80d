"""The blind vote: rounds of two unnamed lists, dealt so that a vote is worth something."""

import random
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock

from app.page.blind_vote.votes import Pair, Vote, Votes
from index.evaluation.metrics import overlap_at_k
from index.search import Searcher

LIST_LENGTH = 8  # places of each list
CANDIDATES = 32  # photos tried for a round: among so many the models nearly always differ on one
MAX_OPEN = 10_000  # rounds that wait for their vote; the oldest are forgotten


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
