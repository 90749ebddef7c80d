"""What models weigh, and time and agreement of every way to search an index, measured on its own photos."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.page.views import GALLERY
from index.build.embed import embed_files, join
from index.device import CUDA
from index.embedders.base import Embedder
from index.embedders.onnx import OnnxEmbedder
from index.embedders.registry import is_file_spec
from index.errors import ImageError, RetrievalError
from index.evaluation.evaluate import evaluate_labelled, read_labels
from index.evaluation.metrics import overlap_at_k
from index.evaluation.rankings import Options, Scores
from index.evaluation.verdict import Estimate
from index.images.decode import Photo, read_photo
from index.images.sources import image_at
from index.search import MODES, Searcher
from index.stores.base import Store
from index.stores.folder import COMPANIONS
from index.stores.records import Space
from index.timing import time_in_turns

DEPTH = 10
QUERIES = 200  # photos of the gallery that the quality is measured with
TIMED = 6  # photos that the time is measured with
ROUNDS = 3
_, _, *VARIANTS = COMPANIONS

Find = Callable[[slice], NDArray[np.int64]]  # a part of the queries to the ids that they find


@dataclass(frozen=True)
class Size:
    """What a model and its search index weigh, in bytes, and its space; None where that is not known."""

    name: str
    model: int | None
    space: Space | None = None
    search: int | None = None


@dataclass(frozen=True)
class Point:
    """One way to search, measured."""

    name: str  # what it is
    milliseconds: float  # one photo, decoded, to its results: embedding and search
    agreement: Estimate  # overlap@10 with what the teacher finds
    best: bool = False  # whether no other way is both faster and better


def find_variants(index: Store) -> dict[str, Path]:
    """Smaller files of the student that the index keeps, by name."""
    files = {name.split(".")[1]: index.companion(name) for name in VARIANTS}
    return {name: path for name, path in files.items() if path.is_file()}


def weigh(searcher: Searcher) -> list[Size]:
    """Weigh the models and their spaces."""
    index = searcher.index
    teacher = searcher.models["teacher"].spec if "teacher" in searcher.models else index.manifest.teacher
    models = {"student": index.model_file}
    if teacher and is_file_spec(teacher):
        models["teacher"] = Path(teacher)
    sizes = [
        Size(name, _bytes_of(models.get(name)), space, _bytes_of(index.data / f"{name}.faiss"))
        for name, space in index.manifest.spaces.items()
    ]
    return sizes + [Size(name, _bytes_of(path)) for name, path in find_variants(index).items()]


def measure(searcher: Searcher, report: Callable[[float], None]) -> list[Point]:
    """Measure every way to search with photos of the gallery, at no query to a paid teacher.

    Quality is that of the stored vectors, and a variant's that of the same photos embedded again. Time is the
    median of one photo at a time.

    Returns:
        The points, the fastest first.

    Raises:
        RetrievalError: There is no teacher to compare with, or no photo of the gallery can be read.
    """
    index = searcher.index
    if "teacher" not in searcher.stored_modes:
        raise RetrievalError(
            "This index was made without a teacher: there is no quality to measure. Index again with "
            "--teacher."
        )
    items = np.random.default_rng(0).choice(len(index), min(QUERIES, len(index)), replace=False).tolist()
    photos = _read_photos(searcher, items[:TIMED])
    variants = _open_variants(searcher)
    items, again = _embed_again(index, items, variants)
    own = [index.ids_by_digest[index.items[item].digest] for item in items]

    def stored(mode: str) -> Find:
        return lambda part: searcher.search_items(items[part], mode, DEPTH).ids

    def embedded(rows: NDArray[np.float32]) -> Find:
        return lambda part: searcher.search(rows[part], "student", DEPTH, own[part]).ids

    ways = [(mode, _models_of(searcher, mode), stored(mode)) for mode in searcher.vector_modes]
    ways += [(name, [model], embedded(again[name])) for name, model in variants.items()]
    ways = [way for way in ways if not any(model.calls.paid for model in way[1])]
    embedding = milliseconds_per_image([model for _, models, _ in ways for model in models], photos)
    truth = stored("teacher")(slice(None))
    points = []
    for name, models, find in ways:
        spent = sum(embedding[model.key] for model in models) + _search_milliseconds(find, len(items))
        agreed = Estimate.measure(overlap_at_k(find(slice(None)), truth), GALLERY, len(index))
        points.append(Point(name, spent, agreed))
        report(len(points) / len(ways))
    return mark_best(points)


def measure_labels(searcher: Searcher, queries: Path, labels: Path) -> dict[str, Scores]:
    """Score every way to search on labelled queries; a paid teacher is asked within its budget, no ranker."""
    options = Options(searcher.vector_modes)
    return evaluate_labelled(searcher, read_labels(queries), read_labels(labels), options)


def mark_best(points: Sequence[Point]) -> list[Point]:
    """Mark the Pareto points, which no other equals in both respects and beats in one; the fastest first."""
    marked = []
    for point in sorted(points, key=lambda point: point.milliseconds):
        quality = point.agreement.mean
        as_good = [other.milliseconds for other in points if other.agreement.mean >= quality]
        as_fast = [other.agreement.mean for other in points if other.milliseconds <= point.milliseconds]
        best = (min(as_good), max(as_fast)) == (point.milliseconds, quality)
        marked.append(replace(point, best=best))
    return marked


def milliseconds_per_image(models: Sequence[Embedder], photos: Sequence[Photo]) -> dict[str, float]:
    """Median time to prepare and embed one photo, by the model's key; models take turns, after a warm-up."""

    def embed_next(model: Embedder) -> Callable[[], object]:
        turns = cycle(photos)
        return lambda: model.embed([model.prepare(next(turns))])

    works = {model.key: embed_next(model) for model in models}
    times = time_in_turns([*works.values()], ROUNDS * len(photos), warm_up=len(photos))
    return dict(zip(works, times.tolist(), strict=True))


def _bytes_of(path: Path | None) -> int | None:
    return path.stat().st_size if path and path.is_file() else None


def _models_of(searcher: Searcher, mode: str) -> list[Embedder]:
    """The models that a query in this mode takes: one, or all where the mode joins them."""
    return [searcher.models[MODES[mode][0]]] if mode in MODES else list(searcher.models.values())


def _open_variants(searcher: Searcher) -> dict[str, Embedder]:
    student = searcher.models["student"]
    if searcher.index.manifest.spaces["student"].bits:  # their vectors search no codes
        return {}
    device = "cuda" if student.provider == CUDA else "cpu"
    opened = {name: OnnxEmbedder(path, device) for name, path in find_variants(searcher.index).items()}
    return {name: model for name, model in opened.items() if model.key != student.key}


def _read_photos(searcher: Searcher, items: Sequence[int]) -> list[Photo]:
    photos, side = [], searcher.decode_side()
    for item in items:
        entry = searcher.index.items[item]
        with suppress(ImageError):
            photos.append(read_photo(image_at(entry.path, entry.name, searcher.index.allowed), side))
    if not photos:
        raise RetrievalError("The photos of the gallery cannot be read any more: no time can be measured.")
    return photos


def _embed_again(
    index: Store, items: Sequence[int], models: dict[str, Embedder]
) -> tuple[list[int], dict[str, NDArray[np.float32]]]:
    """Embed items with models that have no stored vectors; those that can still be read, with their rows."""
    if not models:
        return list(items), {}
    by_path = {index.items[item].path: item for item in items}
    files = [image_at(path, index.items[item].name, index.allowed) for path, item in by_path.items()]
    done = join(list(embed_files(files, models)))
    return [by_path[item.path] for item in done.items], done.vectors


def _search_milliseconds(find: Find, queries: int) -> float:
    parts = (slice(row, row + 1) for row in range(queries))
    return float(time_in_turns([lambda: find(next(parts))], min(ROUNDS * TIMED, queries), warm_up=0)[0])
