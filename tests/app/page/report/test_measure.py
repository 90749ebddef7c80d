from pathlib import Path
from time import sleep

import numpy as np
import pytest
from conftest import write_embedder

from app.page.report.measure import Point, mark_best, measure, milliseconds_per_image
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.embedders.teacher_space import TeacherSpace
from index.errors import RetrievalError
from index.evaluation.metrics import overlap_at_k
from index.evaluation.verdict import Estimate
from index.images.decode import read_photo
from index.images.sources import find_images
from index.search import Searcher


@pytest.fixture
def searcher(folder: Path, tmp_path: Path, student_file: Path, teacher_file: Path, unit_rows) -> Searcher:
    write_embedder(tmp_path / "student.int8.onnx", dim=8, seed=3)
    space = TeacherSpace(unit_rows(1, 12)[0] * 0, np.eye(8, 12, dtype=np.float32))
    student, teacher = OnnxEmbedder(student_file), OnnxEmbedder(teacher_file)
    return Searcher(build_index([folder], student, tmp_path / "idx", teacher, space), student, teacher)


def test_every_way_to_search_is_measured(searcher: Searcher, monkeypatch):
    monkeypatch.setattr("app.page.report.measure.DEPTH", 4)
    shares = []
    points = {point.name: point for point in measure(searcher, shares.append)}
    assert set(points) == {"student", "teacher", "asymmetric", "rerank", "int8"}
    assert all(0 < point.milliseconds < 1000 for point in points.values())
    assert points["teacher"].agreement.mean == 1
    assert points["teacher"].best
    every = list(range(12))
    truth = searcher.search_items(every, "teacher", 4).ids
    for mode in ("student", "asymmetric"):
        found = searcher.search_items(every, mode, 4).ids
        assert points[mode].agreement.mean == pytest.approx(overlap_at_k(found, truth).mean())
    assert points["int8"].agreement.mean != points["student"].agreement.mean
    assert shares[-1] == 1


def test_a_model_with_a_price_is_never_asked(searcher: Searcher, monkeypatch):
    class Paid:
        def __getattr__(self, name):
            if name in ("prepare", "embed"):
                pytest.fail("It was asked.")
            return getattr(searcher.models["teacher"], name)

        class calls:  # noqa: N801
            paid = True

    priced = Searcher(searcher.index, searcher.models["student"], Paid())
    assert {point.name for point in measure(priced, lambda _: None)} == {"student", "asymmetric", "int8"}


def test_what_cannot_be_measured_is_said(searcher: Searcher, folder: Path, tmp_path: Path):
    student = searcher.models["student"]
    alone = Searcher(build_index([folder], student, tmp_path / "alone"), student)
    with pytest.raises(RetrievalError, match="without a teacher"):
        measure(alone, lambda _: None)
    for item in searcher.index.items:
        Path(item.path).unlink()
    with pytest.raises(RetrievalError, match="cannot be read any more"):
        measure(searcher, lambda _: None)


def agreed(mean: float) -> Estimate:
    return Estimate(mean, mean, mean, 200, "photos of the gallery")


def test_the_pareto_points_are_those_that_nothing_beats():
    points = [
        Point("slow and good", 90, agreed(1.0)),
        Point("fast", 5, agreed(0.5)),
        Point("as fast and worse", 5, agreed(0.4)),
        Point("slower and no better", 6, agreed(0.5)),
        Point("its twin", 90, agreed(1.0)),
    ]
    marked = mark_best(points)
    assert [point.milliseconds for point in marked] == sorted(point.milliseconds for point in points)
    assert {point.name for point in marked if point.best} == {"slow and good", "fast", "its twin"}


def test_each_model_is_timed_on_its_own(searcher: Searcher, folder: Path, monkeypatch):
    student, teacher = searcher.models["student"], searcher.models["teacher"]
    embed = teacher.embed
    monkeypatch.setattr(teacher, "embed", lambda batch: (sleep(0.02), embed(batch))[1])
    photos = [read_photo(file) for file in find_images([folder])[:2]]
    times = milliseconds_per_image([student, teacher, student], photos)
    assert set(times) == {student.key, teacher.key}
    assert times[teacher.key] >= 20 > times[student.key] > 0
