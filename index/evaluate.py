"""Quality on labelled photos: mAP and recall for each mode, and agreement with the teacher."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.errors import RetrievalError, UsageError
from index.images import ImageFile, content_digest
from index.metrics import average_precision, overlap_at_k, rank, rank_biased_overlap, recall_at_k
from index.pipeline import embed_files
from index.progress import progress
from index.search import MODES, Searcher, open_searcher
from index.store import Index, Item

DEPTH = 10  # of the agreement with the teacher
CHUNK = 256  # queries ranked at a time: bounds the memory


@dataclass(frozen=True)
class Labelled:
    """An image file and the label that a CSV file gives it."""

    file: ImageFile
    label: str


def read_labels(path: Path) -> list[Labelled]:
    """Read a CSV file with the columns `path` (relative to the file's folder, or absolute) and `label`.

    Raises:
        UsageError: It cannot be read, lacks a column or has no row.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read as a CSV file: {error}.") from error
    if not rows or not {"path", "label"} <= rows[0].keys():
        raise UsageError(f"{path} needs a header `path,label` and at least one row.")
    folder = path.absolute().parent
    return [Labelled(ImageFile(folder / row["path"], row["path"]), row["label"]) for row in rows]


def label_items(index: Index, labels: Sequence[Labelled]) -> NDArray[np.str_]:
    """Give each item of an index its label: by resolved path, else by content. Items without one get ''.

    Args:
        index: The index.
        labels: Labelled files.

    Returns:
        `(items,)` labels.

    Raises:
        UsageError: No label belongs to any item.
    """
    by_path = {str(entry.file.path.resolve()): entry.label for entry in labels}
    found = [by_path.get(str(Path(item.path).resolve())) for item in index.items]
    if None in found:  # reading every labelled file is only worth it where a path did not match
        by_content = {
            content_digest(entry.file.path.read_bytes()): entry.label
            for entry in labels
            if entry.file.path.is_file()
        }
        found = [
            by_content.get(item.digest) if label is None else label
            for item, label in zip(index.items, found, strict=True)
        ]
    if not any(found):
        raise UsageError(f"None of the {len(labels)} labelled images is in {index.path}. Check --labels.")
    return np.array([label or "" for label in found])


def evaluate_by_name(
    index: Path, queries: Path, labels: Path, modes: Sequence[str] | None, teacher: str | None, device: str
) -> dict[str, dict[str, float]]:
    """`evaluate`, with everything given by its name.

    Args:
        index: The index folder.
        queries: CSV file of labelled queries.
        labels: CSV file of labelled gallery images.
        modes: Modes to evaluate; None takes all that the index has.
        teacher: Where the teacher is now; None looks where it was.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        RetrievalError: As `evaluate`, and where something cannot be opened.
    """
    searcher = open_searcher(index, teacher, device)
    return evaluate(searcher, read_labels(queries), read_labels(labels), modes or searcher.modes)


def evaluate(
    searcher: Searcher, queries: Sequence[Labelled], labels: Sequence[Labelled], modes: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Rank the whole gallery exactly for every query. A query is left out of its own ranking.

    Args:
        searcher: The index and its models.
        queries: Labelled query files.
        labels: Labelled gallery files.
        modes: Modes to evaluate.

    Returns:
        For each mode `mAP`, `R@1`, `R@5`; with a teacher also `overlap@10`, its 10th percentile over the
        queries `overlap@10 p10`, and `RBO`. All between 0 and 1. `queries` counts those that have an answer.

    Raises:
        UsageError: A mode that the index does not have, or labels that fit nothing.
        RetrievalError: No query could be read, or none has a relevant image.
    """
    for mode in modes:
        if mode not in searcher.modes:
            raise UsageError(f"{searcher.index.path} has no mode {mode!r}, only {', '.join(searcher.modes)}.")
    gallery = label_items(searcher.index, labels)
    items, vectors, wanted = _embed_queries(searcher, queries)
    own = _own_ids(searcher.index, items)
    scores: dict[str, list[NDArray[np.float64]]] = {mode: [] for mode in modes}
    for start in range(0, len(items), CHUNK):
        rows = slice(start, start + CHUNK)
        truth = _rank_all(searcher, vectors, "teacher", rows, own) if "teacher" in searcher.modes else None
        for mode in modes:
            ranking = truth if mode == "teacher" else _rank_all(searcher, vectors, mode, rows, own)
            assert ranking is not None
            scores[mode].append(_score(ranking, truth, gallery, wanted[rows], own[rows]))
    return {mode: _summary(np.concatenate(parts, axis=1)) for mode, parts in scores.items()}


def gallery_agreement(index: Index, sample: int = 1000) -> float:
    """Mean overlap@10 of student and teacher, with images of the gallery itself as queries, at no query.

    Args:
        index: An index made with a teacher.
        sample: How many images to ask for, evenly spread over the gallery.
    """
    rows = np.unique(np.linspace(0, len(index) - 1, min(sample, len(index))).astype(int))
    rankings = []
    for space in ("student", "teacher"):
        vectors = index.vectors(space)
        similarity = vectors[rows] @ vectors.T
        similarity[np.arange(len(rows)), rows] = -np.inf
        rankings.append(rank(similarity, max(min(DEPTH, len(index) - 1), 1)))
    return float(overlap_at_k(*rankings).mean())


def _embed_queries(
    searcher: Searcher, queries: Sequence[Labelled]
) -> tuple[list[Item], dict[str, NDArray[np.float32]], NDArray[np.str_]]:
    items: list[Item] = []
    parts: dict[str, list[NDArray[np.float32]]] = {name: [] for name in searcher.models}
    with progress(len(queries), "queries") as bar:
        for done in embed_files([query.file for query in queries], searcher.models):
            items.extend(done.items)
            for name, rows in done.vectors.items():
                parts[name].append(rows)
            for failure in done.failures:
                bar.write(f"skipped {failure.path}: {failure.reason}")
            bar.update(len(done.items) + len(done.failures))
    if not items:
        raise RetrievalError(f"None of the {len(queries)} queries could be read. Check --queries.")
    label_of = {str(query.file.path): query.label for query in queries}
    vectors = {name: np.concatenate(rows) for name, rows in parts.items()}
    return items, vectors, np.array([label_of[item.path] for item in items])


def _own_ids(index: Index, items: Sequence[Item]) -> list[list[int]]:
    by_path = {str(Path(item.path).resolve()): i for i, item in enumerate(index.items)}
    own = []
    for item in items:
        at_path = by_path.get(str(Path(item.path).resolve()))
        own.append(
            sorted({*index.ids_by_digest.get(item.digest, []), *([] if at_path is None else [at_path])})
        )
    return own


def _rank_all(
    searcher: Searcher, vectors: dict[str, NDArray[np.float32]], mode: str, rows: slice, own: list[list[int]]
) -> NDArray[np.int64]:
    model, space = MODES[mode]
    similarity = vectors[model][rows] @ searcher.index.vectors(space).T
    for line, ids in zip(similarity, own[rows], strict=True):
        line[ids] = -np.inf
    return rank(similarity)


def _score(
    ranking: NDArray[np.int64],
    truth: NDArray[np.int64] | None,
    gallery: NDArray[np.str_],
    wanted: NDArray[np.str_],
    own: list[list[int]],
) -> NDArray[np.float64]:
    """One row for each metric; NaN where a query has no relevant item, or where there is no teacher."""
    relevant = gallery[ranking] == wanted[:, None]
    for line, ids in zip(relevant, own, strict=True):
        line[len(line) - len(ids) :] = False  # left out of the ranking: they stand at its end
    answerable = np.where(relevant.any(axis=1), 1.0, np.nan)
    rows = [
        average_precision(relevant),
        recall_at_k(relevant, 1) * answerable,
        recall_at_k(relevant, 5) * answerable,
    ]
    if truth is None:
        return np.stack([*rows, np.full(len(rows[0]), np.nan), np.full(len(rows[0]), np.nan)])
    lists = ranking[:, :DEPTH], truth[:, :DEPTH]
    return np.stack([*rows, overlap_at_k(*lists), rank_biased_overlap(*lists)])


def _summary(scores: NDArray[np.float64]) -> dict[str, float]:
    answerable = int((~np.isnan(scores[0])).sum())
    if not answerable:
        raise RetrievalError("No query has an image of its label in the index. Check --queries and --labels.")
    names = ("mAP", "R@1", "R@5", f"overlap@{DEPTH}", "RBO")
    summary = {"queries": float(answerable)}
    for name, row in zip(names, scores, strict=True):
        if not np.isnan(row).all():
            summary[name] = float(np.nanmean(row))
    if not np.isnan(scores[3]).all():
        summary[f"overlap@{DEPTH} p10"] = float(np.percentile(scores[3], 10))
    return summary
