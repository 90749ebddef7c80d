"""Revisited Oxford and Paris: their three protocols, and their way to treat a query.

After Radenovic, Iscen, Tolias, Avrithis and Chum, "Revisiting Oxford and Paris: Large-Scale Image Retrieval
Benchmarking" (CVPR 2018), and the code that the authors publish with it.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from index.embedders.base import embed_checked
from index.errors import ImageError, RetrievalError, UsageError
from index.evaluation.metrics import revisited_average_precision, revisited_precision_at_k
from index.evaluation.rankings import ByMode, Options, Read, Values, check_modes, score_modes
from index.images.decode import Photo, read_photo, with_pixels
from index.images.file import ImageFile
from index.images.sources import find_images
from index.progress import progress
from index.search import Searcher
from index.vectors import Vectors

T = TypeVar("T")
Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels

NEGATIVE, EASY, HARD, JUNK = range(4)
GRADES = {"easy": EASY, "hard": HARD, "junk": JUNK}


@dataclass(frozen=True)
class GroundTruth:
    """What is known of a database and its queries, which are named without extension."""

    database: list[str]
    queries: list[str]
    boxes: list[Box]  # that each query is cropped to
    grades: NDArray[np.uint8]  # `(queries, database)`: `NEGATIVE`, `EASY`, `HARD` or `JUNK`


def read_ground_truth(path: Path) -> GroundTruth:
    """Read the JSON form of the published ground truth, ids counted from 0.

    `{"imlist": [name, ...], "qimlist": [name, ...],
    "gnd": [{"bbx": [left, top, right, bottom], "easy": [id, ...], "hard": [...], "junk": [...]}, ...]}`

    Raises:
        UsageError: It cannot be read, is a pickle, or is not well formed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    if path.suffix in {".pkl", ".pickle"} or data.startswith(b"\x80"):
        raise UsageError(
            f"{path} is a pickle, which can run programs and is never loaded. "
            "Give the same ground truth as JSON, with the keys imlist, qimlist and gnd."
        )
    try:
        return _parse(json.loads(data))
    except (ValueError, RecursionError) as error:  # what `json` raises as well
        reason = error if isinstance(error, ValueError) else "nested too deeply"
        raise UsageError(f"{path} is not revisited ground truth: {reason}.") from error


def _parse(raw: Any) -> GroundTruth:
    """Check everything and raise ValueError with the first fault."""
    if not isinstance(raw, dict) or not {"imlist", "qimlist", "gnd"} <= raw.keys():
        raise ValueError("it needs the keys imlist, qimlist and gnd")
    database, queries = _names(raw["imlist"], "imlist"), _names(raw["qimlist"], "qimlist")
    if len(set(database)) < len(database):
        raise ValueError("imlist has a name twice")
    entries = raw["gnd"]
    if not isinstance(entries, list) or len(entries) != len(queries):
        raise ValueError("gnd needs one entry for each name in qimlist")
    boxes, grades = [], np.full((len(queries), len(database)), NEGATIVE, np.uint8)
    for row, (name, entry) in enumerate(zip(queries, entries, strict=True)):
        try:
            boxes.append(_parse_entry(entry, grades[row]))
        except ValueError as error:
            raise ValueError(f"query {name}: {error}") from error
    return GroundTruth(database, queries, boxes, grades)


def _names(raw: Any, key: str) -> list[str]:
    if not isinstance(raw, list) or not raw or not all(isinstance(name, str) and name for name in raw):
        raise ValueError(f"{key} must be a list of names")
    return raw


def _parse_entry(entry: Any, grades: NDArray[np.uint8]) -> Box:
    """Fill in the `(database,)` grades of a query, and return its box."""
    if not isinstance(entry, dict) or not {"bbx", *GRADES} <= entry.keys():
        raise ValueError("it needs the keys bbx, easy, hard and junk")
    box = entry["bbx"]
    pixels = isinstance(box, list) and all(type(edge) in (int, float) and abs(edge) < 1e6 for edge in box)
    if not pixels or len(box) != 4:  # NaN is no number of pixels, either
        raise ValueError("bbx must be four numbers of pixels")
    left, top, right, bottom = map(float, box)
    if left >= right or top >= bottom:
        raise ValueError(f"bbx must be left, top, right, bottom, not {box}")
    for key, grade in GRADES.items():
        ids = entry[key]
        if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < len(grades) for i in ids):
            raise ValueError(f"{key} must be ids from 0 to {len(grades) - 1}, the places in imlist")
        for i in ids:
            if grades[i] != NEGATIVE:
                raise ValueError(f"id {i} is listed twice")
            grades[i] = grade
    return left, top, right, bottom


LONGER_SIDE = 1024  # pixels, of what a query is shown as
DEPTHS = (1, 5, 10)  # of mP@k
OUTSIDE = 0.05  # of the longer side: how far a box may reach beyond its image

# protocol: (what is relevant, what is taken out of the ranking)
PROTOCOLS = {"E": ((EASY,), (JUNK, HARD)), "M": ((EASY, HARD), (JUNK,)), "H": ((HARD,), (JUNK, EASY))}


def evaluate_revisited(searcher: Searcher, truth: GroundTruth, folder: Path, options: Options) -> ByMode:
    """Rank the database exactly for every query. Items of the index outside the database are left out.

    Boxes and size rule are for the queries, which are in `folder`, at any depth; the database stays as it was
    indexed.

    Returns:
        For each mode and each protocol `E`, `M`, `H`: `mAP E`, `mP@1 E`, `mP@5 E`, `mP@10 E`, and
        `queries E`, which counts the queries that have an answer; `queries` and `database` count all.
        With a teacher also the agreement that `score_modes` measures.

    Raises:
        UsageError: Images of the database, queries or a mode are missing, or `folder` is none.
        RetrievalError: A query cannot be read, is not the image that was annotated, or a model failed.
    """
    check_modes(searcher, options)
    if not folder.is_dir():
        raise UsageError(
            f"{folder} is not a folder. With --revisited, --queries is the folder of the queries."
        )
    items = enumerate(searcher.index.items)
    named = [(Path(file.name).stem, i) for i, item in items for file in item.files]
    gallery = np.array(_match(truth.database, named, "database images", searcher.index.path))
    found = ((file.path.stem, file) for file in find_images([folder]))
    files = _match(truth.queries, found, "queries", folder)

    def read(row: int) -> Photo:
        return crop_query(read_photo(files[row]), truth.boxes[row])

    def score(ranking: NDArray[np.int64], rows: slice) -> Values:
        return score_grades(np.take_along_axis(truth.grades[rows], ranking, axis=1))

    vectors = _embed_queries(searcher, files, read)
    scores = score_modes(searcher, vectors, score, options, read, gallery=gallery)
    counts = {"queries": float(len(files)), "database": float(len(gallery))} | {
        f"queries {name}": float(np.isin(truth.grades, relevant).any(axis=1).sum())
        for name, (relevant, _) in PROTOCOLS.items()
    }
    return {mode: {**counts, **row} for mode, row in scores.items()}


def score_grades(grades: NDArray[np.uint8]) -> Values:
    """Score rankings under every protocol.

    Grades are `(queries, items)`, of the item at each rank of the full ranking; values are `(queries,)` for
    each of `mAP E`, `mP@1 E`, ..., NaN for a query with nothing relevant.
    """
    values = {}
    for name, (ok, out) in PROTOCOLS.items():
        relevant, junk = np.isin(grades, ok), np.isin(grades, out)
        values[f"mAP {name}"] = revisited_average_precision(relevant, junk)
        for k in DEPTHS:
            values[f"mP@{k} {name}"] = revisited_precision_at_k(relevant, junk, k)
    return values


def crop_query(photo: Photo, box: Box) -> Photo:
    """Crop a query to its box, then to the size rule.

    The whole image, decoded at its full size, would be shrunk to `LONGER_SIDE`, Lanczos, and never enlarged;
    the crop is shrunk as much. The box is rounded to pixels, and black where it reaches beyond the image.

    Raises:
        ImageError: The box lies outside of the image.
    """
    left, top, right, bottom = (round(edge) for edge in box)
    longer = max(photo.width, photo.height)
    slack = OUTSIDE * longer
    near = min(left, top) >= -slack and right <= photo.width + slack and bottom <= photo.height + slack
    if not near or max(left, 0) >= min(right, photo.width) or max(top, 0) >= min(bottom, photo.height):
        raise ImageError(
            f"its box {box} does not fit an image of {photo.width} x {photo.height} pixels: "
            "is this the image that was annotated, at its own size?"
        )
    crop = photo.image.crop((left, top, right, bottom))
    limit = max(LONGER_SIDE * max(crop.size) / longer, 1)
    crop.thumbnail((limit, limit), Image.Resampling.LANCZOS, reducing_gap=None)
    return with_pixels(photo, crop)


def _embed_queries(searcher: Searcher, files: Sequence[ImageFile], read: Read) -> dict[str, Vectors]:
    parts: dict[str, list[Vectors]] = {name: [] for name in searcher.models}
    with progress(len(files), "queries") as bar:
        for row, file in enumerate(files):
            try:
                query = read(row)
                inputs = {name: model.prepare(query) for name, model in searcher.models.items()}
            except ImageError as reason:
                raise RetrievalError(f"Query {file.path}: {reason}") from reason
            for name, model in searcher.models.items():
                parts[name].append(embed_checked(model, [inputs[name]], [file.name]))
            bar.update()
    return {name: np.concatenate(rows) for name, rows in parts.items()}


def _match(names: Sequence[str], found: Iterable[tuple[str, T]], what: str, where: Path) -> list[T]:
    """Find what belongs to each name, once; else UsageError."""
    places: dict[str, list[T]] = {}
    for stem, thing in found:
        places.setdefault(stem, []).append(thing)
    if missing := [name for name in names if name not in places]:
        raise UsageError(
            f"{len(missing)} of {len(names)} {what} are not in {where}, the first: {missing[0]}. "
            "Images belong to --revisited by their file names without extension."
        )
    if twice := [name for name in names if len(places[name]) > 1]:
        raise UsageError(
            f"{len(twice)} of {len(names)} {what} are in {where} more than once, the first: {twice[0]}. "
            "Leave one file of each name."
        )
    return [places[name][0] for name in names]
