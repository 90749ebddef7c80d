"""Students of several budgets, and how their agreement with the teacher grows."""

import os
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

from distill.ask import Pool, TeacherAnswers, consult, survey_pool
from distill.examples import MOST
from distill.model.trial import try_out
from distill.pipeline import STUDENT, Distilled, Options, distill, open_backbone
from distill.report.held_out import search_again
from distill.report.report import read_run, write_report, write_run
from distill.training.device import count_processes, keep_freed_memory, open_fabric
from distill.training.distributed import on_first
from distill.training.views import stored_side
from index.embedders.base import Embedder
from index.embedders.onnx import OnnxEmbedder
from index.images.file import ImageFile
from index.images.sources import Source, find_images
from index.progress import say
from index.teachers.ledger import Ledger
from index.teachers.spec import TeacherSpec


def distill_curve(
    files: Sequence[ImageFile],
    teacher: Embedder,
    ledger: Ledger,
    out: Path,
    options: Options,
    budgets: Sequence[int],
) -> Distilled:
    """Distil with each budget, rising; each adds queries to those that the one before has paid for.

    One after the other, or under torchrun side by side, a process for each. The budget in `options` does not
    count. The student of the largest budget, which is returned, gets `out` itself, and its variants; the
    others get folders in it. All are measured on the photos that the last one holds out, which none of them
    learnt from.
    """
    if len(budgets) > 1 and prod(count_processes(os.environ)) > 1:
        return _distill_side_by_side(files, teacher, ledger, out, options, budgets)
    done: list[Distilled] = []
    for budget in budgets:
        seen = done[-1].survey if done and budget <= MOST else None
        done.append(distill(files, teacher, ledger, *_part(out, options, budget, budgets), seen))
    _compare(done)
    return done[-1]


def _distill_side_by_side(
    files: Sequence[ImageFile],
    teacher: Embedder,
    ledger: Ledger,
    out: Path,
    options: Options,
    budgets: Sequence[int],
) -> Distilled:
    """The same in the processes of torchrun: the first one asks for all budgets, then each trains its own."""
    keep_freed_memory()
    fabric = open_fabric(options.device)

    def ask() -> tuple[Pool, dict[int, TeacherAnswers]]:
        backbone = open_backbone(options)
        try_out(options.student, options.size, options.dim, options.stages, options.device)
        most, side, seed = max(budgets[-1], MOST), stored_side(options.size), options.seed
        seen = survey_pool(files, teacher, ledger, backbone, fabric, side, most, seed)
        queries = find_images(options.queries) if options.queries else []
        return seen, {
            budget: consult(seen, teacher, ledger, budget, options.select, seed, queries)
            for budget in budgets
        }

    seen, answered = on_first(fabric, ask)
    last = Distilled(out, {}, None, seen)
    for budget in budgets[::-1][fabric.global_rank :: fabric.world_size]:
        part, alone = _part(out, options, budget, budgets), open_fabric(options.device, alone=True)
        made = distill(files, teacher, ledger, *part, seen, answered[budget], alone)
        last = made if budget == budgets[-1] else last
    fabric.barrier()
    if fabric.is_global_zero:
        folders = [_part(out, options, budget, budgets)[0] for budget in budgets[:-1]]
        _compare([*(Distilled(folder, read_run(folder), None, seen) for folder in folders), last])
    return last


def _part(out: Path, options: Options, budget: int, budgets: Sequence[int]) -> tuple[Path, Options]:
    """The folder of a budget's student, and what it is."""
    if budget == budgets[-1]:
        return out, replace(options, budget=budget)
    return out / f"budget-{budget}", replace(options, budget=budget, variants=())


def _compare(done: Sequence[Distilled]) -> None:
    """Measure all students on the photos that the last one holds out, and report on them in its folder."""
    last = done[-1]
    if len(done) > 1 and last.lists:
        for earlier in done[:-1]:
            again = search_again(OnnxEmbedder(earlier.folder / STUDENT, "cpu"), last.lists)
            earlier.run["agreement"] = again.facts
        last.run["curve"] = [
            {"queried": other.run["queried"], "overlap@10": other.run["agreement"]["overlap@10"]}
            for other in done
        ]
        write_run(last.folder, last.run)
        write_report(last.folder, [other.run for other in done], last.lists)


def distill_by_name(
    sources: Sequence[Source], teacher: TeacherSpec, out: Path, options: Options, budgets: Sequence[int]
) -> Distilled:
    """`distill_curve`, with sources and teacher given by their names; the budget in `teacher` is not used.

    Raises:
        RetrievalError: As `distill`, and where a source, the teacher or the ledger cannot be used.
    """
    files = find_images(sources, options.exclude)
    model = teacher.open_plain(options.device)
    with teacher.open_ledger(model.key) as paid:
        made = distill_curve(files, model, paid, out, options, budgets)
    if made.summary and files.left_out:
        say(f"left out: {files.left_out}")
    return made
