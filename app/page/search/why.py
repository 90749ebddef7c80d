"""Why two photos match: occlusion maps (Zeiler and Fergus 2014), by the student."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from index.vectors import Scores, Vectors

GRID = 7  # cells of a map, in width and in height
GREY = 128
LEAST_DROP = 0.02  # of similarity that a map shows in full; less is told from noise by being dark
Image = NDArray[np.uint8]  # `(side, side, 3)` RGB, as `OnnxEmbedder.prepare` makes it


def occlude(image: Image) -> list[Image]:
    """Cover each of `GRID * GRID` cells in turn, row by row, with a grey square twice as wide and high."""
    cell, covered = len(image) / GRID, []
    for place in range(GRID * GRID):
        top, left = (max(round((each - 0.5) * cell), 0) for each in divmod(place, GRID))
        bottom, right = (round((each + 1.5) * cell) for each in divmod(place, GRID))
        covered.append(image.copy())
        covered[-1][top:bottom, left:right] = GREY
    return covered


def occlusion_maps(
    embed: Callable[[Sequence[Image]], Vectors],
    similarity: Callable[[Vectors, Vectors], Scores],
    first: Image,
    second: Image,
) -> tuple[float, NDArray[np.float32]]:
    """Measure how much less similar two images are where one of them is covered.

    All variants are embedded in one batch.

    Args:
        embed: Maps n images to `(n, dim)` rows.
        similarity: As `VectorType.similarity`.
        first: `(side, side, 3)` uint8.
        second: The same of the other.

    Returns:
        The similarity of the two, and `(2, GRID, GRID)` float32 drops of it, 0 where it does not fall.
    """
    count = GRID * GRID
    rows = embed([first, second, *occlude(first), *occlude(second)])
    whole = float(similarity(rows[:1], rows[1:2])[0, 0])
    covered = similarity(rows[2 : 2 + count], rows[1:2]), similarity(rows[2 + count :], rows[:1])
    drops = np.maximum(whole - np.stack(covered), 0)
    return whole, drops.reshape(2, GRID, GRID).astype(np.float32)


def middle(box: Sequence[float], share: float) -> list[float]:
    """Return the middle of a box of left, top, right and bottom: a share of its width and height."""
    left, top, right, bottom = box
    aside, above = (1 - share) / 2 * (right - left), (1 - share) / 2 * (bottom - top)
    return [left + aside, top + above, right - aside, bottom - above]


def name_place(drops: NDArray[np.float32]) -> str:
    """Say where on a `(GRID, GRID)` map the largest drop is, as in `top left`."""
    row, column = (3 * each // len(drops) for each in divmod(int(drops.argmax()), len(drops)))
    return f"{('top', '', 'bottom')[row]} {('left', '', 'right')[column]}".strip() or "middle"
