"""Where every image of a pool belongs in the student's space, and how much of that the teacher decides.

An image's place joins two views of it: what the teacher answered, or would by the predictor, and what the
free network, the student's own ImageNet backbone at its own size, says at no query. `trust` is the teacher's
share. It is chosen on the answered images alone: each is searched with among the others as if none of them
had an answer, and the share with lists most like the teacher's wins, if it wins by more than chance and
answers can be predicted at all. Else the teacher has no share: a student of answers that are in doubt ranks
less like the teacher than one that asked nobody.

In the end each predicted place is averaged with those of its nearest neighbours, where that evidently makes
the lists of answered images, as if none had an answer, more like the teacher's.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.targets.predictor import Predictor
from index.embedders.teacher_space import TeacherSpace
from index.evaluation.metrics import overlap_at_k, rank, rank_others
from index.evaluation.rankings import DEPTH
from index.vectors import Vectors, scale_to_unit

SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)  # of the teacher, that are tried
CERTAIN = 2.0  # standard errors by which a share must beat the free network to be believed
EVIDENT = 4.0  # standard errors by which averages must: they cost the order of what is nearest
FITTED = 4000  # answers at most that others are predicted from: bounds time and memory
SIMILARITIES = 1 << 26  # of averages, at a time
NEIGHBOURS = 10  # that a place is averaged with
SHARPNESS = 8  # power of the similarity by which each of them counts
AXES = 1024  # of the answers' span that are kept: those beyond hold next to no variance


@dataclass(frozen=True)
class Placement:
    """Places of all images of a pool."""

    space: TeacherSpace  # projects the teacher's vectors to the student's space
    rows: Vectors  # `(n, dim)` float32 unit rows, one for each image of the pool
    # The teacher's share in them: 0 if its answers tell nothing that the free network did not know
    trust: float
    chosen: bool  # whether the answers chose that share; no if it was given
    averaged: bool  # whether the predicted rows are averaged with their neighbours
    # Standard errors by which lists of answered images gain by that; None if it was given
    averages_gain: float | None
    explained: float  # as in `Predictor`
    # `(answers,)` overlap of the free network's lists with the teacher's among the answered images
    free: NDArray[np.float64]
    # `(answers,)` the same with the answers of the others, at the share that was chosen
    asked: NDArray[np.float64]

    @property
    def gain(self) -> tuple[float, float]:
        """Measure what the answers bring, in overlap with the teacher's lists, and its standard error."""
        difference = self.asked - self.free
        return float(difference.mean()), float(difference.std() / np.sqrt(len(difference)))

    @property
    def facts(self) -> dict[str, Any]:
        """Sum it up, for run.json and for people."""
        gain, error = self.gain
        known = ("trust", "chosen", "averaged", "averages_gain", "explained")
        return {
            **{name: getattr(self, name) for name in known},
            "free_network": float(self.free.mean()),
            "with_answers": float(self.asked.mean()),
            "gain": gain,
            "gain_error": error,
        }


def place(
    features: Vectors,
    free: Vectors,
    answered: NDArray[np.int64],
    answers: Vectors,
    dim: int,
    whiten: float,
    trust: float | None = None,
    average: bool | None = None,
) -> Placement:
    """Place every image of a pool in a space of `dim`, whitened as in `Projection.fit`.

    Answers are predicted from `(n, features)`; `free` holds the free network's vectors. Images at the `(k,)`
    places are answered, by `(k, teacher dim)` unit rows, which choose the teacher's share in all places
    unless `trust` gives it, and whether places are averaged with their neighbours unless `average` says so.
    """
    mean = answers.mean(axis=0)
    _, strength, axes = np.linalg.svd(answers - mean, full_matrices=False)
    axes = axes[:AXES][strength[:AXES] > 1e-6 * max(float(strength[0]), 1e-12)]
    told = (answers - mean) @ axes.T
    some = slice(None, None, -(-len(answered) // FITTED))
    predictor = Predictor.fit(features[answered][some], told[some])
    taught = predictor.predict(features)
    taught[answered] = told
    taught, free = scale_to_unit(taught), scale_to_unit(free)
    known = scale_to_unit(free - free.mean(axis=0))

    chosen = trust is None
    left_out = scale_to_unit(predictor.left_out)
    trust, before, after = _choose_share(
        left_out, known[answered][some], answers[some], predictor.explained, trust
    )

    def join(taught: Vectors) -> Vectors:
        return np.concatenate([np.sqrt(trust) * taught, np.sqrt(1 - trust) * known], axis=1)

    joint = TeacherSpace.fit(join(taught), dim, whiten)
    evidence = None
    if average is None:
        alone = taught.copy()
        alone[answered[some]] = left_out
        evidence = _gain_by_averaging(joint.project(join(alone)), answered[some], answers[some])
        average = evidence > EVIDENT
    rows = joint.project(join(taught))
    if average:
        # What was answered has no error to even out, unless nothing of it is in its place.
        rest = np.setdiff1d(np.arange(len(rows)), answered if trust else answered[:0])
        rows[rest] = average_with_neighbours(rows, rest)
    if trust:  # what of the joint projection acts on the teacher's own vectors
        # Within a joint row the answer has length one; here it keeps its own, about that of the answers.
        offset = joint.mean[: len(axes)] / np.sqrt(trust) * np.linalg.norm(told, axis=1).mean()
        part = joint.components[:, : len(axes)] @ axes
        space = TeacherSpace((mean + offset @ axes).astype(np.float32), part.astype(np.float32))
    else:
        space = TeacherSpace.fit(answers, dim, whiten)
    facts = trust, chosen, average, evidence, predictor.explained
    return Placement(space, rows, *facts, before, after)


def average_with_neighbours(
    rows: Vectors, which: NDArray[np.int64] | None = None, pool: int | None = None
) -> Vectors:
    """Average each of `(n, dim)` unit rows with its nearest, itself the first, and scale to unit length.

    Errors of predictions even out among neighbours. Database augmentation (Arandjelović and Zisserman 2012),
    weighted by a power of the similarity (Radenović, Tolias and Chum 2019). `which` takes only some; the
    nearest are among the first `pool` rows, if that is given, so that what follows them changes none of them.
    """
    which, pool = np.arange(len(rows)) if which is None else which, len(rows) if pool is None else pool
    found = np.empty((len(which), rows.shape[1]), np.float32)
    for inside in (True, False):
        places = np.flatnonzero((which < pool) == inside)
        step = max(min(FITTED, SIMILARITIES // pool), 1)
        for start in range(0, len(places), step):
            part = places[start : start + step]
            found[part] = _average(rows[which[part]], rows[:pool], inside)
    return found


def _average(some: Vectors, rows: Vectors, inside: bool) -> Vectors:
    """Average rows, which may themselves be inside the others, or else join them."""
    similarity = some @ rows.T
    nearest = rank(similarity, min(NEIGHBOURS + inside, len(rows)))
    weights = np.take_along_axis(similarity, nearest, 1).clip(0) ** SHARPNESS
    total = np.einsum("nk,nkd->nd", weights, rows[nearest])
    return scale_to_unit(total if inside else total + some)


def _gain_by_averaging(rows: Vectors, answered: NDArray[np.int64], answers: Vectors) -> float:
    """Measure how much more like the teacher's lists of answered images are by averaged places.

    The lists are as short as those of `DEPTH` are among all images: further down, averages do better.
    """
    depth = -(-DEPTH * len(answered) // len(rows))
    truth = rank_others(answers @ answers.T, depth)
    before, after = (
        overlap_at_k(rank_others(some @ some.T, depth), truth)
        for some in (rows[answered], average_with_neighbours(rows)[answered])
    )
    return _standard_errors(after - before)


def _standard_errors(gain: NDArray[np.float64]) -> float:
    """How many standard errors a mean gain is above zero."""
    return float(gain.mean() / max(gain.std() / np.sqrt(len(gain)), 1e-12))


def _choose_share(
    taught: Vectors, known: Vectors, answers: Vectors, explained: float, trust: float | None
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Choose the share with the best lists, where these are certain to beat the free network's; else 0.

    A share that is given stays. Beside it comes the overlap with the teacher's lists for each answered image:
    of the free network, and at that share.
    """
    truth = rank_others(answers @ answers.T, DEPTH)
    ours, theirs = taught @ taught.T, known @ known.T
    lists = {
        share: overlap_at_k(rank_others(share * ours + (1 - share) * theirs, DEPTH), truth)
        for share in (SHARES if trust is None else (0.0, trust))
    }
    if trust is None:
        best = max(SHARES, key=lambda share: lists[share].mean())
        certain = explained > 0 and _standard_errors(lists[best] - lists[0.0]) > CERTAIN
        trust = best if certain else 0.0
    return trust, lists[0.0], lists[trust]
