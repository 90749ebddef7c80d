"""Order what a search found by a ranker, a window of the list at a time."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from index.errors import BudgetError, ImageError, RetrievalError
from index.images.decode import Photo, read_photo
from index.images.file import ImageFile
from index.progress import count
from index.rankers.base import SHOWN, Ranker, list_key, to_row
from index.teachers.client import BudgetedTeacher
from index.teachers.questions import Question

FIRST = 50  # results of a search that are ordered
STEP = SHOWN // 2  # results by which each window lies nearer to the front than the one before


class Reranker:
    """Lets a ranker order lists of any length. Safe in as many threads as `calls.concurrency`."""

    def __init__(self, ranker: Ranker, paid: BudgetedTeacher | None) -> None:
        """Take a ranker; `paid` is the same with its ledger and budget, of lists, if it has a price."""
        self.name, self.calls, self.decode_side = ranker.name, ranker.calls, ranker.decode_side
        self.most = len(windows(FIRST))  # lists that one search asks about
        self._ranker, self._paid = ranker, paid

    def describe_price(self, searches: int, price: float | None = None) -> str:
        """Say what so many searches cost at most, at a price of a thousand lists; nothing if free."""
        if self._paid is None:
            return ""
        lists, budget = searches * self.most, self._paid.budget
        money = "" if price is None else f", at {lists * price / 1000:,.2f}"
        asked = f"{count(lists, 'list')}{money}"
        return f"{self.name} orders the first {FIRST} results: up to {asked}, of a budget of {budget}."

    def order(self, query: Photo, files: Sequence[ImageFile], digests: Sequence[str]) -> list[int]:
        """Order n candidates, present best first, given by files and content digests: their positions.

        A window of `SHOWN` slides from the end of the list to its front, as in RankGPT (Sun et al. 2023), so
        that what looks most like the query is carried there. What the ranker leaves unranked stays behind
        what it ranked.

        Raises:
            BudgetError: The budget has no room for the lists of a search. What was answered is kept.
            RetrievalError: The ranker, its ledger or the photo of a candidate cannot be used.
        """
        self.require_room([(query.digest, digests)], 1)
        order = np.arange(len(files))
        for window in windows(len(files)):
            part = order[window]
            gains = self._ask(query, [files[i] for i in part], [digests[i] for i in part])
            order[window] = part[np.argsort(-gains[: len(part)], kind="stable")]
        return order.tolist()

    def require_room(self, searches: Iterable[tuple[str, Sequence[str]]], number: int) -> None:
        """Raise BudgetError, before the first list is paid, if the budget has no room for so many searches.

        Each is the query's digest and those of its candidates; they are looked at only if need be.
        """
        if self._paid is None:
            return
        left = self._paid.budget - self._paid.ledger.spent
        if number * self.most <= left:
            return
        lists = sum(dict(self._lacking(*search) for search in searches).values())
        if lists > left:
            who = "a search needs" if number == 1 else f"{number} searches need"
            raise BudgetError(
                f"{self.name} was not asked: {who} up to {count(lists, 'list')}, and {max(left, 0)} "
                f"of the budget of {self._paid.budget} are left. Give a larger --budget."
            )

    def _lacking(self, query: str, digests: Sequence[str]) -> tuple[str, int]:
        """The key of the first list of a search that has no answer, and how many lists it begins."""
        assert self._paid is not None
        order, parts = np.arange(len(digests)), windows(len(digests))
        for done, window in enumerate(parts):
            part = order[window]
            key = list_key(query, [digests[i] for i in part])
            if (gains := self._paid.ledger.answers([key]).get(key)) is None:
                return key, len(parts) - done
            order[window] = part[np.argsort(-gains[: len(part)], kind="stable")]
        return "", 0

    def _ask(self, query: Photo, files: Sequence[ImageFile], digests: Sequence[str]) -> NDArray[np.float32]:
        key = list_key(query.digest, digests)
        if self._paid and (known := self._paid.ledger.answers([key]).get(key)) is not None:
            return known
        try:
            photos = [query, *(read_photo(file, self.decode_side) for file in files)]
            made = tuple(map(self._ranker.prepare, photos))
        except ImageError as reason:
            raise RetrievalError(f"{self.name} cannot be shown the query or a result: {reason}.") from reason
        if self._paid is None:
            return to_row(self._ranker.order(made[0], made[1:]))
        return self._paid.embed([Question(query.name, query.location, key, key, 0, made)])[0]


def windows(length: int) -> list[slice]:
    """Cut a list into overlapping windows of up to `SHOWN`, from its end to its front."""
    starts = range(max(length - SHOWN, 0), -STEP, -STEP) if length > 1 else ()
    return [slice(max(start, 0), max(start, 0) + SHOWN) for start in starts]
