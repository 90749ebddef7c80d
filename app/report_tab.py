"""The report tab: what the student cost and is worth, and how the index is."""

from collections.abc import Sequence
from html import escape
from typing import Any

from app.background import Background
from app.charts import Mark, draw_chart, linear_axis, log_axis, render_table
from app.measure import DEPTH, QUERIES, Point, measure
from app.report import Size, count_reasons, read_run, weigh
from index.bill import format_seconds
from index.errors import needs
from index.search import Searcher
from index.store import Index

with needs("demo"):
    import gradio as gr

LISTED = 200  # refused images that are listed
NO_RUN = (
    "The index does not know how its student was trained: it was made without the student's run.json. Index "
    "the images again with the student in the folder that <code>retrieval distill</code> wrote."
)


def report_tab(searcher: Searcher) -> None:
    """Add the tab to the page that is being laid out. What it measures, it measures when first looked at."""
    work = Background(lambda report: measure(searcher, report))

    def show() -> list[Any]:
        return [render_report(searcher, work), gr.Timer(active=not work.ended)]

    def open_tab() -> list[Any]:
        work.start()
        return show()

    with gr.Tab("Report", id="report") as tab:
        report = gr.HTML(elem_id="report", apply_default_css=False)
        timer = gr.Timer(0.5, active=False)
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    tab.select(open_tab, None, [report, timer], **quiet)
    timer.tick(show, None, [report, timer], **quiet)


def render_report(searcher: Searcher, work: Background[list[Point]]) -> str:
    """All sections."""
    run = read_run(searcher.index)
    paid = [model.name for model in searcher.models.values() if model.calls.paid]
    sections = {
        "Quality against budget": render_curve(run) if run else f'<p class="note">{NO_RUN}</p>',
        "Time against quality": render_ways(work, paid),
        "Size": render_sizes(weigh(searcher)),
        "Index": render_health(searcher.index),
    } | ({"Training": render_training(run)} if run else {})
    return (
        '<div class="report">'
        + "".join(f"<section><h2>{name}</h2>{body}</section>" for name, body in sections.items())
        + "</div>"
    )


def render_curve(run: dict[str, Any]) -> str:
    """Agreement with the teacher by the number of queries to it."""
    curve = run.get("curve") or []
    if len(curve) < 2:
        measured = run.get("agreement")
        one = (
            f"overlap@10 is {measured['overlap@10']:.1%} from {run['queried']:,} queries. "
            if measured
            else ""
        )
        return (
            f'<p class="note">One budget was trained: {one}<code>retrieval distill --budget 100,250,500</code> draws '
            "the curve.</p>"
        )
    queries = [point["queried"] for point in curve]
    overlap = [100 * point["overlap@10"] for point in curve]
    marks = [Mark(x, y, f"{y:.1f}") for x, y in zip(queries, overlap, strict=True)]
    axes = log_axis("teacher queries", queries, queries), linear_axis("", overlap, 0, 100)
    return (
        f"<p>Overlap@10 with the teacher, in %, on {run['agreement']['held_out']:,} photos that no student learnt "
        f"from.</p>{draw_chart('Overlap with the teacher by teacher queries', marks, *axes, joined=True)}"
        + _as_table(["teacher queries", "overlap@10, %"], [[f"{m.x:,.0f}", f"{m.y:.1f}"] for m in marks])
    )


def render_ways(work: Background[list[Point]], paid: Sequence[str]) -> str:
    """Time and agreement of every way to search, with the Pareto points filled."""
    if work.error:
        return f'<p class="note">{escape(work.error)}</p>'
    if work.result is None:
        return (
            '<div class="waiting" role="status"><label>Measuring on photos of the gallery. '
            f'<progress max="1" value="{work.done:.2f}"></progress></label></div>'
        )
    points = work.result
    marks = [Mark(p.milliseconds, 100 * p.quality, p.name, p.best) for p in points]
    axes = (
        log_axis("ms from a decoded photo to its results", [mark.x for mark in marks]),
        linear_axis("", [mark.y for mark in marks], 0, 100),
    )
    left_out = (
        f" Not shown: {escape(', '.join(paid))}, which is asked over a network or paid for." if paid else ""
    )
    rows = [
        [p.name, f"{p.milliseconds:.1f}", f"{100 * p.quality:.1f}", "yes" if p.best else "no"] for p in points
    ]
    return (
        f"<p>Overlap@{DEPTH} with the teacher, in %, on up to {QUERIES} photos of the gallery, and the time of one "
        "search, both measured here. Filled: nothing else is both faster and better.</p>"
        f"{draw_chart('Overlap with the teacher by time', marks, *axes)}{left_out}"
        + _as_table(["way to search", "ms", f"overlap@{DEPTH}, %", "Pareto"], rows)
    )


def render_sizes(sizes: Sequence[Size]) -> str:
    """What models, vectors and search indexes weigh."""
    rows = [
        [
            size.name,
            _bytes(size.model_bytes),
            _number(size.dim),
            _bytes(size.vector_bytes),
            _bytes(size.index_bytes),
        ]
        for size in sizes
    ]
    return render_table(["", "model", "dim", "a vector", "search index"], rows)


def render_health(index: Index) -> str:
    """How many images, how they are searched, how well, and what was refused."""
    manifest = index.manifest
    facts = {
        "images": f"{len(index):,}",
        "refused": f"{manifest.failed:,}",
        "made": manifest.created[:16].replace("T", " "),
    }
    spaces = [
        [{"projected": "asymmetric"}.get(name, name), space.factory, f"{space.recall:.3f}"]
        for name, space in manifest.spaces.items()
    ]
    table = render_table(["", "FAISS index", "recall@10"], spaces)
    return f"{_facts(facts)}{table}{_refused(index) if manifest.failed else ''}"


def render_training(run: dict[str, Any]) -> str:
    """What the student was made of, and by how much work."""
    options, training, cost = run["options"], run["training"], run.get("cost") or {}
    agreement = run.get("agreement")
    facts = {
        "teacher": f"{run['teacher']['name']}, {run['teacher']['dim']}-d",
        "teacher queries": f"{run['queried']:,} of {run['images']:,} photos",
        "student": f"{options['student']}, {options['dim']}-d, {run['student']['parameters'] / 1e6:.2f}M parameters",
        "start": run["student"]["weights"],
        "training": f"{len(training['loss']):,} steps in {format_seconds(training['seconds'])} on {training['device']}",
    }
    if agreement:
        facts["overlap@10"] = f"{agreement['overlap@10']:.1%} on {agreement['held_out']:,} photos held out"
    if cost.get("money") is not None:
        facts["cost"] = f"{cost['money']:.2f} at {cost['price']:g} a thousand answers"
    if cost.get("break_even_time"):
        facts["break-even"] = f"after {cost['break_even_time']:,} photos embedded, in time"
    checks = training.get("agreement") or []
    if len(checks) < 2:
        return _facts(facts)
    steps, values = [step for step, _ in checks], [100 * value for _, value in checks]
    marks = [Mark(x, y) for x, y in zip(steps, values, strict=True)]
    axes = linear_axis("step", steps, 0, steps[-1]), linear_axis("", values, 0, 100)
    kept = f"Overlap@10 while it was trained, in %; kept: step {training['kept_step']}."
    return f"{_facts(facts)}<p>{kept}</p>{draw_chart('Overlap with the teacher by training step', marks, *axes, joined=True)}"


def _refused(index: Index) -> str:
    reasons = "".join(
        f"<li><b>{count:,}</b> {escape(reason)}</li>" for reason, count in count_reasons(index)[:10]
    )
    failures = index.failures[:LISTED]
    # Names as everywhere on the page: where the folder lies is nobody's business.
    folder = index.items[0].path.removesuffix(index.items[0].name)
    listed = "".join(
        f"<li>{escape(failure.path.removeprefix(folder))}: {escape(failure.reason)}</li>"
        for failure in failures
    )
    rest = len(index.failures) - len(failures)
    more = f"<p>And {rest:,} more, in errors.parquet of the index.</p>" if rest else ""
    return (
        f'<ul class="reasons">{reasons}</ul><details><summary>List of refused images</summary>'
        f"<ol>{listed}</ol>{more}</details>"
    )


def _as_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return f"<details><summary>As a table</summary>{render_table(head, rows)}</details>"


def _facts(facts: dict[str, str]) -> str:
    return (
        "<dl>"
        + "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
        + "</dl>"
    )


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _bytes(count: int | None) -> str:
    if count is None:
        return ""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
