"""The ground truth of revisited Oxford and Paris, read from JSON and checked whole."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import UsageError

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
    except RecursionError as error:
        raise UsageError(f"{path} is not revisited ground truth: nested too deeply.") from error
    except ValueError as error:  # what `json` raises as well
        raise UsageError(f"{path} is not revisited ground truth: {error}.") from error


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
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_pixel, box)):
        raise ValueError("bbx must be four numbers of pixels")
    left, top, right, bottom = map(float, box)
    if left >= right or top >= bottom:
        raise ValueError(f"bbx must be left, top, right, bottom, not {box}")
    return left, top, right, bottom


def _is_pixel(edge: Any) -> bool:
    return type(edge) in (int, float) and abs(edge) < 1e6  # false for NaN, too


def _fill(grades: NDArray[np.uint8], entry: dict[str, Any]) -> None:
    for key, grade in GRADES.items():
        ids = entry[key]
        if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < len(grades) for i in ids):
            raise ValueError(f"{key} must be ids from 0 to {len(grades) - 1}, the places in imlist")
        for i in ids:
            if grades[i] != NEGATIVE:
                raise ValueError(f"id {i} is listed twice")
            grades[i] = grade
