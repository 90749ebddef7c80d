import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.evaluation.charts import HEIGHT, WIDTH, Axis, Mark, draw_chart, linear_axis, log_axis, render_table


class Tags(HTMLParser):
    def __init__(self, html: str):
        super().__init__()
        self.found, self.text = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag: str):
        return [attrs for name, attrs in self.found if name == tag]


percents = st.lists(st.floats(0, 100), min_size=1, max_size=20)
times = st.lists(st.floats(0.01, 1e5), min_size=1, max_size=20)


@given(percents)
def test_a_linear_axis_holds_its_values_within_its_bounds_and_has_few_round_ticks(values):
    axis = linear_axis("%", values, 0, 100)
    assert 0 <= axis.low <= min(values)
    assert max(values) <= axis.high <= 100
    assert all(0 <= axis.place(value) <= 1 for value in values)
    assert 2 <= len(axis.ticks) <= 7
    assert axis.ticks[0] == axis.low


@given(times)
def test_a_logarithmic_axis_holds_its_values(values):
    axis = log_axis("ms", values)
    assert all(0 < axis.place(value) < 1 for value in values)
    assert all(axis.low <= tick <= axis.high for tick in axis.ticks)
    assert len(axis.ticks) <= 10


@pytest.mark.parametrize("steps", [*range(1, 60), 75, 350])
def test_no_tick_lies_beyond_the_last_step(steps):
    axis = linear_axis("step", [0, steps], 0, steps)
    assert (axis.low, axis.high) == (0, steps)
    assert len(axis.ticks) >= 2
    assert all(0 <= axis.place(tick) < 1.02 for tick in axis.ticks)


def test_an_axis_must_go_somewhere():
    with pytest.raises(ValueError, match="No axis"):
        Axis("x", 1, 1, [])
    with pytest.raises(ValueError, match="No axis"):
        Axis("x", 0, 1, [], logarithmic=True)


def test_points_lie_where_their_values_are_and_a_line_joins_them():
    x, y = Axis("queries", 0, 10, [0, 10]), Axis("%", 0, 100, [0, 50, 100])
    svg = Tags(draw_chart("A & B", [Mark(0, 0), Mark(5, 50), Mark(10, 100, strong=False)], x, y, joined=True))
    circles = svg.all("circle")
    assert [circle["class"] for circle in circles] == ["strong", "strong", "weak"]
    places = [(float(circle["cx"]), float(circle["cy"])) for circle in circles]
    assert places[0][0] < places[1][0] < places[2][0]
    assert places[1][0] == pytest.approx((places[0][0] + places[2][0]) / 2)
    assert places[1][1] == pytest.approx((places[0][1] + places[2][1]) / 2)
    assert places[0][1] > places[2][1]
    assert len(svg.all("polyline")[0]["points"].split()) == 3
    assert svg.all("svg")[0]["aria-label"] == "A & B"
    assert {"queries", "%", "0", "50", "100", "10"} <= set(svg.text)


@given(st.lists(st.tuples(st.floats(1, 1000), st.floats(0, 100)), min_size=2, max_size=6))
def test_labels_do_not_cover_each_other_and_stay_inside(points):
    marks = [Mark(x, y, f"label {i}") for i, (x, y) in enumerate(points)]
    x = log_axis("ms", [mark.x for mark in marks])
    svg = Tags(draw_chart("t", marks, x, linear_axis("%", [mark.y for mark in marks], 0, 100)))
    labels = [attrs for attrs in svg.all("text") if attrs["class"] == "label"]
    assert len(labels) == len(marks)
    boxes = []
    for label in labels:
        left = float(label["x"]) - (48 if label["text-anchor"] == "end" else 0)
        boxes.append((left, float(label["y"])))
        assert -1 <= left < WIDTH - 48
        assert 0 < float(label["y"]) < HEIGHT + 6 * 13
    for i, (left, base) in enumerate(boxes):
        for other, height in boxes[:i]:
            assert abs(left - other) >= 47.8 or abs(base - height) >= 12.8


def test_what_is_written_is_escaped():
    x, y = Axis("<x>", 0, 1, []), Axis("<y>", 0, 1, [])
    svg = draw_chart('"<title>', [Mark(0, 0, "<label>")], x, y)
    assert not re.search("<(title|x|y|label)>", svg)
    assert "<b>" not in render_table(["<b>", "<b>"], [["<b>", "<b>"]])


def test_a_table_has_heads_for_its_rows_and_columns():
    table = Tags(render_table(["", "ms"], [["student", "4.7"], ["teacher", "83.2"]]))
    assert [attrs.get("scope") for attrs in table.all("th")] == ["col", "row", "row"]
    assert table.text == ["ms", "student", "4.7", "teacher", "83.2"]
