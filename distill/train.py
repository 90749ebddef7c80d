"""The training loop: crops of the queried images, and the teacher's answers in teacher space."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from distill.losses import LOSSES
from distill.mixing import Mixing, join
from distill.student import Student, fit_head
from index.progress import progress

MARGIN = 1.125  # images are kept this much larger than the student's input, for random crops


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        steps: Optimizer steps.
        batch: Images a step.
        rate: Peak of the one-cycle learning rate.
        decay: Weight decay.
        whiten: How far the targets are whitened, as in `Projection.fit`.
        ridge: Penalty of the first fit of the head.
        losses: Weight of each loss, by its name in `LOSSES`.
        mixing: Interpolated rows that join the batch.
        average: Share of the steps, at the end, whose weights are averaged.
        flip: Whether crops are mirrored at random.
        freeze: Layers that see the image at 1/this or larger keep their ImageNet weights; random ones train.
        seed: Of everything random.
    """

    steps: int = 300
    batch: int = 32
    rate: float = 1e-3
    decay: float = 0.01
    whiten: float = 0.0
    ridge: float = 1.0
    losses: Mapping[str, float] = field(default_factory=lambda: {"regression": 1.0, "gram": 1.0})
    mixing: Mixing = field(default_factory=Mixing)
    average: float = 0.25
    flip: bool = True
    freeze: int = 8
    seed: int = 0


def stored_side(side: int) -> int:
    """The square to keep of each image, from which crops of `side` are taken."""
    return round(side * MARGIN)


def train_student(
    student: Student,
    pixels: NDArray[np.uint8],
    targets: NDArray[np.float32],
    side: int,
    recipe: Recipe,
    fabric: Fabric,
) -> list[float]:
    """Fit the student to the targets, in place.

    Args:
        student: The network to train.
        pixels: `(n, stored_side(side), stored_side(side), 3)` images.
        targets: `(n, dim)` unit rows, the teacher's answers in teacher space.
        side: The student's input size.
        recipe: How.
        fabric: Where.

    Returns:
        The loss of each step.
    """
    torch.manual_seed(recipe.seed)
    images = torch.from_numpy(pixels)
    teacher = torch.from_numpy(targets)
    fit_head(student.head, embed_features(student, center_crop(images, side), fabric), teacher, recipe.ridge)

    if student.backbone.pretrained:
        student.backbone.freeze_early(recipe.freeze)
    optimizer = torch.optim.AdamW(_parameter_groups(student, recipe.decay), lr=recipe.rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step, recipe.steps))
    model, optimizer = fabric.setup(student, optimizer)
    averaged = torch.optim.swa_utils.AveragedModel(student)
    bank = fabric.to_device(teacher)
    model.train()
    losses = []
    with progress(recipe.steps, "train", "step") as bar:
        for step, rows in enumerate(_batches(len(images), recipe.batch, recipe.steps)):
            crops = fabric.to_device(random_crop(images[rows], side, recipe.flip))
            aims = fabric.to_device(teacher[rows])
            loss = joint_loss(model(crops), aims, bank, recipe)
            fabric.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            if step >= recipe.steps * (1 - recipe.average):
                averaged.update_parameters(student)
            losses.append(loss.item())
            bar.set_postfix(loss=f"{losses[-1]:.4f}", refresh=False)
            bar.update()
    if averaged.n_averaged > 0:
        student.load_state_dict(averaged.module.state_dict())
    student.eval()
    return losses


def one_cycle(step: int, steps: int) -> float:
    """Share of the peak learning rate: up in a line for a fifth of the steps, then down along a cosine."""
    rise = max(steps // 5, 1)
    if step < rise:
        return (step + 1) / rise
    return (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1))) / 2


def joint_loss(student: Tensor, teacher: Tensor, bank: Tensor, recipe: Recipe) -> Tensor:
    """The recipe's losses on the joint set of a batch and its interpolations.

    Args:
        student: `(n, dim)` unit rows.
        teacher: `(n, dim)` unit rows, in teacher space.
        bank: `(m, dim)` teacher rows of every queried image.
        recipe: Which losses, and how rows are mixed.
    """
    rows = join(student, teacher, recipe.mixing)
    total = student.new_zeros(())
    for name, weight in recipe.losses.items():
        total = total + weight * LOSSES[name](*rows, bank)
    return total


@torch.inference_mode()
def embed_features(student: Student, images: Tensor, fabric: Fabric) -> Tensor:
    """Backbone features `(n, features)` of `(n, side, side, 3)` uint8 images, on the CPU."""
    student.eval().to(fabric.device)
    return torch.cat([student.backbone(fabric.to_device(chunk)).float().cpu() for chunk in images.split(64)])


def center_crop(images: Tensor, side: int) -> Tensor:
    """Cut the middle `(n, side, side, 3)` out of larger squares."""
    start = (images.shape[1] - side) // 2
    return images[:, start : start + side, start : start + side]


def random_crop(images: Tensor, side: int, flip: bool) -> Tensor:
    """Cut a square of `side` out of each image, at a place of its own, half of them mirrored if `flip`."""
    n, slack = len(images), images.shape[1] - side + 1
    corners = torch.randint(slack, (n, 2)).tolist()
    crops = torch.stack(
        [image[y : y + side, x : x + side] for image, (y, x) in zip(images, corners, strict=True)]
    )
    if not flip:
        return crops
    return torch.where(torch.rand(n, 1, 1, 1) < 0.5, crops.flip(2), crops)


def _batches(count: int, size: int, steps: int) -> "list[Tensor]":
    """Rows for each step: whole shuffled passes, cut into batches that may straddle two of them."""
    needed = steps * size
    rows = torch.cat([torch.randperm(count) for _ in range(-(-needed // count))])[:needed]
    return list(rows.split(size))


def _parameter_groups(student: Student, decay: float) -> list[dict]:
    matrices = [p for p in student.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in student.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
