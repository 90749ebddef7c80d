"""Plots as SVG text, for reports that are one file."""

from collections.abc import Mapping, Sequence
from io import StringIO

from matplotlib.figure import Figure


def draw_lines(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str, logarithmic: bool = False
) -> str:
    """A plot of lines with marks.

    Args:
        lines: By name, the x and the y of its points.
        x: What the horizontal axis says.
        y: What the vertical axis says.
        logarithmic: Whether the horizontal axis is.

    Returns:
        An `<svg>` element that takes its text colour from the page.
    """
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for name, (across, up) in lines.items():
        few = len(across) < 30
        axes.plot(across, up, marker="o" if few else "", linewidth=2 if few else 1, label=name)
    axes.set(xlabel=x, ylabel=y)
    if logarithmic:
        ticks = sorted({value for across, _ in lines.values() for value in across})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    if len(lines) > 1:
        axes.legend(frameon=False)
    text = StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
