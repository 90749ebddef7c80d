"""The report tab: what its script asks for."""

from pathlib import Path
from typing import Any

from app.page.background import Background
from app.page.report.measure import measure, measure_labels, weigh
from app.page.report.views import render_report, render_verdict, render_ways
from app.page.views import add_tab
from index.embedders.vectors_file import VectorsEmbedder
from index.evaluation.rankings import Scores
from index.search import Searcher

FIRST_WAIT = 0.3  # seconds: later looks find what the first one measured


def build_report_tab(
    searcher: Searcher, price: float | None = None, labelled: tuple[Path, Path] | None = None
) -> None:
    """Add the tab to the page that is being laid out. What it measures, it measures when first looked at.

    `price` is that of a thousand answers of the teacher, `labelled` the CSV files of labelled queries and of
    the gallery's labels.
    """
    work = Background(lambda report: measure(searcher, report))
    scores: Background[dict[str, Scores]] | None = None
    if labelled:
        scores = Background(lambda _: measure_labels(searcher, *labelled))
    run, sizes = searcher.index.read_run(), weigh(searcher)  # now: the folder may be replaced later
    # Vectors that someone else computed say nothing of the teacher's time and size.
    known = [] if isinstance(searcher.models.get("teacher"), VectorsEmbedder) else sizes
    paid = [model.name for model in searcher.models.values() if model.calls.paid]

    def report(_: dict[str, Any]) -> dict[str, Any]:
        ended = True
        for each in (work, scores):  # one after the other: times are measured
            if each is not None and ended:
                each.start()
                ended = each.wait(FIRST_WAIT)
        verdict = render_verdict(run, known, work, scores, price)
        return {
            "html": render_report(searcher.index, run, sizes, render_ways(work, paid), verdict),
            "waiting": not ended,
        }

    html = '<div class="tab"><div class="body"></div></div>'
    add_tab("Report", html, "report", ["seen.js", "report/report.js"], [report])
