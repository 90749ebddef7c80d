"""Draw what asking brings, as an SVG: overlap with the teacher above the student that asked nobody.

python benchmarks/plot_asking.py docs/asking.csv docs/asking.svg
"""

import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from asking import ZERO
from tables import read_table

from index.evaluation.charts import Axis

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 330, 44, 130, 30, 44
STEP = 5  # of the vertical axis, in points
HAIR = 0.5  # of a point: so little below a line opens no step more
STYLE = """
svg { font: 13px system-ui, sans-serif; color: #1b2430; }
text { fill: currentColor; } .soft { fill: #6b7684; }
.grid { stroke: #8886; } polyline { fill: none; stroke-width: 2.5; }
.s0 { stroke: #0f7b6c; fill: #0f7b6c; } .s1 { stroke: #b45309; fill: #b45309; }
.s2 { stroke: #4457c0; fill: #4457c0; } .s3 { stroke: #8b5a8c; fill: #8b5a8c; }
.s4 { stroke: #777; fill: #777; } .s5 { stroke: #b03060; fill: #b03060; }
polyline { fill: none !important; }
@media (prefers-color-scheme: dark) { svg { color: #e6e9ee; } .soft { fill: #9aa5b1; } }
"""


def read_gains(path: Path) -> dict[str, dict[int, float]]:
    """Mean overlap above zero answers over seeds, in points, by teacher and budget."""
    rows = [row for row in read_table(path) if row["size"] == "128" and row["stages"] == "default"]
    zero = {(row["teacher"], row["seed"]): float(row["overlap@10"]) for row in rows if row["recipe"] == ZERO}
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        start = zero.get((row["teacher"], row["seed"]))
        if start is not None and row["recipe"] in ("default", ZERO):
            found[row["teacher"]][int(row["budget"])].append(float(row["overlap@10"]) - start)
    return {
        teacher: {budget: sum(values) / len(values) for budget, values in sorted(gains.items())}
        for teacher, gains in found.items()
        if len(gains) > 1
    }


def write(x: float, y: float, words: str, anchor: str = "start") -> str:
    """Write words at a place."""
    return f'<text class="soft" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def legend(names: Sequence[str]) -> tuple[list[str], float]:
    """Write names beside dots of their colours in one line, and tell where it ends."""
    parts, at = list[str](), 0.0
    for i, name in enumerate(names):
        parts.append(f'<circle class="s{i}" cx="{at + 6}" cy="31" r="4"/>' + write(at + 16, 35, name))
        at += 44 + 7 * len(name)
    return parts, at


def draw(gains: Mapping[str, Mapping[int, float]]) -> str:
    """Draw one line a teacher; budgets stand at even distances."""
    budgets = sorted({budget for line in gains.values() for budget in line})
    values = [value for line in gains.values() for value in line.values()]
    low, high = STEP * math.floor((min(values) + HAIR) / STEP), STEP * math.ceil(max(values) / STEP)
    y = Axis("", low, high, range(low, high + 1, STEP))

    def place(budget: int, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * budgets.index(budget) / max(len(budgets) - 1, 1)
        return x, TOP + (HEIGHT - TOP - BOTTOM) * (1 - y.place(value))

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"><style>{STYLE}</style>']
    parts.append(write(0, 14, "overlap@10 above zero answers, points"))
    for tick in y.ticks:
        height = place(budgets[0], tick)[1]
        parts.append(f'<path class="grid" d="M{LEFT} {height:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(write(LEFT - 8, height + 4, f"{tick:g}", "end"))
    parts += [write(place(budget, y.low)[0], HEIGHT - 24, f"{budget:,}", "middle") for budget in budgets]
    parts.append(write(LEFT, HEIGHT - 4, "answers asked for"))
    taken: list[float] = []
    for i, (teacher, line) in enumerate(sorted(gains.items(), key=lambda one: max(one[1].values()))):
        points = [place(*point) for point in line.items()]
        corners = " ".join(f"{x:.1f},{height:.1f}" for x, height in points)
        parts.append(f'<polyline class="s{i % 6}" points="{corners}"/>')
        parts += [f'<circle class="s{i % 6}" cx="{x:.1f}" cy="{height:.1f}" r="3"/>' for x, height in points]
        height = points[-1][1] + 4
        while any(abs(height - other) < 15 for other in taken):
            height -= 1  # there is room above: below lie the numbers of the axis
        taken.append(height)
        parts.append(f'<text x="{points[-1][0] + 10:.1f}" y="{height:.1f}">{escape(teacher)}</text>')
    return "\n".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(draw(read_gains(Path(sys.argv[1]))), encoding="utf-8")
