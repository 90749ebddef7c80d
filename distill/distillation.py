"""The whole distillation: choose images, ask the teacher, train the student, export it, write its folder."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import onnxruntime
import torch

from distill.ask import FEWEST, ask_teacher, digest_pool
from distill.backbone import create_backbone
from distill.device import keep_freed_memory, open_fabric
from distill.export import check_parity, count_parameters, export_onnx
from distill.report import write_card
from distill.selection import select_random
from distill.student import Student
from distill.targets import fit_teacher_space
from distill.train import Recipe, center_crop, stored_side, train_student
from index.embedder import Embedder, OnnxEmbedder, open_embedder
from index.errors import UsageError
from index.images import ImageFile, content_digest, find_images
from index.ledger import Ledger, default_ledger
from index.teacher_space import FILE as TEACHER_SPACE

STUDENT, RUN = "student.onnx", "run.json"


@dataclass(frozen=True)
class Options:
    """What to distil.

    Attributes:
        budget: How many images the teacher may ever be asked about.
        student: timm name of the backbone.
        weights: Where its weights come from, as in `create_backbone`.
        size: The student's input side, in pixels.
        dim: Length of the student's vectors.
        device: `auto`, `cpu` or `cuda`.
        steps: Training steps; None lets `default_steps` choose.
        seed: Of everything random.
        recipe: The rest of how to train.
    """

    budget: int = 500
    student: str = "tf_efficientnet_lite0"
    weights: str = "auto"
    size: int = 128
    dim: int = 256
    device: str = "auto"
    steps: int | None = None
    seed: int = 0
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        if self.budget < FEWEST:
            raise UsageError(f"--budget must be at least {FEWEST}, not {self.budget}.")
        if self.size < 32:
            raise UsageError(f"--size must be at least 32 pixels, not {self.size}.")
        if self.dim < 1:
            raise UsageError(f"--dim must be at least 1, not {self.dim}.")
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"--steps must be at least 1, not {self.steps}.")


@dataclass(frozen=True)
class Distilled:
    """A finished student folder and what was noted of the run."""

    folder: Path
    run: dict[str, Any]

    @property
    def summary(self) -> str:
        """One line for people."""
        run = self.run
        return (
            f"{self.folder / STUDENT}: {run['student']['parameters'] / 1e6:.2f}M parameters, "
            f"{run['export']['megabytes']} MB, trained on {run['queried']} of {run['images']} images; "
            f"{run['asked_now']} teacher queries in this run, "
            f"{run['queried'] - run['asked_now']} answers from the ledger, "
            f"{len(run['unreadable'])} images unreadable."
        )


def distill_by_name(
    sources: Sequence[Path], teacher: str, ledger: Path | None, out: Path, options: Options
) -> Distilled:
    """`distill`, with everything given by its name.

    Args:
        sources: Folders and files.
        teacher: As for `open_embedder`.
        ledger: The ledger's file; None keeps it in the user's cache folder.
        out: The student folder.
        options: What and how.

    Raises:
        RetrievalError: As `distill`, and where a source, the teacher or the ledger cannot be used.
    """
    files = find_images(sources)
    model = open_embedder(teacher, options.device)
    with Ledger(ledger or default_ledger(model.key), model.key) as paid:
        return distill(files, model, paid, out, options)


def default_steps(answers: int) -> int:
    """Training steps for so many answers: more for more, but each seen less often."""
    return max(round(300 * math.sqrt(answers / 500)), 20)


def distill(
    files: Sequence[ImageFile], teacher: Embedder, ledger: Ledger, out: Path, options: Options
) -> Distilled:
    """Distil a student and write its folder.

    Args:
        files: The pool of unlabelled images.
        teacher: Asked about at most `options.budget` of them, ever.
        ledger: Its paid answers.
        out: The student folder; its files are replaced when the student is ready.
        options: What and how.

    Raises:
        UsageError: `out`, the student's name, its weights or the device cannot be used.
        RetrievalError: The budget is spent on other images, or the teacher or the export failed.
    """
    keep_freed_memory()
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file. Give a folder as --out.")
    fabric = open_fabric(options.device)
    torch.manual_seed(options.seed)
    student = Student(create_backbone(options.student, options.weights), options.dim)

    digests = digest_pool(files)
    order = select_random(digests, ledger.known(digests), len(files), options.seed)
    answered = ask_teacher(files, digests, order, teacher, ledger, options.budget, stored_side(options.size))
    space = fit_teacher_space(answered.vectors, options.dim, options.recipe.whiten)

    recipe = replace(
        options.recipe, steps=options.steps or default_steps(len(answered.digests)), seed=options.seed
    )
    start = perf_counter()
    losses = train_student(
        student, answered.pixels, space.project(answered.vectors), options.size, recipe, fabric
    )
    seconds = perf_counter() - start

    run = {
        "images": len(files),
        "queried": len(answered.digests),
        "asked_now": answered.asked,
        "unreadable": [asdict(failure) for failure in answered.failures],
        "teacher": {"name": teacher.name, "key": teacher.key, "dim": teacher.dim},
        "student": {"weights": student.backbone.origin, "parameters": count_parameters(student)},
        "options": asdict(replace(options, recipe=recipe)),
        "training": {"seconds": round(seconds, 1), "device": str(fabric.device), "loss": losses},
        "data_digest": content_digest("".join(sorted(answered.digests)).encode()),
        "ledger_digest": ledger.digest(answered.digests),
        "versions": {
            # Asked of the module: its package has another name on a GPU.
            "onnxruntime": onnxruntime.__version__,
            **{name: version(name) for name in ("retrieval", "torch", "timm", "numpy")},
        },
    }
    out.mkdir(parents=True, exist_ok=True)
    space.save(out / TEACHER_SPACE)
    crop = options.size / stored_side(options.size)
    export_onnx(student, out / STUDENT, options.size, options.dim, _facts(run, teacher), crop)
    crops = center_crop(torch.from_numpy(answered.pixels[:64]), options.size).contiguous().numpy()
    embedder = OnnxEmbedder(out / STUDENT, "cpu")
    run["export"] = {
        "largest_difference": check_parity(student.cpu(), embedder, options.size, crops),
        "megabytes": round(len(embedder.data) / 1e6, 2),
        "key": embedder.key,
    }
    (out / RUN).write_text(json.dumps(run, indent=2) + "\n")
    write_card(out, run)
    return Distilled(out, run)


def _facts(run: dict[str, Any], teacher: Embedder) -> dict[str, str]:
    """What the ONNX file says of itself."""
    return {
        "model": run["options"]["student"],
        "weights": run["student"]["weights"],
        "teacher": f"{teacher.name} {teacher.key}",
        "budget": str(run["options"]["budget"]),
        "queried": str(run["queried"]),
        "ledger_digest": run["ledger_digest"],
        "data_digest": run["data_digest"],
    }
