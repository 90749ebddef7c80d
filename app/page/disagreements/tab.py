"""The disagreements tab: what its script asks for."""

from pathlib import Path
from typing import Any

from app.page.background import Background, Progress, lower_priority
from app.page.disagreements.logic import DEPTH, Agreements, find_disagreements
from app.page.disagreements.views import HTML, render_disagreements
from app.page.kept import judged_as
from app.page.views import SAVE, SEEN, add_empty_tab, add_html, render_error
from index.errors import RetrievalError, needs
from index.search import Searcher

with needs("demo"):
    import gradio as gr

FIRST_WAIT = 0.3  # seconds: what was kept is there by then


def build_disagreements_tab(searcher: Searcher) -> None:
    """Add the tab to the page that is being laid out. It computes when it is first looked at."""

    def compute(report: Progress) -> Agreements:
        lower_priority()  # searches come first
        return find_disagreements(searcher, report)

    work = Background(compute)

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

    with gr.Tab("Disagreements", id="disagreements"):
        if "teacher" not in searcher.stored_modes:
            add_empty_tab("disagreements")
        else:
            scripts = [Path(__file__).with_name(name) for name in ("judge.js", "disagreements.js")]
            html = HTML.browser(DEPTH, judged_as(searcher.index))
            add_html(html, "disagreements", [SEEN, SAVE, *scripts], [disagreements])
