"""The training loop: views of the images, and where they belong in teacher space."""

import math
from functools import partial

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from distill.examples import Examples
from distill.model.student import Student, embed
from distill.report.held_out import HeldOut
from distill.training.checkpoint import Checkpoint, Progress
from distill.training.distributed import embed_shared, on_first
from distill.training.losses import LOSSES, Bank
from distill.training.mixing import join
from distill.training.recipes import Recipe
from distill.training.views import center_crop, random_view
from index.evaluation.metrics import overlap_at_k, rank
from index.progress import progress

CHECKS = 10  # of the agreement with the teacher, evenly over the steps


def train_student(
    student: Student,
    examples: Examples,
    check: HeldOut | None,
    side: int,
    recipe: Recipe,
    fabric: Fabric,
    checkpoint: Checkpoint | None = None,
) -> Progress:
    """Fit a student of `side` pixels to the targets of examples, in place; go on from a checkpoint, if any.

    The agreement with the teacher's lists in `check`, for answered images that are not learnt from, picks the
    weights that are kept, the first fit of the head among them.
    """
    torch.manual_seed(recipe.seed)
    images, targets = torch.from_numpy(examples.pixels), torch.from_numpy(examples.targets)
    student.fit(center_crop(images, side), targets, recipe.ridge, fabric)

    if student.backbone.pretrained:
        student.backbone.freeze_early(recipe.freeze)
    adam = torch.optim.AdamW(_parameter_groups(student, recipe.decay), lr=recipe.rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: one_cycle(step, recipe.steps))
    averaged = torch.optim.swa_utils.AveragedModel(student)
    batches = _passes(len(images), recipe.batch, recipe.steps)
    bank = Bank(fabric.to_device(targets[: examples.answered]))
    model, optimizer = fabric.setup(student, adam)
    parts = {"student": student, "averaged": averaged, "optimizer": adam, "schedule": schedule}
    done = checkpoint.load(parts) if checkpoint else Progress()

    def note() -> None:
        current = _current(student, averaged)
        if check:
            done.note(on_first(fabric, partial(agreement, current, check, fabric)), current.state_dict())

    if not done.losses:
        note()
    check_every = max(recipe.steps // CHECKS, 1)
    with progress(recipe.steps, "train", "step") as bar:
        bar.update(len(done.losses))
        while len(done.losses) < recipe.steps:
            model.train()
            rows = batches[len(done.losses)]
            views = random_view(fabric.to_device(images[rows]), side, recipe.shown, recipe.turn, recipe.flip)
            vectors = embed_shared(model, views, fabric)
            loss = joint_loss(vectors, fabric.to_device(targets[rows]), bank, recipe)
            fabric.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            done.losses.append(loss.item())
            if len(done.losses) > recipe.steps * (1 - recipe.average):
                averaged.update_parameters(student)
            bar.set_postfix(loss=f"{done.losses[-1]:.4f}", refresh=False)
            bar.update()
            if len(done.losses) % check_every == 0 or len(done.losses) == recipe.steps:
                note()
                if checkpoint and fabric.is_global_zero:
                    checkpoint.save(done, parts)
    student.load_state_dict(done.best or _current(student, averaged).state_dict())
    student.eval()
    return done


def one_cycle(step: int, steps: int) -> float:
    """Choose the share of the peak learning rate: up in a line for a fifth of the steps, then a cosine."""
    rise = max(steps // 5, 1)
    if step < rise:
        return (step + 1) / rise
    return (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1))) / 2


def joint_loss(student: Tensor, teacher: Tensor, bank: Bank, recipe: Recipe) -> Tensor:
    """Sum the recipe's losses of `(n, dim)` unit rows, on a batch and on it with its interpolations."""
    joint = join(student, teacher, recipe.mixing)
    terms = [weight * LOSSES[name](student, teacher, bank) for name, weight in recipe.losses.items()]
    terms += [weight * LOSSES[name](*joint, bank) for name, weight in recipe.joint_losses.items()]
    return torch.stack(terms).sum()


def agreement(student: nn.Module, check: HeldOut, fabric: Fabric) -> NDArray[np.float64]:
    """Compute the share of the teacher's first places that the student returns: `(held-out images,)`."""
    queries, gallery = (
        embed(student, torch.from_numpy(pixels), fabric).numpy() for pixels in (check.queries, check.gallery)
    )
    return overlap_at_k(rank(queries @ gallery.T, check.teacher.shape[1]), check.teacher)


def _passes(count: int, size: int, steps: int) -> list[Tensor]:
    """Draw whole shuffled passes, cut into batches that may straddle two of them."""
    needed = steps * size
    rows = torch.cat([torch.randperm(count) for _ in range(-(-needed // count))])[:needed]
    return list(rows.split(size))


def _current(student: Student, averaged: torch.optim.swa_utils.AveragedModel) -> nn.Module:
    return averaged.module if averaged.n_averaged > 0 else student


def _parameter_groups(student: Student, decay: float) -> list[dict]:
    matrices = [p for p in student.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in student.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
