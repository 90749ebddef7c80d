"""`retrieval` whose students lose the same share of every block's channels, for what shrinking is worth.

python benchmarks/uniform.py distill photos --teacher teacher.onnx --target-ms 1 --out student

Which channels of a block go, when, and what takes over for them is as in the product.
"""

from collections.abc import Sequence

import numpy as np

from app.cli import main
from distill.shrinking import shrink
from distill.shrinking.costs import STEP, Costs

SHARES = np.linspace(1, 0, 201)


def choose_uniform(
    first: Sequence[int], losses: Sequence[Sequence[float]], costs: Costs, target: float
) -> list[int]:
    """Choose the widest share of all channels that costs no more than the target, in whole steps."""
    for share in SHARES:
        whole = [max(round(share * widths[-1] / STEP), 1) * STEP for widths in costs.widths]
        widths = [min(pair) for pair in zip(first, whole, strict=True)]
        if costs.total(widths) <= target:
            break
    return widths


if __name__ == "__main__":
    shrink.choose_widths = choose_uniform
    main()
