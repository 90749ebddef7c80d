"""A new teacher for an old index: its student searches the vectors there are, until they are made again."""

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np

from distill.ask import Task, TeacherAnswers, consult
from distill.continued import keep_what_it_is
from distill.fit import Former
from distill.options import Options
from distill.pipeline import STUDENT, Distilled, make_student, read_student_pool, start
from distill.pool import MOST, Pool
from distill.report.report import RUN, read_run
from distill.selection import sample_pool
from distill.training.device import on_first
from index.build.rewrite import replace_student
from index.embedders.onnx import OnnxEmbedder
from index.errors import UsageError
from index.images.file import ImageFile, digest_pool
from index.images.sources import image_at
from index.stores.folder import Index
from index.teachers.cost import Bill, make_bill
from index.teachers.ledger import Ledger
from index.teachers.spec import TeacherSpec


def upgrade_by_name(path: Path, teacher: TeacherSpec, out: Path, options: Options) -> tuple[Distilled, str]:
    """Distil a new teacher on the images of an index, into the space of the index.

    The images are the pool; they must be where they were. The new student has the options of the one that
    made the index.

    Returns:
        What was made, and its summary, as of `sum_up`.

    Raises:
        RetrievalError: As `distill`, and where the index cannot be read or written.
    """
    index = _open_floats(path, out)
    if (index.data / RUN).is_file():
        options = keep_what_it_is(options, read_run(index.data))
    options = replace(options, dim=index.manifest.spaces["student"].dim)
    model = teacher.open_plain(options.device)
    fabric, ids = start(out, options), index.ids_by_digest

    def ask() -> tuple[Pool, TeacherAnswers]:
        files = _sample_files(index, ledger, options)
        pool = read_student_pool(task, files, len(files))
        changed = set(pool.digests) - ids.keys()  # an index may come from anyone: no other file is sent
        _require_some(index, len(pool.digests) - len(changed))
        return pool, consult(task, pool, changed)

    with teacher.open_ledger(model.key) as ledger:
        task = Task(model, ledger, options, fabric)
        pool, answered = on_first(fabric, ask)
        rows = np.array([row for row, digest in enumerate(pool.digests) if digest in ids])
        vectors = index.rows("student", np.array([ids[pool.digests[row]][0] for row in rows]))
        former = Former(index.manifest.spaces["student"].key, rows, np.asarray(vectors, np.float32))
        made = make_student(task, pool, answered, len(pool.files), out, former)
    if fabric.is_global_zero:
        index = replace_student(index.path, OnnxEmbedder(out / STUDENT, "cpu"))
    return made, sum_up(index, made)


def bill_upgrade(path: Path, teacher: TeacherSpec, out: Path, options: Options) -> Bill:
    """Say what `upgrade_by_name` will cost, and ask nothing; raises as that."""
    index = _open_floats(path, out)
    model = teacher.open_plain(options.device)
    with teacher.open_ledger(model.key, dry=True) as ledger:
        files = _sample_files(index, ledger, options)
        digests = digest_pool(files)
        changed = set(digests) - index.ids_by_digest.keys()
        _require_some(index, len(digests) - len(changed))
        most = options.budget
        return make_bill(files, model, ledger, most, most, options.price, changed, digests)


def _sample_files(index: Index, ledger: Ledger, options: Options) -> list[ImageFile]:
    """Choose the images of an index that are the pool."""
    digests = [item.digest for item in index.items]
    sample = sample_pool(digests, ledger.known(digests), max(options.budget, MOST), options.seed)
    return [image_at(index.items[i].path, index.items[i].name) for i in sample]


def _require_some(index: Index, unchanged: int) -> None:
    if not unchanged:
        raise UsageError(f"None of the images of {index} is still in its place, unchanged. Index them again.")


def _open_floats(path: Path, out: Path) -> Index:
    """Open an index that a new student can search, to write that elsewhere."""
    index = Index(path)
    if index.manifest.spaces["student"].bits:
        raise UsageError(f"{index} holds codes, which a new student cannot search. Index its images again.")
    if index.path.resolve() in (out.resolve(), *out.resolve().parents):
        raise UsageError(f"{out} is in the index folder {index.path}. Give another folder as --out.")
    return index


def sum_up(index: Index, made: Distilled) -> str:
    """Sum up what was made, and how the vectors are made again; empty in all processes but the first."""
    if not made.summary:
        return ""
    models = ["--model", str(made.folder / STUDENT)]
    if index.manifest.teacher:
        models += ["--teacher", made.run["teacher"]["spec"]]
    words = ["retrieval", "index", *index.manifest.sources, *models, "--out", str(index), "--update"]
    return (
        f"{made.summary}\n{index} is searched with it from now on. Its vectors are the former student's; "
        f"to make them again: {shlex.join(words)} (after an interruption, with --resume)"
    )
