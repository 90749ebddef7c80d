"""Show results: what the templates beside this need to know."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.page.search.columns import Agreement, SearchColumn, rank_shifts
from app.page.search.strength import Scale
from app.page.search.why import LEAST_DROP, name_place
from app.page.views import format_bytes, render_note
from app.server.api import Label
from index.html import load
from index.search import MODES
from index.stores.base import Store
from index.stores.records import Item

LABELS = {"student": "Student", "teacher": "Teacher", "asymmetric": "Asymmetric", "rerank": "Re-rank"}


def milliseconds(seconds: float) -> str:
    """Write a time in milliseconds."""
    value = 1000 * seconds
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def duration(seconds: float) -> str:
    """Write a long time, hours from one to a hundred: two models are easier to compare in one unit."""
    for unit, length, least in (("days", 86_400, 100 * 3600), ("hours", 3600, 3600), ("minutes", 60, 120)):
        if seconds >= least:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


SHELL = load("app/page/search/search.html", LABELS=LABELS)
FORMATS = {"milliseconds": milliseconds, "duration": duration}
HTML = load("app/page/search/results.html", LABELS=LABELS, MODES=MODES, **FORMATS)


@dataclass(frozen=True)
class Costs:
    """What searching costs."""

    # Of a thousand answers of the teacher or ranker; None where it runs here, or is not known
    price: float | None = None
    learnt_from: int | None = None  # answers paid for to train the student; None where it is not known
    reranked: int = 1  # answers that a search takes at most which is ordered again

    def of(self, mode: str) -> float | None:
        """Tell what a million searches in a mode cost; None where they are free, or it is not known."""
        answers = {"teacher": 1, "rerank": self.reranked}.get(mode)
        return None if answers is None or self.price is None else 1000 * self.price * answers


def render_search(
    modes: Sequence[str],
    examples: Sequence[tuple[str, str]],
    columns: Mapping[str, Sequence[str]] | None,
    *,
    alone: bool = False,
    words: bool = False,
    missing: str = "",
    note: str = "",
    shop: bool = False,
) -> str:
    """Show the search page before anything was searched.

    Args:
        modes: The ways to search that there are.
        examples: Digests and names of images of the gallery to try.
        columns: Values of each metadata column; None where the gallery cannot be narrowed.
        alone: Whether the page begins with one column, for there is nothing to compare with.
        words: Whether one may search by words.
        missing: Why the teacher's column is not the teacher, if it is not.
        note: What a search in the second column costs, if that is to be said.
        shop: Whether nothing is said of models.
    """
    others = [*([mode for mode in modes if mode != "student"] or ["teacher"]), "student"]
    ordered = columns and {name: _in_order(values) for name, values in columns.items()}
    return SHELL.page(modes, others, examples, ordered, alone, words, missing, note, shop)


def _in_order(values: Sequence[str]) -> Sequence[str]:
    """Order numbers as numbers; other values stay as they are."""
    try:
        return sorted(values, key=float)
    except ValueError:
        return values


def render_column(
    column: SearchColumn,
    index: Store,
    other: SearchColumn | None = None,
    label: Label = lambda item: {},
    scale: Scale | None = None,
    folded: Mapping[int, int] | None = None,
) -> str:
    """Show one column's results as cards, marked with how far each moved from the other column, if any.

    `label` tells their titles, captions and links; without a title the name of the file stands there. `scale`
    tells how strong each match is, if that is known. `folded` maps near-duplicates to the result they lie
    under.
    """
    if column.found is None:
        return render_note(column.missing)
    if not column.ids:
        return render_note("No results with these filters.")
    shifts, name = (rank_shifts(column, other), LABELS[other.mode]) if other and other.found else (None, "")
    mode, folded = LABELS[column.mode], folded or {}
    heaps = Counter(folded.values())
    return HTML.column(mode, column.hits, index.items, label, scale, folded, heaps, shifts, name)


def render_numbers(
    columns: Sequence[SearchColumn],
    index: Store,
    agreed: Agreement | None,
    costs: Costs,
    waiting: str = "",
) -> str:
    """Show the numbers above the results; of a mode on its way, `waiting`, their place is kept."""
    answered = [column for column in columns if column.found]
    if not answered:
        return ""
    modes = {waiting, *(column.mode for column in columns)}
    learnt = costs.learnt_from if "student" in modes else None
    price = costs.price if modes & {"teacher", "rerank"} else None
    return HTML.numbers(agreed, answered, index.manifest.spaces, costs, waiting, learnt, price)


def render_details(
    item: int, entry: Item, metadata: Mapping[str, str], label: Mapping[str, str] | None = None
) -> str:
    """Show what is known of an image of the gallery; `label` is its title, caption and link."""
    also = {"Also as": ", ".join(copy.name for copy in entry.copies)} if entry.copies else {}
    size = f"{entry.width} by {entry.height} pixels, {format_bytes(entry.size)}"
    label = label or {}
    told = (label.get("title"), label.get("link"))
    known = {name: value for name, value in metadata.items() if value not in told}
    return HTML.details(entry.name, label, {"Size": size, "Id": item, **also, **known})


def render_why(similarity: float, drops: NDArray[np.float32]) -> list[str]:
    """Say what `occlusion_maps` found, of the query and of the hit."""
    return [
        f"What of {what} the match rests on: most of all the {name_place(each)}. With that covered, the "
        f"similarity falls from {similarity:.2f} to {similarity - each.max():.2f}."
        if each.max() >= LEAST_DROP / 2
        else f"No part of {what} alone makes the match."
        for what, each in zip(("your photo", "this result"), drops, strict=True)
    ]
