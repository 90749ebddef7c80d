"""Show the verdict: whether the student can stand in for its teacher, by every figure there is."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from markupsafe import Markup

from app.page.background import Background
from app.page.report.measure import Point, Size
from app.page.views import OTHER_VERSION, render_note
from index.evaluation.charts import render_table
from index.evaluation.rankings import Scores
from index.evaluation.verdict import Estimate, judge_agreement, judge_labels, tell_score
from index.html import load

HTML = load("app/page/report/verdict.html")


def render_verdict(
    run: Mapping[str, Any] | None,
    sizes: Sequence[Size],
    ways: Background[list[Point]],
    labelled: Background[dict[str, Scores]] | None,
    price: float | None,
) -> str:
    """Show one sentence, the figures that it rests on, and what a number of searches takes and costs.

    Labels come first, then photos that training did not see, then those of the gallery. `sizes` is empty
    where the teacher's time and size are not known.
    """
    points = {point.name: point for point in ways.result or ()}
    found = [points["student"].agreement] if "student" in points else []
    with suppress(*OTHER_VERSION):
        found.insert(0, Estimate.read((run or {})["agreement"]))
    scores = (labelled and labelled.result) or {}
    if {"student", "teacher"} <= scores.keys():
        verdict = judge_labels(scores)
    elif found:
        verdict = judge_agreement(found[0])
    else:
        return render_note(ways.error) if ways.error else HTML.waiting()
    timed = bool(sizes) and {"student", "teacher"} <= points.keys()
    told = [HTML.sentence(verdict.kind, str(verdict), _compare(points, sizes) if timed else "")]
    if labelled and not labelled.ended:
        told.append(HTML.waiting())
    if labelled and labelled.error:
        told.append(render_note(labelled.error))
    if scores:
        rows = [
            [mode, tell_score(row, "mAP"), tell_score(row, "R@1"), f"{row['queries']:,.0f}"]
            for mode, row in scores.items()
        ]
        told.append(render_table(["on your labels", "mAP, %", "R@1, %", "queries"], rows))
    if found:
        rows = [
            [each.population, f"{each.count:,}", f"{each.among:,}" if each.among else "-", str(each)]
            for each in found
        ]
        told.append(render_table(["the teacher's top 10", "photos", "among", "found"], rows))
    if timed:
        times = [points[name].milliseconds for name in ("student", "teacher")]
        told.append(HTML.volume(times, (run or {}).get("queried"), price))
    return Markup().join(told)


def _compare(points: Mapping[str, Point], sizes: Sequence[Size]) -> str:
    """Say how many times faster and smaller the student is, as far as that is known."""
    times = points["teacher"].milliseconds / points["student"].milliseconds
    told = [f"{times:.2g} times as fast" if times >= 1 else f"{1 / times:.2g} times slower"]
    files = {size.name: size.model for size in sizes}
    if files.get("student") and files.get("teacher"):
        told.append(f"{files['teacher'] / files['student']:.2g} times smaller")  # type: ignore[operator]
    return f"It is {' and '.join(told)}."
