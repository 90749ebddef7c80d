"""From files to an index: workers decode ahead, models embed in batches, the writer keeps what comes out."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.ahead import BATCH, WORKERS, map_ahead
from index.ann import build_ann, choose_factory, measure_recall
from index.asking import ask_all
from index.bill import make_bill
from index.embedder import Embedder, OnnxEmbedder, embed_checked
from index.errors import ImageError, RetrievalError, UnansweredError
from index.images import ImageFile, find_images, read_photo
from index.paid import PaidEmbedder
from index.progress import progress
from index.store import Failure, Index, IndexWriter, Item
from index.teacher import TeacherSpec
from index.teacher_space import FILE as TEACHER_SPACE
from index.teacher_space import TeacherSpace


@dataclass(frozen=True)
class Embedded:
    """What became of a stretch of files, in their order: n items, `(n, dim)` vectors by model, failures."""

    items: list[Item]
    vectors: dict[str, NDArray[np.float32]]
    failures: list[Failure]


@dataclass(frozen=True)
class _Prepared:
    item: Item
    inputs: dict[str, NDArray[Any]]


def embed_files(
    files: Sequence[ImageFile], models: Mapping[str, Embedder], batch: int = BATCH, workers: int = WORKERS
) -> Iterator[Embedded]:
    """Decode each file once and embed it with every model, in bounded memory.

    Args:
        files: What to embed.
        models: The embedders by name.
        batch: Images that a model is given at a time.
        workers: Threads that decode.

    Yields:
        The outcome of `batch` files at a time, in the order given.

    Raises:
        RetrievalError: A model answered something that is no unit vector.
    """
    side = max(model.side for model in models.values())

    def prepare(file: ImageFile) -> _Prepared | Failure:
        try:
            photo = read_photo(file, side)
            inputs = {name: model.prepare(photo) for name, model in models.items()}
        except ImageError as reason:
            return Failure(str(file.path), str(reason))
        mtime = int(file.path.stat().st_mtime)
        item = Item(
            str(file.path), file.name, photo.digest, len(photo.data), photo.width, photo.height, mtime
        )
        return _Prepared(item, inputs)

    with ThreadPoolExecutor(workers) as pool:
        outcomes = map_ahead(pool, prepare, files, ahead=2 * batch)
        while chunk := list(islice(outcomes, batch)):
            ready = [outcome for outcome in chunk if isinstance(outcome, _Prepared)]
            failures = [outcome for outcome in chunk if isinstance(outcome, Failure)]
            yield _embed(ready, models, failures)


def _embed(ready: list[_Prepared], models: Mapping[str, Embedder], failures: list[Failure]) -> Embedded:
    """Embed with every model; an image that one of them has no answer for is left out."""
    vectors: dict[str, NDArray[np.float32]] = {}
    for name, model in models.items():
        if not ready:
            break
        inputs, names = [one.inputs[name] for one in ready], [one.item.name for one in ready]
        try:
            vectors[name] = embed_checked(model, inputs, names)
        except UnansweredError as partial:
            failures += [Failure(ready[i].item.path, reason) for i, reason in partial.reasons.items()]
            return _embed([one for i, one in enumerate(ready) if i not in partial.reasons], models, failures)
    return Embedded([one.item for one in ready], vectors if ready else {}, failures)


def index_by_name(
    sources: Sequence[Path], model: Path, out: Path, teacher: TeacherSpec, factory: str, device: str
) -> Index:
    """`build_index`, with everything given by its name; teacher space is taken from beside the student.

    Args:
        sources: Folders and files.
        model: The student's ONNX file.
        out: The index folder.
        teacher: Without a spec, the student indexes alone.
        factory: A FAISS factory string, or `auto`.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        RetrievalError: As `build_index`, and where a model cannot be opened.
    """
    student = OnnxEmbedder(model, device)
    beside = model.with_name(TEACHER_SPACE)
    space = TeacherSpace.load(beside) if teacher.spec and beside.is_file() else None
    return build_index(sources, student, out, teacher.open(device) if teacher.spec else None, space, factory)


def build_index(
    sources: Sequence[Path],
    student: OnnxEmbedder,
    out: Path,
    teacher: Embedder | None = None,
    space: TeacherSpace | None = None,
    factory: str = "auto",
) -> Index:
    """Embed images with one or two models and write the index folder.

    Args:
        sources: Folders and files.
        student: The model to search with; its file is kept in the index.
        out: The index folder; replaced whole, and only once the new one is complete.
        teacher: The model to compare with. A paid one is asked about all images first, if the budget allows.
        space: Projects the teacher's vectors to the student's space, for asymmetric search.
        factory: A FAISS factory string, or `auto`.

    Returns:
        The index, opened.

    Raises:
        UsageError: A source, `out` or `factory` is wrong.
        BudgetError: The teacher's budget is too small; nothing was asked.
        RetrievalError: No image could be read, or a model failed.
    """
    files = find_images(sources)
    if isinstance(teacher, PaidEmbedder):
        make_bill(files, teacher, teacher.ledger, teacher.budget).require_budget()
        ask_all(files, teacher)
    models: dict[str, Embedder] = {"student": student} | ({"teacher": teacher} if teacher else {})
    projected = space if teacher and space and space.fits(teacher.dim, student.dim) else None
    with IndexWriter(out) as writer, progress(len(files), "index") as bar:
        for name, model in models.items():
            writer.add_space(name, model.key, model.name, model.dim)
        if projected is not None:
            writer.add_space("projected", projected.key, "teacher space", projected.dim)
        for done in embed_files(files, models):
            vectors = dict(done.vectors)
            if projected is not None and done.items:
                vectors["projected"] = projected.project(vectors["teacher"])
            writer.append(done.items, vectors, done.failures)
            bar.update(len(done.items) + len(done.failures))
        if not writer.count:
            raise RetrievalError(
                f"None of {len(files)} images could be read. The first: {writer.first_failure}"
            )
        for name, rows in writer.finish_vectors().items():
            chosen = choose_factory(len(rows)) if factory == "auto" else factory
            ann = build_ann(rows, chosen)
            writer.add_ann(name, ann, chosen, measure_recall(ann, rows))
        writer.keep_model(student)
        return writer.commit(teacher)
