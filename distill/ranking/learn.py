"""Learn an order: a linear map of what the free network says of photos, from a ranker's answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from index.embedders.teacher_space import Projection
from index.rankers.base import SHOWN, Rows

DIM, WHITEN = 128, 0.25  # of the start: principal components of the free network
TEMPERATURE = 0.1
PULLS = (10.0, 5.0, 2.0)  # to the start, that are tried; the strongest first
OUT = -1e4  # a score that takes no part
FOLDS = 3
STEPS = 25  # of L-BFGS
CLEARLY = 2.0  # standard errors by which a map must beat the start on lists that it did not learn
Loss = Callable[[Tensor, Tensor], Tensor]  # of `(n, candidates)` scores, and weights as of `Answered`


@dataclass(frozen=True)
class Answered:
    """Lists with their answers."""

    rows: NDArray[np.int64]  # `(n, 1 + candidates)` positions in the pool: the query's, then the candidates'
    weights: NDArray[np.float32]  # `(n, candidates, candidates)`, above 0 where the first beats the second

    @classmethod
    def of(cls, lists: Sequence[Rows], answers: Sequence[NDArray[np.float32]]) -> "Answered":
        """Lay lists of up to `SHOWN` candidates out in arrays; what is lacking is the query, unranked.

        A pair weighs the difference of its reciprocal ranks; what is unranked, with 0, is in no pair.
        """
        rows = np.array([(*rows, *[rows[0]] * (1 + SHOWN - len(rows))) for rows in lists], np.int64)
        gains = np.stack(answers)
        weights = (gains[:, :, None] - gains[:, None, :]).clip(0) * (gains > 0)[:, None, :]
        return cls(rows.reshape(-1, 1 + SHOWN), weights)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: NDArray[np.bool_]) -> "Answered":
        """Take some of them, by an `(n,)` mask."""
        return Answered(self.rows[which], self.weights[which])


@dataclass(frozen=True)
class Learnt:
    """What came of it."""

    vectors: NDArray[np.float32]  # `(pool, dim)` unit rows
    pull: float | None  # the pull to the start that was chosen; None where no map beat the start clearly


def start_from(features: NDArray[np.float32], pool: int) -> NDArray[np.float32]:
    """Project `(n, features)` of photos to unit rows: whitened principal components of the first, a pool."""
    known = features[:pool]
    return Projection.fit(known, min(DIM, *known.shape), WHITEN).project(features)


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

    @classmethod
    def of(cls, vectors: NDArray[np.float32], lists: Answered) -> "Agreement":
        """Measure it over the lists that tell candidates apart; NaN if none does."""
        taus = agreement(vectors, lists)
        told = np.isfinite(taus)
        ranked = lists.weights.sum(1) + lists.weights.sum(2) > 0
        found = np.where(ranked, _scores(vectors, lists), -np.inf).argmax(1)
        same = found == lists.weights.sum(2).argmax(1)
        return cls(*(float(each[told].mean()) if told.any() else float("nan") for each in (taus, same)))

    def __str__(self) -> str:
        """Both, as in `0.653 and 0.48`."""
        return f"{self.tau:.3f} and {self.top_1:.2f}"


def _scores(vectors: NDArray[np.float32], lists: Answered) -> NDArray[np.float32]:
    return np.einsum("nd,ncd->nc", vectors[lists.rows[:, 0]], vectors[lists.rows[:, 1:]])


def list_mle(scores: Tensor, weights: Tensor) -> Tensor:
    """Average the negative log-likelihood of orders (ListMLE, Xia et al. 2008), over all that is ranked."""
    ranked = weights.sum(1) + weights.sum(2) > 0
    order = torch.where(ranked, weights.sum(2), -1).argsort(dim=1, descending=True)
    known, falling = ranked.gather(1, order), (scores / TEMPERATURE).gather(1, order)
    falling = torch.where(known, falling, OUT)
    rest = falling.flip(1).logcumsumexp(1).flip(1)
    return ((rest - falling) * known).sum() / known.sum().clamp_min(1)


def learn(start: NDArray[np.float32], lists: Answered, seed: int = 0, loss: Loss = list_mle) -> Learnt:
    """Learn from lists as much as lists that were left out bear out, and nothing if they bear out nothing.

    Start from `(pool, dim)` unit rows of the free network; the seed is of the folds.
    """
    folds = np.random.default_rng(seed).permutation(len(lists)) % FOLDS
    before = agreement(start, lists)
    best, most = None, 0.0
    for pull in PULLS if len(lists) >= 2 * FOLDS else ():
        after = np.full(len(lists), np.nan)
        for fold in range(FOLDS):
            rest = folds == fold
            after[rest] = agreement(fit(start, lists.take(~rest), pull, loss), lists.take(rest))
        gain = after - before
        gain = gain[np.isfinite(gain)]
        error = gain.std() / np.sqrt(max(len(gain), 1))
        if len(gain) and gain.mean() > max(most, CLEARLY * error):
            best, most = pull, float(gain.mean())
    return Learnt(start if best is None else fit(start, lists, best, loss), best)


def fit(
    start: NDArray[np.float32], lists: Answered, pull: float, loss: Loss = list_mle
) -> NDArray[np.float32]:
    """Fit a map of `(pool, dim)` unit rows to such rows; `pull` weighs its squared distance from identity."""
    used, inverse = np.unique(lists.rows, return_inverse=True)
    points, places = torch.from_numpy(start[used]), torch.from_numpy(inverse.reshape(lists.rows.shape))
    weights = torch.from_numpy(lists.weights)
    change = torch.zeros(start.shape[1], start.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([change], max_iter=STEPS, line_search_fn="strong_wolfe")

    def evaluate() -> Tensor:
        mapped = F.normalize(points + points @ change, dim=1)
        scores = torch.einsum("nd,ncd->nc", mapped[places[:, 0]], mapped[places[:, 1:]])
        value = loss(scores, weights) + pull * change.square().sum() / len(change)
        optimizer.zero_grad()
        value.backward()
        return value

    optimizer.step(evaluate)
    with torch.no_grad():
        all_points = torch.from_numpy(start)
        return F.normalize(all_points + all_points @ change, dim=1).numpy()
