from pathlib import Path

import pytest
from conftest import picture
from typer.testing import CliRunner

from app.cli import app
from app.page.background import Background
from app.page.report.measure import Point, Size, measure_labels
from app.page.report.views import render_verdict
from app.server.app import ServerOptions
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.errors import UsageError
from index.evaluation.verdict import Estimate
from index.search import Searcher

RUN = {"queried": 500, "agreement": {"held_out": 111, "among": 389, "overlap@10": 0.72}}
GALLERY = Estimate(0.64, 0.61, 0.67, 200, "photos of the gallery", 2640)
POINTS = [Point("student", 2.0, GALLERY), Point("teacher", 20.0, Estimate(1, 1, 1, 200, "photos"))]
SIZES = [Size("student", 3_000_000), Size("teacher", 51_000_000)]
SCORES = {
    mode: {"mAP": mean, "mAP ±": 0.04, "R@1": mean, "R@1 ±": 0.05, "queries": 208.0}
    for mode, mean in (("student", 0.5), ("teacher", 0.44))
}


def ended(result=None, error: str = "") -> Background:
    work: Background = Background(lambda _: result)
    work.result, work.error = result, error
    return work


def test_photos_held_out_come_before_those_of_the_gallery():
    told = render_verdict(RUN, SIZES, ended(POINTS), None, 1.2)
    assert (
        "Use the student with re-ranking: it finds 72 % (95 %: 64 to 80) of the teacher&#39;s top 10" in told
    )
    assert "among 389 images, measured on 111 photos held out of training." in told
    assert "It is 10 times as fast and 17 times smaller." in told
    assert told.index("photos held out") < told.index("photos of the gallery")
    assert "<td>2,640</td><td>64 % (95 %: 61 to 67)</td>" in told
    assert 'data-times="2.0,20.0" data-queried="500" data-price="1.2"' in told
    assert "64 % (95 %: 61 to 67) of the teacher" in render_verdict(None, SIZES, ended(POINTS), None, None)


def test_labels_come_before_agreement():
    told = render_verdict(RUN, SIZES, ended(POINTS), ended(SCORES), None)
    assert "Use the student: on your 208 labelled queries mAP is the student&#39;s 50.0 ± 4.0" in told
    assert "<td>44.0 ± 4.0</td><td>44.0 ± 5.0</td><td>208</td>" in told
    failed = render_verdict(RUN, SIZES, ended(POINTS), ended(error="The budget is spent."), None)
    assert "The budget is spent." in failed
    assert "72 %" in failed


def test_what_is_not_known_is_not_told():
    looked_up = render_verdict(RUN, [], ended(POINTS), None, 1.2)  # a teacher that is a file of vectors
    assert "times" not in looked_up.replace("data-times", "")
    assert "volume" not in looked_up
    assert "Measuring…" in render_verdict(None, SIZES, ended(), None, None)
    assert "no teacher" in render_verdict(None, SIZES, ended(error="There is no teacher."), None, None)


def test_labelled_queries_are_scored(tmp_path: Path, student_file: Path, teacher_file: Path):
    (tmp_path / "images").mkdir()
    for i in range(12):
        picture(i).save(tmp_path / "images" / f"{i}.png")
    rows = "".join(f"images/{i}.png,{i % 2}\n" for i in range(12))
    (tmp_path / "labels.csv").write_text("path,label\n" + rows)
    student, teacher = OnnxEmbedder(student_file), OnnxEmbedder(teacher_file)
    index = build_index([tmp_path / "images"], student, tmp_path / "idx", teacher)
    files = tmp_path / "labels.csv", tmp_path / "labels.csv"
    scores = measure_labels(Searcher(index, student, teacher), *files)
    assert scores.keys() == {"student", "teacher", "rerank"}
    assert scores["student"]["queries"] == 12
    assert 0 < scores["student"]["mAP ±"] < scores["student"]["mAP"]
    assert ServerOptions(labelled=files).labelled == files
    with pytest.raises(UsageError, match="cannot be read as a CSV file"):
        ServerOptions(labelled=(tmp_path / "gone.csv", files[1]))
    one = CliRunner().invoke(app, ["serve", str(tmp_path / "idx"), "--labels", str(files[0])])
    assert "--queries and --labels go together" in one.output + str(one.exception)
