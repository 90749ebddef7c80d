"""The report tab: what its script asks for."""

from pathlib import Path
from typing import Any

from app.page.background import Background
from app.page.report.logic import read_run, weigh
from app.page.report.measure import measure
from app.page.report.views import render_report, render_ways
from index.errors import needs
from index.search import Searcher

with needs("demo"):
    import gradio as gr

HERE = Path(__file__).parent
SCRIPTS = (HERE.with_name("seen.js"), HERE / "report.js")
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
        gr.HTML(
            '<div class="tab"><div class="body"></div></div>',
            js_on_load="\n".join(script.read_text() for script in SCRIPTS),
            server_functions=[report],
            apply_default_css=False,
            elem_id="report",
        )
