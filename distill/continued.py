"""Top a student up: photos of another kind join those that it was taught on, and old answers are replayed.

Training starts from the student's own weights. All places are found again, over both kinds: the space of the
old kind alone has no room for what tells the new kind apart. They are turned towards the old student's
vectors, so that what was embedded before can still be compared with.
"""

from collections.abc import Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from distill.ask import Task, TeacherAnswers, consult
from distill.examples import hold_out
from distill.fit import Former
from distill.options import VARIANTS, Options, Target
from distill.pipeline import WEIGHTS, Distilled, make_student, read_student_pool, start
from distill.pool import MOST, Pool
from distill.report.report import read_run
from distill.training.device import on_first
from index.arguments import call
from index.build.taught import TAUGHT, Taught
from index.embedders.base import AbsentEmbedder, Embedder
from index.embedders.options import EmbedderOptions
from index.embedders.registry import is_file_spec
from index.errors import RetrievalError, UsageError
from index.images.file import digest_pool
from index.images.sources import Source, find_images
from index.progress import count, say
from index.teachers.cost import Bill, make_bill
from index.teachers.ledger import Ledger
from index.teachers.spec import TeacherSpec

KEPT = ("student", "weights", "size", "dim", "stages")  # options that make a student what it is


def continue_by_name(
    sources: Sequence[Source], student: Path, teacher: TeacherSpec, out: Path, options: Options
) -> Distilled:
    """Distil again, from a student's weights, on what it was taught on and on further photos.

    Some of these may be old ones that were moved: they are known by their content. `out` may be the student
    folder itself. The budget counts answers about further photos alone, old ones are free. Without a spec the
    teacher is opened where it was, if it is a file. One that is gone is not asked: the ledger answers alone.

    Raises:
        UsageError: It is no student folder, its teacher is another, or no photo is new.
        RetrievalError: As `distill`, and where a source, the teacher or the ledger cannot be used.
    """
    run, taught = read_run(student), Taught.load(student / TAUGHT)
    options = keep_what_it_is(options, run)
    files = find_images([*sources, *options.also], options.exclude)
    model = open_teacher(student, teacher, options.device)
    if model.key != run["teacher"]["key"]:
        if model.name == run["teacher"]["name"]:
            raise UsageError(f"{model.name} has changed since it taught {student}. Give it as it was then.")
        raise UsageError(
            f"{student} was taught by {run['teacher']['name']}, not by {model.name}. Leave --teacher out."
        )
    weights = _read_weights(student / WEIGHTS)
    same_size = replace(options, target=None)
    fabric = start(out, same_size)
    place = {digest: i for i, digest in enumerate(taught.digests.tolist())}

    def ask() -> tuple[Pool, TeacherAnswers]:
        every = [*files, *taught.find_files()]
        was = ledger.known(place) | set(sorted(place)[:MOST])  # by digest, which is by chance
        most = len(was) + max(options.budget, MOST)
        pool = read_student_pool(task, every, most, was)
        given = {file.location for file in files}
        both = zip(pool.files, pool.digests, strict=True)
        new = {digest for file, digest in both if digest not in place and file.location in given}
        if not new:
            raise UsageError(f"{student} was taught on all of these photos. Give it others.")
        if gone := len(was - pool.there):
            if gone == len(was):
                raise UsageError(f"No photo that {student} was taught on is there. Name their folder, too.")
            say(
                f"{gone} of {count(len(was), 'photo')} that it was taught on gone from where it was. "
                "If they have moved, name their folder beside the new photos."
            )
        return pool, _consult(task, pool, new, place.keys(), run)

    with teacher.open_ledger(model.key) as ledger:
        task = Task(model, ledger, same_size, fabric)
        pool, answered = on_first(fabric, ask)
        rows = [i for i, digest in enumerate(pool.digests) if digest in place]
        vectors = taught.vectors[[place[pool.digests[i]] for i in rows]]
        former = Former(run["export"]["key"], np.array(rows), vectors, weights)
        return make_student(replace(task, options=options), pool, answered, len(pool.files), out, former)


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path} is missing or damaged. Copy the student's whole folder here.") from error


def _consult(task: Task, pool: Pool, new: Set[str], taught: Set[str], run: dict[str, Any]) -> TeacherAnswers:
    """Ask about new photos alone: what they cost in an earlier try of this counts against the budget.

    Answers about photos that were `taught` are replayed; those that were held out are held out again.
    """
    ledger, queries, budget = task.ledger, task.options.queries, task.options.budget
    if isinstance(task.teacher, AbsentEmbedder):
        queries, budget = (), min(len(ledger.known(new)), budget)
        task = replace(task, options=replace(task.options, queries=()))
    asked = pool.reader.digest(find_images(queries)) if queries else []
    paid = set(run.get("query_digests", ()))
    limit = _limit([*new, *(set(asked) - paid)], ledger, budget, run)
    answered = consult(task, pool, (taught | set(pool.digests)) - new, limit, budget)
    before = sorted(ledger.known(taught))
    held = hold_out(before, None if run["training"]["held_out"] else 0.0)
    learnt = frozenset(digest for digest, out in zip(before, held, strict=True) if not out)
    return replace(answered, known_queries=answered.known_queries | paid, learnt=learnt)


def _limit(digests: Sequence[str], ledger: Ledger, budget: int, run: dict[str, Any]) -> int:
    """Reckon how much the ledger may hold, so that an earlier try of this counts against the budget."""
    tried = len(ledger.known(digests)) + max(ledger.lost - run["cost"]["failed_calls"], 0)
    return ledger.spent + max(budget - tried, 0)


def bill_further(sources: Sequence[Source], student: Path, teacher: TeacherSpec, options: Options) -> Bill:
    """Say what `continue_by_name` will cost, and ask nothing."""
    run, files = read_run(student), find_images([*sources, *options.also], options.exclude)
    taught = Taught.load(student / TAUGHT).digests.tolist()
    model = open_teacher(student, teacher, options.device)
    with teacher.open_ledger(model.key, dry=True) as ledger:
        limit = _limit(list(set(digest_pool(files)) - set(taught)), ledger, options.budget, run)
        return make_bill(files, model, ledger, limit, options.budget, options.price, taught)


def keep_what_it_is(options: Options, run: dict[str, Any]) -> Options:
    """Give the options of a student in place of one with that run.json; UsageError if one shall be other."""
    was = {name: run["options"][name] for name in KEPT}
    for name, value in was.items():
        if getattr(options, name) not in (value, getattr(Options(), name)):
            raise UsageError(f"--{name} is {value} and stays so. Leave it out, or distil a new student.")
    if options.target:
        raise UsageError("A student that is topped up keeps its size. Leave out the target.")
    target = run["options"].get("target")
    copies = tuple(
        made["name"] for made in run.get("variants", ()) if made["admitted"] and made["name"] in VARIANTS
    )
    return replace(
        options,
        **was,
        target=Target(**target) if target else None,
        bits=options.bits or run["options"].get("bits", 0),
        variants=options.variants or copies,
    )


def open_teacher(student: Path, given: TeacherSpec, device: str) -> Embedder:
    """Open the teacher of a student as given, or what stands for it when it cannot be asked.

    A student folder may come from anyone: of what it names only a file is opened, never an address or code.
    """
    if given.spec is not None:
        return given.open_plain(device)
    was = read_run(student)["teacher"]
    unsaid = vars(EmbedderOptions())
    said = {name: value for name, value in vars(given.options).items() if value != unsaid[name]}
    options = call(EmbedderOptions, **{**(was.get("options") or {}), **said})
    spec = was.get("spec", was["name"])
    why = f"Give --teacher {spec} to ask it."
    if is_file_spec(spec):
        try:
            return replace(given, spec=spec, options=options).open_plain(device)
        except RetrievalError as error:
            why = str(error)
    say(f"{was['name']} is not asked; its ledger answers. {why}")
    return AbsentEmbedder(was, spec, options)
