"""Ask a ranker, by the rules of any paid teacher: about lists to learn from, or to order what is found."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from index.errors import BudgetError, ImageError, RetrievalError
from index.images.decode import Photo, read_photo
from index.images.file import ImageFile
from index.parallel import bounded_map
from index.progress import count, progress
from index.rankers.base import SHOWN, Pool, Ranker, Rows, list_key, to_row
from index.stores.records import Failure
from index.teachers.ask import Prepared, ask_prepared
from index.teachers.client import BudgetedTeacher
from index.teachers.ledger import Ledger
from index.teachers.questions import Question


def key_of(rows: Rows, pool: Pool) -> str:
    """The `list_key` of a list."""
    return list_key(pool.digests[rows[0]], [pool.digests[row] for row in rows[1:]])


def rows_of(key: str, pool: Pool) -> Rows | None:
    """The list with this key; None if a photo of it is not in the pool."""
    digests, places = key.replace(":", ",").split(","), pool.places
    return tuple(places[digest] for digest in digests) if places.keys() >= set(digests) else None


def ask_lists(
    lists: Sequence[Rows], pool: Pool, ranker: Ranker, ledger: Ledger, budget: int
) -> tuple[dict[str, NDArray[np.float32]], list[Failure]]:
    """Bring answers about lists, the most wanted first, into the ledger, as far as the budget goes.

    Returns:
        `(SHOWN,)` reciprocal ranks of each list that is answered, by its key; and why others are not.

    Raises:
        RetrievalError: The ranker or the ledger cannot be used. What was answered is kept.
    """
    paid = BudgetedTeacher(ranker, ledger, budget)
    keys = {key_of(rows, pool): rows for rows in lists}
    known = ledger.known(keys)
    new = [(key, rows) for key, rows in keys.items() if key not in known]

    def prepare(one: tuple[str, Rows]) -> Prepared[Rows] | Failure:
        key, rows = one
        files = [pool.files[row] for row in rows]
        try:
            made = tuple(ranker.prepare(read_photo(file, ranker.decode_side)) for file in files)
        except ImageError as reason:
            return Failure(files[0].location, str(reason))
        return rows, Question(files[0].name, files[0].location, key, key, 0, made)

    failures: list[Failure] = []
    with progress(len(new), "ask", ranker.unit) as bar:
        prepared = bounded_map(prepare, new, paid.calls.concurrency + 1)
        for asked in ask_prepared(prepared, paid, len(new)):
            failures += asked.failures
            bar.update(len(asked.answered))
    return ledger.answers(list(keys)), failures


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
        for photo, digest in zip(photos[1:], digests, strict=True):
            if photo.digest != digest:  # an answer about it would be kept as one about what was indexed
                raise RetrievalError(
                    f"{photo.name} has changed since it was indexed. Index again with --update."
                )
        if self._paid is None:
            return to_row(self._ranker.order(made[0], made[1:]), len(files))
        return self._paid.embed([Question(query.name, query.location, key, key, 0, made)])[0]


def windows(length: int) -> list[slice]:
    """Cut a list into overlapping windows of up to `SHOWN`, from its end to its front."""
    starts = range(max(length - SHOWN, 0), -STEP, -STEP) if length > 1 else ()
    return [slice(max(start, 0), max(start, 0) + SHOWN) for start in starts]
