"""The model card and the report of a student, as people read them."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distill.report.held_out import HeldOut
from distill.targets.placement import CERTAIN
from index.errors import UsageError
from index.evaluation.charts import Mark, draw_line, linear_axis, log_axis
from index.evaluation.verdict import Estimate, judge_agreement
from index.html import load
from index.images.decode import encode
from index.io import atomic_write
from index.progress import count
from index.stores.records import RUN
from index.teachers.cost import format_seconds

FEW = 20  # answers that tell nothing of a teacher
STRIPS = 8  # queries shown, from the worst agreement to the best
SHOWN = 6  # places of each list
OVERLAP = "overlap@10 with the teacher, %"
LEVELS = ("start", "ceiling")  # what agreement is compared with

CARD = load("distill/report/card.md")
PAGE = load("distill/report/report.html")


def judge(agreement: dict[str, Any] | None) -> str:
    """Say in one line how well a student agrees with its teacher."""
    if not agreement:
        return "Not evaluated: use a larger --budget to leave some answers for checking."
    found = Estimate.read(agreement)
    return f"Held-out check, {found.count} {found.population}: {found} of the teacher's top 10 found."


def judge_teaching(run: dict[str, Any]) -> str:
    """Say what the answers of a run brought; vectors that `judge` wrote are no answers of a ranker."""
    if run["teacher"].get("ranker"):
        return (
            "All of this compares the student with the vectors that it was taught, not with the ranker. "
            "`retrieval judge` said how well these order photos as the ranker does."
        )
    return judge_asking(run["training"]["placement"], run["queried"], bool(run.get("helpers")))


def judge_asking(placement: dict[str, Any], answers: int, helped: bool = False) -> str:
    """Say, by `Placement.facts`, what so many answers brought above what the free network knew."""
    before, after = (100 * placement[name] for name in ("free_network", "with_answers"))
    own = f"the student's own ImageNet network{' with its helpers' if helped else ''}"
    free = f"{own} returns {before:.0f} % of the teacher's first ten"
    if not placement["trust"]:
        if not placement["chosen"]:
            return f"No answer was learnt from: for the answered photos {free}."
        if answers < FEW:
            return (
                f"{answers} answers are too few to tell what the teacher knows: the student learnt from its "
                "own ImageNet network alone. Give more photos, or a larger --budget."
            )
        if placement["explained"] > 0:
            return (
                f"Nothing was learnt from the answers: for the answered photos {free}, and {answers} answers "
                "tell no more for certain. The student learnt from that network alone. Ask about more photos "
                "(--budget), or a teacher that knows more about them."
            )
        return (
            f"The teacher taught it nothing: for the answered photos {free}, and {answers} answers tell no "
            "more. The student learnt from that network alone. Check the teacher, or ask about more photos."
        )
    gain, error = (100 * placement[name] for name in ("gain", "gain_error"))
    told = [
        f"What asking brought: for the answered photos {free}, and {after:.0f} % with the answers of the "
        f"others ({gain:+.1f}; 95 %: {gain - 1.96 * error:+.1f} to {gain + 1.96 * error:+.1f})."
    ]
    if abs(gain) < CERTAIN * error:
        told.append("That is no gain that can be told from chance.")
    if gain < -CERTAIN * error:
        told.append("By themselves the answers make lists worse.")
    if placement.get("averaged"):
        told.append("Averaging predictions with their neighbours brings them nearer still.")
    return " ".join(told)


def write_report(folder: Path, runs: Sequence[dict[str, Any]], lists: HeldOut | None) -> None:
    """Write `report.html`: quality against budget, the teacher beside the student, what both find.

    `runs` are of each student of a curve; the last is that of the folder, and the lists are of what it held
    out.
    """
    run, training, charts = runs[-1], runs[-1]["training"], {}
    measured = [{**point_of(other), **other["agreement"]} for other in runs if other["agreement"]]
    if len(measured) > 1:
        charts["Quality against cost"] = draw_curve(measured)[0]
    loss, checks, kept = (training[name] for name in ("loss", "agreement", "kept_step"))
    charts |= draw_training(loss, checks, len(loss), run["agreement"], kept)
    strips = []
    if lists:
        order = np.argsort(lists.agreement, kind="stable")
        chosen = order[np.linspace(0, len(order) - 1, min(STRIPS, len(order))).astype(int)]
        strips = [draw_strip(lists, int(row), disputed_first=True) for row in chosen]
    page = PAGE.page(run, compare(run), charts, kept, strips, **_tell(run))
    (folder / "report.html").write_text(page, encoding="utf-8")


def point_of(run: Mapping[str, Any]) -> dict[str, float]:
    """Say where a run stands on a curve: its queries, and its milliseconds an image."""
    return {"queried": run["queried"], "ms": 1000 * run["cost"]["student_seconds"]}


def draw_curve(measured: Sequence[Mapping[str, Any]]) -> tuple[str, Any]:
    """Draw agreement by the number of queries or, where that is the same for all, by time.

    Each has its `point_of` with its `HeldOut.facts`. Return a chart and its figures.
    """
    by_time = len({facts["queried"] for facts in measured}) == 1
    placed = {float(facts["ms" if by_time else "queried"]): facts for facts in measured}
    values = {x: 100 * facts["overlap@10"] for x, facts in placed.items()}
    marks = [Mark(x, y, f"{y:.1f}", interval=_interval_of(placed[x])) for x, y in values.items()]
    title = f"Agreement with the teacher by {'milliseconds' if by_time else 'teacher queries'}"
    at = [*placed]
    x = log_axis("ms an image", at) if by_time else log_axis("teacher queries", at, at)
    return draw_line(title, marks, x, OVERLAP, 100, levels_of(measured[-1]))


def draw_training(
    losses: Sequence[float],
    checks: Sequence[Sequence[float]],
    steps: int,
    facts: Mapping[str, Any] | None = None,
    kept: int | None = None,
) -> dict[str, str]:
    """Draw the course of a training of so many steps, as far as it has come: charts by their titles.

    `checks` are steps with their agreement; `facts`, those of `HeldOut`, are of the step that was kept, or of
    the last check.
    """
    charts = {}
    if checks:
        title = "Agreement during training" + ("" if kept is None else f" (kept: step {kept})")
        charts[title], _ = draw_checks(checks, steps, facts, checks[-1][0] if kept is None else kept)
    width = _width(steps)
    if len(losses) >= width:
        smooth = np.convolve(losses, np.ones(width) / width, "valid").tolist()
        marks = [Mark(step, value) for step, value in enumerate(smooth, width)]
        x = linear_axis("step", [0, steps], 0, steps)
        name = f"loss, mean of {width} steps" if width > 1 else "loss"
        charts["Loss"], _ = draw_line("Loss", marks, x, name, 1.1 * max(smooth))
    return charts


def _width(steps: int) -> int:
    """Choose over how many steps losses are averaged."""
    return min(20, max(steps // 10, 1))


def draw_checks(
    checks: Sequence[Sequence[float]], steps: int, facts: Mapping[str, Any] | None, at: float
) -> tuple[str, Any]:
    """Draw agreement by step, with the interval of one of the steps: a chart and its figures."""
    bounds = _interval_of(facts or {})
    marks = [Mark(step, 100 * value, interval=bounds if step == at else None) for step, value in checks]
    x, title = linear_axis("step", [0, steps], 0, steps), "Agreement with the teacher by training step"
    return draw_line(title, marks, x, OVERLAP, 100, levels_of(facts))


def levels_of(facts: Mapping[str, Any] | None) -> dict[str, float]:
    """Name what agreement is to be compared with, in %, as far as `HeldOut.facts` know it."""
    return {name: 100 * facts[name] for name in LEVELS if facts and facts.get(name) is not None}


def _interval_of(facts: Mapping[str, Any]) -> tuple[float, float] | None:
    interval = facts.get("interval")
    return (100 * interval[0], 100 * interval[1]) if interval else None


def compare(run: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Compare teacher and student, as far as they are known: head and rows of a table."""
    teacher, cost = run["teacher"], run["cost"]
    theirs = cost["teacher_seconds"]
    rows = [
        ["dimensions", f"{teacher['dim']:,}", f"{run['options']['dim']:,}", ""],
        _row("MB", teacher["megabytes"], run["export"]["megabytes"], "smaller"),
        _row("ms an image", theirs and 1000 * theirs, 1000 * cost["student_seconds"], "faster"),
    ]
    if cost["price"] is not None:
        rows.append(["price of a thousand", f"{cost['price']:,.2f}", "0", ""])
    return ["", "teacher", "student", ""], rows


def _row(what: str, teacher: float | None, student: float, better: str) -> list[str]:
    times = teacher / student if teacher and student else 0.0
    told = f"{times:,.{0 if times >= 10 else 1}f} times {better}" if times > 1 else ""
    return [what, f"{teacher:,.1f}" if teacher else "not known", f"{student:,.1f}", told]


def draw_strip(
    lists: HeldOut, row: int, disputed_first: bool = False
) -> tuple[str, float, dict[str, list[tuple[str, bool, int, int]]]]:
    """Collect what a query finds with either model: its picture, the agreement, and the first of each list.

    An entry has its picture, whether both lists have it, its rank from 1 and its place in the gallery.
    """
    shared = set(lists.teacher[row]) & set(lists.student[row])
    found = {}
    for name, places in (("teacher", lists.teacher[row]), ("student", lists.student[row])):
        ranked = [(int(place), rank, place in shared) for rank, place in enumerate(places, 1)]
        ranked = sorted(ranked, key=lambda each: each[2]) if disputed_first else ranked
        found[name] = [
            (_image(lists.gallery[place]), both, rank, place) for place, rank, both in ranked[:SHOWN]
        ]
    return _image(lists.queries[row]), float(lists.agreement[row]), found


def _image(pixels: NDArray[np.uint8]) -> str:
    """Write an image as a data URL."""
    data = encode(Image.fromarray(pixels), "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def read_run(folder: Path) -> dict[str, Any]:
    """Read what `write_run` wrote; raises UsageError if it is not there, or an early version wrote it."""
    try:
        run = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} is not a student folder: {RUN} is missing or broken.") from error
    try:
        run["cost"].setdefault("failed_calls", 0)
        _card({**run, "variants": []})
    except Exception as error:  # a template complains in ways of its own
        raise UsageError(
            f"{folder / RUN} lacks something ({' '.join(str(error).split())}): an earlier version wrote it. "
            "Distil again: the ledger has the answers."
        ) from error
    return run


def write_run(folder: Path, run: dict[str, Any]) -> None:
    """Write `run.json`, and the model card, which says the same to people."""
    with atomic_write(folder / RUN) as beside:
        beside.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_card(run), encoding="utf-8")


def _card(run: dict[str, Any]) -> str:
    losses = run["training"]["loss"]
    width = _width(len(losses))
    first, last = (f"{np.mean(some):.4f}" for some in (losses[:width], losses[-width:]))
    loss = f"{first} at first, {last} at last (mean of {count(width, 'step')})"
    return CARD.card({"variants": [], **run}, loss, **_tell(run))


def _tell(run: dict[str, Any]) -> dict[str, Any]:
    """What the card and the report both say, by the names that their templates give it."""
    options = {name: value for name, value in run["options"].items() if name != "recipe"}
    options |= {f"recipe {name}": value for name, value in run["options"]["recipe"].items()}
    return {
        "verdict": judge_agreement(Estimate.read(run["agreement"])) if run["agreement"] else None,
        "agreement": judge(run["agreement"]),
        "asking": judge_teaching(run),
        "cost": _cost(run["cost"]),
        "options": options,
    }


def _cost(cost: dict[str, Any]) -> dict[str, str]:
    lost = cost["failed_calls"]
    lines = [f"{count(lost, 'failed call')}, counted as spent"] if lost else []
    lines.append(f"{format_seconds(cost['ask_seconds'])} to ask in this run")
    if cost["money"] is not None:
        lines.append(f"{cost['money']:.2f} in all, at {cost['price']:g} a thousand")
    kind, slow = "in money" if cost["money"] is not None else "in queries", cost["break_even_time"]
    faster = "never faster overall" if slow is None else f"faster overall after {slow:,} (training included)"
    even = f"cheaper after {cost['break_even']:,} images, {kind}; {faster}"
    return {"cost of the teacher": "; ".join(lines), "break-even": even}
