"""The whole distillation: choose images, ask the teacher, train the student, export it, write its folder."""

import json
from collections.abc import Sequence, Set
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from lightning_fabric import Fabric
from safetensors.torch import save

from distill.ask import Task, TeacherAnswers, consult
from distill.fit import Former, aim, as_shown, build_student, fit_student, open_backbone
from distill.model import quantize
from distill.model.codes import PHOTOS, VIEWED, append_codes
from distill.model.export import check_parity, count_parameters, describe_file, export_onnx
from distill.model.trial import try_out
from distill.options import CHECKPOINT, Options, Target, check_bits, check_out
from distill.photos import PhotoReader
from distill.pool import MOST, Pool, extract_features, open_helpers, require_all
from distill.report.cost import reckon, seconds_per_image
from distill.report.held_out import HeldOut, search_again
from distill.report.report import judge, judge_teaching, point_of, read_run, write_report, write_run
from distill.selection import sample_pool
from distill.training.checkpoint import Checkpoint
from distill.training.device import keep_freed_memory, on_first, open_fabric
from distill.training.recipes import AS_JUDGED
from distill.training.views import stored_side
from index.build.taught import TAUGHT, Taught
from index.embedders.base import Embedder, embed_many
from index.embedders.onnx import OnnxEmbedder
from index.embedders.teacher_space import TEACHER_SPACE
from index.errors import UsageError
from index.images.file import ImageFile
from index.images.sources import Source, find_images
from index.io import atomic_write, content_digest
from index.progress import count
from index.stores.records import Failure
from index.teachers.ledger import Ledger
from index.teachers.spec import TeacherSpec

STUDENT, WEIGHTS = "student.onnx", "student.safetensors"
NAMED = 1000  # images that could not be used, in run.json at most: a file of vectors may lack a million


@dataclass(frozen=True)
class Distilled:
    """A finished student folder, the notes of its run, and what was seen on the way."""

    folder: Path  # the student folder
    run: dict[str, Any]  # what its run.json holds
    lists: HeldOut | None  # what both models found for held-out images, if any were held out

    @property
    def summary(self) -> str:
        """Sum up what was made and how good it is; empty in all processes but the first, which writes it."""
        run = self.run
        if "export" not in run:
            return ""
        shrunk = f" ({told})" if (told := run["student"].get("shrunk")) else ""
        codes = f", codes of {run['options']['bits']} bits" if run["options"]["bits"] else ""
        first = "".join(f" (the first: {one['path']}: {one['reason']})" for one in run["unreadable"][:1])
        return (
            f"{self.folder / STUDENT}: {run['student']['parameters'] / 1e6:.2f}M parameters, "
            f"{run['export']['megabytes']} MB{codes}{shrunk}, "
            f"asked about {run['queried']} of {run['images']} images; "
            f"{run['asked_now']} teacher queries in this run, "
            f"{run['queried'] + run['query_photos'] - run['asked_now']} answers from the ledger, "
            f"{count(run['cost']['failed_calls'], 'failed call')}, "
            f"{count(run['skipped'], 'image')} skipped{first}.\n"
            f"Teacher {run['teacher']['name']}: vectors of {run['teacher']['dim']} numbers"
            f"{run['teacher']['remarks']}.\n{judge(run['agreement'])}\n"
            f"{judge_teaching(run)}"
        )


def distill(
    files: Sequence[ImageFile],
    teacher: Embedder,
    ledger: Ledger,
    out: Path,
    options: Options,
    budgets: Sequence[int] = (),
    targets: Sequence[Target] = (),
) -> Distilled:
    """Distil a student from at most `options.budget` answers of a teacher, ever, and write its folder.

    With several budgets in place of that one, all answers are collected first, each budget adding to
    those of the one before; several targets learn from the same answers. Then the students are
    trained one after the other, or under torchrun side by side. The largest, which is returned, gets `out`
    itself, and its variants; the others get folders in it. All are measured on the photos that the last one
    holds out, which none of them learnt from. Files are replaced when a student is ready.

    Raises:
        UsageError: `out`, the student's name, its weights or the device cannot be used, or both budgets and
            targets are several.
        RetrievalError: The budget is spent on other images, or the teacher or the export failed.
    """
    several = _spread(options, budgets, targets)
    options = several[-1]
    check_bits(options.bits, options.dim, len(files))
    if options.variants:
        quantize.check_enough(len(files), len(find_images(options.queries)) if options.queries else None)
    fabric = start(out, options, len(several))
    task = Task(teacher, ledger, several[0], fabric)

    def ask() -> tuple[Pool, dict[int, TeacherAnswers]]:
        pool = read_student_pool(task, files, max(options.budget, MOST))
        by_budget = {own.budget: replace(task, options=own) for own in several}  # targets share one
        each = {budget: consult(own, pool) for budget, own in by_budget.items()}
        return pool, _share_out(each, options.budget) if len(each) > 1 else each

    pool, answered = on_first(fabric, ask)
    apart = len(several) > 1 and fabric.world_size > 1  # each process trains students of its own
    mine = several[::-1][fabric.global_rank :: fabric.world_size] if apart else several
    last = Distilled(out, {}, None)
    for own in mine:
        where = open_fabric(options.device, alone=True) if apart else fabric
        part, folder = replace(task, options=own, fabric=where), _part(out, own, options)
        made = make_student(part, pool, answered[own.budget], len(files), folder)
        last = made if own is options else last
    if apart:
        fabric.barrier()
    if len(several) > 1 and last.lists and fabric.is_global_zero:
        _compare([_part(out, own, options) for own in several[:-1]], last)
    return last


def _share_out(each: dict[int, TeacherAnswers], last: int) -> dict[int, TeacherAnswers]:
    """Let all budgets be measured on what the last holds out, and count to it what was asked for them."""
    whole = each[last]
    measured = frozenset(np.array(whole.digests)[whole.held].tolist())
    counted = ("asked", "lost", "seconds")
    sums: dict[str, Any] = {name: sum(getattr(one, name) for one in each.values()) for name in counted}
    each[last] = replace(whole, **sums)
    return {budget: replace(answers, measured=measured) for budget, answers in each.items()}


def _spread(options: Options, budgets: Sequence[int], targets: Sequence[Target]) -> list[Options]:
    """List what each student of a curve is to be, rising, the last with the variants."""
    budgets, targets = sorted(set(budgets)), sorted(set(targets), key=lambda target: target.value)
    if len(budgets) > 1 and len(targets) > 1:
        raise UsageError("A curve has several budgets or several targets, not both.")
    if len({target.kind for target in targets}) > 1:
        raise UsageError("Targets of a curve are all in ms, all in parameters or all in mflops.")
    each = [replace(options, budget=budget, variants=()) for budget in budgets or (options.budget,)]
    each = [replace(own, target=target) for own in each for target in targets or (options.target,)]
    return [*each[:-1], replace(each[-1], variants=options.variants)]


def distill_by_name(
    sources: Sequence[Source],
    teacher: TeacherSpec,
    out: Path,
    options: Options,
    budgets: Sequence[int] = (),
    targets: Sequence[Target] = (),
) -> Distilled:
    """`distill`, with sources and teacher given by their names; the budget in `teacher` is not used.

    Raises:
        RetrievalError: As `distill`, and where a source, the teacher or the ledger cannot be used.
    """
    files = find_images([*sources, *options.also], options.exclude)
    model = teacher.open_plain(options.device)
    with teacher.open_ledger(model.key) as ledger:
        return distill(files, model, ledger, out, options, budgets, targets)


def start(out: Path, options: Options, students: int = 1) -> Fabric:
    """Make ready to train students, so that what is wrong with the request shows before anything is paid.

    Raises:
        UsageError: `out` or the device cannot be used, or a single student is to shrink in several processes.
    """
    keep_freed_memory()
    check_out(out)
    fabric = open_fabric(options.device)
    if options.target and fabric.world_size > 1 and students == 1:
        raise UsageError("A student shrinks in one process. Leave out torchrun, or the target.")
    return fabric


def read_student_pool(
    task: Task, files: Sequence[ImageFile], most: int, preferred: Set[str] = frozenset()
) -> Pool:
    """Read a sample of a pool, once it is certain that the student can be trained and exported.

    It is of at most `most` distinct images, in the order of their digests. What the teacher cannot answer for
    is left out; images that the ledger has answers about, those that are to be asked about before all others,
    and those of `preferred` digests come first.

    Raises:
        UsageError: The student cannot be made, or the teacher or a helper is a file of vectors and lacks
            images.
    """
    options = task.options
    helpers, backbone = open_helpers(options.helpers, options.device), open_backbone(options)
    try_out(options.student, options.size, options.dim, options.stages, options.device)
    aim(build_student(deepcopy(backbone), options), options)
    reader = PhotoReader()
    digests = reader.digest(files)
    first = frozenset(reader.digest(find_images(options.also)) if options.also else ())
    missing = task.teacher.find_missing(files, digests)
    for helper in helpers:
        require_all(helper, files, digests)
    there = [i for i in range(len(files)) if i not in missing]
    wanted = first | preferred | task.ledger.known(digests)
    rows = [there[i] for i in sample_pool([digests[i] for i in there], wanted, most, options.seed)]
    chosen = [files[i] for i in rows], [digests[i] for i in rows]
    pool = extract_features(*chosen, backbone, stored_side(options.size), task.fabric, reader, helpers)
    pool.failures[:0] = [Failure(files[i].location, why) for i, why in missing.items()]
    pool = replace(pool, also=first, there=frozenset(preferred & set(digests)))
    check_bits(options.bits, options.dim, len(pool.files))
    if options.variants:
        quantize.check_enough(len(pool.files))
    return pool


def make_student(
    task: Task, pool: Pool, answered: TeacherAnswers, images: int, out: Path, former: Former | None = None
) -> Distilled:
    """Train a student on answers about a pool of so many images, export it, and write its folder."""
    pool.reader.forget()
    teacher, options, fabric = task.teacher, task.options, task.fabric
    if teacher.ranker and options.recipe.trust != 0:
        options = replace(options, recipe=replace(options.recipe, **AS_JUDGED))
    run = _describe(replace(task, options=options), pool, answered, images, former)
    # A second run is not told again of what could not be read or answered: what could be says all.
    same = {name: fact for name, fact in run.items() if name not in ("unreadable", "skipped")}
    decided = content_digest(json.dumps([same, pool.digests, sorted(answered.measured)]).encode())
    checkpoint, backbone = Checkpoint(out / CHECKPOINT, decided), open_backbone(options)
    fitted = fit_student(pool, answered, backbone, options, fabric, checkpoint, former, teacher.ranked)
    if not fabric.is_global_zero:
        return Distilled(out, run, None)
    student, done, examples = fitted.student, fitted.done, fitted.examples
    run["options"]["recipe"] = asdict(fitted.recipe)
    run |= {
        "asked_now": answered.asked,
        "student": {"weights": backbone.origin, "parameters": count_parameters(student)},
        "training": {
            "seconds": round(fitted.seconds, 1),
            "device": str(fabric.device),
            "images_without_answer": len(examples.targets) - examples.answered,
            "held_out": len(answered.digests) - examples.answered,
            "placement": fitted.placement.facts,
            "lists": len(examples.lists or ()),
            "agreement": done.agreement,
            "kept_step": done.kept if done.best else len(done.losses),
            "loss": done.losses,
        },
    }

    out.mkdir(parents=True, exist_ok=True)
    crop = options.size / pool.pixels.shape[1]
    export_onnx(student, out / STUDENT, options.size, options.dim, _facts(run, teacher), crop, reduced=True)
    quantize.remove_variants(out / STUDENT)
    if fitted.placement.trust:
        fitted.placement.space.save(out / TEACHER_SPACE)
    else:  # the student's space has nothing of the teacher's to be compared with
        (out / TEACHER_SPACE).unlink(missing_ok=True)
    with atomic_write(out / WEIGHTS) as beside:
        beside.write_bytes(save(student.cpu().state_dict()))
    if fitted.shrinking:
        run["student"]["shrunk"] = fitted.shrinking.report(student, options.size)
    embedder = OnnxEmbedder(out / STUDENT, "cpu")
    crops = as_shown(examples.pixels[:64], options.size)
    vectors = embed_many(embedder, list(as_shown(pool.pixels, options.size)))
    Taught.measure(pool.files, pool.digests, vectors).save(out / TAUGHT)
    difference = check_parity(student.cpu(), embedder, options.size, crops)
    costs = options.price, fitted.seconds, seconds_per_image(embedder, crops)
    lists = search_again(embedder, fitted.lists) if fitted.lists else None
    run |= {
        "export": {"largest_difference": difference, **describe_file(embedder)},
        "cost": reckon(answered, task.ledger, *costs),
        "agreement": lists.facts if lists else None,
    }
    write_run(out, run)
    write_report(out, [run], lists)
    checkpoint.forget()
    by_chance = np.random.default_rng(options.seed).permutation(len(vectors))
    if options.bits:  # the student is safe, whatever becomes of them, and of the variants
        shown = as_shown(pool.pixels[by_chance[:VIEWED]], options.size)
        append_codes(out / STUDENT, vectors[by_chance[:PHOTOS]], options.bits, shown)
        embedder = OnnxEmbedder(out / STUDENT, "cpu")
        run["export"] |= describe_file(embedder)
        write_run(out, run)
    if options.variants:
        pixels = as_shown(pool.pixels[by_chance[: quantize.CALIBRATION + quantize.GATE]], options.size)
        queries = quantize.read_pixels(embedder, options.queries, quantize.GATE) if options.queries else None
        made = quantize.make_variants(embedder, pixels, options.variants, queries)
        run["variants"] = [asdict(variant) for variant in made]
        write_run(out, run)
    return Distilled(out, run, lists)


def _part(out: Path, own: Options, last: Options) -> Path:
    """Name the folder of a student of a curve."""
    if own.target != last.target:
        return out / f"target-{own.target}".replace(" ", "-")
    return out if own is last else out / f"budget-{own.budget}"


def _compare(folders: Sequence[Path], last: Distilled) -> None:
    """Measure earlier students, too, on the photos that the last one holds out; report in its folder."""
    assert last.lists
    runs = []
    for folder in folders:
        again = search_again(OnnxEmbedder(folder / STUDENT, "cpu"), last.lists)
        runs.append({**read_run(folder), "agreement": again.facts})
    runs.append(last.run)
    last.run["curve"] = [{**point_of(run), **run["agreement"]} for run in runs]
    write_run(last.folder, last.run)
    write_report(last.folder, runs, last.lists)


def _describe(
    task: Task, pool: Pool, answered: TeacherAnswers, images: int, former: Former | None
) -> dict[str, Any]:
    """Everything that decides what the student will be, and what it cost."""
    failures, teacher = [*pool.failures, *answered.failures], task.teacher
    return {
        "images": images,
        "queried": len(answered.digests),
        "query_photos": answered.count - len(answered.digests),
        "query_digests": sorted(answered.known_queries),
        "unreadable": [asdict(failure) for failure in failures[:NAMED]],
        "skipped": len(failures),
        "teacher": {
            "name": teacher.name,
            "key": teacher.key,
            "dim": answered.vectors.shape[1],
            "megabytes": teacher.megabytes,
            "remarks": teacher.remarks,
            "ranker": dict(teacher.ranker),
            "spec": teacher.spec,
            "options": asdict(teacher.options),
        },
        "options": task.options.facts,
        "helpers": list(pool.helpers),
        "data_digest": content_digest("".join(answered.digests).encode()),
        "ledger_digest": task.ledger.digest(answered.digests),
        "versions": {
            # Asked of the module: its package has another name on a GPU.
            "onnxruntime": onnxruntime.__version__,
            **{name: version(name) for name in ("retrieval", "torch", "timm", "numpy")},
        },
        "former": former and former.key,
    }


def _facts(run: dict[str, Any], teacher: Embedder) -> dict[str, str]:
    """Say what the ONNX file says of itself."""
    return {
        "model": run["options"]["student"],
        "weights": run["student"]["weights"],
        "teacher": f"{teacher.name} {teacher.key}",
        "budget": str(run["options"]["budget"]),
        "queried": str(run["queried"]),
        "ledger_digest": run["ledger_digest"],
        "data_digest": run["data_digest"],
    }
