"""Draw the table of benchmarks/distillation.py: quality against budget, and recipes side by side.

python benchmarks/plot_distillation.py docs/distillation.csv docs/distillation.svg
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Rows = list[dict[str, str]]
MEASURES = {"mAP": "C0", "asymmetric mAP": "C1", "overlap@10": "C2"}


def main() -> None:
    """Read one file, write the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--budget", default="500", help="of the recipes side by side")
    args = parser.parse_args()
    with args.table.open(newline="", encoding="utf-8") as file:
        rows = [
            row for row in csv.DictReader(file) if row["pool"] == "gallery" and row["stages"] == "default"
        ]
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.1])
    draw_budgets(left, rows)
    draw_recipes(right, rows, args.budget)
    figure.savefig(args.picture, metadata={"Date": None})


def draw_budgets(axes: Axes, rows: Rows) -> None:
    """The default recipe at every budget, with one standard error, and the lines it is held against."""
    budgets = sorted({int(row["budget"]) for row in rows if row["recipe"] == "default"})
    for measure, colour in MEASURES.items():
        figures = [mean_and_error(rows, "default", str(budget), measure) for budget in budgets]
        means, errors = zip(*figures, strict=True)
        axes.errorbar(budgets, means, errors, marker="o", capsize=3, color=colour, label=measure)
    for reference, style in (("teacher", "--"), ("undistilled", ":")):
        mean, _ = mean_and_error(rows, reference, "0", "mAP")
        axes.axhline(mean, linestyle=style, color="C0", label=f"mAP, {reference}")
    axes.set(xscale="log", xlabel="teacher queries", ylabel="%", title="Default recipe")
    axes.set_xticks(budgets, [f"{budget}" for budget in budgets])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize="small")


def draw_recipes(axes: Axes, rows: Rows, budget: str) -> None:
    """Every recipe at one budget, best on top, with one standard error."""
    names = {row["recipe"] for row in rows if row["budget"] == budget}
    bars = sorted((mean_and_error(rows, name, budget, "mAP"), name) for name in names)
    means, errors = zip(*(figures for figures, _ in bars), strict=True)
    colours = ["C0" if name == "default" else "0.75" for _, name in bars]
    axes.barh([name for _, name in bars], means, xerr=errors, color=colours, capsize=2)
    axes.bar_label(axes.containers[-1], [f" {mean:.1f}" for mean in means], fontsize="small")  # type: ignore[arg-type]
    axes.set(xlabel="mAP, %", title=f"Recipes at {budget} queries")
    axes.spines[["top", "right"]].set_visible(False)


def mean_and_error(rows: Rows, recipe: str, budget: str, measure: str) -> tuple[float, float]:
    """Mean over the seeds and its standard error; 0 for a single seed."""
    values = np.array(
        [
            float(row[measure])
            for row in rows
            if row["recipe"] == recipe and row["budget"] == budget and row["select"] == "kmeans"
        ]
    )
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return float(values.mean()), float(error)


if __name__ == "__main__":
    main()
