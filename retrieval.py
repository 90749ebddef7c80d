"""Distil an image-embedding model, index photos and search them: the one import that a program needs.

What a caller can cause is a `RetrievalError`: a `UsageError` for a wrong request, an `ImageError` for a photo
that cannot be read, a `BudgetError` for a spent budget. Lines go to the logger `retrieval`, bars to stderr.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from index.arguments import call, in_python
from index.errors import BudgetError, ImageError, RetrievalError, UsageError
from index.hits import Hit, Hits

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from PIL.Image import Image

    from index.images.decode import Photo
    from index.search import Searcher
    from index.teachers.spec import TeacherSpec

    AnyPath = str | PathLike[str]
    Images = AnyPath | Sequence[AnyPath]
    AnyPhoto = AnyPath | bytes | Image | NDArray[Any]
    Model = AnyPath | Callable[[list[Image]], ArrayLike] | tuple[Sequence[str], ArrayLike]

__all__ = [
    "BudgetError",
    "Hit",
    "Hits",
    "ImageError",
    "Index",
    "RetrievalError",
    "Teacher",
    "UsageError",
    "build_index",
    "distill",
    "open_index",
]
TEACHER = "path, a URL, (ids, vectors) or a callable"
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


class Teacher:
    """A teacher with its budget, its ledger and its options. Without any, the model alone will do."""

    @in_python
    def __init__(
        self, model: Model | None = None, *, budget: int = 0, ledger: AnyPath | None = None, **options: Any
    ) -> None:
        """Describe a teacher; it is opened when it is needed.

        Args:
            model: A path, a URL, `(ids, vectors)`, or a callable that takes a list of n Pillow images and
                returns `(n, dim)`. A method or an object that is called needs an attribute `key`, a text
                that changes when its vectors do: its answers are kept under it.
            budget: How many images a paid teacher may ever be asked about; 0 lets only the ledger answer.
            ledger: The file of its answers; None keeps it in the cache folder.
            options: Fields of `index.embedders.options.EmbedderOptions`, such as `batch`.

        Raises:
            UsageError: The model or an option cannot be used.
        """
        from index.embedders.callable import CallableEmbedder
        from index.embedders.options import EmbedderOptions
        from index.embedders.vectors_file import keep_vectors
        from index.teachers.spec import TeacherSpec

        chosen, opened, name = call(EmbedderOptions, **options), None, None
        if callable(model):
            opened = CallableEmbedder(model, chosen)
            name = opened.spec
        elif model is not None:
            try:
                name = keep_vectors(*model) if isinstance(model, tuple) else fspath(model)
            except (TypeError, ValueError):
                raise UsageError(f"A teacher is a {TEACHER}, not {model!r:.40}.") from None
        file = None if ledger is None else Path(ledger)
        self.spec: TeacherSpec = TeacherSpec(name, chosen, file, budget, opened)


class Index:
    """An open index: what `build_index` and `open_index` return.

    Attributes:
        searcher: What it searches with.
    """

    def __init__(self, searcher: Searcher) -> None:
        if not hasattr(searcher, "models"):
            path = fspath(searcher) if isinstance(searcher, str | PathLike) else "folder"
            raise UsageError(f"Open an index with retrieval.open_index({path!r}).")
        self.searcher = searcher

    def __len__(self) -> int:
        return len(self.searcher.index)

    def __repr__(self) -> str:
        return f"Index({self.searcher.index}, {len(self)} images, modes {', '.join(self.modes)})"

    @property
    def modes(self) -> list[str]:
        """The ways to search that this index and its models allow."""
        return self.searcher.modes

    @in_python
    def search(
        self,
        photo: AnyPhoto,
        *,
        k: int = 10,
        mode: str = "student",
        where: Mapping[str, str] | None = None,
        prefix: str = "",
        cut: float = 0.0,
        like: AnyPhoto | Sequence[AnyPhoto] = (),
        unlike: AnyPhoto | Sequence[AnyPhoto] = (),
    ) -> Hits:
        """Find the images most like a photo. A file never finds itself, nor a copy of itself.

        Args:
            photo: A path, the bytes of an image file, a Pillow image, or an `(h, w, 3)` uint8 array.
            k: How many hits.
            mode: `student`, `teacher`, `asymmetric` or `rerank`.
            where: What columns of the metadata must have: a value, one of several as `red,blue`, or bounds of
                numbers or dates as `<20` or `>=2024-05-01&<2024-06-01`.
            prefix: What the name of an image, its path below the folder that was indexed, must start with.
            cut: Least share of the best similarity; 0 cuts nothing.
            like: Photos to find more of, by Rocchio's formula.
            unlike: Photos to find less of.

        Raises:
            ImageError: The photo cannot be read.
            RetrievalError: The index has no such mode or column, or a model failed.
        """
        from index.feedback import Examples
        from index.stores.filters import Filter

        store = self.searcher.index
        if reason := self.searcher.why_not(mode):
            raise UsageError(reason)
        side = self.searcher.decode_side()
        examples = Examples(*([_read(each, side) for each in _list(photos)] for photos in (like, unlike)))
        wanted = Filter(prefix, where or {}, cut)
        found = self.searcher.find([_read(photo, side)], mode, k, wanted, examples).results
        return Hits(
            Hit(rank, i, score, store.items[i].path, store.items[i].name, store.metadata_of(i))
            for rank, (i, score) in enumerate(found.hits(), 1)
        )

    @in_python
    def embed(self, photos: AnyPhoto | Sequence[AnyPhoto], *, model: str = "student") -> NDArray[Any]:
        """Embed n photos, or one, to `(n, dim)` float32 unit rows, with the student or the teacher.

        Raises:
            ImageError: One of them cannot be read.
            RetrievalError: There is no such model here, or it failed.
        """
        import numpy as np

        from index.embedders.base import embed_checked

        if (embedder := self.searcher.models.get(model)) is None:
            raise UsageError(self.searcher.teacher_missing or f"No model {model!r} here.")
        given: Any = photos
        one = (
            isinstance(given, str | bytes) or not hasattr(given, "__len__") or getattr(given, "ndim", 0) == 3
        )
        each, rows, batch = [given] if one else list(given), [], embedder.calls.batch
        for start in range(0, len(each), batch):
            read = [_read(photo, embedder.decode_side) for photo in each[start : start + batch]]
            inputs, names = [embedder.prepare(photo) for photo in read], [photo.name for photo in read]
            rows.append(embed_checked(embedder, inputs, names))
        return np.concatenate(rows) if rows else np.empty((0, embedder.dim), np.float32)


@in_python
def distill(
    images: Images,
    *,
    teacher: Model | Teacher,
    out: AnyPath,
    budget: int | Sequence[int] | None = None,
    recipe: str = "default",
    progress: bool = True,
    **options: Any,
) -> Path:
    """Train a student to rank like a teacher.

    Args:
        images: Folders, image files, lists or tar shards.
        teacher: What to learn from.
        out: The student folder to write.
        budget: How many images the teacher may ever be asked about; several train a student each. None takes
            that of a `Teacher`, or 500.
        recipe: How to train.
        progress: Whether to show bars.
        options: Fields of `distill.options.Options`, as `size` or `target="1.5 ms"` ("0.7M", "40 mflops"), of
            which several train a student each. Of `helpers` each may be what a teacher may be, but a URL.

    Returns:
        The student's ONNX file. Beside it lie `report.html` and `run.json`.

    Raises:
        RetrievalError: A request is wrong, the budget is spent, or the teacher failed.
    """
    from distill.options import Options, Target
    from distill.pipeline import STUDENT, distill_by_name
    from distill.training.recipes import find_recipe
    from index.progress import bars, say

    spec = _spec(teacher)
    asked = spec.budget or Options.budget if budget is None else budget
    budgets = [asked] if isinstance(asked, int) else sorted(asked)
    if 0 < spec.budget < budgets[-1]:
        raise UsageError(f"--budget {budgets[-1]} is above the teacher's own, {spec.budget}. Give one.")
    target = options.pop("target", None)
    wanted = () if target is None else _list(target)
    targets = [one if isinstance(one, Target) else Target.read(str(one)) for one in wanted]
    if (helpers := options.get("helpers")) is not None:
        opened = [Teacher(one).spec for one in _list(helpers)]
        options["helpers"] = tuple(one.opened or one.spec or "" for one in opened)
    chosen = call(Options, budget=budgets[-1], recipe=find_recipe(recipe), **options)
    names = cast("tuple[str, ...]", images)  # as `in_python` has read them
    with bars(progress):
        made = distill_by_name(names, spec, Path(out), chosen, budgets, targets)
    for line in made.summary.splitlines():
        say(line)
    return Path(out) / STUDENT


@in_python
def build_index(
    images: Images,
    student: AnyPath,
    *,
    out: AnyPath,
    teacher: Model | Teacher | None = None,
    metadata: AnyPath | None = None,
    exclude: Sequence[str] = (),
    recall: float | None = None,
    memory: float | None = None,
    factory: str | None = None,
    codes: int = 0,
    rescore: int | None = None,
    update: bool = False,
    resume: bool = False,
    device: str = "auto",
    progress: bool = True,
) -> Index:
    """Embed images, write an index and open it.

    Args:
        images: Folders, image files, lists or tar shards.
        student: A student folder or its ONNX file.
        out: The index folder, or `milvus://HOST:PORT/COLLECTION`.
        teacher: What to compare with; None indexes with the student alone.
        metadata: A CSV file with a column `path` and columns to filter by.
        exclude: Patterns of names to leave out, such as `*_small.jpg`.
        recall: Share of the ten nearest that a search must find; None keeps it, 0.95 at first.
        memory: GiB that each search index may take; None keeps it, 1 at first.
        factory: A FAISS factory string, or `auto`; None keeps it, `auto` at first.
        codes: Bits of the student's codes to search by; 0 searches by its vectors.
        rescore: Results of codes that the floats of a query order again; None keeps it, 100 at first.
        update: Embed only what is new or changed.
        resume: Go on with a run that was interrupted.
        device: `auto`, `cpu`, `cuda` or `openvino`.
        progress: Whether to show bars.

    Raises:
        RetrievalError: A request is wrong, a budget is too small, no image can be read, or a model failed.
    """
    from index.build.pipeline import build_by_name
    from index.progress import bars, say
    from index.search import open_searcher
    from index.stores.options import IndexOptions
    from index.stores.registry import open_writer

    store, model, spec = open_writer(fspath(out), "faiss", "", None), Path(student), _spec(teacher)
    table, sources = None if metadata is None else Path(metadata), cast("tuple[str, ...]", images)
    options = IndexOptions(factory, recall, memory, table, resume, update, tuple(exclude), codes, rescore)
    with bars(progress):
        report = build_by_name(sources, model, store, spec, device, options)
    for line in (report.summary, *report.notes):
        say(line)
    return Index(open_searcher(fspath(out), spec, device))


@in_python
def open_index(
    path: AnyPath,
    *,
    teacher: Model | Teacher | None = None,
    ranker: Model | Teacher | None = None,
    model: AnyPath | None = None,
    device: str = "auto",
) -> Index:
    """Open an index with its student, and with its teacher or ranker if that is a file that is still there.

    Args:
        path: An index folder, or `milvus://HOST:PORT/COLLECTION`.
        teacher: The teacher, if it has moved since indexing, or is no file.
        ranker: What orders results in mode `rerank` in place of a teacher: as a teacher, but a callable takes
            a Pillow image and a list of others, and returns positions, and a `Teacher` counts lists.
        model: The student's ONNX file, for a collection that another machine wrote.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        RetrievalError: There is no index, or a model is not the one that made it.
    """
    from index.rankers.registry import CallableRanker, RankerSpec
    from index.search import open_searcher

    if teacher is not None and ranker is not None:
        raise UsageError("--teacher and --ranker do not go together. Give one of them.")
    judge, student = None, None if model is None else Path(model)
    if ranker is not None:
        spec = _spec(ranker)
        opened = CallableRanker(spec.opened) if spec.opened else None  # type: ignore[arg-type]
        judge = RankerSpec(spec.spec, spec.options, spec.ledger, spec.budget, opened)
    return Index(open_searcher(fspath(path), _spec(teacher), device, model=student, ranker=judge))


def _spec(teacher: Model | Teacher | None) -> TeacherSpec:
    return (teacher if isinstance(teacher, Teacher) else Teacher(teacher)).spec


def _list(given: Any) -> Sequence[Any]:
    """One thing, or several."""
    return given if isinstance(given, list | tuple) else [given]


def _read(photo: AnyPhoto, side: int) -> Photo:
    import numpy as np
    from PIL import Image, ImageOps

    from index.errors import in_line
    from index.images.decode import decode, encode, read_photo
    from index.images.file import ImageFile

    if isinstance(photo, str | PathLike):
        path = Path(photo).absolute()
        try:
            return read_photo(ImageFile(path, path.name), side)
        except ImageError as error:
            raise ImageError(f"{photo}: {error}") from error
    if isinstance(photo, bytes):
        return decode(photo, "photo", side)
    if not isinstance(photo, Image.Image):
        if not isinstance(photo, np.ndarray):
            raise UsageError(f"A photo is a path, bytes, a Pillow image or an array, not {photo!r:.40}.")
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
            raise UsageError(f"An array must be (h, w, 3) uint8, not {photo.shape} {photo.dtype}.")
        if 0 in photo.shape:
            raise UsageError(f"An array of {photo.shape} has no pixels.")
        photo = Image.fromarray(photo)
    try:
        image = photo if photo.mode in PNG_MODES else photo.convert("RGB")
        data = encode(ImageOps.exif_transpose(image), "PNG", compress_level=1)
    except (OSError, ValueError, SyntaxError) as error:  # of a file that Pillow has not read to its end
        raise ImageError(f"broken image: {in_line(error, False)}") from error
    return decode(data, "photo", side)


if __name__ == "__main__":
    from app.cli import main

    main()
