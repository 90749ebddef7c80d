"""What asking a teacher will cost, said before anything is spent, and what it did cost."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from index.embedders.base import Embedder
from index.errors import BudgetError, UsageError
from index.images.digests import digest_pool
from index.images.file import ImageFile
from index.images.sources import Source, find_images
from index.stores.folder import Index
from index.teachers.ledger import Ledger
from index.teachers.spec import TeacherSpec


@dataclass(frozen=True)
class Bill:
    """What a run asks a teacher for.

    Attributes:
        images: Distinct images.
        answered: How many of them the ledger knows.
        queries: How many are to be asked about. Ones that turn out to be unreadable cost nothing.
        spent: What the ledger's account stands at: answers, and failed calls.
        budget: How much may ever be spent.
        rate: Images a second that are answered; None where nothing was measured and no limit given.
        price: Of a thousand answers, in the user's money; None where it was not given.
    """

    images: int
    answered: int
    queries: int
    spent: int
    budget: int
    rate: float | None
    price: float | None

    @property
    def seconds(self) -> float | None:
        """How long asking takes."""
        return self.queries / self.rate if self.rate else None

    @property
    def money(self) -> float | None:
        """What it costs."""
        return None if self.price is None else self.queries * self.price / 1000

    def __str__(self) -> str:
        """The figures for people, one a line."""
        time = "unknown: nothing was measured yet, and no --teacher-rate given"
        if self.seconds is not None:
            time = f"{format_seconds(self.seconds)}, at {self.rate:.3g} images a second"
        money = "unknown: no --price given"
        if self.money is not None:
            money = f"{self.money:.2f}, at {self.price:g} a thousand"
        return "\n".join(
            (
                f"images            {self.images}",
                f"already answered  {self.answered}",
                f"queries to make   {self.queries}",
                f"budget            {self.budget}, of which {self.spent} spent",
                f"time to ask       {time}",
                f"money             {money}",
            )
        )

    def require_budget(self) -> None:
        """Raise BudgetError if the budget has no room for all queries."""
        if self.spent + self.queries > self.budget:
            raise BudgetError(
                f"{self.queries} images are to be asked about, and {self.spent} of a budget of {self.budget} "
                f"are spent. Nothing was asked. Give --budget {self.spent + self.queries}, or fewer images."
            )


def make_bill(
    files: Sequence[ImageFile],
    teacher: Embedder,
    ledger: Ledger,
    budget: int,
    wanted: int | None = None,
    price: float | None = None,
    known: Collection[str] = (),
) -> Bill:
    """Reckon what asking about images costs. Reads the files, asks nothing.

    Args:
        files: The images.
        teacher: The teacher to ask.
        ledger: Its answers.
        budget: How much may ever be spent.
        wanted: How many answers are wanted, and no more asked about than the budget allows; None wants all.
        price: Of a thousand answers.
        known: Content digests of images that nobody needs to be asked about.

    Raises:
        UsageError: The price is none, or the teacher is a file of vectors that lacks some of the images.
    """
    check_price(price)
    digests = digest_pool(files)
    missing = teacher.find_missing(files, digests)
    distinct = {digest for i, digest in enumerate(digests) if i not in missing}.difference(known)
    answered, spent = len(ledger.known(distinct)), ledger.spent
    queries = len(distinct) - answered
    if wanted is not None:
        queries = max(min(queries, wanted - answered, budget - spent), 0)
    return Bill(len(distinct), answered, queries, spent, budget, expected_rate(teacher, ledger), price)


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
) -> Bill:
    """`make_bill`, with everything given by its name.

    Args:
        sources: As for `find_images`.
        teacher: How to reach the teacher.
        device: `auto`, `cpu` or `cuda`.
        price: As in `make_bill`.
        wanted: As in `make_bill`.
        update: An index folder; nobody is asked again about its images.
        exclude: As for `find_images`.

    Raises:
        UsageError: There is no teacher, or it, its ledger or a source cannot be used.
    """
    if teacher.spec is None:
        raise UsageError("--dry-run says what a teacher costs. Give --teacher.")
    files = find_images(sources, exclude)
    known = Index(update).ids_by_digest if update else ()
    model = teacher.open_plain(device)
    with teacher.open_ledger(model.key, dry=True) as ledger:
        return make_bill(files, model, ledger, teacher.budget, wanted, price, known)


def expected_rate(teacher: Embedder, ledger: Ledger) -> float | None:
    """Images a second: by earlier answers, with as many calls at a time, but no more than is allowed."""
    measured = ledger.rate and ledger.rate * teacher.calls.concurrency
    known = [rate for rate in (measured, teacher.calls.rate) if rate]
    return min(known, default=None)


def format_seconds(seconds: float) -> str:
    """A time for people, as in `1 h 05 min`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"
