"""Results as HTML. Pure functions: what comes in is escaped, and nothing here knows Gradio."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from string import Template

from app.compare import Agreement, Side, rank_shifts
from index.store import Index, Item

SHELL = Template(Path(__file__).with_name("search.html").read_text())
LABELS = {"student": "Student", "teacher": "Teacher", "asymmetric": "Asymmetric", "rerank": "Re-rank"}
MEANINGS = {
    "student": "student's query, student's gallery",
    "teacher": "teacher's query, teacher's gallery",
    "asymmetric": "student's query, teacher's gallery",
    "rerank": "the student finds, the teacher puts in order",
}
SPACES = {"asymmetric": "projected", "rerank": "student"}  # the space whose vectors are searched
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


def thumbnail_url(item: int) -> str:
    """Where the page finds the small picture of an item."""
    return f"thumbs/{item}"


def render_heading(index: Index) -> str:
    """What is searched, and by which models."""
    spaces = index.manifest.spaces
    models = [
        f'<span class="model {name}">{escape(spaces[name].name)}, {spaces[name].dim} numbers an image</span>'
        for name in ("student", "teacher")
        if name in spaces
    ]
    count = f"{len(index):,} image{'' if len(index) == 1 else 's'}"
    return f"<h1>retrieval</h1><p><span>{count}</span>{''.join(models)}</p>"


def render_search(
    modes: Sequence[str], examples: Sequence[tuple[int, str]], columns: Mapping[str, Sequence[str]] | None
) -> str:
    """The search page before anything was searched.

    Args:
        modes: The ways to search that there are.
        examples: Ids and names of images of the gallery to try.
        columns: Values of each metadata column; None where the gallery cannot be narrowed.
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
        narrow="" if columns is None else _narrowing(columns),
        meanings="".join(f"<div><dt>{LABELS[mode]}</dt><dd>{MEANINGS[mode]}</dd></div>" for mode in modes),
    )


def render_column(side: Side, index: Index, other: Side | None, waiting: bool = False) -> str:
    """One side's results as cards.

    Args:
        side: The results.
        index: Where the items are.
        other: The other side, to mark how far each item moved; None marks nothing.
        waiting: Whether the other side is still on its way.
    """
    if side.found is None:
        return render_note(side.missing)
    if not side.ids:
        return render_note("Nothing found. Widen the filters, or lower the cut.")
    marked = other is not None and other.found is not None and not waiting
    shifts = rank_shifts(side, other) if marked and other else []
    name = LABELS[other.mode] if other else ""
    cards = [
        _card(
            rank, item, score, index.items[item].name, _mark(shifts[rank - 1], rank, name) if marked else ""
        )
        for rank, (item, score) in enumerate(zip(side.ids, side.scores, strict=True), start=1)
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
    sides: Sequence[Side], index: Index, agreed: Agreement | None, k: int, costs: Mapping[str, Cost]
) -> str:
    """The numbers above the results.

    Args:
        sides: What was found so far.
        index: What was searched.
        agreed: How far two sides agree, if there are two.
        k: Results that were asked for.
        costs: What searching costs, by mode.
    """
    facts = ""
    if agreed:
        facts = (
            '<dl class="facts">'
            f"{_fact(f'{agreed.overlap:.0%}', f'overlap@{k}', 'share of the results that both have')}"
            f"{_fact(f'{agreed.rbo:.2f}', 'RBO', 'agreement in order; 1 is the same list')}</dl>"
        )
    answered = [side for side in sides if side.found]
    slowest = max((side.seconds for side in answered), default=0.0)
    rows = "".join(_side_row(side, index, slowest, costs) for side in answered)
    return f'{facts}<div class="sides">{rows}</div>' if rows else facts


def render_details(item: int, entry: Item, metadata: Mapping[str, str]) -> str:
    """What is known of an image of the gallery."""
    day = datetime.fromtimestamp(entry.mtime, UTC).date().isoformat()
    facts = {
        "Size": f"{entry.width} × {entry.height} pixels, {_bytes(entry.size)}",
        "Changed": day,
        "Id": str(item),
        **metadata,
    }
    lines = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items())
    return f"<h2>{escape(entry.name)}</h2><dl>{lines}</dl>"


def render_note(text: str) -> str:
    """A line in place of results."""
    return f'<p class="note">{escape(text)}</p>'


def render_error(text: str) -> str:
    """A line that says what went wrong and what to do."""
    return f'<p class="note error">{escape(text)}</p>'


def _options(pairs: Iterable[tuple[str, str]], chosen: str = "") -> str:
    return "".join(
        f'<option value="{escape(value)}"{" selected" if value == chosen else ""}>{escape(label)}</option>'
        for value, label in pairs
    )


def _narrowing(columns: Mapping[str, Sequence[str]]) -> str:
    fields = "".join(
        f'<label>{escape(name)}<select class="column-value" data-column="{escape(name)}">'
        f"{_options([('', 'any'), *((value, value) for value in values)])}</select></label>"
        for name, values in columns.items()
    )
    return (
        '<label>As similar as the best, at least<output class="cut-value">any</output>'
        '<input class="cut" type="range" min="0" max="100" step="5" value="0"></label>'
        '<label>Name starts with<input class="prefix" type="text" placeholder="folder/" '
        f'spellcheck="false" autocomplete="off"></label>{fields}'
    )


def _card(rank: int, item: int, score: float, name: str, mark: str) -> str:
    label = escape(f"{rank}. {name}, similarity {score:.3f}. Search with it.")
    loading = "eager" if rank <= EAGER else "lazy"
    return (
        f'<li class="card" data-id="{item}" data-score="{score:.6f}" data-name="{escape(name)}">'
        f'<button type="button" class="hit" aria-label="{label}" tabindex="{0 if rank == 1 else -1}">'
        f'<img src="{thumbnail_url(item)}" alt="" loading="{loading}" decoding="sync" draggable="false">'
        f'<span class="rank">{rank}</span>{mark}</button>'
        f'<button type="button" class="open" tabindex="-1" aria-label="Large view of {escape(name)}">'
        '<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M9 2h5v5M14 2 9 7M7 14H2V9m0 5 5-5"/></svg>'
        f'</button><span class="line"><span class="name" title="{escape(name)}">{escape(_short(name))}</span>'
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


def _side_row(side: Side, index: Index, slowest: float, costs: Mapping[str, Cost]) -> str:
    found = side.found
    assert found is not None
    parts = {"decode": side.decode_seconds, "embed": found.embed_seconds, "search": found.search_seconds}
    bar = "".join(
        f'<i class="{name}" style="width:{100 * seconds / slowest:.2f}%"></i>'
        for name, seconds in parts.items()
    )
    split = " ".join(
        f'<span class="{name}">{name} <b>{_milliseconds(seconds)}</b></span>'
        for name, seconds in parts.items()
    )
    space = index.manifest.spaces[SPACES.get(side.mode, side.mode)]
    return (
        f'<div class="side {side.mode}"><span class="who">{LABELS[side.mode]}</span>'
        f'<span class="total" title="from the bytes of the picture to its results">'
        f"{_milliseconds(side.seconds)} ms</span>"
        f'<span class="bar" aria-hidden="true">{bar}</span><span class="split">{split}</span>'
        f'<span class="size"><b>{4 * space.dim:,}</b> bytes a vector</span>'
        f"{_million(side.mode, costs)}</div>"
    )


def _million(mode: str, costs: Mapping[str, Cost]) -> str:
    cost = costs.get(mode)
    if cost is None:
        return ""
    text = f"<b>{_duration(1e6 * cost.seconds)}</b>"
    if cost.price is not None:
        text += f" and <b>{1000 * cost.price:,.2f}</b>"
    title = f"at the median time of this page's searches, {1000 * cost.seconds:.1f} ms"
    even = ""
    if cost.learnt_from is not None:
        even = (
            f'<span class="even" title="It learnt from so many answers of the teacher: from then on each search '
            f'saves one">pays off after <b>{cost.learnt_from:,}</b> searches</span>'
        )
    return f'<span class="million" title="{title}">a million: {text}</span>{even}'


def _fact(value: str, name: str, meaning: str) -> str:
    return f'<div title="{meaning}"><dt>{name}</dt><dd>{value}</dd></div>'


def _milliseconds(seconds: float) -> str:
    value = 1000 * seconds
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{max(count / 1e3, 1):.0f} kB"


def _short(name: str) -> str:
    return name.rsplit("/", 1)[-1]
