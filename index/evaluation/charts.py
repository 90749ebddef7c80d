"""Draw charts as inline SVG that takes its colours from the page, each with its figures as a table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from index.html import load

WIDTH, HEIGHT = 320, 210  # drawn at the width of a phone, so that its text can be read on one
LEFT, RIGHT, TOP, BOTTOM = 34, 14, 24, 38  # margins
FEW = 16  # points of a line that are marked
HTML = load("index/evaluation/chart.html")
STYLE = Path(__file__).with_name("chart.css")
COLOURS = Path(__file__).with_name("colours.css")  # of every page
render_table = HTML.table  # of a head and of rows; the first cell of each names it
Levels = Mapping[str, float]  # values of y to compare with, by name, the lower ones first
NO_LEVELS: Levels = {}
Text = dict[str, Any]  # what the template needs to write one
LETTER, LINE = 7.0, 13.0  # about how wide a letter of a label is, and how high a line


@dataclass(frozen=True)
class Mark:
    """A point of a chart, by its values on both axes; a strong one is filled."""

    x: float
    y: float
    label: str = ""
    strong: bool = True
    interval: tuple[float, float] | None = None  # in which its y lies, for a bar through it


@dataclass(frozen=True)
class Axis:
    """One axis: its name with the unit, its first and last value, and the values that are written."""

    name: str
    low: float
    high: float
    ticks: Sequence[float]
    logarithmic: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.logarithmic and self.low <= 0):
            raise ValueError(f"No axis goes from {self.low} to {self.high}.")

    def place(self, value: float) -> float:
        """Place a value, as a share of the axis."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear_axis(name: str, values: Sequence[float], least: float, most: float) -> Axis:
    """Make an axis that holds all values with room to spare, has round ticks, and stays within two bounds."""
    low, high = min(values), max(values)
    spare = max((high - low) * 0.15, (most - least) * 0.02)
    wide = (high - low + 2 * spare) / 4
    power = 10.0 ** math.floor(math.log10(wide))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= wide * (1 - 1e-9))
    first = max(math.floor((low - spare) / step) * step, least)
    last = min(math.ceil((high + spare) / step) * step, most)
    count = math.floor((last - first) / step + 0.04)  # a tick a hair above the end is not seen
    return Axis(name, first, last, [first + i * step for i in range(count + 1)])


def log_axis(name: str, values: Sequence[float], ticks: Sequence[float] | None = None) -> Axis:
    """Make a logarithmic axis that holds all values, with the ticks given, or at 1, 2, 5, 10 and so on."""
    low, high = min(values) / 1.5, max(values) * 1.5
    if ticks is None:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [m * 10.0**power for power in powers for m in (1, 2, 5) if low <= m * 10.0**power <= high]
        ticks = ticks if len(ticks) <= 7 else [tick for tick in ticks if math.log10(tick).is_integer()]
    return Axis(name, low, high, ticks, logarithmic=True)


def draw_chart(
    title: str, marks: Sequence[Mark], x: Axis, y: Axis, joined: bool = False, levels: Levels = NO_LEVELS
) -> str:
    """Draw points, joined by a line in their order if they are one series; the title is for screen readers.

    Returns:
        An `<svg>` element, of the style of `STYLE`.
    """
    across, down = WIDTH - RIGHT - LEFT, HEIGHT - BOTTOM - TOP

    def left(value: float) -> float:
        return LEFT + across * x.place(value)

    def top(value: float) -> float:
        return TOP + down * (1 - y.place(value))

    lines: list[tuple[Any, ...]] = [("grid", LEFT, WIDTH - RIGHT, top(tick), top(tick)) for tick in y.ticks]
    lines += [("level", LEFT, WIDTH - RIGHT, top(value), top(value)) for value in levels.values()]
    lines += [("interval", left(m.x), left(m.x), *map(top, m.interval)) for m in marks if m.interval]
    texts = [_text(f"{tick:g}", LEFT - 6, top(tick) + 4, "end") for tick in y.ticks]
    texts += [_text(f"{tick:g}", left(tick), HEIGHT - BOTTOM + 15, "middle") for tick in x.ticks]
    texts += [_text(y.name, 0, 10, "start"), _text(x.name, WIDTH - RIGHT, HEIGHT - 4, "end")]
    # The first below its line: the others are above it, and both may be as high.
    for i, (name, value) in enumerate(levels.items()):
        texts.append(_text(name, LEFT + 4, top(value) + (11 if i == 0 else -4), "start"))
    points = [(left(mark.x), top(mark.y)) for mark in marks]
    texts += _labels(marks, points, LINE / 2 if joined else 0)  # below the line
    crowded = joined and len(marks) >= FEW
    circles = [] if crowded else [(*points[i], mark.strong) for i, mark in enumerate(marks)]
    return HTML.chart(title, WIDTH, HEIGHT, lines, texts, points if joined else [], circles)


def draw_line(
    title: str, marks: Sequence[Mark], x: Axis, y_name: str, most: float, levels: Levels = NO_LEVELS
) -> tuple[str, tuple[list[str], list[list[str]]]]:
    """Draw one series, from left to right, as a line; no value lies above `most`.

    Returns:
        The chart, and the head and the rows of a table of its figures.
    """
    shown = [value for mark in marks for value in (mark.y, *(mark.interval or ()))]
    y = linear_axis(y_name, [*shown, *levels.values()], 0, most)
    rows = [[f"{mark.x:,.0f}", f"{mark.y:.1f}"] for mark in marks]
    return draw_chart(title, marks, x, y, True, levels), ([x.name, y_name], rows)


def _text(text: str, x: float, y: float, anchor: str, kind: str = "tick") -> Text:
    return {"text": text, "x": x, "y": y, "anchor": anchor, "kind": kind}


def _labels(marks: Sequence[Mark], points: Sequence[tuple[float, float]], below: float) -> list[Text]:
    """Place labels beside their points or so far below, lower where they would cover another, or a point."""
    taken = [(x - 6, x + 6, y + 4) for x, y in points]
    parts = []
    for mark, (x, y) in sorted(zip(marks, points, strict=True), key=lambda pair: pair[1][1]):
        if not mark.label:
            continue
        width, base = LETTER * len(mark.label), y + below + 4
        before = x + 9 + width > WIDTH - RIGHT
        start = x - 9 - width if before else x + 9
        while any(abs(base - other) < LINE and start < b and a < start + width for a, b, other in taken):
            base += 1
        taken.append((start, start + width, base))
        anchor = (x - 9, base, "end") if before else (x + 9, base, "start")
        parts.append(_text(mark.label, *anchor, "label"))
    return parts
