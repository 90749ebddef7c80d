"""The disagreements as HTML: how often student and teacher agree how far, and the photos, the worst first."""

from collections.abc import Sequence
from html import escape

import numpy as np

from app.page.disagreements.logic import DEPTH, Agreements
from app.page.views import render_note, thumbnail_url
from index.search import Searcher
from index.stores.base import Store

PER_PAGE = 12
SHOWN = 5  # places of each list


def render_browser() -> str:
    """The tab before anything is known."""
    return (
        '<div class="tab"><div class="controls"><p>The photos of the gallery, worst agreement first. '
        "Framed in green: found by both models. Choose one to compare.</p>"
        '<label>Name starts with<input class="prefix" type="text" placeholder="folder/" spellcheck="false" '
        'autocomplete="off"></label>'
        f'<label>Overlap@{DEPTH} at most <span class="value">100%</span>'
        f'<input class="most" type="range" min="0" max="100" step="{100 // DEPTH}" value="100"></label>'
        '</div><div class="body"></div></div>'
    )


def render_progress(done: float) -> str:
    """How far the work is."""
    return (
        '<label class="waiting-for">Comparing what student and teacher find for each photo of the gallery.'
        f'<progress max="1" value="{done:.3f}">{done:.0%}</progress></label>'
    )


def render_disagreements(searcher: Searcher, every: Agreements, prefix: str, most: float, page: int) -> str:
    """One page of the photos that match, the worst first.

    Args:
        searcher: The index.
        every: What is known.
        prefix: What names begin with.
        most: Overlap at most, from 0 to 1.
        page: From 0; one that is not there becomes the nearest.
    """
    items = searcher.index.items
    chosen = every.select([items[item].name for item in every.items], prefix, most)
    pages = max(-(-len(chosen) // PER_PAGE), 1)
    page = min(max(page, 0), pages - 1)
    part = slice(page * PER_PAGE, (page + 1) * PER_PAGE)
    shown = Agreements(chosen.items[part], chosen.overlap[part], chosen.rbo[part])
    cases = (
        render_cases(searcher, shown)
        if len(shown)
        else render_note("No photo matches. Clear the name, or allow more overlap.")
    )
    return render_spread(every, searcher.index) + render_pager(len(chosen), page, pages) + cases


def render_spread(every: Agreements, index: Store) -> str:
    """The means, and how often each overlap occurs."""
    counts = np.bincount(np.rint(every.overlap * DEPTH).astype(int), minlength=DEPTH + 1).tolist()
    percents = [100 * place // DEPTH for place in range(DEPTH + 1)]
    bars = "".join(
        f'<span title="{count:,} photos"><i style="height:{count / max(counts):.1%}"></i>{percent}</span>'
        for percent, count in zip(percents, counts, strict=True)
    )
    spoken = ", ".join(f"{count} at {percent} %" for percent, count in zip(percents, counts, strict=True))
    sample = "photos" if len(every) == len(index) else f"of {len(index):,} photos, at random"
    facts = {
        f"overlap@{DEPTH}": f"{every.overlap.mean():.0%}",
        "RBO": f"{every.rbo.mean():.2f}",
        sample: f"{len(every):,}",
    }
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    return (
        f'<div class="spread"><dl>{cells}</dl><figure>'
        f'<div class="bars" role="img" aria-label="Photos by overlap: {spoken}">{bars}</div>'
        f"<figcaption>photos by overlap@{DEPTH}, in %</figcaption></figure></div>"
    )


def render_pager(found: int, page: int, pages: int) -> str:
    """How many photos there are, and the way to the next ones."""

    def button(text: str, way: str, target: int) -> str:
        off = "" if 0 <= target < pages else " disabled"
        return f'<button type="button" class="{way}" data-page="{target}"{off}>{text}</button>'

    where = f"{found:,} photo{'' if found == 1 else 's'}, page {page + 1:,} of {pages:,}"
    return (
        f'<nav class="pager" aria-label="Pages"><span role="status">{where}</span>'
        f"{button('Previous', 'back', page - 1)}{button('Next', 'on', page + 1)}</nav>"
    )


def render_cases(searcher: Searcher, shown: Agreements) -> str:
    """Photos as links to their comparison, each with the first that both models find."""
    items = shown.items.tolist()
    found = [searcher.search_items(items, mode, SHOWN).ids.tolist() for mode in ("student", "teacher")]
    rows = zip(items, shown.overlap, shown.rbo, *found, strict=True)
    return '<ul class="cases">' + "".join(_render_case(searcher.index, *row) for row in rows) + "</ul>"


def _render_case(
    index: Store, item: int, overlap: float, rbo: float, student: list[int], teacher: list[int]
) -> str:
    name, shared = escape(index.items[item].name), set(student) & set(teacher)
    lists = "".join(
        f'<span class="{who}">{who}</span>{_render_strip(ids, shared)}'
        for who, ids in (("student", student), ("teacher", teacher))
    )
    return (
        f'<li><a href="?id={item}" aria-label="{name}: overlap {overlap:.0%}, RBO {rbo:.2f}. Compare.">'
        f'<img class="asked" src="{thumbnail_url(item)}" alt="" loading="lazy">'
        f'<span class="score"><b>{overlap:.0%}</b>overlap<span>RBO {rbo:.2f}</span></span>'
        f'<span class="lists">{lists}</span><span class="name" title="{name}">{name}</span></a></li>'
    )


def _render_strip(ids: Sequence[int], shared: set[int]) -> str:
    pictures = "".join(
        f'<img class="{"both" if item in shared else ""}" src="{thumbnail_url(item)}" alt="" loading="lazy">'
        for item in ids
        if item >= 0
    )
    return f'<span class="strip">{pictures}</span>'
