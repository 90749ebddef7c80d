"""What the student learns from: images of the pool and where they belong, lists that a ranker answered."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.pool import Pool
from index.embedders.base import RankedList
from index.rankers.base import SHOWN, Rows

FEWEST_HELD_OUT = 5  # fewer tell nothing
HELD_OUT = 110  # answers that are held out where the budget allows: about 100 bound agreement to 5 points
LARGEST_SHARE = 0.2  # of the answers that is held out


@dataclass(frozen=True)
class Answered:
    """Lists with a ranker's answers, as arrays."""

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
            told = zip(one.candidates, one.ranks, strict=True)
            ranked = {places[digest]: rank for digest, rank in told if digest in places and rank}
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


@dataclass(frozen=True)
class Examples:
    """Images and where they belong."""

    pixels: NDArray[np.uint8]  # `(n, stored_side, stored_side, 3)` uint8
    targets: NDArray[np.float32]  # `(n, dim)` unit rows in teacher space
    # How many of them, from the first, have the teacher's answer as target. The rest have a prediction of it.
    answered: int
    lists: Answered | None = None  # of these images, that a ranker answered


def hold_out(
    digests: Sequence[str], share: float | None = None, learnt: Set[str] = frozenset()
) -> NDArray[np.bool_]:
    """Choose which of n answered images to keep from training, by their digests alone: an `(n,)` mask.

    About a share is held out; None takes some `HELD_OUT` images, and `LARGEST_SHARE` at most. A larger budget
    holds out a smaller share, so that what it holds out a smaller budget holds out too. Nothing is held out
    where little would be left, and never what was `learnt`, of which no share is taken.
    """
    new = [digest not in learnt for digest in digests]
    if share is None:
        share = min(LARGEST_SHARE, HELD_OUT / max(sum(new), 1))
    held = np.array([int(digest[:8], 16) < share * 16**8 for digest in digests], bool) & new
    enough = FEWEST_HELD_OUT <= held.sum() <= len(held) // 2
    return held if enough else np.zeros(len(held), bool)


def gather(
    pool: Pool,
    answered: NDArray[np.int64],
    held: NDArray[np.int64],
    places: NDArray[np.float32],
    others: bool,
    lists: Sequence[RankedList] = (),
) -> Examples:
    """Put answered images first, with their `(n, dim)` places, and `others`, none held out, behind them.

    What of `lists` is about images that are held out is left out.
    """
    without = np.setdiff1d(np.arange(len(pool.pixels)), np.concatenate([answered, held]))
    rows = np.concatenate([answered, without]) if others else answered
    told = Answered.among(lists, {pool.digests[row]: i for i, row in enumerate(rows)})
    return Examples(pool.pixels[rows], places[rows], len(answered), told)
