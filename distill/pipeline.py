"""The whole distillation: choose images, ask the teacher, train the student, export it, write its folder."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from safetensors.torch import save

from distill.ask import FEWEST, Pool, TeacherAnswers, consult, survey_pool
from distill.examples import MOST, Examples, PoolFeatures, gather, hold_out
from distill.former import Former
from distill.model.backbone import Backbone, create_backbone
from distill.model.codes import append_codes, check_bits
from distill.model.export import check_parity, count_parameters, export_onnx
from distill.model.quantize import (
    CALIBRATION,
    GATE,
    check_enough,
    check_variants,
    make_variants,
    remove_variants,
)
from distill.model.student import Student
from distill.model.trial import try_out
from distill.placement import Placement, place
from distill.report.cost import reckon, seconds_per_image
from distill.report.held_out import POOL_PHOTOS, QUERY_PHOTOS, HeldOut, search_again, search_with_teacher
from distill.report.report import count, judge, judge_asking, write_report, write_run
from distill.selection import SELECTIONS
from distill.training.checkpoint import Checkpoint, Progress
from distill.training.device import keep_freed_memory, open_fabric
from distill.training.distributed import on_first
from distill.training.loop import train_student
from distill.training.recipes import Recipe, steps_for
from distill.training.views import center_crop, stored_side
from index.embedders.base import Embedder, embed_many
from index.embedders.onnx import OnnxEmbedder
from index.embedders.taught import FILE as TAUGHT
from index.embedders.taught import Taught
from index.embedders.teacher_space import FILE as TEACHER_SPACE
from index.errors import UsageError
from index.images.file import ImageFile
from index.images.sources import find_images
from index.io import content_digest
from index.teachers.ledger import Ledger

STUDENT, WEIGHTS = "student.onnx", "student.safetensors"
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Options:
    """What to distil.

    Attributes:
        budget: How many images the teacher may ever be asked about.
        student: timm name of the backbone.
        weights: Where its weights come from, as in `create_backbone`.
        size: The student's input side, in pixels.
        dim: Length of the student's vectors.
        select: Which images the teacher is asked about, as in `order_by_worth`.
        stages: Stages of the backbone to keep; None keeps those with a map of at least 1/16 of the image.
        device: `auto`, `cpu` or `cuda`.
        bits: Of the codes that the student answers with beside its vectors; 0 for none.
        variants: Smaller files to make of the student, as in `make_variants`.
        steps: Training steps; None lets `steps_for` choose.
        seed: Random seed.
        price: What a thousand answers of the teacher cost, if it is known.
        recipe: The rest of how to train.
        queries: Photos like those that will be searched with, as for `find_images`. Agreement is measured on
            some of them, and decides, in place of photos of the pool.
        exclude: Names that are left out of the pool, as for `find_images`.
    """

    budget: int = 500
    student: str = "tf_efficientnet_lite0"
    weights: str = "auto"
    size: int = 128
    dim: int = 256
    select: str = "kmeans"
    stages: int | None = None
    device: str = "auto"
    bits: int = 0
    variants: tuple[str, ...] = ()
    steps: int | None = None
    seed: int = 0
    price: float | None = None
    recipe: Recipe = field(default_factory=Recipe)
    queries: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.budget < FEWEST:
            raise UsageError(f"--budget must be at least {FEWEST}, not {self.budget}.")
        if self.size < 32:
            raise UsageError(f"--size must be at least 32 pixels, not {self.size}.")
        if self.dim < 1:
            raise UsageError(f"--dim must be at least 1, not {self.dim}.")
        if self.select not in SELECTIONS:
            raise UsageError(f"--select must be one of {', '.join(SELECTIONS)}, not {self.select!r}.")
        check_variants(self.variants)
        check_bits(self.bits, self.dim)
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"--steps must be at least 1, not {self.steps}.")
        if self.price is not None and not 0 <= self.price < math.inf:
            raise UsageError(f"--price must be 0 or more, not {self.price}.")


@dataclass(frozen=True)
class Distilled:
    """A finished student folder, the notes of its run, and what was seen on the way.

    Attributes:
        folder: The student folder.
        run: What its run.json holds.
        lists: What both models found for held-out images, if any were held out.
        survey: What was seen of the pool.
    """

    folder: Path
    run: dict[str, Any]
    lists: HeldOut | None
    survey: Pool

    @property
    def summary(self) -> str:
        """What was made and how good it is; empty in all processes but the first, which writes the folder."""
        run = self.run
        if "export" not in run:
            return ""
        return (
            f"{self.folder / STUDENT}: {run['student']['parameters'] / 1e6:.2f}M parameters, "
            f"{run['export']['megabytes']} MB, trained on {run['queried']} of {run['images']} images; "
            f"{run['asked_now']} teacher queries in this run, "
            f"{run['queried'] + run['query_photos'] - run['asked_now']} answers from the ledger, "
            f"{count(run['cost']['failed_calls'], 'failed call')}, "
            f"{count(len(run['unreadable']), 'image')} skipped.\n"
            f"Teacher {run['teacher']['name']}: vectors of {run['teacher']['dim']} numbers"
            f"{run['teacher']['remarks']}.\n{judge(run['agreement'])}\n"
            f"{judge_asking(run['training']['placement'], run['queried'])}"
        )


def distill(
    files: Sequence[ImageFile],
    teacher: Embedder,
    ledger: Ledger,
    out: Path,
    options: Options,
    survey: Pool | None = None,
    consulted: TeacherAnswers | None = None,
    fabric: Fabric | None = None,
    former: Former | None = None,
) -> Distilled:
    """Distil a student and write its folder.

    Args:
        files: The pool of unlabelled images.
        teacher: Asked about at most `options.budget` of them, ever.
        ledger: Its paid answers.
        out: The student folder; its files are replaced when the student is ready.
        options: What and how.
        survey: What an earlier run of the same files, student, size and seed saw of them.
        consulted: The answers to learn from, if they were collected before.
        fabric: Where; None takes the device and the processes there are.
        former: The student that it takes the place of, if there is one.

    Raises:
        UsageError: `out`, the student's name, its weights or the device cannot be used.
        RetrievalError: The budget is spent on other images, or the teacher or the export failed.
    """
    keep_freed_memory()
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file. Give a folder as --out.")
    _require_enough(len(files), options)
    fabric = fabric or open_fabric(options.device)
    backbone = open_backbone(options)
    side = stored_side(options.size)

    def prepare() -> tuple[Pool, TeacherAnswers, dict[str, Any]]:
        if not consulted:
            try_out(options.student, options.size, options.dim, options.stages, options.device)
        seen = survey or survey_pool(
            files, teacher, ledger, backbone, fabric, side, max(options.budget, MOST), options.seed
        )
        answered = consulted or consult(
            seen,
            teacher,
            ledger,
            options.budget,
            options.select,
            options.seed,
            find_images(options.queries) if options.queries else (),
        )
        return seen, answered, _describe(files, seen, answered, teacher, ledger, options)

    seen, answered, run = on_first(fabric, prepare)
    run["former"] = former and former.key
    looked = seen.looked
    rows = np.searchsorted(seen.digests, answered.digests)
    checkpoint = Checkpoint(out / CHECKPOINT, content_digest(json.dumps(run).encode()))
    fitted = fit_student(looked, rows, answered, backbone, options, fabric, checkpoint, former)
    if not fabric.is_global_zero:
        return Distilled(out, run, None, seen)
    student, done = fitted.student, fitted.done
    run["asked_now"] = answered.asked
    run["options"]["recipe"] = asdict(fitted.recipe)
    run["student"] = {"weights": backbone.origin, "parameters": count_parameters(student)}
    run["training"] = {
        "seconds": round(fitted.seconds, 1),
        "device": str(fabric.device),
        "images_without_answer": len(fitted.examples.targets) - fitted.examples.answered,
        "held_out": len(answered.digests) - fitted.examples.answered,
        "placement": fitted.placement.facts,
        "agreement": done.agreement,
        "kept_step": done.kept,
        "loss": done.losses,
    }

    out.mkdir(parents=True, exist_ok=True)
    fitted.placement.space.save(out / TEACHER_SPACE)
    crop = options.size / side
    remove_variants(out / STUDENT)
    (out / WEIGHTS).write_bytes(save(student.cpu().state_dict()))
    export_onnx(student, out / STUDENT, options.size, options.dim, _facts(run, teacher), crop)
    embedder = OnnxEmbedder(out / STUDENT, "cpu")
    crops = _as_shown(fitted.examples.pixels[:64], options.size)
    vectors = embed_many(embedder, list(_as_shown(looked.pixels, options.size)))
    Taught.measure(seen.files, seen.digests, vectors).save(out / TAUGHT)
    run["export"] = {
        "largest_difference": check_parity(student.cpu(), embedder, options.size, crops),
        "megabytes": round(len(embedder.data) / 1e6, 2),
        "key": embedder.key,
    }
    run["cost"] = reckon(answered, ledger, options.price, fitted.seconds, seconds_per_image(embedder, crops))
    lists = search_again(embedder, fitted.lists) if fitted.lists else None
    run["agreement"] = lists.facts if lists else None
    write_run(out, run)
    write_report(out, [run], lists)
    checkpoint.path.unlink(missing_ok=True)
    if options.bits:  # the student is safe, whatever becomes of them, and of the variants
        append_codes(out / STUDENT, vectors, options.bits, crops)
    if options.variants:
        chosen = np.random.default_rng(options.seed).permutation(len(looked.pixels))[: CALIBRATION + GATE]
        pixels = _as_shown(looked.pixels[chosen], options.size)
        run["variants"] = [asdict(made) for made in make_variants(embedder, pixels, options.variants)]
        write_run(out, run)
    return Distilled(out, run, lists, seen)


def _require_enough(images: int, options: Options) -> None:
    """Refuse, before anything is paid, to make of too few images what needs more."""
    check_bits(options.bits, options.dim, images)
    if options.variants:
        check_enough(images)


def open_backbone(options: Options) -> Backbone:
    """Make the whole backbone of the student, so that what is wrong with it shows before anything is paid."""
    torch.manual_seed(options.seed)
    backbone = create_backbone(options.student, options.weights)
    if options.stages:
        create_backbone(options.student, "none").keep_stages(options.stages)
    if backbone.pretrained:
        backbone.fold_batch_norm()
    return backbone


@dataclass(frozen=True)
class Fitted:
    """A trained student, and how it came about.

    Attributes:
        student: The network.
        placement: Where the images of the pool belong.
        recipe: As it was used.
        examples: What it learnt from.
        lists: The teacher's lists for what was held out, if anything was.
        done: How training went.
        seconds: How long it took, placing the images included.
    """

    student: Student
    placement: Placement
    recipe: Recipe
    examples: Examples
    lists: HeldOut | None
    done: Progress
    seconds: float


def fit_student(
    looked: PoolFeatures,
    rows: NDArray[np.int64],
    answered: TeacherAnswers,
    backbone: Backbone,
    options: Options,
    fabric: Fabric,
    checkpoint: Checkpoint | None = None,
    former: Former | None = None,
) -> Fitted:
    """Train a student on images that were looked at, some of which are answered.

    Args:
        looked: What was seen of the pool.
        rows: `(n,)` places of the answered images in it.
        answered: Their answers.
        backbone: The student's. It is cut and trained in place.
        options: What and how.
        fabric: Where.
        checkpoint: As in `train_student`.
        former: As in `distill`.
    """
    recipe = replace(
        options.recipe,
        steps=options.steps or steps_for(len(looked.pixels), options.recipe),
        seed=options.seed,
    )
    if not backbone.pretrained:  # random weights have learnt nothing that could predict an answer
        recipe = replace(recipe, others=False, trust=1.0)
    torch.manual_seed(options.seed)
    backbone.keep_stages(options.stages or backbone.default_stages)
    student = Student(backbone, options.dim)
    if former and former.weights:
        student.load_state_dict(former.weights)
    start = perf_counter()
    asked_of = answered.queries
    held = hold_out(answered.digests, 0.0 if asked_of else None)
    kept, vectors = rows[~held], answered.vectors[~held]
    placement = place(looked.features, looked.free, kept, vectors, options.dim, recipe.whiten, recipe.trust)
    placement = former.align(placement) if former else placement
    pixels, truth = looked.pixels[rows[held]], answered.vectors[held]
    if asked_of:
        pixels, truth = asked_of.pixels, asked_of.vectors
    lists = search_with_teacher(
        (_as_shown(pixels, options.size), truth),
        (_as_shown(looked.pixels[kept], options.size), vectors),
        QUERY_PHOTOS if asked_of else POOL_PHOTOS,
    )
    examples = gather(looked, kept, rows[held], placement.rows, recipe.others)
    done = train_student(student, examples, lists, options.size, recipe, fabric, checkpoint)
    return Fitted(student, placement, recipe, examples, lists, done, perf_counter() - start)


def _as_shown(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The middle of stored squares, as the finished student is shown them."""
    return center_crop(torch.from_numpy(pixels), size).contiguous().numpy()


def _describe(
    files: Sequence[ImageFile],
    survey: Pool,
    answered: TeacherAnswers,
    teacher: Embedder,
    ledger: Ledger,
    options: Options,
) -> dict[str, Any]:
    """Everything that decides what the student will be, and what it cost."""
    return {
        "images": len(files),
        "queried": len(answered.digests),
        "query_photos": answered.count - len(answered.digests),
        "unreadable": [asdict(failure) for failure in [*survey.failures, *answered.failures]],
        "teacher": {
            "name": teacher.name,
            "key": teacher.key,
            "dim": answered.vectors.shape[1],
            "remarks": teacher.remarks,
            "spec": teacher.spec,
            "options": asdict(teacher.options),
        },
        "options": asdict(options),
        "data_digest": content_digest("".join(answered.digests).encode()),
        "ledger_digest": ledger.digest(answered.digests),
        "versions": {
            # Asked of the module: its package has another name on a GPU.
            "onnxruntime": onnxruntime.__version__,
            **{name: version(name) for name in ("retrieval", "torch", "timm", "numpy")},
        },
    }


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
