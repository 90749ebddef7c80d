import json
from pathlib import Path

import pytest
from conftest import write_embedder

from app.page.background import Background
from app.page.report.measure import Point, find_variants, weigh
from app.page.report.views import (
    render_curve,
    render_health,
    render_report,
    render_sizes,
    render_training,
    render_ways,
)
from app.page.views import format_bytes
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.evaluation.verdict import Estimate
from index.search import Searcher

RUN = {
    "images": 400,
    "queried": 200,
    "teacher": {"name": "<teacher>.onnx", "dim": 12},
    "options": {"student": "tiny", "dim": 8},
    "student": {"weights": "none", "parameters": 384},
    "training": {
        "seconds": 33.2,
        "device": "cpu",
        "loss": [2.0, 1.0],
        "agreement": [[10, 0.5], [20, 0.75]],
        "kept_step": 20,
    },
    "agreement": {"held_out": 13, "overlap@10": 0.75},
}


def agreed(mean: float) -> Estimate:
    return Estimate(mean, mean - 0.05, mean + 0.05, 200, "photos of the gallery")


CURVE = {"curve": [{"queried": 100, "overlap@10": 0.5}, {"queried": 200, "overlap@10": 0.75}]}


@pytest.fixture
def searcher(folder: Path, tmp_path: Path, student_file: Path, teacher_file: Path) -> Searcher:
    """An index made of a student's folder, with a picture that cannot be read."""
    student, teacher = OnnxEmbedder(student_file), OnnxEmbedder(teacher_file)
    (tmp_path / "run.json").write_text(json.dumps(RUN | CURVE | {"export": {"key": student.key}}))
    write_embedder(tmp_path / "student.fp16.onnx", dim=8, seed=3)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no")
    return Searcher(build_index([folder], student, tmp_path / "idx", teacher), student, teacher)


def report_of(searcher: Searcher) -> str:
    return render_report(searcher.index, searcher.index.read_run(), weigh(searcher), "", "")


def test_the_run_and_the_variants_are_kept_with_the_index(searcher: Searcher, tmp_path: Path):
    (tmp_path / "run.json").unlink()
    assert searcher.index.read_run()["queried"] == 200
    assert list(find_variants(searcher.index)) == ["fp16"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"export": {"key": "onnx:other"}}', '{"export": 3}'])
def test_a_run_that_is_not_of_this_student_is_none(searcher: Searcher, text: str):
    (searcher.index.data / "run.json").write_text(text)
    assert searcher.index.read_run() is None
    assert "does not know how its student was trained" in report_of(searcher)


@pytest.mark.parametrize(
    "fault",
    [
        {"options": 3},
        {"curve": [{"queried": 0, "overlap@10": 0.5}, {"queried": 2, "overlap@10": 0.5}]},
        {"training": RUN["training"] | {"kept_step": "<script>"}},
        {"training": RUN["training"] | {"seconds": "<script>"}},
        {"queried": "<script>"},
        {"cost": [3]},
        CURVE | {"agreement": {"held_out": 0, "overlap@10": 0.5}},
    ],
)
def test_a_run_of_another_version_spoils_nothing_else(searcher: Searcher, fault: dict):
    (searcher.index.data / "run.json").write_text(
        json.dumps(RUN | fault | {"export": {"key": searcher.models["student"].key}})
    )
    html = report_of(searcher)
    assert "not as this version writes it" in html
    assert "<h2>Size</h2>" in html
    assert "<script>" not in html


def test_things_are_weighed(searcher: Searcher, student_file: Path, teacher_file: Path):
    sizes = {size.name: size for size in weigh(searcher)}
    assert set(sizes) == {"student", "teacher", "fp16"}
    assert sizes["student"].model == student_file.stat().st_size
    assert sizes["teacher"].model == teacher_file.stat().st_size
    assert sizes["teacher"].space.dim == 12  # 48 bytes a vector, as the page says below
    assert sizes["student"].search is None  # its vectors are searched themselves
    teacher_file.unlink()
    assert {size.name: size.model for size in weigh(searcher)}["teacher"] is None
    assert "48 B" in render_sizes(weigh(searcher))


def test_sizes_are_for_people():
    assert [format_bytes(n) for n in (None, 0, 999, 1000, 3_060_000, 2.5e9)] == [
        "-", "0 B", "999 B", "1.0 kB", "3.1 MB", "2.5 GB",
    ]  # fmt: skip


def test_refused_images_are_listed_by_their_name_below_the_folder(searcher: Searcher, folder: Path):
    html = render_health(searcher.index)
    assert "<li>broken.jpg: " in html
    assert ": <b>1</b></li>" in html
    assert str(folder) not in html
    assert "1.000" in html


def test_the_curve_has_a_point_for_each_budget_and_a_table():
    html = render_curve(RUN | CURVE)
    assert html.count("<circle") == 2
    assert "<polyline" in html
    assert '<th scope="row">100</th><td>50.0</td>' in html
    assert "13 photos" in html
    assert "One student was trained" in render_curve(RUN)


def test_ways_to_search_are_drawn_or_the_reason_is_said():
    work: Background = Background(lambda report: [])
    work.done = 0.25
    assert 'value="0.25"' in render_ways(work, [])
    work.result = [
        Point("student", 5, agreed(0.5), best=True),
        Point("slow", 9, agreed(0.4)),
        Point("teacher", 90, agreed(1.0), best=True),
    ]
    html = render_ways(work, [])
    assert (html.count('class="strong"'), html.count('class="weak"')) == (2, 1)
    assert '<th scope="row">student</th><td>5.0</td><td>50.0</td><td>45 to 55</td><td>yes</td>' in html
    assert "every answer has its price: <endpoint>".replace("<", "&lt;").replace(">", "&gt;") in render_ways(
        work, ["<endpoint>"]
    )
    work.error = "It failed."
    assert "It failed." in render_ways(work, [])


def test_training_is_told_whatever_the_run_knows():
    html = render_training(RUN)
    for fact in (
        "200 of 400 photos",
        "2 steps in 33 s on cpu",
        "75.0% (95 %: 51 to 99) on 13 photos",
        "&lt;teacher&gt;.onnx",
        "step 20",
    ):
        assert fact in html
    cost = {"money": 12.0, "price": 60.0, "break_even_time": 1234}
    assert "12.00 at 60 a thousand" in render_training(RUN | {"cost": cost})
    assert "1,234 photos" in render_training(RUN | {"cost": cost})
    old = {name: value for name, value in RUN.items() if name != "agreement"}
    old["training"] = {name: value for name, value in RUN["training"].items() if name != "agreement"}
    assert "200 of 400" in render_training(old)
