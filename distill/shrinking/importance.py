"""Which inner channels a student can do without, and what is to stand for them.

A channel matters as far as the others cannot stand for it, and as far as what it changes in its block's
output changes how near a photo is to its neighbours *by the teacher's answers and predictions*. Both are
measured on photos: the covariance of the channels, and the sensitivity of these similarities to the block's
output. The channel of least loss is taken away first, and what is left is adjusted in closed form before the
next (the optimal brain surgeon, Hassibi and Stork 1992, for channels).

Capacity Dynamic Distillation (Xie et al., CVPR 2023) judges a channel by itself: by what a photo and its
teacher's neighbours have in common there.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from distill.shrinking.channels import Inner

BATCH = 32
PLACES = 24  # of each image's map that are looked at
NEIGHBOURS = 10  # of an image, one of which stands for all that it is to be near to
TOGETHER, CANDIDATES = 8, 32  # channels that go at a time, and those of least loss that they are chosen from
DAMPING = 1e-3  # of the mean variance, added to each channel's: few photos measure no covariance exactly


@dataclass(frozen=True)
class Statistics:
    """What photos tell of one group of inner channels, in float64."""

    mean: Tensor  # `(width,)` what its consumer reads
    covariance: Tensor  # `(width, width)`
    sensitivity: Tensor  # `(outputs, outputs)` of the similarities to the consumer's output

    def eliminate(self, group: Inner) -> tuple[list[int], list[float]]:
        """Order the channels from the one of least loss, each with its loss once those before it are gone.

        `TOGETHER` channels go at a time, chosen one by one among the `CANDIDATES` of least loss.
        """
        weight = group.consumer.weight.detach().cpu().double().flatten(2)
        loss = torch.einsum("ock,op,pdk->cd", weight, self.sensitivity, weight)
        inverse = torch.linalg.inv(_damped(self.covariance))
        left = torch.arange(len(loss))
        order: list[int] = []
        losses: list[float] = []
        while len(left):
            among = (loss.diagonal() / inverse.diagonal()).argsort()[:CANDIDATES]
            chosen, lost = _choose(loss[among][:, among], inverse[among][:, among])
            out = among[chosen]
            order += left[out].tolist()
            losses += lost
            # The others take over: each by its share of what those that go did.
            share = torch.linalg.solve(inverse[out][:, out], inverse[out])
            told = loss[out]
            loss = loss - share.T @ told - told.T @ share + share.T @ told[:, out] @ share
            inverse = inverse - inverse[:, out] @ share
            stays = torch.ones(len(left), dtype=torch.bool)
            stays[out] = False
            left, loss, inverse = left[stays], loss[stays][:, stays], inverse[stays][:, stays]
        return order, losses

    def replace(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Find the best linear prediction of all channels from the `(k,)` kept ones, for `Inner.keep`."""
        width = len(self.mean)
        weights, constant = torch.eye(width)[:, kept], torch.zeros(width)
        gone = torch.ones(width, dtype=torch.bool)
        gone[kept] = False
        inside = _damped(self.covariance[kept][:, kept])
        found = torch.linalg.solve(inside, self.covariance[kept][:, gone]).T
        weights[gone] = found.float()
        constant[gone] = (self.mean[gone] - found @ self.mean[kept]).float()
        return weights, constant


def measure(
    student: nn.Module, inner: Sequence[Inner], images: Tensor, targets: Tensor, rows: Tensor
) -> list[Statistics]:
    """Measure groups of inner channels on some rows of images, whose neighbours are those of the targets.

    Images are `(n, side, side, 3)` uint8, targets their `(n, dim)` unit rows in the teacher's space.
    """
    student, inner = deepcopy((student, inner))  # which alone get hooks and gradients
    student.eval().requires_grad_(True)
    sums = [[torch.zeros(()).double() for _ in range(3)] for _ in inner]

    def read(at: int, part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        values = inputs[0].detach().permute(0, 2, 3, 1).flatten(1, 2)
        values = values[:, torch.randint(values.shape[1], (PLACES,))].flatten(0, 1).double()
        sums[at][0] = sums[at][0] + values.sum(dim=0).cpu()
        sums[at][1] = sums[at][1] + (values.T @ values).cpu()
        # A hook of the output, for a hook of the module forbids what changes the output in place.
        output.register_hook(partial(told, at))

    def told(at: int, gradient: Tensor) -> None:
        flat = gradient.detach().permute(0, 2, 3, 1).flatten(0, 2).double()
        sums[at][2] = sums[at][2] + (flat.T @ flat).cpu()

    for at, group in enumerate(inner):
        group.consumer.register_forward_hook(partial(read, at))
    device = next(student.parameters()).device
    k = min(NEIGHBOURS, len(targets) - 1)
    for some in rows.split(BATCH):
        nearest = (targets[some] @ targets.T).scatter(1, some[:, None], -1.0).topk(k, dim=1)[1]
        near = targets[nearest[torch.arange(len(some)), torch.randint(k, (len(some),))]]
        (student(images[some].to(device)) * near.to(device)).sum().backward()
    found, count = [], PLACES * len(rows)
    for total, products, sensitivity in sums:
        mean = total / count
        found.append(Statistics(mean, products / count - torch.outer(mean, mean), sensitivity / len(rows)))
    return found


def _choose(loss: Tensor, inverse: Tensor) -> tuple[list[int], list[float]]:
    """Choose which of a few channels go, one by one: the others take over before the next is chosen."""
    chosen: list[int] = []
    losses: list[float] = []
    for _ in range(min(TOGETHER, len(loss))):
        each = loss.diagonal() / inverse.diagonal().clamp_min(1e-30)
        each[chosen] = torch.inf
        least = int(each.argmin())
        chosen.append(least)
        losses.append(max(float(each[least]), 0.0))
        share, told = inverse[least] / inverse[least, least], loss[least].clone()
        both = torch.outer(share, told)
        loss = loss - both - both.T + told[least] * torch.outer(share, share)
        inverse = inverse - torch.outer(inverse[least], share)
    return chosen, losses


def _damped(covariance: Tensor) -> Tensor:
    added = DAMPING * covariance.diagonal().mean().clamp_min(1e-12)
    return covariance + added * torch.eye(len(covariance)).double()
