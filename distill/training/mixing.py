"""Interpolation in the output space: more teacher and student pairs, at no query and no forward pass."""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from distill.training.recipes import Mixing

NEAREST = 5  # partners that `neighbours` chooses among


def interpolate(student: Tensor, teacher: Tensor, mixing: Mixing) -> tuple[Tensor, Tensor]:
    """Mix pairs of `(n, dim)` unit rows, with the same pair and weight on both sides: `(rows, dim)` each."""
    first, second = _choose_pairs(teacher, mixing)
    weight = torch.distributions.Beta(mixing.alpha, mixing.alpha).sample((mixing.rows, 1)).to(student.device)

    def mix(vectors: Tensor) -> Tensor:
        mixed = weight * vectors[first] + (1 - weight) * vectors[second]
        return F.normalize(mixed, dim=1) if mixing.unit else mixed

    return mix(student), mix(teacher)


def join(student: Tensor, teacher: Tensor, mixing: Mixing) -> tuple[Tensor, Tensor]:
    """Make the joint set: the rows of a batch, followed by their interpolations."""
    if not mixing.rows:
        return student, teacher
    mixed_student, mixed_teacher = interpolate(student, teacher, mixing)
    return torch.cat([student, mixed_student]), torch.cat([teacher, mixed_teacher])


def _choose_pairs(teacher: Tensor, mixing: Mixing) -> tuple[Tensor, Tensor]:
    n, device = len(teacher), teacher.device
    # The chances are drawn on the CPU: all devices draw the same, and a run that goes on draws on.
    first = torch.randint(n, (mixing.rows,)).to(device)
    if mixing.pairs == "random" or n < 3:
        # A step of 1 to n - 1 further on, so that no row is mixed with itself.
        return first, (first + torch.randint(1, max(n, 2), (mixing.rows,)).to(device)) % n
    similarity = (teacher @ teacher.T).fill_diagonal_(-torch.inf)
    nearest = similarity.topk(min(NEAREST, n - 1), dim=1).indices
    return first, nearest[first, torch.randint(nearest.shape[1], (mixing.rows,)).to(device)]
