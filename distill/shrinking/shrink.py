"""Take inner channels away while a student learns, in a few cuts, until it costs no more than a target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from distill.model.student import Student
from distill.options import Target
from distill.shrinking.channels import find_inner
from distill.shrinking.costs import STEP, Costs, measure_students
from distill.shrinking.importance import NEIGHBOURS, measure
from index.errors import UsageError
from index.progress import say

CUTS = 5
FIRST, LAST = 0.1, 0.65  # shares of the steps at which the first and the last cut is made
MOST_TIMES = 2.0  # the steps of a student that does not shrink
LOOKED_AT = 256  # photos that a cut is decided on


@dataclass(frozen=True)
class Shrinking:
    """Cuts that bring a student to a target."""

    target: Target
    costs: Costs

    @classmethod
    def towards(cls, target: Target, student: Student, side: int) -> Self | None:
        """Measure what a student of `side` pixels costs; None if that is no more than its target.

        Raises:
            UsageError: Its blocks have no inner channels, or it costs more than the target without them.
        """
        name = student.backbone.name
        shown = torch.zeros(2 * NEIGHBOURS, side, side, 3, dtype=torch.uint8)
        if not (inner := find_inner(student.backbone, shown[:2])):
            raise UsageError(
                f"{name} has no channels that can be taken away. Take an EfficientNet, MobileNet, ResNet or "
                "ConvNeXt, or cut it with --stages."
            )
        aims = torch.eye(len(shown), student.head.out_features)
        measure(student, inner, shown, aims, torch.arange(2))  # whether it can be measured at all
        costs = Costs.recall(target.kind, student, side)
        if target.value < costs.least:
            least = Target(target.kind, costs.least)
            raise UsageError(
                f"{name} cannot shrink to {target}: what stays of it costs {least}. Give fewer --stages, a "
                "smaller --size, or a higher target."
            )
        if target.value >= costs.most:
            say(f"{name} costs {Target(target.kind, costs.most)} as it is, and is not made smaller.")
            return None
        return cls(target, costs)

    def report(self, student: Student, side: int) -> str:
        """Say what a student that has shrunk costs now."""
        (now,) = measure_students(self.target.kind, [student], side)
        first, last = (Target(self.target.kind, value) for value in (self.costs.most, now))
        return f"shrunk from {first} to {last}, with {self.target} as target"

    def lengthen(self, steps: int) -> int:
        """Choose how many steps a student takes that shrinks: more as far as it gets cheaper, twice at most.

        Its steps take less time, and what it has lost takes more of them to make up for.
        """
        return round(steps * min(self.costs.most / self.target.value, MOST_TIMES))

    def due(self, step: int, steps: int) -> float | None:
        """Tell what the student may cost after so many steps, None if it is not cut then."""
        at = [round(steps * share) for share in np.linspace(FIRST, LAST, CUTS)]
        if step not in at:
            return None
        done = sum(each <= step for each in at) / CUTS
        return self.costs.most * (self.target.value / self.costs.most) ** done

    def cut(self, student: Student, images: Tensor, targets: Tensor, step: int, steps: int) -> bool:
        """Take away the channels of least loss for what they cost, if it is time to, and tell whether it was.

        The loss is measured on some of `(n, side, side, 3)` uint8 images with their `(n, dim)` targets.
        """
        if (most := self.due(step, steps)) is None:
            return False
        inner = find_inner(student.backbone, images[:2])
        rows = torch.randperm(len(images))[:LOOKED_AT]
        found = measure(student, inner, images, targets, rows)
        each = [one.eliminate(group) for one, group in zip(found, inner, strict=True)]
        orders, losses = zip(*each, strict=True)
        widths = choose_widths([group.width for group in inner], losses, self.costs, most)
        for group, one, order, width in zip(inner, found, orders, widths, strict=True):
            if width < group.width:
                kept = torch.tensor(sorted(order[group.width - width :]))
                group.keep(kept, *one.replace(kept))
        return True


def choose_widths(
    first: Sequence[int], losses: Sequence[Sequence[float]], costs: Costs, target: float
) -> list[int]:
    """Choose how many channels of each group stay, by their losses, in the order they would go, and costs."""
    widths = list(first)

    def less(i: int) -> int:
        return (widths[i] - 1) // STEP * STEP

    def price(i: int) -> float:
        saved = max(costs.of(i, widths[i]) - costs.of(i, less(i)), 1e-9)
        return sum(losses[i][first[i] - widths[i] : first[i] - less(i)]) / saved

    while costs.total(widths) > target and (wide := [i for i, width in enumerate(widths) if width > STEP]):
        i = min(wide, key=price)
        widths[i] = less(i)
    return widths


def match_widths(student: nn.Module, example: Tensor, weights: Mapping[str, Tensor]) -> None:
    """Take away channels of a student until it has the shapes of the weights of one that has shrunk."""
    names = {part: name for name, part in student.named_modules()}
    for group in find_inner(student, example):
        width = len(weights[f"{names[group.producer]}.weight"])
        if width < group.width:
            group.narrow(width)
