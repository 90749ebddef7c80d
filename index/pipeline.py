"""From sources to an index: what is embedded is written, searchable once all of it is there."""

from collections.abc import Sequence
from pathlib import Path

from index.asking import ask_all
from index.bill import make_bill
from index.embedder import Embedder, OnnxEmbedder
from index.embedding import embed_files
from index.errors import RetrievalError
from index.images import find_images
from index.paid import PaidEmbedder
from index.progress import progress, say
from index.store import Index, IndexWriter
from index.teacher import TeacherSpec
from index.teacher_space import FILE as TEACHER_SPACE
from index.teacher_space import TeacherSpace
from index.tuning import Need, build_tuned


def index_by_name(
    sources: Sequence[Path],
    model: Path,
    out: Path,
    teacher: TeacherSpec,
    factory: str,
    device: str,
    need: Need | None = None,
    metadata: Path | None = None,
) -> Index:
    """`build_index`, with everything given by its name; teacher space is taken from beside the student.

    Args:
        sources: Folders and files.
        model: The student's ONNX file.
        out: The index folder.
        teacher: Without a spec, the student indexes alone.
        factory: A FAISS factory string, or `auto`.
        device: `auto`, `cpu` or `cuda`.
        need: What is asked of the FAISS indexes.
        metadata: A CSV file with a column `path` and others to filter by.

    Raises:
        RetrievalError: As `build_index`, and where a model cannot be opened.
    """
    student = OnnxEmbedder(model, device)
    beside = model.with_name(TEACHER_SPACE)
    space = TeacherSpace.load(beside) if teacher.spec and beside.is_file() else None
    opened = teacher.open(device) if teacher.spec else None
    return build_index(sources, student, out, opened, space, factory, need, metadata)


def build_index(
    sources: Sequence[Path],
    student: OnnxEmbedder,
    out: Path,
    teacher: Embedder | None = None,
    space: TeacherSpace | None = None,
    factory: str = "auto",
    need: Need | None = None,
    metadata: Path | None = None,
) -> Index:
    """Embed images with one or two models and write the index folder.

    Args:
        sources: Folders and files.
        student: The model to search with; its file is kept in the index.
        out: The index folder; replaced whole, and only once the new one is complete.
        teacher: The model to compare with. A paid one is asked about all images first, if the budget allows.
        space: Projects the teacher's vectors to the student's space, for asymmetric search.
        factory: A FAISS factory string, or `auto` to choose one by the need.
        need: What is asked of the FAISS indexes; None takes the defaults.
        metadata: A CSV file with a column `path` and others to filter by.

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
        if metadata is not None:
            joined = writer.keep_metadata(metadata)
            say(f"{metadata}: {joined.counts}.")
        for name, rows in writer.finish_vectors().items():
            made = writer.add_ann(name, *build_tuned(rows, need or Need(), factory))
            say(f"{name}: {made.as_served(len(rows))}.")
        writer.keep_model(student)
        return writer.commit(teacher)
