"""The model card and the report of a student, as people read them."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distill.placement import CERTAIN
from distill.report.held_out import HeldOut
from index.errors import UsageError
from index.evaluation.charts import Axis, draw_line, linear_axis, log_axis
from index.evaluation.verdict import Estimate, Verdict, judge_agreement
from index.html import load
from index.images.decode import encode
from index.io import atomic_write
from index.progress import count
from index.stores.records import RUN
from index.teachers.cost import format_seconds

STRIPS = 8  # queries shown, from the worst agreement to the best
SHOWN = 6  # places of each list

CARD = load("distill/report/card.md")
PAGE = load("distill/report/report.html")


def summarise(run: dict[str, Any]) -> str:
    """Sum up what the student was made of, how well it agrees with the teacher, and what asking brought."""
    told = f"{run['queried']} of {run['images']} images asked about, no label read. {judge(run['agreement'])}"
    return f"{told} {judge_asking(run['training']['placement'], run['queried'], bool(run.get('helpers')))}"


def judge(agreement: dict[str, Any] | None) -> str:
    """Say in one line how well a student agrees with its teacher."""
    if not agreement:
        return "Not evaluated: use a larger --budget to leave some answers for checking."
    found = Estimate.read(agreement)
    return f"Held-out check, {found.count} {found.population}: {found} of the teacher's top 10 found."


def reach_verdict(run: dict[str, Any]) -> Verdict | None:
    """Say whether a run's student can stand in for its teacher; None if it was not measured."""
    return judge_agreement(Estimate.read(run["agreement"])) if run["agreement"] else None


def judge_asking(placement: dict[str, Any], answers: int, helped: bool = False) -> str:
    """Say, by `Placement.facts`, what so many answers brought above what the free network knew."""
    before, after = (100 * placement[name] for name in ("free_network", "with_answers"))
    own = f"the student's own ImageNet network{' with its helpers' if helped else ''}"
    free = f"{own} returns {before:.0f} % of the teacher's first ten"
    if not placement["trust"]:
        if not placement["chosen"]:
            return f"No answer was learnt from: for the answered photos {free}."
        return (
            f"The teacher taught it nothing: for the answered photos {free}, and {answers} answers tell no "
            "more. The student learnt from that network alone. Check the teacher, or ask about more photos."
        )
    gain, error = (100 * placement[name] for name in ("gain", "gain_error"))
    return (
        f"What asking brought: for the answered photos {free}, and {after:.0f} % with the answers of the "
        f"others ({gain:+.1f} ± {error:.1f})."
        + (" That is no gain that can be told from chance." if gain < CERTAIN * error else "")
    )


def write_report(folder: Path, runs: Sequence[dict[str, Any]], lists: HeldOut | None) -> None:
    """Write `report.html`: quality against budget, the loss, and what both models find.

    `runs` are of each budget; the last is that of the folder, and the lists are of its held-out photos.
    """
    run, charts = runs[-1], {}
    training = run["training"]
    measured = [other for other in runs if other["agreement"]]
    if len(measured) > 1:
        points = [(other["queried"], 100 * other["agreement"]["overlap@10"]) for other in measured]
        x = log_axis("teacher queries", *[[queries for queries, _ in points]] * 2)
        charts["Quality against budget"] = _draw("overlap@10 with the teacher, %", points, x, form=".1f")
    if training["agreement"]:
        points = [(step, 100 * value) for step, value in training["agreement"]]
        title = f"Agreement during training (kept: step {training['kept_step']})"
        charts[title] = _draw("overlap@10, %", points)
    loss = training["loss"]
    smooth = np.convolve(loss, np.ones(20) / 20, "valid").tolist() if len(loss) > 40 else loss
    charts["Loss"] = _draw("loss, mean of 20 steps", list(enumerate(smooth, 1)), most=1.1 * max(smooth))
    strips = []
    if lists:
        order = np.argsort(lists.agreement, kind="stable")
        chosen = order[np.linspace(0, len(order) - 1, min(STRIPS, len(order))).astype(int)]
        strips = [_strip(lists, int(row)) for row in chosen]
    name = f"{run['options']['student']}, distilled from {run['teacher']['name']}"
    page = PAGE.page(name, reach_verdict(run), summarise(run), charts, strips)
    (folder / "report.html").write_text(page, encoding="utf-8")


def _draw(
    y: str, points: list[tuple[float, float]], x: Axis | None = None, most: float = 100, form: str = ""
) -> str:
    """Draw a line, over training steps unless there is another axis."""
    steps = [step for step, _ in points]
    chart, _ = draw_line(y, points, x or linear_axis("step", steps, 0, steps[-1]), y, most, form)
    return chart


def _strip(lists: HeldOut, row: int) -> tuple[str, float, dict[str, list[tuple[str, bool]]]]:
    """Collect the images of a query and of both lists, each with whether the other list has it, too."""
    shared = set(lists.teacher[row]) & set(lists.student[row])
    found = {
        name: [(_image(lists.gallery[place]), place in shared) for place in places[:SHOWN]]
        for name, places in (("teacher", lists.teacher[row]), ("student", lists.student[row]))
    }
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
    options, training = run["options"], run["training"]
    recipe = options["recipe"]
    flat = {name: value for name, value in options.items() if name != "recipe"}
    flat |= {f"recipe {name}": value for name, value in recipe.items()}
    agreement, asking = (
        _agreement(run["agreement"]),
        judge_asking(training["placement"], run["queried"], bool(run.get("helpers"))),
    )
    shown = {"variants": [], **run}
    verdict, cost = reach_verdict(run), _cost(run["cost"])
    return CARD.card(shown, verdict, options, recipe, flat, training, agreement, asking, cost)


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


def _agreement(measured: dict[str, Any] | None) -> str:
    if not measured:
        return "not measured: a larger --budget leaves some answers for checking"
    low, high = (100 * bound for bound in measured["interval"])
    return (
        f"{100 * measured['overlap@10']:.1f} % (95 %: {low:.1f} to {high:.1f}) for {measured['held_out']} "
        f"{measured['population']}"
    )
