"""How to train: the default recipe, and the baselines it is measured against."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from distill.training.losses import LOSSES
from distill.training.mixing import Mixing
from distill.training.views import MARGIN
from index.errors import UsageError

FEW = 250  # answers, up to which predictions have their full share of a batch


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        steps: Optimizer steps for 500 answers; `steps_for` scales them.
        batch: Images a step.
        rate: Peak of the one-cycle learning rate.
        decay: Weight decay.
        whiten: How far the targets are whitened, as in `Projection.fit`.
        ridge: Penalty of the first fit of the head.
        losses: Weight of each loss on the images of a batch, by its name in `LOSSES`.
        joint_losses: Weight of each loss on the joint set: the images and their interpolations.
        mixing: The interpolated rows of the joint set.
        unqueried: Share of each batch that is images without an answer, with predicted targets, where answers
            are few; `unqueried_for` scales it.
        holdout: Share of the answers that is kept from training, to measure agreement on.
        average: Share of the steps, at the end, whose weights are averaged.
        shown: Smallest and largest share of each side of an image that is shown at a time.
        turn: Degrees at most by which what is shown is turned.
        flip: Whether it is mirrored at random.
        freeze: Layers that see the image at 1/this or larger keep their ImageNet weights; random ones train.
        seed: Of everything random.
    """

    steps: int = 600
    batch: int = 32
    rate: float = 2e-3
    decay: float = 0.01
    whiten: float = 0.25
    ridge: float = 1.0
    losses: Mapping[str, float] = field(default_factory=lambda: {"regression": 1.0})
    joint_losses: Mapping[str, float] = field(default_factory=lambda: {"gram": 1.0})
    mixing: Mixing = field(default_factory=Mixing)
    unqueried: float = 0.5
    holdout: float = 0.05
    average: float = 0.25
    shown: tuple[float, float] = (0.7, 1.0)
    turn: float = 10.0
    flip: bool = True
    freeze: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = (self.losses.keys() | self.joint_losses.keys()) - LOSSES.keys()
        if unknown:
            raise UsageError(f"No loss {', '.join(sorted(unknown))}. There are {', '.join(LOSSES)}.")
        if not (0 <= self.unqueried < 1 and 0 <= self.holdout < 1 and 0 <= self.average <= 1):
            raise UsageError(f"A share of this recipe is not between 0 and 1: {self}.")
        if not (0 < self.shown[0] <= self.shown[1] <= 1 and 0 <= self.turn <= 180):
            raise UsageError(f"No part of an image can be shown by {self}.")


def steps_for(answers: int, recipe: Recipe) -> int:
    """Training steps for so many answers: more for more, but each is seen less often."""
    return max(round(recipe.steps * math.sqrt(answers / 500)), 20)


def unqueried_for(answers: int, recipe: Recipe) -> float:
    """Share of a batch for images without an answer: half as much from twice `FEW` answers on.

    Predictions are worth most where answers are few, and tie the student to the kind of images in the pool.
    """
    return recipe.unqueried * min(max(FEW / answers, 0.5), 1)


PLAIN_CROPS: dict[str, Any] = {"shown": (1 / MARGIN, 1 / MARGIN), "turn": 0.0}
_ANSWERED = Recipe(unqueried=0.0)
_BASELINES = ("regression", "gram", "raml", "rkd", "pkt", "csd", "ssp", "darkrank", "rop", "d3still")

RECIPES: dict[str, Recipe] = {
    "default": Recipe(),
    # The default without some of its parts, or with another.
    "no-interpolation": Recipe(mixing=Mixing(0)),
    "no-relations": Recipe(joint_losses={}),
    "no-unqueried": _ANSWERED,
    "no-unqueried-no-interpolation": replace(_ANSWERED, mixing=Mixing(0)),
    "neighbour-pairs": Recipe(mixing=Mixing(pairs="neighbours")),
    "no-whitening": Recipe(whiten=0.0),
    "plain-crops": Recipe(**PLAIN_CROPS),
    # One loss, on the answered images alone.
    **{
        name: replace(_ANSWERED, losses={name: 1.0}, joint_losses={}, mixing=Mixing(0)) for name in _BASELINES
    },
    # Our reading of the paper: a relational loss on the joint set.
    **{
        f"{name}-interpolated": replace(_ANSWERED, losses={}, joint_losses={name: 1.0})
        for name in ("gram", "rkd", "csd")
    },
}


def find_recipe(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        UsageError: There is none.
    """
    if name not in RECIPES:
        raise UsageError(f"No recipe {name!r}. There are {', '.join(RECIPES)}.")
    return RECIPES[name]
