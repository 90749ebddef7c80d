"""Quality of an index, measured on what is known of its images: labels, or revisited ground truth."""

import csv
import os
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.build.embed import embed_files, join
from index.errors import RetrievalError, UsageError
from index.evaluation.metrics import average_precision, recall_at_k
from index.evaluation.rankings import ByMode, Options, Values, check_modes, score_modes
from index.evaluation.revisited import evaluate_revisited, read_ground_truth
from index.images.decode import Photo, read_photo
from index.images.file import ImageFile, digest_pool
from index.images.sources import image_at
from index.progress import progress, say
from index.rankers.registry import RankerSpec
from index.search import Searcher, open_searcher
from index.stores.base import Store
from index.stores.records import Item
from index.teachers.ask import probe
from index.teachers.client import BudgetedTeacher
from index.teachers.spec import TeacherSpec
from index.vectors import Vectors


@dataclass(frozen=True)
class Labelled:
    """An image file and the label that a CSV file gives it."""

    file: ImageFile
    label: str


def read_labels(path: Path) -> list[Labelled]:
    """Read a CSV file of `path`, relative to its folder or absolute, and `label`; else UsageError."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder. Give a CSV file with the columns path and label.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read as a CSV file: {error}.") from error
    if not rows or not {"path", "label"} <= rows[0].keys():
        raise UsageError(f"{path} needs a header `path,label` and at least one row.")
    if not all(row["path"] and row["label"] for row in rows):
        raise UsageError(f"{path} has a row without a path or label. Fill it in, or leave it out.")
    labels: dict[str, str] = {}
    for row in rows:
        if labels.setdefault(row["path"], row["label"]) != row["label"]:
            raise UsageError(f"{path} gives {row['path']} more than one label. Keep one of them.")
    folder = path.absolute().parent
    return [Labelled(ImageFile(folder / row["path"], row["path"]), row["label"]) for row in rows]


def label_items(index: Store, labels: Sequence[Labelled]) -> NDArray[np.str_]:
    """Give each item of an index its label, `(items,)`: by resolved path, else by content; '' without one."""
    by_path = {_resolve(entry.file.path): entry.label for entry in labels}
    found = [
        next((label for file in item.files if (label := by_path.get(_resolve(file.path)))), "")
        for item in index.items
    ]
    if "" in found:  # reading every labelled file is only worth it where a path did not match
        digests = digest_pool([entry.file for entry in labels])
        by_content = {digest: entry.label for digest, entry in zip(digests, labels, strict=True)}
        pairs = zip(index.items, found, strict=True)
        found = [label or by_content.get(item.digest, "") for item, label in pairs]
    if not any(found):
        raise UsageError(f"None of the {len(labels)} labelled images is in {index}. Check --labels.")
    return np.array(found)


def _resolve(path: str | Path) -> str:
    return str(path) if "\0" in str(path) else os.path.realpath(path)  # no file can have such a name


def _embed_queries(searcher: Searcher, files: Sequence[ImageFile]) -> tuple[list[Item], dict[str, Vectors]]:
    """Embed files with every model, as `(n, dim)` rows. One that cannot be read is named and left out."""
    parts = []
    with progress(len(files), "queries") as bar:
        for done in embed_files(files, searcher.models):
            parts.append(done)
            for failure in done.failures:
                say(f"skipped {failure.path}: {failure.reason}")
            bar.update(len(done.items) + len(done.failures))
    whole = join(parts)
    if not whole.items:
        raise RetrievalError(f"None of the {len(files)} queries could be read. Check --queries.")
    return whole.items, whole.vectors


def _own_ids(index: Store, queries: Sequence[Item]) -> list[list[int]]:
    """For each query, the items of the gallery that are that very file or a copy of it."""
    by_path = {_resolve(file.path): [i] for i, item in enumerate(index.items) for file in item.files}
    copies = index.ids_by_digest
    return [sorted({*by_path.get(_resolve(q.path), []), *copies.get(q.digest, [])}) for q in queries]


def evaluate_labelled(
    searcher: Searcher, queries: Sequence[Labelled], labels: Sequence[Labelled], options: Options
) -> ByMode:
    """Rank the whole gallery exactly for every query. A query is left out of its own ranking.

    Returns:
        For each mode `mAP`, `R@1`, `R@5` and the agreement that `score_modes` measures, all between 0 and 1.
        `queries` counts those that have an answer.

    Raises:
        UsageError: A mode that the index does not have, or labels that fit nothing.
        RetrievalError: No query could be read, or none has a relevant image.
    """
    check_modes(searcher, options)
    searcher = _leave_out_teacher(searcher, [query.file for query in queries])
    if options.modes:  # of those that are left some may be wanted
        options = replace(options, modes=[m for m in options.modes if m in searcher.modes] or options.modes)
        check_modes(searcher, options)
    gallery = label_items(searcher.index, labels)
    items, vectors = _embed_queries(searcher, [query.file for query in queries])
    by_location = {query.file.location: query for query in queries}
    asked = [by_location[item.path] for item in items]
    wanted = np.array([query.label for query in asked])
    own = _own_ids(searcher.index, items)
    answerable = sum(
        bool(np.setdiff1d(np.flatnonzero(gallery == label), ids).size)
        for label, ids in zip(wanted, own, strict=True)
    )
    if not answerable:
        raise RetrievalError("No query has an image of its label in the index. Check --queries and --labels.")
    if left_out := len(items) - answerable:
        say(f"{left_out} of {len(items)} queries left out: the index has no image of their label.")

    def score(ranking: NDArray[np.int64], rows: slice) -> Values:
        relevant = gallery[ranking] == wanted[rows, None]
        for line, ids in zip(relevant, own[rows], strict=True):
            line[len(line) - len(ids) :] = False  # left out of the ranking: they stand at its end
        recalls = {f"R@{k}": recall_at_k(relevant, k) for k in (1, 5)}
        return {"mAP": average_precision(relevant), **recalls}

    def read(row: int) -> Photo:
        return read_photo(asked[row].file, searcher.decode_side())

    scores = score_modes(searcher, vectors, score, options, read, leave_out=own)
    return {mode: {"queries": float(answerable), **row} for mode, row in scores.items()}


def _leave_out_teacher(searcher: Searcher, queries: Sequence[ImageFile]) -> Searcher:
    """A searcher without its teacher, if that is a file of vectors that lacks those of the queries."""
    if (model := searcher.models.get("teacher")) is None:
        return searcher
    try:
        if len(model.find_missing(queries)) < len(queries):
            return searcher
        reason = f"{model.name} has no vector of any query."
    except UsageError as lacking:
        reason = str(lacking)
    say(f"{reason} The student alone is scored.")
    alone = copy(searcher)  # others may search with it meanwhile
    alone.models = {"student": searcher.models["student"]}
    return alone


def _probe_first(searcher: Searcher, queries: int) -> None:
    """Let a paid teacher be probed with a photo of the gallery before it is asked about so many queries."""
    paid = searcher.models.get("teacher")
    if not isinstance(paid, BudgetedTeacher):
        return
    index, ledger = searcher.index, paid.ledger

    def before_asking() -> None:
        known = ledger.known(item.digest for item in index.items)
        there = (image_at(i.path, i.name, index.allowed) for i in index.items if i.digest in known)
        if ledger.spent + queries < paid.budget:
            probe(there, paid)

    paid.before_asking = before_asking


def evaluate_by_name(
    index: Path,
    queries: Path,
    labels: Path | None,
    revisited: Path | None,
    teacher: TeacherSpec,
    device: str,
    options: Options,
    ranker: RankerSpec | None = None,
) -> ByMode:
    """`evaluate_labelled` or `evaluate_revisited`, with everything given by its name.

    `queries` is the CSV file of labelled queries, or the folder of the queries that the ground truth names;
    the teacher is as in `open_searcher`.

    Raises:
        UsageError: Both or neither of `labels` and `revisited` are given, or something cannot be opened.
        RetrievalError: As the two.
    """
    if labels and revisited:
        raise UsageError("--labels and --revisited do not go together. Give one of them.")
    if labels:
        known, searcher = read_labels(queries), open_searcher(index, teacher, device, ranker=ranker)
        _probe_first(searcher, len(known))
        return evaluate_labelled(searcher, known, read_labels(labels), options)
    if revisited:
        truth, searcher = read_ground_truth(revisited), open_searcher(index, teacher, device, ranker=ranker)
        _probe_first(searcher, len(truth.queries))
        return evaluate_revisited(searcher, truth, queries, options)
    raise UsageError("Give --labels with a CSV file, or --revisited with ground truth as JSON.")
