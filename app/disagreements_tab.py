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
TURN_JS = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-page]');
  if (button) trigger('click', {page: Number(button.dataset.page)});
});
"""


def disagreements_tab(searcher: Searcher) -> None:
    """Add the tab to the page that is being laid out. What it shows is computed when it is first looked at."""
    index = searcher.index

    def compute(report: Progress) -> Agreements:
        lower_priority()  # the processor belongs to whoever searches
        return find_disagreements(searcher, report)

    work = Background(compute)

    def show(prefix: str, percent: float, page: int = 0) -> list[Any]:
        if work.error:
            return [render_error(work.error), gr.Timer(active=False)]
        if work.result is None:
            return [render_progress(work.done), gr.Timer(active=True)]
        every = work.result
        names = [index.items[item].name for item in every.items]
        chosen = every.select(names, prefix.strip(), percent / 100)
        pages = max(-(-len(chosen) // PER_PAGE), 1)
        page = min(max(page, 0), pages - 1)
        cases = render_cases(searcher, chosen, slice(page * PER_PAGE, (page + 1) * PER_PAGE))
        head = render_distribution(every, index)
        return [head + render_pager(len(chosen), page, pages) + cases, gr.Timer(active=False)]

    def open_tab(prefix: str, percent: float) -> list[Any]:
        work.start()
        work.wait(0.3)  # what was kept is there at once
        return show(prefix, percent)

    def turn(prefix: str, percent: float, event: gr.EventData) -> list[Any]:
        page = event._data["page"]
        return show(prefix, percent, page if isinstance(page, int) else 0)

    with gr.Tab("Disagreements", id="disagreements") as tab:
        if "teacher" not in searcher.stored_modes:
            gr.HTML(render_note("This index was made without a teacher: there is nothing to compare."))
            return
        with gr.Row():
            prefix = gr.Textbox(
                label="Name begins with", placeholder=_first_folder(index), scale=2, min_width=200
            )
            most = gr.Slider(
                0, 100, 100, step=100 / DEPTH, label=f"Overlap@{DEPTH} at most, %", scale=2, min_width=200
            )
        cases = gr.HTML(elem_id="disagreements", js_on_load=TURN_JS, apply_default_css=False)
        timer = gr.Timer(0.5, active=False)
    shown, asked = [cases, timer], [prefix, most]
    quiet: dict[str, Any] = {
        "show_progress": "hidden",
        "api_visibility": "private",
        "trigger_mode": "always_last",
    }
    tab.select(open_tab, asked, shown, **quiet)
    timer.tick(show, asked, shown, **quiet)
    prefix.input(show, asked, shown, **quiet)
    most.change(show, asked, shown, **quiet)
    cases.click(turn, asked, shown, **quiet)


def render_progress(done: float) -> str:
    """How far the work is."""
    return (
        f'<div class="waiting" role="status"><label>Comparing what student and teacher find for the gallery\'s own '
        f'photos, from their stored vectors. <progress max="1" value="{done:.3f}"></progress> {done:.0%}</label></div>'
    )


def render_distribution(every: Agreements, index: Index) -> str:
    """How often each overlap occurs, and the mean."""
    counts = np.bincount(np.rint(every.overlap * DEPTH).astype(int), minlength=DEPTH + 1)
    bars = "".join(
        f'<li title="{count:,} photos share {place} of {DEPTH}"><i style="height:{100 * count / counts.max():.0f}%"></i>'
        f"<span>{100 * place // DEPTH}</span></li>"
        for place, count in enumerate(counts.tolist())
    )
    spoken = ", ".join(f"{count} at {100 * place // DEPTH} %" for place, count in enumerate(counts.tolist()))
    sample = "" if len(every) == len(index) else f" of {len(index):,}, chosen at random"
    return (
        '<div class="spread"><p>'
        f"<b>{every.overlap.mean():.0%}</b> overlap@{DEPTH} on average, RBO <b>{every.rbo.mean():.2f}</b>, over "
        f"{len(every):,} photos{sample}, each as a query.</p>"
        f'<ul role="img" aria-label="Photos by overlap: {spoken}">{bars}</ul></div>'
    )


def render_pager(found: int, page: int, pages: int) -> str:
    """How many photos there are, and the way to the next ones."""

    def button(text: str, target: int) -> str:
        off = "" if 0 <= target < pages else " disabled"
        return f'<button type="button" data-page="{target}"{off}>{text}</button>'

    return (
        f'<nav class="pager" aria-label="Pages"><span role="status">{found:,} photos, page {page + 1:,} of {pages:,}'
        f"</span>{button('Previous', page - 1)}{button('Next', page + 1)}</nav>"
    )


def render_cases(searcher: Searcher, chosen: Agreements, rows: slice) -> str:
    """Photos as links to their comparison, each with the first that both models find."""
    items = chosen.items[rows].tolist()
    if not items:
        return render_note("No photo matches. Clear the name, or allow more overlap.")
    student, teacher = (searcher.search_items(items, mode, SHOWN).ids for mode in ("student", "teacher"))
    cases = [
        _case(
            item, searcher.index.items[item].name, overlap, rbo, student[row].tolist(), teacher[row].tolist()
        )
        for row, (item, overlap, rbo) in enumerate(
            zip(items, chosen.overlap[rows].tolist(), chosen.rbo[rows].tolist(), strict=True)
        )
    ]
    return f'<ul class="cases">{"".join(cases)}</ul>'


def _case(item: int, name: str, overlap: float, rbo: float, student: list[int], teacher: list[int]) -> str:
    shared = set(student) & set(teacher)
    lists = "".join(
        f"<span>{word}</span>{_strip(ids, shared)}"
        for word, ids in (("student", student), ("teacher", teacher))
    )
    label = escape(f"{name}: overlap {overlap:.0%}, RBO {rbo:.2f}. Compare.")
    return (
        f'<li><a href="?id={item}" aria-label="{label}"><img class="asked" src="{thumbnail_url(item)}" alt="" '
        f'loading="lazy"><span class="figures"><b>{overlap:.0%}</b> shared <small>RBO {rbo:.2f}</small></span>'
        f'<span class="found">{lists}</span><span class="name" title="{escape(name)}">{escape(name)}</span></a></li>'
    )


def _strip(ids: Sequence[int], shared: set[int]) -> str:
    pictures = "".join(
        f'<img class="{"both" if item in shared else "one"}" src="{thumbnail_url(item)}" alt="" loading="lazy">'
        for item in ids
        if item >= 0
    )
    return f'<span class="strip">{pictures}</span>'


def _first_folder(index: Index) -> str:
    name = index.items[0].name
    return f"{name.split('/')[0]}/" if "/" in name else name[:3]
