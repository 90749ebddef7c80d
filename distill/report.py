"""The model card of a student, as people read it."""

from pathlib import Path
from typing import Any

CARD = """# {model}, distilled from {teacher}

An image embedder: uint8 RGB `(n, {size}, {size}, 3)` in, unit vectors of {dim} out. Squash a photo to the
square (bicubic); everything else is inside `student.onnx`.

| | |
|---|---|
| teacher | {teacher}, {teacher_dim}-d |
| teacher queries | {queried} of {images} images, {asked_now} of them in this run, budget {budget} |
| labels | none were read |
| start | {weights} |
| parameters | {parameters:,} |
| file | {megabytes} MB, within {difference:.1e} of the network it was exported from |
| training | {steps} steps of {batch}, {seconds} s on {device}, seed {seed} |
| loss | {first:.4f} at first, {last:.4f} at last (mean of 20 steps) |

Files: `student.onnx`, `teacher_space.npz` (projects the teacher's vectors to this student's space) and
`run.json` (every option, version and digest, and the loss of every step).
"""


def write_card(folder: Path, run: dict[str, Any]) -> None:
    """Write `README.md` into a student folder.

    Args:
        folder: The student folder.
        run: What `run.json` holds.
    """
    options, training = run["options"], run["training"]
    loss = training["loss"]
    card = CARD.format(
        model=options["student"],
        teacher=run["teacher"]["name"],
        teacher_dim=run["teacher"]["dim"],
        size=options["size"],
        dim=options["dim"],
        queried=run["queried"],
        images=run["images"],
        asked_now=run["asked_now"],
        budget=options["budget"],
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
    )
    (folder / "README.md").write_text(card)
