"""Lists with a ranker's answers, as arrays, and what vectors lose by ordering them otherwise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index.embedders.base import RankedList
from index.rankers.base import SHOWN, Rows

TEMPERATURE = 0.1
OUT = -1e4  # a score that takes no part


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

    @classmethod
    def among(cls, lists: Sequence[RankedList], places: Mapping[str, int]) -> "Answered | None":
        """Lay out what of ranked lists is among photos with these places, by digest; None if nothing is."""
        found, answers = list[Rows](), list[NDArray[np.float32]]()
        for one in lists:
            known = [
                (places.get(digest), rank) for digest, rank in zip(one.candidates, one.ranks, strict=True)
            ]
            ranked = {place: rank for place, rank in known if place is not None and rank}
            if (query := places.get(one.query)) is not None and len(ranked) > 1:
                found.append((query, *ranked))
                gains = 1 / np.array([*ranked.values()], np.float32)
                answers.append(np.pad(gains, (0, SHOWN - len(gains))))
        return cls.of(found, answers) if found else None

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: NDArray[np.bool_]) -> "Answered":
        """Take some of them, by an `(n,)` mask."""
        return Answered(self.rows[which], self.weights[which])


def list_mle(scores: Tensor, weights: Tensor) -> Tensor:
    """Average the negative log-likelihood of orders (ListMLE, Xia et al. 2008), over all that is ranked."""
    ranked = weights.sum(1) + weights.sum(2) > 0
    order = torch.where(ranked, weights.sum(2), -1).argsort(dim=1, descending=True)
    known, falling = ranked.gather(1, order), (scores / TEMPERATURE).gather(1, order)
    falling = torch.where(known, falling, OUT)
    rest = falling.flip(1).logcumsumexp(1).flip(1)
    return ((rest - falling) * known).sum() / known.sum().clamp_min(1)
