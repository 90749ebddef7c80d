"""What an order of ten photos teaches, by how it is learnt, in a closed world: cheap, and without students.

    python benchmarks/ranking.py --gallery gallery.csv --queries queries.csv expert.npz mobilenetv2.npz

The ranker has vectors of every photo, of which only the orders are used. What is learnt from them is vectors
of all photos; scored are the overlap@10 of their lists with the ranker's, and mAP, for the queries in the
gallery. Each line is the mean over seeds: of what `judge` keeps, which is the free network where lists that
were left out bear nothing out, and of the map of the best strength in hindsight.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from asking import read_vectors
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus

from distill.examples import Answered
from distill.ranking.judge import read_photos
from distill.ranking.learn import PULLS, Loss, fit, learn
from distill.ranking.lists import plan_lists
from distill.training.losses import LIST_TEMPERATURE, list_mle
from index.evaluation.evaluate import Labelled, read_labels
from index.evaluation.metrics import average_precision, overlap_at_k
from index.images.file import digest_pool
from index.rankers.asking import key_of
from index.rankers.base import SHOWN, Rows, to_row

PAIRS = SHOWN * (SHOWN - 1) // 2
Change = Callable[[Answered, np.random.Generator], Answered]


def rank_net(scores: Tensor, weights: Tensor) -> Tensor:
    """Average `softplus((s_j - s_i) / T)` over pairs, by weight (RankNet, Burges et al. 2005)."""
    losses = softplus((scores[:, None, :] - scores[:, :, None]) / LIST_TEMPERATURE)
    return (weights * losses).sum() / weights.sum().clamp_min(1e-12)


def keep_pairs(share: float) -> Change:
    """Keep a share of all pairs, those of unequal rank rather than others."""

    def change(lists: Answered, lot: np.random.Generator) -> Answered:
        weights = lists.weights.ravel()
        count = round(share * np.count_nonzero(weights))
        kept = lot.choice(weights.size, count, replace=False, p=weights / weights.sum(dtype=float))
        mask = np.zeros(weights.size, bool)
        mask[kept] = True
        return Answered(lists.rows, np.where(mask, weights, 0).reshape(lists.weights.shape))

    return change


def one_pair(lists: Answered, lot: np.random.Generator) -> Answered:
    """Keep one pair of each list, and of it only which is better: what a call about a pair tells."""
    weights = np.zeros_like(lists.weights)
    for row, (i, j) in enumerate(lot.permuted(np.tile(np.arange(SHOWN), (len(lists), 1)), axis=1)[:, :2]):
        weights[row, i, j] = lists.weights[row, i, j] > 0
        weights[row, j, i] = lists.weights[row, j, i] > 0
    return Answered(lists.rows, weights)


def flip_pairs(share: float) -> Change:
    """Swap neighbours of each order at random until a share of its pairs is the wrong way round."""

    def change(lists: Answered, lot: np.random.Generator) -> Answered:
        answers = []
        for order in np.argsort(-lists.weights.sum(2), axis=1):
            ranks = list(range(SHOWN))
            wrong = 0
            while wrong < round(share * PAIRS):
                place = int(lot.integers(SHOWN - 1))
                if ranks[place] < ranks[place + 1]:
                    ranks[place : place + 2] = ranks[place + 1], ranks[place]
                    wrong += 1
            answers.append(to_row(order[ranks].tolist()))
        return Answered.of([tuple(rows) for rows in lists.rows.tolist()], answers)

    return change


def whole(lists: Answered, lot: np.random.Generator) -> Answered:
    """Leave lists as they are."""
    return lists


# name: (loss, what is done to the answers before, whether half is asked after a first map)
WAYS = {
    "ListMLE": (list_mle, whole, False),
    "ListMLE, half of the lists after a first map": (list_mle, whole, True),
    "RankNet, all pairs": (rank_net, whole, False),
    "RankNet, 10 % of the pairs": (rank_net, keep_pairs(0.1), False),
    "RankNet, 2 % of the pairs": (rank_net, keep_pairs(0.02), False),
    "RankNet, a pair a call": (rank_net, one_pair, False),
    "ListMLE, 20 % of the pairs wrong": (list_mle, flip_pairs(0.2), False),
}


class World:
    """Photos, what the free network says of them, and a ranker with vectors of them all."""

    def __init__(self, gallery: Sequence[Labelled], queries: Sequence[Labelled]) -> None:
        """Read photos; those of the gallery are asked about."""
        files = [entry.file for entry in (*gallery, *queries)]
        labels = dict(zip(digest_pool(files), [entry.label for entry in (*gallery, *queries)], strict=True))
        self.pool, self.known = read_photos(files[: len(gallery)], files[len(gallery) :], "auto")
        self.digests = [*self.pool.digests, *self.pool.others]
        self.labels = np.array([labels[digest] for digest in self.digests])

    def rank(self, vectors: NDArray[np.float32]) -> NDArray[np.int64]:
        """Rank the gallery for each query."""
        size = len(self.pool.digests)
        return np.argsort(-(vectors[size:] @ vectors[:size].T), axis=1, kind="stable")

    def score(self, vectors: NDArray[np.float32], truth: NDArray[np.int64]) -> tuple[float, float]:
        """Score vectors: overlap@10 with a ranker's rankings, and mAP, in percent."""
        ranking, size = self.rank(vectors), len(self.pool.digests)
        relevant = self.labels[:size][ranking] == self.labels[size:, None]
        overlap = overlap_at_k(ranking[:, :10], truth[:, :10])
        return 100 * float(overlap.mean()), 100 * float(np.nanmean(average_precision(relevant)))

    def plan(self, vectors: NDArray[np.float32], paid: Sequence[Rows], budget: int, seed: int) -> list[Rows]:
        """Plan lists as `judge` does; those that are paid for among them."""
        known = [key_of(rows, self.pool) for rows in paid]
        return plan_lists(vectors[: len(self.pool.digests)], self.pool, known, budget, seed)[0]


def answer(lists: Sequence[Rows], teacher: NDArray[np.float32]) -> Answered:
    """Order lists as the teacher's vectors do."""
    orders = [np.argsort(-(teacher[list(rest)] @ teacher[query]), kind="stable") for query, *rest in lists]
    return Answered.of(lists, [to_row(order.tolist()) for order in orders])


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--gallery", type=Path, required=True, help="CSV of path,label: photos to ask about")
    parser.add_argument("--queries", type=Path, required=True, help="CSV of path,label: photos to score with")
    parser.add_argument("--budgets", type=int, nargs="+", default=[100, 500])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("teachers", type=Path, nargs="+", help=".npz of vectors by content digest")
    args = parser.parse_args()
    world = World(read_labels(args.gallery), read_labels(args.queries))
    print("ranker,lists,way,maps kept,overlap@10,mAP,overlap@10 in hindsight,mAP in hindsight", flush=True)
    for path in args.teachers:
        teacher = read_vectors(path, world.digests)
        truth = world.rank(teacher)
        before = world.score(world.known.start, truth)
        print(f"{path.stem},0,the free network,,{before[0]:.1f},{before[1]:.1f},,", flush=True)
        for budget in args.budgets:
            for name, way in WAYS.items():
                rows = [measure(world, teacher, truth, budget, seed, *way) for seed in range(args.seeds)]
                kept, *means = np.mean(rows, axis=0)
                figures = ",".join(f"{mean:.1f}" for mean in means)
                print(f'{path.stem},{budget},"{name}",{kept * args.seeds:.0f},{figures}', flush=True)


def measure(
    world: World,
    teacher: NDArray[np.float32],
    truth: NDArray[np.int64],
    budget: int,
    seed: int,
    loss: Loss,
    change: Change,
    twice: bool,
) -> list[float]:
    """Ask, learn and score; whether a map was kept, its scores, and those in hindsight."""
    lot = np.random.default_rng(seed)
    torch.manual_seed(seed)
    first: list[Rows] = []
    space = world.known.start
    if twice:
        first = world.plan(space, (), budget // 2, seed)
        space = learn(world.known, answer(first, teacher), seed, loss).vectors
    told = change(answer(world.plan(space, first, budget, seed), teacher), lot)
    learnt = learn(world.known, told, seed, loss)
    best = max(world.score(fit(world.known, told, pull, loss), truth) for pull in PULLS)
    return [float(learnt.changed), *world.score(learnt.vectors, truth), *best]


if __name__ == "__main__":
    main()
