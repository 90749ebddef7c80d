"""Which lists a ranker is asked about: a query photo, and candidates from all over its present ranking."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from distill.selection import order_by_worth
from index.images.file import digest_pool
from index.images.sources import Source, find_images
from index.rankers.asking import rows_of
from index.rankers.base import SHOWN, Pool, Ranker, Rows
from index.teachers.cost import Bill, check_price, expected_rate
from index.teachers.ledger import Ledger

# First rank, end, and how many candidates come from there: pairs of unequal rank tell most.
STRATA = ((0, 20, 4), (20, 100, 4), (100, None, 2))
AGAIN = 0.1  # of the lists are asked about again, reversed


def plan_lists(
    vectors: NDArray[np.float32], pool: Pool, known: Iterable[str], budget: int, seed: int
) -> tuple[list[Rows], list[Rows]]:
    """Choose lists up to a budget, those that are answered already before others.

    The vectors are the free network's `(n, dim)` unit rows of the pool's n photos; `known` are keys of the
    lists that the ledger has answers for, oldest first.

    Returns:
        The lists, one for each query, and those of them to ask about again, reversed.
    """
    wanted = _share(budget)
    paid: dict[int, Rows] = {}
    for rows in filter(None, (rows_of(key, pool) for key in known)):
        paid.setdefault(rows[0], rows)
    answered = np.isin(np.arange(len(vectors)), list(paid))
    queries = order_by_worth(vectors, answered, wanted, "kmeans", seed)[:wanted]
    lists = [paid.get(row) or draw_list(vectors, pool, row, seed) for row in queries]
    by_chance = sorted(lists, key=lambda rows: pool.digests[rows[0]][::-1])
    return lists, by_chance[: budget - wanted]


def make_bill(
    photos: Sequence[Source], ranker: Ranker, ledger: Ledger, budget: int, price: float | None
) -> Bill:
    """Reckon what asking a ranker costs, as `index.teachers.cost.make_bill`: queries are lists."""
    files = find_images(photos)
    found = dict(zip(digest_pool(files), files, strict=True))
    pool = Pool([*found.values()], [*found])
    own, wanted = ranker.lists(pool), min(_share(budget), len(found))
    budget = room_for(own, ranker, ledger, budget)
    lists = wanted + min(budget - _share(budget), wanted) if own is None else min(budget, len(own))
    answered = sum(rows_of(key, pool) is not None for key in ledger.digests)
    queries = max(min(lists - answered, budget - ledger.spent), 0)
    rate, price = expected_rate(ranker, ledger), check_price(price)
    own_price = price if ranker.calls.paid else 0.0
    return Bill(len(found), answered, queries, ledger.spent, budget, rate, own_price, ranker.unit)


def room_for(own: Sequence[Rows] | None, ranker: Ranker, ledger: Ledger, budget: int) -> int:
    """Raise a budget so that a ranker without a price says all of its own lists, if it has any."""
    return budget if own is None or ranker.calls.paid else max(budget, ledger.spent + len(own))


def _share(budget: int) -> int:
    """How many lists of a budget are asked about once; the others are of these, once more."""
    return max(1, round(budget / (1 + AGAIN)))


def draw_list(vectors: NDArray[np.float32], pool: Pool, query: int, seed: int) -> Rows:
    """Draw candidates from each stratum of a query's ranking, and shuffle them; as the arguments decide."""
    lot = np.random.default_rng([seed, int(pool.digests[query][:8], 16)])
    ranking = np.argsort(-(vectors @ vectors[query]), kind="stable")
    ranking = ranking[ranking != query]
    drawn: list[int] = []
    for first, end, count in STRATA:
        stratum = ranking[first:end]
        drawn += lot.choice(stratum, min(count, len(stratum)), replace=False).tolist()
    return (query, *lot.permutation(drawn[:SHOWN]).tolist())


def reverse(rows: Rows) -> Rows:
    """Show the candidates of a list the other way round."""
    return (rows[0], *rows[:0:-1])
