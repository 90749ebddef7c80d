"""Interpolation in the output space: more teacher and student pairs, at no query and no forward pass."""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def interpolate(student: Tensor, teacher: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Mix random pairs of a batch, with the same pair and the same weight on both sides.

    Each mixed row is scaled back to unit length: without that, losses that are linear in the similarities
    learn nothing from mixing that the originals did not already tell.

    Args:
        student: `(n, dim)` unit rows.
        teacher: `(n, dim)` unit rows, in teacher space.
        rows: How many mixed rows to make.

    Returns:
        `(rows, dim)` unit rows of each.
    """
    n = len(student)
    first = torch.randint(n, (rows,), device=student.device)
    # A step of 1 to n - 1 further on, so that no row is mixed with itself.
    second = (first + torch.randint(1, max(n, 2), (rows,), device=student.device)) % n
    weight = torch.rand(rows, 1, device=student.device)

    def mix(vectors: Tensor) -> Tensor:
        return F.normalize(weight * vectors[first] + (1 - weight) * vectors[second], dim=1)

    return mix(student), mix(teacher)
