"""How to train: the default recipe, and the baselines it is measured against."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from index.errors import UsageError

MANY = 2000  # images, from which on training takes all of its steps
FEWEST_STEPS = 20  # fewer teach next to nothing
MARGIN = 1.125  # how much larger than the student's input images are kept
Pairs = Literal["random", "neighbours"]
_BASELINES = ("regression", "gram", "raml", "rkd", "pkt", "csd", "ssp", "darkrank", "rop", "d3still")
LOSSES = (*_BASELINES, "cross", "rkd-distance", "rkd-angle", "csd-all")


@dataclass(frozen=True)
class Mixing:
    """How rows of a batch are mixed."""

    rows: int = 64  # how many mixed rows join the batch
    # The weight of the first of a pair follows Beta(alpha, alpha): 1 is uniform, more is nearer 1/2
    alpha: float = 1.0
    pairs: Pairs = "random"  # partners at random, or among the teacher's nearest in the batch
    # Scale mixed rows back to unit length. Without that, losses that are linear in the similarities learn
    # nothing from mixing that the originals did not already tell.
    unit: bool = True

    def __post_init__(self) -> None:
        if self.rows < 0 or self.alpha <= 0 or self.pairs not in get_args(Pairs):
            raise UsageError(f"No such mixing: {self}.")


@dataclass(frozen=True)
class Recipe:
    """How to train."""

    steps: int = 1000  # optimizer steps for `MANY` images and more; `steps_for` scales them
    batch: int = 32  # images a step
    rate: float = 2e-3  # peak of the one-cycle learning rate
    decay: float = 0.01  # weight decay
    whiten: float = 0.25  # how far the targets are whitened, as in `Projection.fit`
    ridge: float = 1.0  # penalty of the first fit of the head
    # Weight of each loss on the images of a batch, by its name in `distill.training.losses`
    losses: Mapping[str, float] = field(default_factory=lambda: {"regression": 1.0})
    # Weight of each loss on the joint set: the images and their interpolations
    joint_losses: Mapping[str, float] = field(default_factory=lambda: {"gram": 1.0})
    lists: float = 0.1  # weight of ListMLE on the lists of a teacher that only ranks
    mixing: Mixing = field(default_factory=Mixing)  # the interpolated rows of the joint set
    others: bool = True  # whether images without an answer are learnt from, where they probably belong
    # The teacher's share in where images belong, as in `place`; None chooses it by the answers
    trust: float | None = None
    # Whether places are averaged with their neighbours, as in `place`; None lets the answers decide
    neighbours: bool | None = None
    average: float = 0.25  # share of the steps, at the end, over which weights are averaged
    # Smallest and largest share of each side of an image that is shown at a time
    shown: tuple[float, float] = (0.8, 1.0)
    turn: float = 5.0  # degrees at most by which what is shown is turned
    flip: bool = True  # whether it is mirrored at random
    # Layers that see the image at 1/this or larger keep their ImageNet weights; random ones train
    freeze: int = 8
    seed: int = 0  # random seed

    def __post_init__(self) -> None:
        unknown = (self.losses.keys() | self.joint_losses.keys()) - set(LOSSES)
        if unknown:
            raise UsageError(f"No loss {', '.join(sorted(unknown))}. There are {', '.join(LOSSES)}.")
        if not (0 <= (self.trust or 0.0) <= 1 and 0 <= self.average <= 1):
            raise UsageError(f"A share of this recipe is not between 0 and 1: {self}.")
        if not (0 < self.shown[0] <= self.shown[1] <= 1 and 0 <= self.turn <= 180):
            raise UsageError(f"No part of an image can be shown by {self}.")


def steps_for(images: int, recipe: Recipe) -> int:
    """Choose training steps for so many images of a pool, whatever the budget, so that students compare."""
    return max(round(recipe.steps * math.sqrt(min(images / MANY, 1))), FEWEST_STEPS)


PLAIN_CROPS: dict[str, Any] = {"shown": (1 / MARGIN, 1 / MARGIN), "turn": 0.0}
# What `judge` wrote is the free network's, whitened, moved, and averaged as lists bear out: it is not joined
# with that network, whitened or averaged a second time.
AS_JUDGED: dict[str, Any] = {"whiten": 0.0, "trust": 1.0, "neighbours": False}
_ANSWERED = Recipe(others=False, trust=1.0, neighbours=False)

RECIPES: dict[str, Recipe] = {
    "default": Recipe(),
    # The student that asking must beat: the free network alone says where images belong.
    "zero-answers": Recipe(trust=0.0, neighbours=False, lists=0.0),
    # The default without some of its parts, or with another.
    "no-interpolation": Recipe(mixing=Mixing(0)),
    "no-relations": Recipe(joint_losses={}),
    "no-lists": Recipe(lists=0.0),
    "no-free-network": Recipe(trust=1.0),
    "no-neighbours": Recipe(neighbours=False),
    "answered-only": _ANSWERED,
    "answered-only-no-interpolation": replace(_ANSWERED, mixing=Mixing(0)),
    "neighbour-pairs": Recipe(mixing=Mixing(pairs="neighbours")),
    "no-whitening": Recipe(whiten=0.0),
    "plain-crops": Recipe(**PLAIN_CROPS),
    # One loss, on the answered images alone.
    **{
        name: replace(_ANSWERED, losses={name: 1.0}, joint_losses={}, lists=0.0, mixing=Mixing(0))
        for name in _BASELINES
    },
    # Our reading of the paper: a relational loss on the joint set.
    **{
        f"{name}-interpolated": replace(_ANSWERED, losses={}, joint_losses={name: 1.0}, lists=0.0)
        for name in ("gram", "rkd", "csd")
    },
    # The same of CSD's divergence, with regression and with predictions, to see when interpolation pays.
    "csd-regression": replace(_ANSWERED, joint_losses={"csd": 1.0}, mixing=Mixing(0)),
    "csd-regression-interpolated": replace(_ANSWERED, joint_losses={"csd": 1.0}),
    **{
        f"{name}-predicted{mixed}": Recipe(losses=losses, joint_losses={"csd": 1.0}, mixing=mixing)
        for name, losses in (("csd", {}), ("csd-regression", {"regression": 1.0}))
        for mixed, mixing in (("", Mixing(0)), ("-interpolated", Mixing()))
    },
}


def find_recipe(name: str) -> Recipe:
    """Find the recipe of a name; UsageError if there is none."""
    if name not in RECIPES:
        raise UsageError(f"No recipe {name!r}. There are {', '.join(RECIPES)}.")
    return RECIPES[name]
