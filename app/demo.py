"""Try everything on one machine: photos, teacher, student, index, comparison."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.page.disagreements.logic import compute_agreements
from app.page.report.measure import milliseconds_per_image
from app.sample_photos import make_sample_photos
from distill.model.export import DEMO_TEACHER, export_model
from distill.options import Options
from distill.pipeline import distill
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.embedders.teacher_space import TEACHER_SPACE, TeacherSpace
from index.errors import ImageError
from index.evaluation.evaluate import evaluate_labelled, read_labels
from index.evaluation.rankings import DEPTH
from index.evaluation.rankings import Options as Ranking
from index.images.decode import Photo, read_photo
from index.images.file import ImageFile
from index.images.sources import find_images
from index.io import content_digest
from index.progress import tell
from index.search import Searcher
from index.teachers.ledger import Ledger

OPTIONS = Options(budget=200, steps=60)
TIMED = 8  # photos that the speed is measured on
COMPARED = 1000  # photos at most whose lists by student and teacher are compared, where none has a label


@dataclass(frozen=True)
class Row:
    """One model in the table: facts and, between 0 and 1, quality; mAP is None where nothing is labelled."""

    name: str
    dim: int
    parameters: int
    megabytes: float
    milliseconds: float
    mean_average_precision: float | None
    agreement: float


def make_demo(images: Path | None, out: Path, teacher_folder: Path | None = None) -> list[Row]:
    """Make a student and an index, saying each step, print the table of both models, and return its rows.

    Images are a folder of the user's photos, None for the installed ones. The teacher is kept in a folder of
    its own, None for `out`; the index is `out / "index"`.
    """
    out.mkdir(parents=True, exist_ok=True)
    photos = out / "photos"
    if images is None:
        _say(f"[1/4] {make_sample_photos(photos)} photos, cut into views of known places: {photos}")
    sources = [images or photos / "gallery"]
    files = find_images(sources)

    _say("[2/4] the teacher: three ImageNet networks side by side, one ONNX file")
    teacher_file = (teacher_folder or out) / "teacher.onnx"
    teacher = OnnxEmbedder(
        teacher_file if teacher_file.is_file() else export_model(DEMO_TEACHER, teacher_file)
    )

    _say(f"[3/4] the student: distilled from {OPTIONS.budget} teacher queries at most, without labels")
    # Other photos get a budget of their own.
    of = content_digest(os.fsencode(sources[0].absolute()))[:8]
    with Ledger(out / f"ledger-{of}.sqlite", teacher.key) as ledger:
        distilled = distill(files, teacher, ledger, out / "student", OPTIONS)
    print(distilled.summary)
    student = OnnxEmbedder(out / "student" / "student.onnx")

    _say("[4/4] the index: every image embedded by both")
    beside = out / "student" / TEACHER_SPACE
    space = TeacherSpace.load(beside) if beside.is_file() else None
    index = build_index(sources, student, out / "index", teacher, space)
    rows = _measure(Searcher(index, student, teacher), files, None if images else photos)
    print(format_table(rows))
    print(f"Next: retrieval serve {out / 'index'}      Report: {out / 'student' / 'report.html'}", flush=True)
    return rows


def _say(step: str) -> None:
    print(step, flush=True)
    tell(step=step)


def _measure(searcher: Searcher, files: Sequence[ImageFile], labelled: Path | None) -> list[Row]:
    quality: dict[str, tuple[float | None, float]]
    if labelled:
        labels = read_labels(labelled / "queries.csv"), read_labels(labelled / "gallery.csv")
        scores = evaluate_labelled(searcher, *labels, Ranking(["teacher", "student"]))
        quality = {name: (row["mAP"], row[f"overlap@{DEPTH}"]) for name, row in scores.items()}
    else:
        agreed = compute_agreements(searcher, lambda _: None, COMPARED).overlap.mean()
        quality = {"teacher": (None, 1.0), "student": (None, float(agreed))}
    photos: list[Photo] = []
    for file in files:
        with suppress(ImageError):  # which the index has left out, too
            photos.append(read_photo(file))
        if len(photos) == TIMED:
            break
    milliseconds = milliseconds_per_image([searcher.models[name] for name in quality], photos)
    rows = []
    for name, scored in quality.items():
        model = searcher.models[name]
        assert isinstance(model, OnnxEmbedder)
        parameters, size = int(model.metadata["retrieval.parameters"]), len(model.data) / 1e6
        rows.append(Row(name, model.dim, parameters, size, milliseconds[model.key], *scored))
    return rows


def format_table(rows: Sequence[Row]) -> str:
    """Format the table that the demo ends with."""
    lines = [f"{'':8}{'dim':>6}{'parameters':>12}{'MB':>8}{'ms/image':>10}{'mAP':>8}{'overlap@10':>12}"]
    for row in rows:
        quality = "-" if row.mean_average_precision is None else f"{100 * row.mean_average_precision:.1f}"
        lines.append(
            f"{row.name:8}{row.dim:6}{row.parameters / 1e6:11.2f}M{row.megabytes:8.1f}"
            f"{row.milliseconds:10.1f}{quality:>8}{100 * row.agreement:12.1f}"
        )
    return "\n".join([*lines, "mAP and overlap with the teacher in %; one image at a time."])
