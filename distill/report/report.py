"""The model card and the report of a student, as people read them."""

import base64
import json
from collections.abc import Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distill.report.held_out import HeldOut
from distill.report.plots import draw_lines
from index.errors import UsageError
from index.teachers.cost import format_seconds

RUN = "run.json"

POOR = 0.2  # overlap@10 below which a student is no use yet
STRIPS = 8  # queries shown, from the worst agreement to the best
SHOWN = 6  # places of each list

CARD = """# {model}, distilled from {teacher}

An image embedder: uint8 RGB `(n, {size}, {size}, 3)` in, unit vectors of {dim} out. Squash a photo to the
square (bicubic); everything else is inside `student.onnx`.

| | |
|---|---|
| teacher | {teacher}, {teacher_dim}-d |
| teacher queries | {queried} of {images} images, {asked_now} of them in this run, budget {budget} |
{cost}| labels | none were read |
| start | {weights} |
| parameters | {parameters:,} |
| file | {megabytes} MB, within {difference:.1e} of the network it was exported from |
| training | {steps} steps of {batch}, {seconds} s on {device}, seed {seed} |
| loss | {first:.4f} at first, {last:.4f} at last (mean of 20 steps) |
| overlap@10 with the teacher | {agreement} |
| what asking brought | {asking} |

{variants}## Options

{options}

## Versions

{versions}

Files: `student.onnx`, `teacher_space.npz` (projects the teacher's vectors to this student's space) and
`run.json` (every option, version and digest, and the loss of every step), and `report.html` (pictures).
"""

REPORT = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --line: #8884; --both: #0f9d6b; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.1rem; margin-top: 2.5rem; }}
svg {{ max-width: 100%; height: auto; }}
@media (prefers-color-scheme: dark) {{ svg {{ filter: invert(1) hue-rotate(180deg); }} }}
.strip {{ display: grid; grid-template-columns: 6rem 1fr; gap: 1rem; padding: 1rem 0;
  border-top: 1px solid var(--line); }}
.strip img {{ width: 100%; aspect-ratio: 1; border-radius: .4rem; display: block; }}
.list {{ display: grid; grid-template-columns: 4.5rem repeat({shown}, 1fr); gap: .4rem; align-items: center;
  margin-bottom: .4rem; font-size: .8rem; }}
.both img {{ outline: 3px solid var(--both); }}
</style>
<h1>{title}</h1>
<p>{summary}</p>
{sections}
</html>
"""


def summarise(run: dict[str, Any]) -> str:
    """What the student was made of, how well it agrees with the teacher, and what asking brought."""
    told = f"{run['queried']} of {run['images']} images asked about, no label read. {judge(run['agreement'])}"
    return f"{told} {judge_asking(run['training']['placement'], run['queried'])}"


def judge(agreement: dict[str, Any] | None) -> str:
    """One line on how well a student agrees with its teacher."""
    if not agreement:
        return "Too few answers to hold any out."
    low, high = (100 * bound for bound in agreement["interval"])
    return (
        f"It returns {100 * agreement['overlap@10']:.0f} % (95 %: {low:.0f} to {high:.0f}) of the teacher's "
        f"first ten for {agreement['held_out']} {agreement['population']}."
    )


def judge_asking(placement: dict[str, Any], answers: int) -> str:
    """One line on what the answers brought above what the student's own ImageNet network knew.

    Args:
        placement: As in `Placement.facts`.
        answers: How many there were.
    """
    before, after = (100 * placement[name] for name in ("free_network", "with_answers"))
    free = f"the student's own ImageNet network returns {before:.0f} % of the teacher's first ten"
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
    )


def write_report(folder: Path, runs: Sequence[dict[str, Any]], lists: HeldOut | None) -> None:
    """Write `report.html`: quality against budget, the loss, and what both models find.

    Args:
        folder: The student folder.
        runs: What `run.json` holds, for each budget; the last is the student of the folder.
        lists: What both found for the photos held out from the last.
    """
    run = runs[-1]
    sections = []
    measured = [other for other in runs if other["agreement"]]
    if len(measured) > 1:
        points = (
            [other["queried"] for other in measured],
            [100 * other["agreement"]["overlap@10"] for other in measured],
        )
        curve = draw_lines({"student": points}, "teacher queries", "overlap@10 with the teacher, %", True)
        sections.append(f"<h2>Quality against budget</h2>{curve}")
    training = run["training"]
    if training["agreement"]:
        steps, values = zip(*training["agreement"], strict=True)
        checks = ([float(step) for step in steps], [100 * value for value in values])
        title = f"Agreement during training (kept: step {training['kept_step']})"
        sections.append(f"<h2>{title}</h2>{draw_lines({'': checks}, 'step', 'overlap@10, %')}")
    loss = training["loss"]
    smooth = np.convolve(loss, np.ones(20) / 20, "valid") if len(loss) > 40 else np.array(loss)
    line = (list(range(1, len(smooth) + 1)), smooth.tolist())
    sections.append(f"<h2>Loss</h2>{draw_lines({'': line}, 'step', 'loss, mean of 20 steps')}")
    if lists:
        order = np.argsort(lists.agreement, kind="stable")
        chosen = order[np.linspace(0, len(order) - 1, min(STRIPS, len(order))).astype(int)]
        sections.append("<h2>Photos it did not learn from, from the worst to the best</h2>")
        sections += [_strip(lists, int(row)) for row in chosen]
    name = f"{run['options']['student']}, distilled from {run['teacher']['name']}"
    page = REPORT.format(
        title=escape(name), summary=escape(summarise(run)), sections="\n".join(sections), shown=SHOWN
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def _strip(lists: HeldOut, row: int) -> str:
    shared = set(lists.teacher[row]) & set(lists.student[row])

    def line(name: str, found: NDArray[np.int64]) -> str:
        cells = "".join(
            f'<span class="{"both" if place in shared else "one"}">{_image(lists.gallery[place])}</span>'
            for place in found[:SHOWN]
        )
        return f'<div class="list"><span>{name}</span>{cells}</div>'

    agreement = f"{100 * lists.agreement[row]:.0f} % shared"
    return (
        f'<div class="strip"><figure style="margin:0">{_image(lists.queries[row])}'
        f"<figcaption>{agreement}</figcaption></figure>"
        f"<div>{line('teacher', lists.teacher[row])}{line('student', lists.student[row])}</div></div>"
    )


def _image(pixels: NDArray[np.uint8]) -> str:
    data = BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=80)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}">'


def _table(facts: dict[str, Any]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items())])


def read_run(folder: Path) -> dict[str, Any]:
    """Read what `write_run` wrote.

    Raises:
        UsageError: It is not there.
    """
    try:
        return json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} is not a student folder: {RUN} is missing or broken.") from error


def write_run(folder: Path, run: dict[str, Any]) -> None:
    """Write `run.json`, and the model card, which says the same to people.

    Args:
        folder: The student folder.
        run: What `run.json` will hold.
    """
    beside = folder / f".{RUN}.partial"
    beside.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    beside.replace(folder / RUN)
    (folder / "README.md").write_text(_card(run), encoding="utf-8")


def _card(run: dict[str, Any]) -> str:
    options, training = run["options"], run["training"]
    loss = training["loss"]
    return CARD.format(
        model=options["student"],
        teacher=run["teacher"]["name"],
        teacher_dim=run["teacher"]["dim"],
        size=options["size"],
        dim=options["dim"],
        queried=run["queried"],
        images=run["images"],
        asked_now=run["asked_now"],
        budget=options["budget"],
        cost=_cost(run.get("cost")),
        weights=run["student"]["weights"],
        parameters=run["student"]["parameters"],
        megabytes=run["export"]["megabytes"],
        difference=run["export"]["largest_difference"],
        steps=options["recipe"]["steps"],
        batch=options["recipe"]["batch"],
        seconds=training["seconds"],
        device=training["device"],
        seed=options["recipe"]["seed"],
        first=sum(loss[:20]) / len(loss[:20]),
        last=sum(loss[-20:]) / len(loss[-20:]),
        agreement=_agreement(run["agreement"]),
        asking=judge_asking(training["placement"], run["queried"]),
        variants=_variants(run.get("variants", [])),
        options=_table(
            {
                **{k: v for k, v in options.items() if k != "recipe"},
                **{f"recipe {name}": value for name, value in options["recipe"].items()},
            }
        ),
        versions=_table(run["versions"]),
    )


def _cost(cost: dict[str, Any] | None) -> str:
    if cost is None:  # of a student that was made before costs were noted
        return ""
    lines = [f"{cost['in_vain']} calls brought no answer, and count as spent"] if cost["in_vain"] else []
    lines.append(f"{format_seconds(cost['ask_seconds'])} to ask in this run")
    if cost["money"] is not None:
        lines.append(f"{cost['money']:.2f} in all, at {cost['price']:g} a thousand")
    even = [
        f"after {cost['break_even']:,} images" + (" in money" if cost["money"] is not None else " in queries")
    ]
    even.append(
        "never in time" if cost["break_even_time"] is None else f"after {cost['break_even_time']:,} in time"
    )
    return (
        f"| cost of the teacher | {'; '.join(lines)} |\n"
        f"| break-even | {', '.join(even)} that the student embeds in place of the teacher, "
        "of the gallery or to search with |\n"
    )


def _agreement(measured: dict[str, Any] | None) -> str:
    if not measured:
        return "not measured: too few answers to hold any out"
    low, high = (100 * bound for bound in measured["interval"])
    return (
        f"{100 * measured['overlap@10']:.1f} % (95 %: {low:.1f} to {high:.1f}) for {measured['held_out']} "
        f"{measured['population']}"
    )


def _variants(made: Sequence[dict[str, Any]]) -> str:
    if not made:
        return ""
    lines = [
        "| variant | MB | ms, one image | ms, each of 32 | overlap@10 with fp32 | kept |",
        "|---" * 6 + "|",
    ]
    for variant in made:
        one, many = variant["milliseconds"]
        lines.append(
            f"| {variant['name']} | {variant['megabytes']:.2f} | {one:.1f} | {many:.1f} "
            f"| {100 * variant['overlap']:.1f} | {'yes' if variant['admitted'] else 'no'} |"
        )
    return "## Variants\n\n" + "\n".join(lines) + "\n\n"
