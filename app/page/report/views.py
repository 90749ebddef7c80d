"""Show the report: whether the student can stand in for its teacher, what it cost, and how the index is."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from app.page.background import Background
from app.page.report.measure import DEPTH, QUERIES, Point, Size
from app.page.views import OTHER_VERSION, format_bytes, format_length, render_note
from distill.report.report import draw_checks, draw_curve
from index.errors import needs
from index.evaluation.charts import Mark, draw_chart, linear_axis, log_axis, render_table
from index.evaluation.rankings import Scores
from index.evaluation.verdict import Estimate, judge_agreement, judge_labels, tell_score
from index.html import load
from index.stores.base import Store
from index.teachers.cost import format_seconds

with needs("demo"):
    from markupsafe import Markup

LISTED = 200  # refused images that are listed
OVERLAP = f"overlap@{DEPTH}, %"
MODE_OF = {"projected": "asymmetric"}  # the way to search that a space is for, where the names differ
HTML = load("app/page/report/report.html")


def render_report(
    index: Store, run: dict[str, Any] | None, sizes: Sequence[Size], ways: str, verdict: str
) -> str:
    """Show all sections: `run` is what is known of the student's training, the rest what others rendered."""
    sections = {
        "Verdict": verdict,
        "Quality against cost": _render_run(render_curve, run) if run else HTML.no_run(),
        "Time against quality": ways,
        "Size": render_sizes(sizes),
        "Index": render_health(index),
        **({"Training": _render_run(render_training, run)} if run else {}),
    }
    return HTML.sheets(sections)


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


def render_curve(run: dict[str, Any]) -> str:
    """Show agreement with the teacher by the number of queries to it, or by the time of an image."""
    curve = run.get("curve") or []
    if len(curve) < 2:
        return HTML.one_student()
    found = Estimate.read(run["agreement"])
    return HTML.curve(found.count, found.population, *draw_curve(curve))


def render_ways(work: Background[list[Point]], paid: Sequence[str]) -> str:
    """Show time and agreement of all ways to search, Pareto points filled, but for models that are `paid`."""
    if work.error:
        return render_note(work.error)
    if work.result is None:
        return HTML.measuring(work.done)
    points = work.result
    marks = [Mark(p.milliseconds, 100 * p.agreement.mean, p.name, p.best) for p in points]
    x = log_axis("ms, from a decoded photo to its results", [mark.x for mark in marks])
    y = linear_axis(OVERLAP, [mark.y for mark in marks], 0, 100)
    rows = [
        [m.label, f"{m.x:.1f}", f"{m.y:.1f}", _interval(p.agreement), "yes" * p.best]
        for m, p in zip(marks, points, strict=True)
    ]
    chart = draw_chart("Agreement with the teacher by time of a search", marks, x, y)
    return HTML.ways(QUERIES, paid, chart, (["way to search", "ms", y.name, "95 %", "Pareto"], rows))


def render_sizes(sizes: Sequence[Size]) -> str:
    """Show what models, vectors and search indexes weigh."""
    rows = [
        [
            MODE_OF.get(size.name, size.name),
            format_bytes(size.model),
            format_length(size.space) if size.space else "-",
            format_bytes(size.space.vector_bytes if size.space else None),
            format_bytes(size.search),
        ]
        for size in sizes
    ]
    return render_table(["", "model", "length", "a vector", "index"], rows)


def render_health(index: Store) -> str:
    """Show how many images there are, how they are searched and how well, and what was refused."""
    manifest = index.manifest
    facts = {
        "Images": f"{len(index):,}",
        "Refused": f"{len(index.failures):,}{' in the last run here' if index.remote else ''}",
        "Made": f"{manifest.created[:16].replace('T', ' ')} UTC",
        **index.engine,
    }
    spaces = [
        [MODE_OF.get(name, name), space.factory, f"{space.recall:.3f}"]
        for name, space in manifest.spaces.items()
    ]
    table = render_table(["", "type of index", "recall@10"], spaces)
    return HTML.facts(facts) + table + (_render_refused(index) if index.failures else "")


def render_training(run: dict[str, Any]) -> str:
    """Show what the student was made of, and by how much work."""
    options, training, student = run["options"], run["training"], run["student"]
    steps, seconds = len(training["loss"]), format_seconds(training["seconds"])
    teacher = run["teacher"]
    facts = {
        "Teacher": f"{teacher['name']}, {teacher['dim']:,} dimensions{teacher.get('remarks', '')}",
        "Asked about": f"{run['queried']:,} of {run['images']:,} photos",
        "Student": f"{options['student']}, {options['dim']:,} dimensions",
        "Parameters": f"{student['parameters'] / 1e6:.2f} million",
        "Start": student["weights"],
        "Work": f"{steps:,} steps in {seconds} on {training['device']}",
    }
    cost = run.get("cost") or {}
    if cost.get("money") is not None:
        facts["Paid"] = f"{cost['money']:.2f} at {cost['price']:g} a thousand answers"
    if cost.get("break_even_time"):
        facts["Faster overall"] = f"after {cost['break_even_time']:,} photos, training included"
    if measured := run.get("agreement"):
        found = Estimate.read(measured)
        facts["Overlap@10"] = (
            f"{found.mean:.1%} (95 %: {_interval(found)}) on {found.count:,} {found.population}"
        )
    checks, kept = training.get("agreement") or [], training["kept_step"]
    if len(checks) < 2:
        return HTML.facts(facts)
    return HTML.facts(facts) + HTML.checks(kept, *draw_checks(checks, checks[-1][0], measured, kept))


def _compare(points: Mapping[str, Point], sizes: Sequence[Size]) -> str:
    """Say how many times faster and smaller the student is, as far as that is known."""
    times = points["teacher"].milliseconds / points["student"].milliseconds
    told = [f"{times:.2g} times as fast" if times >= 1 else f"{1 / times:.2g} times slower"]
    files = {size.name: size.model for size in sizes}
    if files.get("student") and files.get("teacher"):
        told.append(f"{files['teacher'] / files['student']:.2g} times smaller")  # type: ignore[operator]
    return f"It is {' and '.join(told)}."


def _render_run(render: Callable[[dict[str, Any]], str], run: dict[str, Any]) -> str:
    """Render a run, which may come from elsewhere or from another version."""
    try:
        return render(run)
    except OTHER_VERSION:
        return render_note("The run.json of this index is not as this version writes it.")


def _interval(found: Estimate) -> str:
    return f"{100 * found.low:.0f} to {100 * found.high:.0f}"


def _render_refused(index: Store) -> str:
    # Names as everywhere on the page: where the folder lies is nobody's business.
    folder = index.items[0].path.removesuffix(index.items[0].name)

    def shown(path: str) -> str:
        return path.removeprefix(folder) if path.startswith(folder) else path.rsplit("/", 1)[-1]

    listed = [(shown(failure.path), failure.reason) for failure in index.failures[:LISTED]]
    reasons = Counter(failure.reason for failure in index.failures).most_common()
    return HTML.refused(reasons, listed, len(index.failures) - LISTED)
