"""Draw when interpolated pairs pay, as an SVG: overlap with the teacher with pairs less that without.

python benchmarks/plot_interpolation.py docs/interpolation.csv docs/interpolation.svg
"""

import math
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from plot_asking import STYLE, legend, write
from tables import read_table

from index.evaluation.charts import Axis

WIDE, HIGH, LEFT, TOP, BOTTOM = 330, 300, 44, 56, 44
DASHES = 'stroke-dasharray="4 4"'
# Recipes without and with pairs, by loss: of answered photos alone, and with predictions for the others
PAIRS = {
    "KL": [("csd", "csd-interpolated"), ("csd-predicted", "csd-predicted-interpolated")],
    "KL + regression": [
        ("csd-regression", "csd-regression-interpolated"),
        ("csd-regression-predicted", "csd-regression-predicted-interpolated"),
    ],
    "the default's": [("answered-only-no-interpolation", "answered-only"), ("no-interpolation", "default")],
}
Line = Mapping[int, float]  # what pairs bring, in points, by budget


def read_differences(path: Path) -> dict[str, list[list[Line]]]:
    """What pairs bring by teacher, loss, and whether the others have predictions."""
    found: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in read_table(path):
        found[row["teacher"]][row["recipe"]][int(row["budget"])] = float(row["overlap@10"])
    return {
        teacher: [
            [
                {budget: recipes[with_][budget] - value for budget, value in sorted(recipes[without].items())}
                for without, with_ in pairs
            ]
            for pairs in PAIRS.values()
        ]
        for teacher, recipes in found.items()
    }


def draw(differences: Mapping[str, list[list[Line]]]) -> str:
    """Draw a panel a teacher; budgets stand at even distances."""
    lines = [line for losses in differences.values() for kinds in losses for line in kinds]
    budgets = sorted({budget for line in lines for budget in line})
    values = [value for line in lines for value in line.values()]
    y = Axis("", low := math.floor(min(values)), high := math.ceil(max(values)), range(low, high + 1))

    def place(budget: int, value: float) -> tuple[float, float]:
        x = LEFT + (WIDE - LEFT - 14) * budgets.index(budget) / max(len(budgets) - 1, 1)
        return x, TOP + 16 + (HIGH - 16) * (1 - y.place(value))

    size = f"{WIDE * len(differences) + 10} {TOP + 16 + HIGH + BOTTOM}"
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}"><style>{STYLE}</style>']
    parts.append(write(0, 14, "overlap@10 with interpolated pairs less that without, points"))
    keys, at = legend([*PAIRS])
    parts += keys
    for dashes, words in (("", "with predictions"), (DASHES, "answers alone")):
        parts.append(f'<path class="grid" d="M{at} 31h22" {dashes}/>' + write(at + 28, 35, words))
        at += 60 + 6.6 * len(words)
    for column, (teacher, losses) in enumerate(differences.items()):
        parts.append(f'<g transform="translate({column * WIDE} 0)">' + write(LEFT, TOP + 4, teacher))
        for tick in y.ticks:
            height = place(budgets[0], tick)[1]
            width = "" if tick else ' stroke-width="2"'
            parts.append(f'<path class="grid"{width} d="M{LEFT} {height:.1f}H{WIDE - 14}"/>')
            if not tick % 2:
                parts.append(write(LEFT - 8, height + 4, f"{tick:+g}" if tick else "0", "end"))
        bottom = TOP + 16 + HIGH
        parts += [write(place(budget, low)[0], bottom + 18, str(budget), "middle") for budget in budgets]
        for i, kinds in enumerate(losses):
            for line, dashes in zip(kinds, (DASHES, ""), strict=True):
                corners = " ".join(f"{x:.1f},{height:.1f}" for x, height in map(place, line, line.values()))
                parts.append(f'<polyline class="s{i}" points="{corners}" {dashes}/>')
        parts.append(write(LEFT, bottom + 38, "answers asked for") + "</g>")
    return "\n".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(draw(read_differences(Path(sys.argv[1]))), encoding="utf-8")
