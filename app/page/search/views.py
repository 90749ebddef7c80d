"""Results as HTML. Pure functions: what comes in is escaped, and nothing here knows Gradio."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from app.page.search.columns import Agreement, SearchColumn, rank_shifts
from app.page.views import render_note, thumbnail_url
from index.stores.base import Store
from index.stores.records import Item

SHELL = Template(Path(__file__).with_name("search.html").read_text())
LABELS = {"student": "Student", "teacher": "Teacher", "asymmetric": "Asymmetric", "rerank": "Re-rank"}
MEANINGS = {
    "student": "the small model looks at your photo and at the gallery",
    "teacher": "the large model that it learnt from looks at both",
    "asymmetric": "the student looks at your photo, the teacher at the gallery",
    "rerank": "the student finds, the teacher puts in order",
}
SPACES = {"asymmetric": "projected", "rerank": "student"}  # the space whose vectors are searched
HEADINGS = {
    "": "",
    "one search": "from the bytes of the picture to its results",
    " ": "decode, embed, search",
    "decode": "from the bytes of the picture to pixels",
    "embed": "from pixels to a vector",
    "search": "from a vector to results",
    "bytes a vector": "of each image of the gallery, as 32-bit numbers",
    "1M searches": "a million searches one after another, at the median time of the searches on this page",
}
EAGER = 8  # pictures of a column that are loaded before they are scrolled to


@dataclass(frozen=True)
class Cost:
    """What searching costs on one side.

    Attributes:
        seconds: Time of one search, median of those measured.
        price: Of a thousand answers of this side's model; None where it runs here, or is not known.
        learnt_from: Answers that were paid for before this side could answer; None where it is not known.
    """

    seconds: float
    price: float | None = None
    learnt_from: int | None = None


def render_search(
    modes: Sequence[str],
    examples: Sequence[tuple[int, str]],
    columns: Mapping[str, Sequence[str]] | None,
    alone: bool = False,
) -> str:
    """The search page before anything was searched.

    Args:
        modes: The ways to search that there are.
        examples: Ids and names of images of the gallery to try.
        columns: Values of each metadata column; None where the gallery cannot be narrowed.
        alone: Whether the page begins with one column, for there is nothing to compare with.
    """
    pictures = "".join(
        f'<li><button type="button" class="example" data-id="{item}" aria-label="Search with {escape(name)}">'
        f'<img src="{thumbnail_url(item)}" alt="" draggable="false"></button></li>'
        for item, name in examples
    )
    second = "teacher" if "asymmetric" not in modes or "teacher" in modes else "asymmetric"
    rest = [mode for mode in modes if mode != "student"] or ["teacher"]
    return SHELL.substitute(
        examples=pictures,
        first=_options([(mode, LABELS[mode]) for mode in modes], "student"),
        second=_options([(mode, LABELS[mode]) for mode in [*rest, "student"]], second),
        one=str(alone).lower(),
        two=str(not alone).lower(),
        promise="" if alone else "Student and teacher search side by side.",
        filters="" if columns is None else _filters(columns),
        meanings="".join(f"<div><dt>{LABELS[mode]}</dt><dd>{MEANINGS[mode]}</dd></div>" for mode in modes),
    )


def render_column(side: SearchColumn, index: Store, other: SearchColumn | None = None) -> str:
    """One side's results as cards.

    Args:
        side: The results.
        index: Where the items are.
        other: The other side, to mark how far each item moved; None marks nothing.
    """
    if side.found is None:
        return render_note(side.missing)
    if not side.ids:
        return render_note("Nothing found. Widen the filters.")
    shifts = rank_shifts(side, other) if other and other.found else []
    name = LABELS[other.mode] if other else ""
    marks = [_mark(shift, rank, name) for rank, shift in enumerate(shifts, start=1)]
    found = zip(side.ids, side.scores, marks or [""] * len(side.ids), strict=True)
    cards = [
        _card(rank, item, score, index.items[item], mark)
        for rank, (item, score, mark) in enumerate(found, start=1)
    ]
    return f'<ol class="cards" aria-label="{LABELS[side.mode]}, best first">{"".join(cards)}</ol>'


def render_waiting(mode: str, k: int) -> str:
    """Cells for results that are on their way."""
    cells = "<li></li>" * min(k, 12)
    return (
        f'<p class="waiting" role="status"><span class="spinner"></span>{LABELS[mode]} is on its way</p>'
        f'<ol class="cards blank" aria-hidden="true">{cells}</ol>'
    )


def render_numbers(
    sides: Sequence[SearchColumn],
    index: Store,
    agreed: Agreement | None,
    costs: Mapping[str, Cost],
    waiting: tuple[str, int] | None = None,
) -> str:
    """The numbers above the results.

    Args:
        sides: What was found so far.
        index: What was searched.
        agreed: How far two sides agree, if there are two.
        costs: What searching costs, by mode.
        waiting: The mode that is on its way, whose numbers keep their place, and the results it is to bring.
    """
    answered = [side for side in sides if side.found]
    if not answered:
        return ""
    facts = ""
    if agreed:
        facts = _facts(agreed.depth, f"{agreed.overlap:.0%}", f"{agreed.rbo:.2f}")
    elif waiting:
        facts = _facts(waiting[1], "-", "-")
    slowest = max(side.seconds for side in answered)
    head = "".join(
        f'<span role="columnheader" title="{meaning}">{name}</span>' for name, meaning in HEADINGS.items()
    )
    rows = "".join(_side_row(side, index, slowest, costs.get(side.mode)) for side in answered)
    rows += _waiting_row(waiting[0]) if waiting else ""
    totals = ", ".join(f"{LABELS[side.mode]} {_milliseconds(side.seconds)} ms" for side in answered)
    return (
        f'{facts}<details class="sides" open><summary>{totals}</summary>'
        '<div class="figures" role="table" aria-label="Time and size">'
        f'<div role="row" class="head">{head}</div>{rows}</div>{_break_even(costs)}</details>'
    )


def render_details(item: int, entry: Item, metadata: Mapping[str, str]) -> str:
    """What is known of an image of the gallery."""
    also = {"Also as": ", ".join(copy.name for copy in entry.copies)} if entry.copies else {}
    facts = {
        "Size": f"{entry.width} by {entry.height} pixels, {_bytes(entry.size)}",
        "Id": str(item),
        **also,
        **metadata,
    }
    lines = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items())
    return f"<h2>{escape(entry.name)}</h2><dl>{lines}</dl>"


def _options(pairs: Iterable[tuple[str, str]], chosen: str = "") -> str:
    return "".join(
        f'<option value="{escape(value)}"{" selected" if value == chosen else ""}>{escape(label)}</option>'
        for value, label in pairs
    )


def _filters(columns: Mapping[str, Sequence[str]]) -> str:
    fields = "".join(
        f'<label>{escape(name)}<select class="column-value" data-column="{escape(name)}">'
        f"{_options([('', 'any'), *((value, value) for value in values)])}</select></label>"
        for name, values in columns.items()
    )
    return (
        '<details class="filters"><summary>Filters</summary><div class="panel">'
        '<label>Similarity at least<output class="cut-value">any</output>'
        '<input class="cut" type="range" min="0" max="100" step="5" value="0"></label>'
        '<label>Name starts with<input class="prefix" type="text" placeholder="folder/" '
        f'spellcheck="false" autocomplete="off"></label>{fields}'
        '<button type="button" class="button reset" hidden>Clear filters</button></div></details>'
    )


def _card(rank: int, item: int, score: float, entry: Item, mark: str) -> str:
    name, short, copies = entry.name, escape(_short(entry.name)), len(entry.copies)
    more = (
        f'<span class="copies" title="{copies} more like it, byte by byte">+{copies}</span>' if copies else ""
    )
    label = escape(f"{rank}. {name}, similarity {score:.3f}. Search with it.")
    loading = "eager" if rank <= EAGER else "lazy"
    return (
        f'<li class="card" data-id="{item}" data-score="{score:.6f}" data-name="{escape(name)}">'
        f'<button type="button" class="hit" aria-label="{label}" tabindex="{0 if rank == 1 else -1}">'
        f'<img src="{thumbnail_url(item)}" alt="" loading="{loading}" decoding="sync" draggable="false">'
        f'<span class="rank">{rank}</span>{mark}</button>'
        f'<button type="button" class="open" tabindex="-1" aria-label="Large view of {escape(name)}">'
        '<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M9 2h5v5M14 2 9 7M7 14H2V9m0 5 5-5"/></svg>'
        f'</button><span class="line"><span class="name" title="{escape(name)}">{short}</span>{more}'
        f'<span class="score">{score:.3f}</span></span></li>'
    )


def _mark(shift: int | None, rank: int, other: str) -> str:
    if shift is None:
        return f'<span class="mark only" title="{other} does not have it here">only here</span>'
    if not shift:
        return f'<span class="mark same" title="{other} has it at {rank}, too">=</span>'
    way, arrow = ("up", "▲") if shift > 0 else ("down", "▼")
    text = f"{other} has it at {rank + shift}"
    return f'<span class="mark {way}" title="{text}">{arrow}&#8202;{abs(shift)}</span>'


def _side_row(side: SearchColumn, index: Store, slowest: float, cost: Cost | None) -> str:
    found = side.found
    assert found is not None
    parts = {"decode": side.decode_seconds, "embed": found.embed_seconds, "search": found.search_seconds}
    bar = "".join(f'<i style="width:{100 * seconds / slowest:.2f}%"></i>' for seconds in parts.values())
    cells = [
        f'<span role="cell" class="total">{_milliseconds(side.seconds)} ms</span>',
        f'<span role="cell" class="share-of-time"><span class="bar" aria-hidden="true">{bar}</span></span>',
        *(f'<span role="cell">{_milliseconds(seconds)} ms</span>' for seconds in parts.values()),
        f'<span role="cell">{4 * index.manifest.spaces[SPACES.get(side.mode, side.mode)].dim:,}</span>',
        f'<span role="cell">{_million(cost)}</span>',
    ]
    return (
        f'<div role="row" data-mode="{side.mode}">'
        f'<span role="rowheader" class="who">{LABELS[side.mode]}</span>'
        f"{''.join(cells)}</div>"
    )


def _waiting_row(mode: str) -> str:
    cells = "".join(f'<span role="cell">{"-" if name.strip() else ""}</span>' for name in list(HEADINGS)[1:])
    who = f'<span role="rowheader" class="who">{LABELS[mode]}</span>'
    return f'<div role="row" data-mode="{mode}">{who}{cells}</div>'


def _million(cost: Cost | None) -> str:
    if cost is None:
        return "-"
    money = "" if cost.price is None else f'<span class="money">costs {1000 * cost.price:,.2f}</span>'
    return f"{_duration(1e6 * cost.seconds)}{money}"


def _break_even(costs: Mapping[str, Cost]) -> str:
    """After how many searches a student has saved as many answers of its teacher as it learnt from."""
    learnt = costs["student"].learnt_from if "student" in costs else None
    if learnt is None:
        return ""
    price = next((cost.price for cost in costs.values() if cost.price is not None), None)
    money = "" if price is None else f" ({learnt * price / 1000:,.2f} at {price:g} a thousand)"
    return (
        f'<p class="even">The student learnt from {learnt:,} answers{money}: it pays off after '
        f"{learnt:,} searches.</p>"
    )


def _facts(depth: int, overlap: str, rbo: str) -> str:
    return (
        '<dl class="facts">'
        f"{_fact(overlap, f'overlap@{depth}', 'share of the results that both have')}"
        f"{_fact(rbo, 'RBO', 'agreement in order; 1 is the same list')}</dl>"
    )


def _fact(value: str, name: str, meaning: str) -> str:
    return f'<div title="{meaning}"><dt>{name}</dt><dd>{value}</dd></div>'


def _milliseconds(seconds: float) -> str:
    value = 1000 * seconds
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _duration(seconds: float) -> str:
    # Hours from one to a hundred: two models are easier to compare in one unit.
    for unit, length, least in (("days", 86_400, 100 * 3600), ("hours", 3600, 3600), ("minutes", 60, 120)):
        if seconds >= least:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{max(count / 1e3, 1):.0f} kB"


def _short(name: str) -> str:
    return name.rsplit("/", 1)[-1]
