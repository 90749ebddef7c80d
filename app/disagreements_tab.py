"""The disagreements tab: photos of the gallery, those first on which student and teacher agree least."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from app.background import Background, Progress, lower_priority
from app.disagreements import DEPTH, Agreements, find_disagreements
from app.views import render_error, render_note, thumbnail_url
from index.errors import needs
from index.search import Searcher
from index.store import Index

with needs("demo"):
    import gradio as gr

PER_PAGE = 12
SHOWN = 5  # places of each list
SOON = 0.3  # seconds: what was kept is there by then
TURN_JS = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-page]');
  if (button) trigger('click', {page: Number(button.dataset.page)});
});
"""


def build_disagreements_tab(searcher: Searcher) -> None:
    """Add the tab to the page that is being laid out. It computes when it is first looked at."""

    def compute(report: Progress) -> Agreements:
        lower_priority()  # the processor belongs to whoever searches
        return find_disagreements(searcher, report)

    work = Background(compute)

    def show(prefix: str, percent: float, page: int = 0) -> list[Any]:
        if work.result is None:
            waiting = not work.error
            shown = render_progress(work.done) if waiting else render_error(work.error)
            return [shown, gr.Timer(active=waiting)]
        shown = render_disagreements(searcher, work.result, prefix.strip(), percent / 100, page)
        return [shown, gr.Timer(active=False)]

    def open_tab(prefix: str, percent: float) -> list[Any]:
        work.start()
        work.wait(SOON)
        return show(prefix, percent)

    def turn(prefix: str, percent: float, event: gr.EventData) -> list[Any]:
        return show(prefix, percent, int(event._data["page"]))

    with gr.Tab("Disagreements", id="disagreements") as tab:
        if "teacher" not in searcher.stored_modes:
            gr.HTML(render_note("This index was made without a teacher: there is nothing to compare."))
            return
        with gr.Row():
            prefix = gr.Textbox(label="Name begins with", placeholder="folder/", min_width=200)
            most = gr.Slider(
                0, 100, 100, step=100 // DEPTH, label=f"Overlap@{DEPTH} at most, in %", min_width=200
            )
        cases = gr.HTML(elem_id="disagreements", js_on_load=TURN_JS, apply_default_css=False)
        timer = gr.Timer(0.5, active=False)
    asked, shown = [prefix, most], [cases, timer]
    options: dict[str, Any] = {
        "trigger_mode": "always_last",
        "show_progress": "hidden",
        "api_visibility": "private",
    }
    tab.select(open_tab, asked, shown, **options)
    timer.tick(show, asked, shown, **options)
    prefix.input(show, asked, shown, **options)
    most.change(show, asked, shown, **options)
    cases.click(turn, asked, shown, **options)


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


def render_spread(every: Agreements, index: Index) -> str:
    """The means, and how often each overlap occurs."""
    counts = np.bincount(np.rint(every.overlap * DEPTH).astype(int), minlength=DEPTH + 1).tolist()
    percents = [100 * place // DEPTH for place in range(DEPTH + 1)]
    bars = "".join(
        f'<li title="{count:,} photos"><i style="height:{count / max(counts):.1%}"></i>{percent}</li>'
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
        f'<ul role="img" aria-label="Photos by overlap: {spoken}">{bars}</ul>'
        f"<figcaption>photos by overlap@{DEPTH}, in %</figcaption></figure></div>"
    )


def render_pager(found: int, page: int, pages: int) -> str:
    """How many photos there are, and the way to the next ones."""

    def button(text: str, target: int) -> str:
        off = "" if 0 <= target < pages else " disabled"
        return f'<button type="button" data-page="{target}"{off}>{text}</button>'

    where = f"{found:,} photo{'' if found == 1 else 's'}, page {page + 1:,} of {pages:,}"
    return (
        f'<nav class="pager" aria-label="Pages"><span role="status">{where}</span>'
        f"{button('Previous', page - 1)}{button('Next', page + 1)}</nav>"
    )


def render_cases(searcher: Searcher, shown: Agreements) -> str:
    """Photos as links to their comparison, each with the first that both models find."""
    items = shown.items.tolist()
    found = [searcher.search_items(items, mode, SHOWN).ids.tolist() for mode in ("student", "teacher")]
    rows = zip(items, shown.overlap, shown.rbo, *found, strict=True)
    return '<ul class="cases">' + "".join(_render_case(searcher.index, *row) for row in rows) + "</ul>"


def _render_case(
    index: Index, item: int, overlap: float, rbo: float, student: list[int], teacher: list[int]
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
