"""Draw how far students rank like their teacher, by the time they take, as an SVG: cut, thin or shrunk.

python benchmarks/plot_sizes.py docs/sizes.csv docs/sizes.svg
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from plot_asking import STYLE, legend, write
from tables import read_table

from index.evaluation.charts import linear_axis

WIDE, HIGH, LEFT, TOP, BOTTOM = 330, 260, 44, 56, 44
EQUAL = "1000steps"  # as many as of a student that is not made small
# --stages; --target-ms with --uniform; --target-ms with as many steps as the others, and with more
WAYS = ("cut", "uniform width", "shrunk", "shrunk, twice the steps")
SHOWN = ("default", "500", "128")  # recipe, budget and size
Point = tuple[float, float]  # milliseconds and overlap@10
Line = list[Point]


def read_lines(path: Path) -> dict[str, dict[str, Line]]:
    """Means over seeds by teacher and way, the widest student first, which all ways start from."""
    found: dict[str, dict[str, dict[str, list[Point]]]] = {}
    for row in read_table(path):
        if row["ms"] and (row["recipe"], row["budget"], row["size"]) == SHOWN:
            stages, of = row["stages"], found.setdefault(row["teacher"], {way: {} for way in WAYS})
            way = WAYS[1] if "uniform" in stages else WAYS[2 + (not stages.endswith(EQUAL))]
            way = way if ">" in stages else WAYS[0]
            for each in WAYS if stages == "default" else (way,):
                of[each].setdefault(stages, []).append((float(row["ms"]), float(row["overlap@10"])))
    return {
        teacher: {
            way: sorted((mean(points) for points in kinds.values()), reverse=True)
            for way, kinds in ways.items()
        }
        for teacher, ways in found.items()
    }


def mean(points: Sequence[Point]) -> Point:
    """Average points."""
    x, y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return x, y


def draw(lines: Mapping[str, Mapping[str, Line]]) -> str:
    """Draw a panel a teacher."""
    points = [point for ways in lines.values() for line in ways.values() for point in line]
    slowest = max(point[0] for point in points)
    x = linear_axis("", [point[0] for point in points], 0, 1.2 * slowest)
    y = linear_axis("", [point[1] for point in points], 0, 100)

    def place(point: Point) -> Point:
        across, up = x.place(point[0]), y.place(point[1])
        return LEFT + (WIDE - LEFT - 14) * across, TOP + 16 + HIGH * (1 - up)

    size = f"{WIDE * len(lines) + 10} {TOP + 16 + HIGH + BOTTOM}"
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}"><style>{STYLE}</style>']
    parts.append(write(0, 14, "overlap@10 with the teacher"))
    parts += legend(WAYS)[0]
    for column, (teacher, ways) in enumerate(lines.items()):
        parts.append(f'<g transform="translate({column * WIDE} 0)">' + write(LEFT, TOP + 4, teacher))
        for tick in y.ticks:
            height = place((x.low, tick))[1]
            parts.append(f'<path class="grid" d="M{LEFT} {height:.1f}H{WIDE - 14}"/>')
            parts.append(write(LEFT - 8, height + 4, f"{tick:g}", "end"))
        bottom = TOP + 16 + HIGH
        parts += [write(place((tick, y.low))[0], bottom + 18, f"{tick:g}", "middle") for tick in x.ticks]
        for i, way in enumerate(WAYS):
            corners = [place(point) for point in ways[way]]
            joined = " ".join(f"{left:.1f},{height:.1f}" for left, height in corners)
            parts.append(f'<polyline class="s{i}" points="{joined}"/>')
            parts += [f'<circle class="s{i}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in corners]
        parts.append(write(LEFT, bottom + 38, "milliseconds for one photo, of one core") + "</g>")
    return "\n".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(draw(read_lines(Path(sys.argv[1]))), encoding="utf-8")
