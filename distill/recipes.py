"""How to train: the default recipe, and the baselines it is measured against."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from distill.losses import LOSSES
from distill.mixing import Mixing
from index.errors import UsageError


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
        unqueried: Share of each batch that is images without an answer, with predicted targets.
        holdout: Share of the answers that is kept from training, to measure agreement on.
        average: Share of the steps, at the end, whose weights are averaged.
        flip: Whether crops are mirrored at random.
        freeze: Layers that see the image at 1/this or larger keep their ImageNet weights; random ones train.
        seed: Of everything random.
    """

    steps: int = 400
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
    flip: bool = True
    freeze: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = (self.losses.keys() | self.joint_losses.keys()) - LOSSES.keys()
        if unknown:
            raise UsageError(f"No loss {', '.join(sorted(unknown))}. There are {', '.join(LOSSES)}.")
        if not (0 <= self.unqueried < 1 and 0 <= self.holdout < 1 and 0 <= self.average <= 1):
            raise UsageError(f"A share of this recipe is not between 0 and 1: {self}.")


def steps_for(answers: int, recipe: Recipe) -> int:
    """Training steps for so many answers: more for more, but each is seen less often."""
    return max(round(recipe.steps * math.sqrt(answers / 500)), 20)


def _baseline(**losses: float) -> Recipe:
    """The same training from the answered images alone, with other losses and no interpolation."""
    return Recipe(losses=losses, joint_losses={}, mixing=Mixing(0), unqueried=0.0)


def _interpolated(losses: Mapping[str, float], joint_losses: Mapping[str, float]) -> Recipe:
    """The same from the answered images and their interpolations."""
    return Recipe(losses=losses, joint_losses=joint_losses, unqueried=0.0)


RECIPES: dict[str, Recipe] = {
    "default": Recipe(),
    # The default without one of its parts.
    "no-interpolation": Recipe(mixing=Mixing(0)),
    "no-relations": Recipe(joint_losses={}),
    "no-unqueried": Recipe(unqueried=0.0),
    "no-whitening": Recipe(whiten=0.0),
    # Other losses, on the answered images alone.
    "regression": _baseline(regression=1.0),
    "gram": _baseline(gram=1.0),
    "raml": _baseline(raml=1.0),
    "rkd": _baseline(rkd=1.0),
    "pkt": _baseline(pkt=1.0),
    "csd": _baseline(csd=1.0),
    "ssp": _baseline(ssp=1.0),
    "darkrank": _baseline(darkrank=1.0),
    "rop": _baseline(rop=1.0),
    "d3still": _baseline(d3still=1.0),
    # Our reading of the paper: a relational loss on the joint set.
    "gram-interpolated": _interpolated({}, {"gram": 1.0}),
    "rkd-interpolated": _interpolated({}, {"rkd": 1.0}),
    "csd-interpolated": _interpolated({}, {"csd": 1.0}),
}


def find_recipe(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        UsageError: There is none.
    """
    if name not in RECIPES:
        raise UsageError(f"No recipe {name!r}. There are {', '.join(RECIPES)}.")
    return RECIPES[name]
