"""From sources to an index: what is embedded is written, searchable once all of it is there."""

from collections.abc import Sequence
from pathlib import Path

from index.ann import build_ann, choose_factory, measure_recall
from index.asking import ask_all, digest_pool
from index.bill import make_bill
from index.embedder import Embedder, OnnxEmbedder
from index.embedding import embed_files
from index.errors import RetrievalError
from index.images import find_images
from index.paid import PaidEmbedder
from index.progress import progress
from index.store import Index, IndexWriter
from index.teacher import TeacherSpec
from index.teacher_space import FILE as TEACHER_SPACE
from index.teacher_space import TeacherSpace
from index.vectors_file import VectorsEmbedder, find_missing


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
    student = OnnxEmbedder(model, device, threads=1)
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
        UsageError: A source, `out` or `factory` is wrong, or a file of vectors lacks images.
        BudgetError: The teacher's budget is too small; nothing was asked.
        RetrievalError: No image could be read, or a model failed.
    """
    files = find_images(sources)
    if isinstance(teacher, PaidEmbedder):
        make_bill(files, teacher, teacher.ledger, teacher.budget).require_budget()
        ask_all(files, teacher)
    elif isinstance(teacher, VectorsEmbedder):
        find_missing(files, digest_pool(files), teacher)  # what may be missing is listed as refused
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
            bar.set_postfix_str(f"{done.waiting:.0%} waiting for data", refresh=False)
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
