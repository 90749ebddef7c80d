import numpy as np
import pytest
from conftest import write_embedder
from page_tools import needs_chromium

from distill.report.held_out import HeldOut
from distill.report.report import (
    SHOWN,
    compare,
    draw_curve,
    draw_strip,
    draw_training,
    levels_of,
    write_report,
)
from index.embedders.onnx import OnnxEmbedder

FACTS = {"overlap@10": 0.5, "interval": [0.4, 0.6], "start": 0.3, "ceiling": 0.8}
RUN = {
    "teacher": {"dim": 3840, "megabytes": 51.2},
    "options": {"dim": 256},
    "export": {"megabytes": 3.1},
    "cost": {"price": 1.2, "teacher_seconds": 0.02, "student_seconds": 0.002},
}


@pytest.fixture
def lists() -> HeldOut:
    pixels = np.zeros((20, 8, 8, 3), np.uint8)
    teacher, student = np.arange(10)[None], np.array([[0, 11, 1, 12, 2, 3, 4, 13, 14, 15]])
    return HeldOut(pixels[:1], pixels, teacher, student)


def test_what_is_disputed_comes_first_with_its_rank(lists):
    _, agreement, found = draw_strip(lists, 0, disputed_first=True)
    assert agreement == 0.5
    assert [(place, rank) for _, _, rank, place in found["student"]][:6] == [
        (11, 2), (12, 4), (13, 8), (14, 9), (15, 10), (0, 1),
    ]  # fmt: skip
    assert [both for _, both, _, _ in found["teacher"]] == [False] * 5 + [True]
    _, _, found = draw_strip(lists, 0)
    assert [rank for _, _, rank, _ in found["student"]] == [*range(1, SHOWN + 1)]


def test_the_curve_shows_where_it_began_and_what_can_be_had():
    chart = draw_training([1.0] * 30, [[0, 0.4], [30, 0.5]], 30, FACTS, 30)[
        "Agreement during training (kept: step 30)"
    ]
    assert (chart.count('class="level"'), chart.count('class="interval"')) == (2, 1)
    assert all(title in chart for title in levels_of(FACTS))
    curve = [FACTS | {"queried": 100, "ms": 2.0}, FACTS | {"queried": 200, "ms": 2.0, "start": None}]
    chart, _ = draw_curve(curve)
    assert (chart.count('class="level"'), chart.count('class="interval"')) == (1, 2)
    assert "teacher queries" in chart
    chart, _ = draw_curve([FACTS | {"queried": 100, "ms": ms} for ms in (0.5, 2.0)])
    assert "ms an image" in chart
    assert "teacher queries" not in chart
    assert list(draw_training([], [], 30)) == []


def test_short_runs_are_drawn_as_lines_and_named_as_they_are():
    charts = draw_training([1.0] * 30, [[step, 0.5] for step in range(0, 31, 3)], 30, FACTS, 0)
    assert [chart.count("<circle") for chart in charts.values()] == [11, 0]
    assert "loss, mean of 3 steps" in charts["Loss"]
    assert ">loss<" in draw_training([1.0] * 5, [], 5)["Loss"]


def test_the_teacher_stands_beside_the_student():
    _, rows = compare(RUN)
    assert rows == [
        ["dimensions", "3,840", "256", ""],
        ["MB", "51.2", "3.1", "17 times smaller"],
        ["ms an image", "20.0", "2.0", "10 times faster"],
        ["price of a thousand", "1.20", "0", ""],
    ]
    unknown = {
        **RUN,
        "teacher": {"dim": 8, "megabytes": None},
        "cost": RUN["cost"] | {"price": None, "teacher_seconds": None},
    }
    assert compare(unknown)[1][1:] == [
        ["MB", "not known", "3.1", ""],
        ["ms an image", "not known", "2.0", ""],
    ]


def test_a_model_weighs_what_its_file_does(tmp_path):
    file = write_embedder(tmp_path / "m.onnx")
    assert OnnxEmbedder(file).megabytes == pytest.approx(file.stat().st_size / 1e6)


@needs_chromium
def test_the_report_fits_a_phone_and_axe_finds_nothing(lists, browser, tmp_path):
    placement = {"trust": 0.5, "free_network": 0.3, "with_answers": 0.6, "gain": 0.3, "gain_error": 0.02}
    training = {"loss": [2.0, 1.0], "agreement": [[0, 0.4], [2, 0.5]], "kept_step": 2, "placement": placement}
    cost = RUN["cost"] | {
        "failed_calls": 0, "ask_seconds": 4.0, "money": 0.24, "break_even": 200, "break_even_time": 900,
    }  # fmt: skip
    run = RUN | {
        "training": training, "agreement": lists.facts | FACTS, "images": 400, "queried": 200, "cost": cost,
        "teacher": RUN["teacher"] | {"name": "teacher.onnx"},
        "options": {"dim": 256, "student": "tf_efficientnet_lite0", "recipe": {"steps": 2}},
    }  # fmt: skip
    write_report(tmp_path, [run | {"queried": 100}, run], lists)
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tab = browser.new_page(viewport={"width": 360, "height": 740})
    for theme in ("light", "dark"):
        tab.emulate_media(color_scheme=theme)
        tab.goto((tmp_path / "report.html").as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert [found["id"] for found in axe.run(tab).response["violations"]] == []
    assert tab.locator("svg.chart").count() == 3
    assert "10 times faster" in tab.inner_text("table")
    assert "All students of the curve are measured on these" in tab.inner_text(".charts")
    assert "Kept: step 2, the last within" in tab.inner_text(".charts")
    assert tab.locator(".list li.both").count() == 2
    tab.close()
