"""Learn an order from a ranker's answers: move what the free network says of photos, by a linear map."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from distill.examples import Answered
from distill.targets.placement import average_with_neighbours
from distill.training.losses import list_mle
from index.embedders.teacher_space import Projection

DIM, WHITEN = 256, 0.25  # of the start: principal components of the free network
WIDTH = 512  # principal components of all its stages, from which photos are moved
PULLS = (0.1, 0.03, 0.01, 0.003)  # to the start, that are tried; the strongest first
FOLDS = 3
STEPS = 25  # of L-BFGS
SAMPLED = 20_000  # photos at most that components are fitted to, and that are projected at a time
CLEARLY, EVIDENTLY = 2.0, 3.0  # standard errors of gain on left-out lists: that maps, and averages, must have
Loss = Callable[[Tensor, Tensor], Tensor]  # of `(n, candidates)` scores, and weights as of `Answered`


@dataclass(frozen=True)
class Known:
    """What the free network says of photos."""

    start: NDArray[np.float32]  # `(photos, dim)` unit rows, which orders move
    features: NDArray[np.float32]  # `(photos, width)` unit rows, from which a map tells where to
    pool: int | None = None  # how many of them, the first, are not queries; None is all

    @classmethod
    def of(cls, free: NDArray[np.float32], features: NDArray[np.float32], pool: int) -> "Known":
        """Project `(photos, free)` and `(photos, features)` to principal components of the first, a pool."""
        some = slice(None, pool, -(-pool // SAMPLED))
        start = Projection.fit(free[some], min(DIM, *free[some].shape), WHITEN)
        wide = Projection.fit(features[some], min(WIDTH, *features[some].shape))
        return cls(_project(start, free), _project(wide, features), pool)


def _project(space: Projection, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([space.project(rows[i : i + SAMPLED]) for i in range(0, len(rows), SAMPLED)])


@dataclass(frozen=True)
class Learnt:
    """What came of it."""

    vectors: NDArray[np.float32]  # `(photos, dim)` unit rows
    pull: float | None  # the pull to the start that was chosen; None where no map beat the start clearly
    averaged: bool  # whether each is averaged with its neighbours, which clearly gained

    @property
    def changed(self) -> bool:
        """Whether lists bore anything out."""
        return self.pull is not None or self.averaged


def agreement(vectors: NDArray[np.float32], lists: Answered) -> NDArray[np.float64]:
    """Compute Kendall's tau between vectors and each of n answers: `(n,)`, NaN where none is told apart."""
    scores = _scores(vectors, lists)
    signs = np.sign(scores[:, :, None] - scores[:, None, :])
    told = (lists.weights > 0) & (signs != 0)
    with np.errstate(invalid="ignore"):
        return np.where(told, signs, 0).sum((1, 2)) / told.sum((1, 2))


@dataclass(frozen=True)
class Agreement:
    """How well vectors order candidates as a ranker does."""

    tau: float  # Kendall's, the mean over lists
    top_1: float  # share of lists of which both put the same candidate first
    lists: int  # how many tell candidates apart

    @classmethod
    def of(cls, vectors: NDArray[np.float32], lists: Answered) -> "Agreement":
        """Measure it over the lists that tell candidates apart; NaN if none does."""
        taus = agreement(vectors, lists)
        told = np.isfinite(taus)
        ranked = lists.weights.sum(1) + lists.weights.sum(2) > 0
        found = np.where(ranked, _scores(vectors, lists), -np.inf).argmax(1)
        same = found == lists.weights.sum(2).argmax(1)
        tau, top_1 = (float(each[told].mean()) if told.any() else float("nan") for each in (taus, same))
        return cls(tau, top_1, int(told.sum()))

    def __str__(self) -> str:
        """Both, as in `0.653 and 0.48`."""
        return f"{self.tau:.3f} and {self.top_1:.2f}"


def _scores(vectors: NDArray[np.float32], lists: Answered) -> NDArray[np.float32]:
    return np.einsum("nd,ncd->nc", vectors[lists.rows[:, 0]], vectors[lists.rows[:, 1:]])


def learn(known: Known, lists: Answered, seed: int = 0, loss: Loss = list_mle) -> Learnt:
    """Learn from lists as much as lists that were left out bear out, and nothing if they bear out nothing.

    The seed is of the folds.
    """
    folds = np.random.default_rng(seed).permutation(len(lists)) % FOLDS
    before, averaged = _left_out(known, lists, None, folds, loss)
    best, most, found = None, 0.0, before
    for pull in PULLS if len(lists) >= 2 * FOLDS else ():
        after, after_averaged = _left_out(known, lists, pull, folds, loss)
        gain = _clear_gain(before, after)
        if gain > most:
            best, most, found, averaged = pull, gain, after, after_averaged
    vectors = known.start if best is None else fit(known, lists, best, loss)
    average = _clear_gain(found, averaged, EVIDENTLY) > 0
    return Learnt(average_with_neighbours(vectors, pool=known.pool) if average else vectors, best, average)


def _left_out(
    known: Known, lists: Answered, pull: float | None, folds: NDArray[np.int64], loss: Loss
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the agreement with each list of a map that did not learn it; the same of averaged vectors."""
    found, averaged = np.full((2, len(lists)), np.nan)
    for fold in range(FOLDS):
        rest = folds == fold
        vectors = known.start if pull is None else fit(known, lists.take(~rest), pull, loss)
        left = lists.take(rest)
        used, places = np.unique(left.rows, return_inverse=True)
        found[rest] = agreement(vectors, left)
        averaged[rest] = agreement(
            average_with_neighbours(vectors, used, known.pool),
            Answered(places.reshape(left.rows.shape), left.weights),
        )
    return found, averaged


def _clear_gain(before: NDArray[np.float64], after: NDArray[np.float64], errors: float = CLEARLY) -> float:
    """Compute the mean gain over lists; 0 where it is not above that by so many standard errors."""
    gain = (after - before)[np.isfinite(after - before)]
    clear = len(gain) >= 2 * FOLDS and gain.mean() > errors * gain.std() / np.sqrt(len(gain))
    return float(gain.mean()) if clear else 0.0


def fit(known: Known, lists: Answered, pull: float, loss: Loss = list_mle) -> NDArray[np.float32]:
    """Fit a map from features to what is added to the start: `(photos, dim)` unit rows.

    `pull` weighs the squares of the map.
    """
    used, inverse = np.unique(lists.rows, return_inverse=True)
    start, features = torch.from_numpy(known.start), torch.from_numpy(known.features)
    points, seen = start[used], features[used]
    places = torch.from_numpy(inverse.reshape(lists.rows.shape))
    weights = torch.from_numpy(lists.weights)
    change = torch.zeros(features.shape[1], start.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([change], max_iter=STEPS, line_search_fn="strong_wolfe")

    def evaluate() -> Tensor:
        moved = F.normalize(points + seen @ change, dim=1)
        scores = torch.einsum("nd,ncd->nc", moved[places[:, 0]], moved[places[:, 1:]])
        value = loss(scores, weights) + pull * change.square().sum()
        optimizer.zero_grad()
        value.backward()
        return value

    optimizer.step(evaluate)
    with torch.no_grad():
        return F.normalize(start + features @ change, dim=1).numpy()
