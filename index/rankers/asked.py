"""Ask a ranker under the rules of any paid teacher: nothing twice, within the budget, faults retried."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.errors import ImageError
from index.images.decode import read_photo
from index.images.sources import Source, find_images
from index.parallel import bounded_map
from index.progress import progress
from index.rankers.base import Pool, Ranker, Rows, list_key
from index.stores.records import Failure
from index.teachers.ask import Prepared, ask_prepared
from index.teachers.client import BudgetedTeacher
from index.teachers.cost import Bill, check_price, expected_rate
from index.teachers.ledger import Ledger
from index.teachers.questions import Question


def key_of(rows: Rows, pool: Pool) -> str:
    """The `list_key` of a list."""
    return list_key(pool.digests[rows[0]], [pool.digests[row] for row in rows[1:]])


def rows_of(key: str, pool: Pool) -> Rows | None:
    """The list with this key; None if a photo of it is not in the pool."""
    places = pool.places
    found = [places.get(digest) for digest in key.replace(":", ",").split(",")]
    return None if None in found else tuple(row for row in found if row is not None)


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


def make_bill(
    photos: Sequence[Source], ranker: Ranker, ledger: Ledger, budget: int, price: float | None
) -> Bill:
    """Reckon what asking a ranker costs, as `index.teachers.cost.make_bill`: queries are lists."""
    count = len(find_images(photos))
    queries = max(budget - ledger.spent, 0) if ranker.calls.paid else 0
    rate = expected_rate(ranker, ledger)
    return Bill(count, len(ledger), queries, ledger.spent, budget, rate, check_price(price), ranker.unit)
