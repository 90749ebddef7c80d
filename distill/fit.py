"""Fit a student: place the images of a pool in its space, and train it to put them there.

It may take over from the student before it weights to start from, and a space to stay in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from distill.ask import TeacherAnswers
from distill.examples import Examples, gather
from distill.model.backbone import Backbone, create_backbone
from distill.model.student import Student
from distill.options import FEWEST, Options
from distill.pool import Pool
from distill.report.held_out import POOL_PHOTOS, QUERY_PHOTOS, HeldOut, search_with_teacher
from distill.shrinking.shrink import Shrinking, match_widths
from distill.targets.placement import Placement, place
from distill.training.checkpoint import Checkpoint, Progress
from distill.training.loop import agreement_before, train_student
from distill.training.recipes import Recipe, steps_for
from distill.training.views import center_crop
from index.embedders.base import RankedList
from index.embedders.teacher_space import TeacherSpace
from index.errors import RetrievalError, UsageError


@dataclass(frozen=True)
class Former:
    """The student that a new one takes the place of."""

    key: str  # its embedder's key
    rows: NDArray[np.int64]  # `(n,)` places, in the pool of the new student, of photos that it embedded
    vectors: NDArray[np.float32]  # `(n, dim)` float32, its vectors of them, unit rows
    # State of its network to start from; None starts where every student does
    weights: Mapping[str, Tensor] | None = None

    def align(self, placement: Placement) -> Placement:
        """Turn all places as one, so that those of its photos come nearest to its vectors.

        A turn changes no similarity among the places: the new student ranks as it would have. That its
        vectors can also be compared with the former one's costs nothing (orthogonal Procrustes, Schönemann
        1966).
        """
        left, _, right = np.linalg.svd(placement.rows[self.rows].T @ self.vectors)
        turn = (left @ right).astype(np.float32)
        space = placement.space
        return replace(
            placement, rows=placement.rows @ turn, space=TeacherSpace(space.mean, turn.T @ space.components)
        )


def open_backbone(options: Options) -> Backbone:
    """Make the whole backbone of the student, so that what is wrong with it shows before anything is paid."""
    torch.manual_seed(options.seed)
    backbone = create_backbone(options.student, options.weights)
    if options.stages:
        cut = create_backbone(options.student, "none")
        cut.keep_stages(options.stages)
        Student(cut, options.dim)  # refuses stages that leave too little of the network
    if backbone.pretrained:
        backbone.fold_batch_norm()
    return backbone


def build_student(backbone: Backbone, options: Options) -> Student:
    """Cut a whole backbone to the stages that are kept, and give it a head."""
    torch.manual_seed(options.seed)
    backbone.keep_stages(options.stages or backbone.default_stages)
    return Student(backbone, options.dim)


def aim(student: Student, options: Options) -> Shrinking | None:
    """Measure how far a student must shrink to its target, if it has one.

    Raises:
        UsageError: It cannot shrink, or not so far.
    """
    if not options.target:
        return None
    if not student.backbone.pretrained:
        raise UsageError("A student of random weights cannot shrink. Leave out --weights or the target.")
    return Shrinking.towards(options.target, student, options.size)


@dataclass(frozen=True)
class Fitted:
    """A trained student, and how it came about."""

    student: Student  # the network
    placement: Placement  # where the images of the pool belong
    recipe: Recipe  # as it was used
    examples: Examples  # what it learnt from
    lists: HeldOut | None  # the teacher's lists for what was held out, if anything was
    done: Progress  # how training went
    seconds: float  # how long it took, placing the images included
    shrinking: Shrinking | None  # how it shrank, if it did


def fit_student(
    pool: Pool,
    answered: TeacherAnswers,
    backbone: Backbone,
    options: Options,
    fabric: Fabric,
    checkpoint: Checkpoint | None = None,
    former: Former | None = None,
    ranked: Sequence[RankedList] = (),
) -> Fitted:
    """Train a student on a pool, some of which is answered. The backbone is cut and trained in place."""
    recipe = replace(
        options.recipe, steps=options.steps or steps_for(len(pool.pixels), options.recipe), seed=options.seed
    )
    if not backbone.pretrained:  # random weights have learnt nothing that could predict an answer
        recipe = replace(recipe, others=False, trust=1.0, neighbours=False)
    student, shrinking = build_student(backbone, options), None
    if former and former.weights:
        match_widths(student, torch.from_numpy(pool.pixels[:2]), former.weights)
        student.load_state_dict(former.weights)
    else:
        shrinking = aim(student, options)
    if shrinking and not options.steps:
        recipe = replace(recipe, steps=shrinking.lengthen(recipe.steps))
    start = perf_counter()
    asked_of, at = answered.queries, {digest: i for i, digest in enumerate(pool.digests)}
    rows = np.array([at[digest] for digest in answered.digests])
    held, measured = answered.held, np.array([each in answered.measured for each in pool.digests])
    learnt = ~held & ~measured[rows]
    if learnt.sum() < FEWEST:
        raise RetrievalError(
            f"Of {len(rows)} answers {learnt.sum()} may be learnt from, for all budgets are measured on the "
            "others. Leave out the smallest --budget."
        )
    kept, vectors = rows[learnt], answered.vectors[learnt]
    apart = np.union1d(rows[held], np.flatnonzero(measured))
    pixels, truth = pool.pixels[rows[held]], answered.vectors[held]
    if asked_of:
        pixels, truth = asked_of.pixels, asked_of.vectors
    lists = search_with_teacher(
        (as_shown(pixels, options.size), truth),
        (as_shown(pool.pixels[kept], options.size), vectors),
        QUERY_PHOTOS if asked_of else POOL_PHOTOS,
    )
    how = recipe.whiten, recipe.trust, recipe.neighbours
    placement = place(pool.features, pool.free, kept, vectors, options.dim, *how)
    placement = former.align(placement) if former else placement
    if lists:
        project = placement.space.project
        most = float(lists.searched(project(truth) @ project(vectors).T).agreement.mean())
        lists = replace(lists, start=agreement_before(student, lists, fabric), ceiling=most)
    told = ranked if recipe.lists else ()
    examples = gather(pool, kept, apart, placement.rows, recipe.others, told)
    done = train_student(student, examples, lists, options.size, recipe, fabric, checkpoint, shrinking)
    return Fitted(student, placement, recipe, examples, lists, done, perf_counter() - start, shrinking)


def as_shown(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Cut the middle of stored squares, as the finished student is shown them."""
    return center_crop(torch.from_numpy(pixels), size).contiguous().numpy()
