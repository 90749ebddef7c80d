"""The report tab: what its script asks for."""

from pathlib import Path
from typing import Any

from app.page.background import Background
from app.page.report.logic import read_run, weigh
from app.page.report.measure import measure
from app.page.report.views import render_report, render_ways
from app.page.views import SEEN, add_html
from index.errors import needs
from index.search import Searcher

with needs("demo"):
    import gradio as gr

FIRST_WAIT = 0.3  # seconds: later looks find what the first one measured


def build_report_tab(searcher: Searcher) -> None:
    """Add the tab to the page that is being laid out. What it measures, it measures when first looked at."""
    work = Background(lambda report: measure(searcher, report))
    run, sizes = read_run(searcher.index), weigh(searcher)  # now: the folder may be replaced later
    paid = [model.name for model in searcher.models.values() if model.calls.paid]

    def report(_: dict[str, Any]) -> dict[str, Any]:
        work.start()
        waiting = not work.wait(FIRST_WAIT)
        return {
            "html": render_report(searcher.index, run, sizes, render_ways(work, paid)),
            "waiting": waiting,
        }

    with gr.Tab("Report", id="report"):
        script = Path(__file__).with_name("report.js")
        add_html('<div class="tab"><div class="body"></div></div>', "report", [SEEN, script], [report])
