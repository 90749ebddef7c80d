"""The disagreements tab: how often student and teacher agree how far, and the photos, the worst first."""

from functools import partial
from typing import Any

import numpy as np

from app.page.background import Background
from app.page.disagreements.logic import DEPTH, Agreements, find_disagreements
from app.page.kept import judged_as
from app.page.views import GALLERY, NO_TEACHER, add_tab, render_error, render_note
from index.errors import RetrievalError
from index.evaluation.verdict import Estimate
from index.html import load
from index.search import Searcher
from index.stores.base import Store

FIRST_WAIT = 0.3  # seconds: what was kept is there by then
PER_PAGE = 12
SHOWN = 5  # places of each list
HTML = load("app/page/disagreements/disagreements.html")


def build_disagreements_tab(searcher: Searcher) -> None:
    """Add the tab to the page that is being laid out. It computes when it is first looked at."""
    work = Background(partial(find_disagreements, searcher), polite=True)  # searches come first

    def disagreements(asked: dict[str, Any]) -> dict[str, Any]:
        work.start()
        if not work.wait(FIRST_WAIT):
            return {"html": HTML.progress(work.done), "waiting": True}
        if work.result is None:
            return {"html": render_error(work.error)}
        try:
            prefix, most, page = str(asked["prefix"]).strip(), float(asked["most"]) / 100, int(asked["page"])
        except (KeyError, TypeError, ValueError, OverflowError):
            return {"html": render_error("This cannot be read. Open the page again.")}
        try:
            return {"html": render_disagreements(searcher, work.result, prefix, most, page)}
        except RetrievalError as reason:
            return {"html": render_error(str(reason))}

    if "teacher" not in searcher.stored_modes:
        add_tab("Disagreements", NO_TEACHER, "disagreements")
    else:
        scripts = "seen.js", "save.js", "disagreements/judge.js", "disagreements/disagreements.js"
        html = HTML.browser(DEPTH, judged_as(searcher.index))
        add_tab("Disagreements", html, "disagreements", scripts, [disagreements])


def render_disagreements(searcher: Searcher, every: Agreements, prefix: str, most: float, page: int) -> str:
    """Show the page, or the nearest there is, of photos with an overlap up to `most`, the worst first."""
    items = searcher.index.items
    chosen = every.select([items[item].name for item in every.items], prefix, most)
    pages = max(-(-len(chosen) // PER_PAGE), 1)
    page = min(max(page, 0), pages - 1)
    part = slice(page * PER_PAGE, (page + 1) * PER_PAGE)
    shown = Agreements(chosen.items[part], chosen.overlap[part], chosen.rbo[part])
    none = render_note("No photo matches. Clear the name, or allow more overlap.")
    cases = render_cases(searcher, shown) if len(shown) else none
    return render_spread(every, searcher.index) + HTML.pager(len(chosen), page, pages) + cases


def render_spread(every: Agreements, index: Store) -> str:
    """Show the means, and how often each overlap occurs."""
    counts = np.bincount(np.rint(every.overlap * DEPTH).astype(int), minlength=DEPTH + 1).tolist()
    bars = [(100 * place // DEPTH, count) for place, count in enumerate(counts)]
    found = Estimate.measure(every.overlap, GALLERY)
    return HTML.spread(found, every.rbo.mean(), len(index), bars, max(counts), DEPTH)


def render_cases(searcher: Searcher, shown: Agreements) -> str:
    """Show photos as links to their comparison, each with the first that both models find."""
    asked, items = shown.items.tolist(), searcher.index.items
    found = (searcher.search_items(asked, mode, SHOWN).ids for mode in ("student", "teacher"))
    lists = [[[items[hit].digest for hit in row if hit >= 0] for row in ids] for ids in found]
    rows = zip((items[item] for item in asked), shown.overlap, shown.rbo, *lists, strict=True)
    return HTML.cases(rows)
