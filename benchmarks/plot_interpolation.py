"""Draw when interpolation pays, as an SVG: overlap with the teacher above the student that asked nobody.

    python benchmarks/plot_interpolation.py docs/interpolation.csv docs/interpolation.svg

The table is of `asking.py` with the recipes of `LOSSES`. A panel a teacher: once learning from answered
photos alone, and once from predictions for the others, too.
"""

import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from asking import ZERO
from plot_asking import STYLE, write
from tables import read_table

WIDE, HIGH, LEFT, TOP, BOTTOM, GAP = 270, 190, 44, 46, 40, 34
# loss: recipes without and with interpolation, of answered photos alone, then with predictions
LOSSES = {
    "KL": ("csd", "csd-interpolated", "csd-predicted", "csd-predicted-interpolated"),
    "KL + regression": (
        "csd-regression", "csd-regression-interpolated",
        "csd-regression-predicted", "csd-regression-predicted-interpolated",
    ),
    "gram + regression, the default's": (
        "answered-only-no-interpolation", "answered-only", "no-interpolation", "default",
    ),
}  # fmt: skip
ROWS = ("answered photos alone", "and predictions for the others")
Line = Mapping[int, float]  # points of overlap above zero answers, by budget


def read_gains(path: Path) -> dict[str, dict[str, Line]]:
    """Mean overlap above zero answers over seeds, in points, by teacher, recipe and budget."""
    rows = read_table(path)
    zero = {(row["teacher"], row["seed"]): float(row["overlap@10"]) for row in rows if row["recipe"] == ZERO}
    found: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for row in rows:
        if (start := zero.get((row["teacher"], row["seed"]))) is not None and row["recipe"] != ZERO:
            place = row["teacher"], row["recipe"], int(row["budget"])
            found[place].append(float(row["overlap@10"]) - start)
    gains: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for (teacher, recipe, budget), values in sorted(found.items()):
        gains[teacher][recipe][budget] = sum(values) / len(values)
    return {teacher: dict(lines) for teacher, lines in gains.items()}


def draw_panel(lines: Sequence[tuple[str, bool, Line]], budgets: Sequence[int], title: str) -> str:
    """Draw lines with a class and dashed or not, over budgets at even distances."""
    values = [value for _, _, line in lines for value in line.values()] + [0.0]
    step = 1 if max(values) - min(values) < 8 else 5
    low, high = step * math.floor(min(values) / step), step * math.ceil(max(values) / step)

    def place(budget: int, value: float) -> tuple[float, float]:
        x = LEFT + (WIDE - LEFT - 14) * budgets.index(budget) / max(len(budgets) - 1, 1)
        return x, 22 + (HIGH - 22) * (high - value) / (high - low)

    parts = [f'<text x="{LEFT}" y="12">{title}</text>']
    for tick in range(low, high + 1, step):
        height = place(budgets[0], tick)[1]
        parts.append(f'<path class="grid" d="M{LEFT} {height:.1f}H{WIDE - 14}"/>')
        parts.append(write(LEFT - 8, height + 4, f"{tick:+d}" if tick else "0", "end"))
    parts += [write(place(budget, low)[0], HIGH + 18, str(budget), "middle") for budget in budgets]
    for name, dashed, line in lines:
        points = [place(*point) for point in line.items()]
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashes = ' stroke-dasharray="3 4"' if dashed else ""
        parts.append(f'<polyline class="{name}" points="{corners}"{dashes}/>')
        parts += [f'<circle class="{name}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in points]
    return "".join(parts)


def draw(gains: Mapping[str, Mapping[str, Line]]) -> str:
    """Draw a column a teacher, and two rows."""
    budgets = sorted({budget for lines in gains.values() for line in lines.values() for budget in line})
    width, height = WIDE * len(gains) + 20, TOP + 2 * (HIGH + GAP) + BOTTOM
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"><style>{STYLE}</style>']
    parts.append(write(0, 14, "overlap@10 above zero answers, points; with interpolation, dashed without"))
    at = 0
    for i, loss in enumerate(LOSSES):
        parts.append(f'<circle class="s{i}" cx="{at + 6}" cy="29" r="4"/>' + write(at + 16, 33, loss))
        at += 40 + 7 * len(loss)
    for column, (teacher, lines) in enumerate(gains.items()):
        for row, name in enumerate(ROWS):
            shown = [
                (f"s{i}", dashed, lines[recipe])
                for i, recipes in enumerate(LOSSES.values())
                for dashed, recipe in zip((True, False), recipes[2 * row :], strict=False)
                if recipe in lines
            ]
            panel = draw_panel(shown, budgets, f"{teacher}, {name}")
            x, y = column * WIDE, TOP + row * (HIGH + GAP)
            parts.append(f'<g transform="translate({x} {y})">{panel}</g>')
    parts.append(write(LEFT, height - 6, "answers asked for"))
    return "\n".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(draw(read_gains(Path(sys.argv[1]))), encoding="utf-8")
