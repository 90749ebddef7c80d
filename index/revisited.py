"""Revisited Oxford and Paris: their ground truth, their three protocols, their way to treat a query.

After Radenovic, Iscen, Tolias, Avrithis and Chum, "Revisiting Oxford and Paris: Large-Scale Image Retrieval
Benchmarking" (CVPR 2018), and the code that the authors publish with it.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from index.embedder import embed_checked
from index.errors import ImageError, RetrievalError, UsageError
from index.images import ImageFile, Photo, find_images, read_photo, with_pixels
from index.metrics import revisited_average_precision, revisited_precision_at_k
from index.multiscale import at_scales
from index.progress import progress
from index.rankings import Options, Scores, Values, check_modes, score_modes
from index.search import Searcher

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels

LONGER_SIDE = 1024  # pixels, of what a query is shown as
DEPTHS = (1, 5, 10)  # of mP@k
OUTSIDE = 0.05  # of the longer side: how far a box may reach beyond its image

NEGATIVE, EASY, HARD, JUNK = range(4)
GRADES = {"easy": EASY, "hard": HARD, "junk": JUNK}
# protocol: (what is relevant, what is taken out of the ranking)
PROTOCOLS = {"E": ((EASY,), (JUNK, HARD)), "M": ((EASY, HARD), (JUNK,)), "H": ((HARD,), (JUNK, EASY))}

FROM_PICKLE = (
    "is a pickle, which can run programs and is never loaded here. If you trust it, turn it into JSON: "
    """python -c "import json, pickle, sys; json.dump(pickle.load(open(sys.argv[1], 'rb')), """
    """open('gnd.json', 'w'), default=lambda a: a.tolist())" """
)


@dataclass(frozen=True)
class GroundTruth:
    """What is known of a database and its queries.

    Attributes:
        database: Names of the images that are ranked, without extension.
        queries: Names of the query images, without extension.
        boxes: What each query is cropped to.
        grades: `(queries, database)` uint8: `NEGATIVE`, `EASY`, `HARD` or `JUNK`.
    """

    database: list[str]
    queries: list[str]
    boxes: list[Box]
    grades: NDArray[np.uint8]


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
        raise UsageError(f"{path} {FROM_PICKLE}{path}")
    try:
        return _parse(json.loads(data))
    except RecursionError as error:
        raise UsageError(f"{path} is not revisited ground truth: nested too deeply.") from error
    except ValueError as error:  # what `json` raises as well
        raise UsageError(f"{path} is not revisited ground truth: {error}.") from error


def evaluate_revisited(
    searcher: Searcher, truth: GroundTruth, folder: Path, options: Options
) -> dict[str, Scores]:
    """Rank the database exactly for every query. Items of the index outside the database are left out.

    Args:
        searcher: The index and its models.
        truth: The ground truth.
        folder: Where the query images are, at any depth.
        options: How to rank.

    Returns:
        For each mode and each protocol `E`, `M`, `H`: `mAP E`, `mP@1 E`, `mP@5 E`, `mP@10 E`, and
        `queries E`, which counts the queries that have an answer; `queries` and `database` count all.
        With a teacher also the agreement that `score_modes` measures.

    Raises:
        UsageError: Images of the database or queries are missing, or a mode is.
        RetrievalError: A query cannot be read, is not the image that was annotated, or a model failed.
    """
    check_modes(searcher, options)
    stems = [Path(item.name).stem for item in searcher.index.items]
    where = f"in {searcher.index.path}. Index the images that --revisited names"
    gallery = np.array(_match(truth.database, stems, "database images", where))
    found = find_images([folder])
    where = f"in {folder}. Give the folder of the query images as --queries"
    files = [found[i] for i in _match(truth.queries, [file.path.stem for file in found], "queries", where)]
    vectors = _embed_boxes(searcher, files, truth.boxes, options.scales)

    def score(ranking: NDArray[np.int64], rows: slice) -> Values:
        return score_grades(np.take_along_axis(truth.grades[rows], ranking, axis=1))

    scores = score_modes(searcher, vectors, score, options, gallery=gallery)
    counts = {"queries": float(len(files)), "database": float(len(gallery))} | {
        f"queries {name}": float(np.isin(truth.grades, relevant).any(axis=1).sum())
        for name, (relevant, _) in PROTOCOLS.items()
    }
    return {mode: {**counts, **row} for mode, row in scores.items()}


def score_grades(grades: NDArray[np.uint8]) -> Values:
    """Score rankings under every protocol.

    Args:
        grades: `(queries, items)`, the grade of the item at each rank, over the full ranking.

    Returns:
        `(queries,)` for each of `mAP E`, `mP@1 E`, ...; NaN for a query with nothing relevant.
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

    The whole image would be shrunk to `LONGER_SIDE`, Lanczos, and never enlarged; the crop is shrunk as much.

    Args:
        photo: The whole image, decoded at its full size.
        box: What to keep; rounded to pixels, and black where it reaches beyond the image.

    Raises:
        ImageError: The box lies outside of the image.
    """
    left, top, right, bottom = (round(edge) for edge in box)
    longer = max(photo.image.size)
    slack = OUTSIDE * longer
    inside = min(left, top) >= -slack and right <= photo.width + slack and bottom <= photo.height + slack
    if not inside or left >= right or top >= bottom:
        raise ImageError(
            f"its box {box} does not fit an image of {photo.width} x {photo.height} pixels: "
            "is this the image that was annotated, at its own size?"
        )
    crop = photo.image.crop((left, top, right, bottom))
    limit = max(LONGER_SIDE * max(crop.size) / longer, 1)
    crop.thumbnail((limit, limit), Image.Resampling.LANCZOS, reducing_gap=None)
    return with_pixels(photo, crop)


def _embed_boxes(
    searcher: Searcher, files: Sequence[ImageFile], boxes: Sequence[Box], scales: Sequence[float]
) -> dict[str, NDArray[np.float32]]:
    models = {name: at_scales(model, scales) for name, model in searcher.models.items()}
    parts: dict[str, list[NDArray[np.float32]]] = {name: [] for name in models}
    with progress(len(files), "queries") as bar:
        for file, box in zip(files, boxes, strict=True):
            try:
                query = crop_query(read_photo(file), box)
            except ImageError as reason:
                raise RetrievalError(f"Query {file.path}: {reason}") from reason
            for name, model in models.items():
                parts[name].append(embed_checked(model, [model.prepare(query)], [file.name]))
            bar.update()
    return {name: np.concatenate(rows) for name, rows in parts.items()}


def _match(names: Sequence[str], stems: Sequence[str], what: str, where: str) -> list[int]:
    """Find each name among file names without their extensions."""
    places: dict[str, list[int]] = {}
    for i, stem in enumerate(stems):
        places.setdefault(stem, []).append(i)
    if missing := [name for name in names if name not in places]:
        raise UsageError(f"{len(missing)} of {len(names)} {what} are not {where}. The first: {missing[0]}.")
    if twice := [name for name in names if len(places[name]) > 1]:
        raise UsageError(f"{len(twice)} {what} are there more than once {where}. The first: {twice[0]}.")
    return [places[name][0] for name in names]


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
            boxes.append(_box(entry))
            _fill(grades[row], entry)
        except ValueError as error:
            raise ValueError(f"query {name}: {error}") from error
    return GroundTruth(database, queries, boxes, grades)


def _names(raw: Any, key: str) -> list[str]:
    if not isinstance(raw, list) or not raw or not all(isinstance(name, str) and name for name in raw):
        raise ValueError(f"{key} must be a list of names")
    return raw


def _box(entry: Any) -> Box:
    if not isinstance(entry, dict) or not {"bbx", *GRADES} <= entry.keys():
        raise ValueError("it needs the keys bbx, easy, hard and junk")
    box = entry["bbx"]
    if not isinstance(box, list) or len(box) != 4 or not all(type(edge) in (int, float) for edge in box):
        raise ValueError("bbx must be four numbers")
    left, top, right, bottom = map(float, box)
    if not all(map(math.isfinite, (left, top, right, bottom))) or left >= right or top >= bottom:
        raise ValueError(f"bbx must be left, top, right, bottom, not {box}")
    return left, top, right, bottom


def _fill(grades: NDArray[np.uint8], entry: dict[str, Any]) -> None:
    for key, grade in GRADES.items():
        ids = entry[key]
        if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < len(grades) for i in ids):
            raise ValueError(f"{key} must be ids from 0 to {len(grades) - 1}, the places in imlist")
        for i in ids:
            if grades[i] != NEGATIVE:
                raise ValueError(f"id {i} is listed twice")
            grades[i] = grade
