"""What asking a teacher will cost, said before anything is spent, and what it did cost."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from index.embedders.base import Embedder
from index.errors import BudgetError, UsageError
from index.images.file import ImageFile, digest_pool
from index.images.sources import Source, find_images
from index.progress import count
from index.stores.folder import Index
from index.teachers.ledger import Ledger
from index.teachers.spec import TeacherSpec

QUERIES = 110  # answers about query photos: about 100 bound agreement to 5 points
QUERY_SHARE = 0.2  # of the budget that may be spent on them


@dataclass(frozen=True)
class Bill:
    """What a run asks a teacher for."""

    images: int  # distinct ones
    answered: int  # how many of them the ledger knows
    queries: int  # how many are to be asked about; unreadable ones will cost nothing
    spent: int  # what the ledger's account stands at: answers, and failed calls
    budget: int  # how much may ever be spent
    rate: float | None  # images a second; None where nothing was measured and no limit given
    price: float | None  # of a thousand answers, in the user's money; None where it was not given
    unit: str = "image"  # what queries are about

    @property
    def seconds(self) -> float | None:
        """How long asking takes."""
        return self.queries / self.rate if self.rate else None

    @property
    def money(self) -> float | None:
        """What it costs."""
        return None if self.price is None else self.queries * self.price / 1000

    def __str__(self) -> str:
        time = "unknown: nothing was measured yet, and no --teacher-rate given"
        if self.seconds is not None and self.rate:
            rate = f"{self.rate:,.0f}" if self.rate >= 10 else f"{self.rate:.3g}"
            time = f"{format_seconds(self.seconds)}, at {rate} {self.unit}s a second"
        money = "unknown: no --price given"
        if self.money is not None:
            money = f"{self.money:.2f}, at {self.price:g} a thousand"
        return (
            f"images            {self.images}\n"
            f"already answered  {self.answered}\n"
            f"queries to make   {self.queries if self.unit == 'image' else count(self.queries, self.unit)}\n"
            f"budget            {self.budget}, of which {self.spent} spent\n"
            f"time to ask       {time}\n"
            f"money             {money}"
        )


def make_bill(
    files: Sequence[ImageFile],
    teacher: Embedder,
    ledger: Ledger,
    budget: int,
    wanted: int | None = None,
    price: float | None = None,
    known: Collection[str] = (),
    digests: Sequence[str] | None = None,
) -> Bill:
    """Reckon what asking about images costs, at a price for a thousand answers. Asks nothing.

    Files are read for their content digests, unless these are given.

    All answers are asked for or, if some number is `wanted`, as many as the budget allows; none is needed
    about images whose content digests are `known`.

    Raises:
        UsageError: The price is none, or the teacher is a file of vectors that lacks some of the images.
    """
    check_price(price)
    digests = digest_pool(files) if digests is None else digests
    missing = teacher.find_missing(files, digests)
    distinct = {digest for i, digest in enumerate(digests) if i not in missing}.difference(known)
    answered, spent = len(ledger.known(distinct)), ledger.spent
    queries = len(distinct) - answered
    if wanted is not None:
        queries = max(min(queries, wanted - answered, budget - spent), 0)
    return Bill(len(distinct), answered, queries, spent, budget, expected_rate(teacher, ledger), price)


def require_budget(images: int, spent: int, budget: int) -> None:
    """Raise BudgetError if a budget, of which some is spent, has no room to ask about so many images."""
    if spent + images > budget:
        raise BudgetError(
            f"{count(images, 'image')} to be asked about, and {spent} of a budget of {budget} spent. "
            f"Nothing was asked. Give --budget {spent + images}, or fewer images."
        )


def expected_rate(teacher: Embedder, ledger: Ledger) -> float | None:
    """Images a second: by earlier answers, with as many calls at a time, but no more than is allowed."""
    measured = ledger.rate and ledger.rate * teacher.calls.concurrency
    return min((rate for rate in (measured, teacher.calls.rate) if rate), default=None)


def check_price(price: float | None) -> float | None:
    """Give a price back, or raise UsageError if it is none."""
    if price is not None and not 0 <= price < math.inf:
        raise UsageError(f"--price must be 0 or more, and finite, not {price}.")
    return price


def bill_by_name(
    sources: Sequence[Source],
    teacher: TeacherSpec,
    device: str,
    price: float | None,
    wanted: int | None = None,
    update: Path | None = None,
    exclude: Sequence[str] = (),
    queries: Sequence[Source] = (),
) -> Bill:
    """`make_bill` of what `find_images` finds.

    `update` is an index whose images need not be asked about. About `queries`, photos like those that will be
    searched with, a part of the budget is spent.
    """
    if teacher.spec is None:
        raise UsageError("--dry-run says what a teacher costs. Give --teacher.")
    files = find_images(sources, exclude)
    known = Index(update).ids_by_digest if update else ()
    model = teacher.open_plain(device)
    with teacher.open_ledger(model.key, dry=True) as ledger:
        if not queries or wanted is None:
            return make_bill(files, model, ledger, teacher.budget, wanted, price, known)
        most, learnt = share_for_queries(wanted), {*known, *digest_pool(files)}
        about = make_bill(find_images(queries), model, ledger, teacher.budget, most, price, learnt)
        left, wanted = teacher.budget - about.queries, wanted - about.queries - min(about.answered, most)
        bill = make_bill(files, model, ledger, left, wanted, price, known)
        both = {
            name: getattr(bill, name) + getattr(about, name) for name in ("images", "answered", "queries")
        }
        return replace(bill, budget=teacher.budget, **both)


def share_for_queries(budget: int) -> int:
    """How many answers of a budget may be about query photos."""
    return min(QUERIES, int(QUERY_SHARE * budget))


def format_seconds(seconds: float) -> str:
    """A time for people, as in `1 h 05 min`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"
