"""The training loop: views of the images, and where they belong in teacher space."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from distill.examples import Answered, Examples
from distill.model.student import Student, embed
from distill.report.held_out import HeldOut
from distill.shrinking.shrink import Shrinking, match_widths
from distill.training.checkpoint import Checkpoint, Progress
from distill.training.device import embed_shared, on_first
from distill.training.losses import Bank, joint_loss, list_mle
from distill.training.recipes import Recipe
from distill.training.views import center_crop, random_view
from index.progress import StoppedError, progress, tell
from index.vectors import scale_to_unit

LISTS = 4  # of a teacher that only ranks, that are learnt from in each step
CHECKS = 10  # of the agreement with the teacher, evenly over the steps


class Learner:
    """A student with what trains it: an optimizer, its schedule, and the mean of its weights at the end."""

    def __init__(self, student: Student, recipe: Recipe, fabric: Fabric) -> None:
        self.student, self.recipe, self.fabric = student, recipe, fabric
        if student.backbone.pretrained:
            student.backbone.freeze_early(recipe.freeze)
        self.adam = _make_optimizer(student, recipe)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.adam, lambda step: one_cycle(step, recipe.steps)
        )
        self._join()

    def _join(self) -> None:
        self.averaged = torch.optim.swa_utils.AveragedModel(self.student)
        self.model, self.optimizer = self.fabric.setup(self.student, self.adam)

    @property
    def parts(self) -> dict[str, Any]:
        """Name all that has a state."""
        return {
            "student": self.student,
            "averaged": self.averaged,
            "optimizer": self.adam,
            "schedule": self.schedule,
        }

    @property
    def current(self) -> nn.Module:
        """The network as it would be kept now."""
        return self.averaged.module if self.averaged.n_averaged > 0 else self.student

    def learn(
        self, images: Tensor, targets: Tensor, side: int, bank: Bank, orders: Tensor | None = None
    ) -> float:
        """Take one step on views of a batch, and return the loss.

        `orders` are weights as of `Answered` of some lists, whose photos follow those of the n targets.
        """
        self.model.train()
        recipe = self.recipe
        views = random_view(self.fabric.to_device(images), side, recipe.shown, recipe.turn, recipe.flip)
        vectors = embed_shared(self.model, views, self.fabric)
        count = len(targets)
        loss = joint_loss(vectors[:count], self.fabric.to_device(targets), bank, recipe)
        if orders is not None:
            shown = vectors[count:].unflatten(0, (len(orders), -1))
            scores = torch.einsum("nd,ncd->nc", shown[:, 0], shown[:, 1:])
            loss = loss + recipe.lists * list_mle(scores, self.fabric.to_device(orders))
        self.fabric.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        return loss.item()

    def go_on(self) -> None:
        """Train on after the student has lost channels: parameters that stayed keep their moments."""
        former, self.adam = self.adam, _make_optimizer(self.student, self.recipe)
        for group, before in zip(self.adam.param_groups, former.param_groups, strict=True):
            group |= {"lr": before["lr"], "initial_lr": before["initial_lr"]}
            self.adam.state |= {p: former.state[p] for p in group["params"] if p in former.state}
        self.schedule.optimizer = self.adam
        self._join()


def train_student(
    student: Student,
    examples: Examples,
    check: HeldOut | None,
    side: int,
    recipe: Recipe,
    fabric: Fabric,
    checkpoint: Checkpoint | None = None,
    shrinking: Shrinking | None = None,
) -> Progress:
    """Fit a student of `side` pixels to the targets of examples, in place; go on from a checkpoint, if any.

    If it is `shrinking`, it loses channels on the way. The agreement with the teacher's lists in `check`, for
    answered images that are not learnt from, picks the weights that are kept, the first fit of the head among
    them, if the student has not shrunk since.
    """
    torch.manual_seed(recipe.seed)
    images, targets = torch.from_numpy(examples.pixels), torch.from_numpy(examples.targets)
    student.fit(center_crop(images, side), targets, recipe.ridge, fabric)
    state = checkpoint.read() if checkpoint else None
    if state:
        match_widths(student, images[:2], state["parts"]["student"])
    learner = Learner(student, recipe, fabric)
    batches = _passes(len(images), recipe.batch, recipe.steps)
    lists = _of_lists(examples.lists, recipe.steps) if examples.lists else None
    bank = Bank(fabric.to_device(targets[: examples.answered]))
    done = checkpoint.restore(state, learner.parts) if checkpoint and state else Progress()

    def note() -> None:
        if check and not done.noted:
            scores = on_first(fabric, partial(agreement, learner.current, check, fabric))
            done.note(scores, learner.current.state_dict())
        save()

    def save() -> None:
        if checkpoint and fabric.is_global_zero and done.losses:
            checkpoint.save(done, learner.parts)

    check_every = max(recipe.steps // CHECKS, 1)
    with progress(recipe.steps, "train", "step") as bar, _saved_if_stopped(save):
        bar.update(len(done.losses))
        for step in range(len(done.losses), recipe.steps):
            if step % check_every == 0:
                note()
            rows = batches[step]
            more, orders = lists[step] if lists else (rows[:0], None)
            shown = images[torch.cat([rows, more])]
            done.losses.append(learner.learn(shown, targets[rows], side, bank, orders))
            squares = center_crop(images, side)
            if shrinking and shrinking.cut(student, squares, targets, step + 1, recipe.steps):
                learner.go_on()
                done.start_over()
            if step + 1 > recipe.steps * (1 - recipe.average):
                learner.averaged.update_parameters(student)
            tell(training=done, steps=recipe.steps)
            bar.set_postfix(loss=f"{done.losses[-1]:.4f}", refresh=False)
            bar.update()
        note()
    student.load_state_dict(done.best or learner.current.state_dict())
    student.eval()
    return done


@contextmanager
def _saved_if_stopped(save: Callable[[], None]) -> Iterator[None]:
    """Save where who watches ends the work, which is between two steps."""
    try:
        yield
    except StoppedError:
        save()
        raise


def one_cycle(step: int, steps: int) -> float:
    """Choose the share of the peak learning rate: up in a line for a fifth of the steps, then a cosine."""
    rise = max(steps // 5, 1)
    if step < rise:
        return (step + 1) / rise
    return (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1))) / 2


def agreement(student: nn.Module, check: HeldOut, fabric: Fabric) -> NDArray[np.float64]:
    """Compute the share of the teacher's first places that the student returns: `(held-out images,)`.

    Its lists are told to who watches.
    """
    queries, gallery = (
        embed(student, torch.from_numpy(pixels), fabric).numpy() for pixels in (check.queries, check.gallery)
    )
    lists = check.searched(queries @ gallery.T)
    tell(lists=lists)
    return lists.agreement


def agreement_before(student: Student, check: HeldOut, fabric: Fabric) -> float:
    """Compute the mean agreement of what a student's backbone says before anything is learnt."""
    queries, gallery = (
        embed(student, torch.from_numpy(pixels), fabric, student.pool).numpy()
        for pixels in (check.queries, check.gallery)
    )
    queries, gallery = (scale_to_unit(rows - gallery.mean(axis=0)) for rows in (queries, gallery))
    return float(check.searched(queries @ gallery.T).agreement.mean())


def _passes(count: int, size: int, steps: int) -> list[Tensor]:
    """Draw whole shuffled passes, cut into batches that may straddle two of them."""
    needed = steps * size
    rows = torch.cat([torch.randperm(count) for _ in range(-(-needed // count))])[:needed]
    return list(rows.split(size))


def _of_lists(lists: Answered, steps: int) -> list[tuple[Tensor, Tensor]]:
    """Draw `LISTS` lists for each step: the places of their photos, and what their orders weigh."""
    rows, weights = torch.from_numpy(lists.rows), torch.from_numpy(lists.weights)
    return [(rows[some].flatten(), weights[some]) for some in _passes(len(lists), LISTS, steps)]


def _make_optimizer(student: Student, recipe: Recipe) -> torch.optim.AdamW:
    matrices = [p for p in student.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in student.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.rate, fused=True)
