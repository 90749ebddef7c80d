"""Losses between unit rows of the student and of the teacher, both in teacher space.

Each takes `(n, dim)` rows of the student, the same rows of the teacher, and the bank of the teacher's
answers, for the losses that look beyond the batch. Each returns a scalar, zero for a perfect student unless
it says otherwise. `LOSSES` finds them by name. `list_mle` is of lists that a ranker answered.

Interpolation in the output space makes more teacher and student pairs, at no query and no forward pass.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import faiss
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from distill.training.recipes import Mixing, Recipe

TINY = 1e-12
ANGLES = 64  # rows that take part in angles: their number grows with the cube of the rows
SOFTNESS = 0.1  # temperature of `structure` and `rank_order`
DEPTH = 10  # first places that `rank_order` and `d3still` compare
LIST_TEMPERATURE = 0.1  # of ListMLE
UNRANKED = -1e4  # a score that takes no part
NEAREST = 5  # partners that a mixing of `neighbours` chooses among


@dataclass(frozen=True)
class Bank:
    """What losses that look beyond the batch know of the teacher."""

    rows: Tensor  # `(m, dim)` unit rows of every queried image

    @cached_property
    def codebook(self) -> Tensor:
        """Train unit centroids `(parts, centroids, dim / parts)` of a product quantiser of the rows."""
        count, dim = self.rows.shape
        parts = math.gcd(dim, 8)
        bits = min(8, max(1, int(math.log2(max(count / 4, 2)))))
        quantizer = faiss.ProductQuantizer(dim, parts, bits)
        quantizer.cp.min_points_per_centroid = 1  # or it warns of so few
        quantizer.train(np.ascontiguousarray(self.rows.float().cpu().numpy()))
        centroids = faiss.vector_to_array(quantizer.centroids).reshape(parts, 2**bits, dim // parts)
        return F.normalize(torch.from_numpy(centroids), dim=2).to(self.rows)


def regression(student: Tensor, teacher: Tensor, bank: Bank) -> Tensor:
    """Compute the mean of half the squared distance, `mean_i |s_i - t_i|² / 2`: places each vector."""
    return (student - teacher).pow(2).sum(dim=1).mean() / 2


def gram(student: Tensor, teacher: Tensor, bank: Bank) -> Tensor:
    """Compute `mean_ij (s_i·s_j - t_i·t_j)²`, over all similarities (Tung and Mori 2019)."""
    return (student @ student.T - teacher @ teacher.T).pow(2).mean()


def cross_gram(student: Tensor, teacher: Tensor, bank: Bank) -> Tensor:
    """Compute the same between the student's rows and the teacher's, `mean_ij (s_i·t_j - t_i·t_j)²`."""
    return (student @ teacher.T - teacher @ teacher.T).pow(2).mean()


def raml(student: Tensor, teacher: Tensor, bank: Bank, weight: float = 0.7) -> Tensor:
    """Sum absolute, cross and self terms (RAML, Suma and Tolias 2023): `(1 - s·t)² + w cross + w self`."""
    absolute = (1 - (student * teacher).sum(dim=1)).pow(2).mean()
    relations = cross_gram(student, teacher, bank) + gram(student, teacher, bank)
    return absolute + weight * relations


def distances(student: Tensor, teacher: Tensor, bank: Bank) -> Tensor:
    """Compute smooth L1 of pairwise distances, each side divided by its mean (RKD-D, Park et al. 2019)."""
    return F.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher))


def angles(student: Tensor, teacher: Tensor, bank: Bank) -> Tensor:
    """Compute smooth L1 of cosines in all triplets of the first `ANGLES` rows (RKD-A, Park et al. 2019)."""
    return F.smooth_l1_loss(_triplet_cosines(student[:ANGLES]), _triplet_cosines(teacher[:ANGLES]))


def rkd(student: Tensor, teacher: Tensor, bank: Bank) -> Tensor:
    """Sum distances and angles, 1 : 2 (RKD-DA, Park et al. 2019)."""
    return distances(student, teacher, bank) + 2 * angles(student, teacher, bank)


def pkt(student: Tensor, teacher: Tensor, bank: Bank) -> Tensor:
    """Compute the divergence of neighbour probabilities `(cos + 1) / 2` (Passalis and Tefas 2018)."""
    found, aim = _neighbour_probabilities(student), _neighbour_probabilities(teacher)
    return (aim * ((aim + TINY) / (found + TINY)).log()).sum(dim=1).mean()


def neighbours(student: Tensor, teacher: Tensor, bank: Bank, k: int = 64) -> Tensor:
    """Compute `KL(softmax t·g || softmax s·g)` over the teacher's k nearest g (CSD, Wu et al. 2022).

    They are of the bank, all of it if it is smaller; both softmaxes have a temperature of 0.05.
    """
    scores, nearest = (teacher @ bank.rows.T).topk(min(k, len(bank.rows)), dim=1)
    found = (student @ bank.rows.T).gather(1, nearest)
    return _divergence(scores / 0.05, found / 0.05).mean()


def structure(student: Tensor, teacher: Tensor, bank: Bank) -> Tensor:
    """Compute KL of similarities to the centroids of a product quantiser, by parts (SSP, Wu et al. 2023)."""
    parts = len(bank.codebook)

    def similarities(rows: Tensor) -> Tensor:
        pieces = F.normalize(rows.unflatten(1, (parts, -1)), dim=2)
        return torch.einsum("npd,pkd->npk", pieces, bank.codebook) / SOFTNESS

    return _divergence(similarities(teacher), similarities(student)).mean()


def darkrank(student: Tensor, teacher: Tensor, bank: Bank, depth: int = 4) -> Tensor:
    """Compute the Plackett-Luce likelihood of the teacher's first places (DarkRank, Chen et al. 2018).

    Scores are `-3 |e_i - e_j|³`. Its least value is not zero: even a perfect student is not certain.
    """
    depth = min(depth, len(student) - 1)
    order = _others_by_similarity(teacher)
    scores = _others(-3 * _squared_distances(student).clamp_min(TINY).pow(1.5)).gather(1, order)
    # The chance of each place, given the places before it: its score against all that are left.
    left = scores.flip(1).logcumsumexp(dim=1).flip(1)
    return -(scores - left)[:, :depth].sum(dim=1).mean()


def rank_order(student: Tensor, teacher: Tensor, bank: Bank) -> Tensor:
    """Match soft comparisons of the teacher's first places, early ones weighted more (ROP, Wu et al. 2022).

    `mean_ab w_a (sigmoid((s_a - s_b) / τ) - sigmoid((t_a - t_b) / τ))²`, `w_a = 1 / log2(rank_a + 1)`.
    """
    found, aim = _first_places(student, teacher)
    order = torch.arange(found.shape[1], device=found.device)
    weight = 1 / (order + 2).float().log2()
    ours, theirs = (torch.sigmoid(_comparisons(scores) / SOFTNESS) for scores in (found, aim))
    return (weight[None, :, None] * (ours - theirs).pow(2)).mean()


def d3still(student: Tensor, teacher: Tensor, bank: Bank) -> Tensor:
    """Sum the relative error of score differences among first places and a self term (Xie et al. 2024).

    Pairs that the student orders the other way round weigh twice as much. The self term is strong, for
    asymmetric search needs it.
    """
    found, aim = _first_places(student, teacher)
    ours, theirs = _comparisons(found), _comparisons(aim)
    upper = torch.ones_like(ours[0], dtype=torch.bool).triu(1)
    ours, theirs = ours[:, upper], theirs[:, upper]
    weight = torch.where(ours * theirs < 0, 2.0, 1.0)
    error = (ours - theirs).pow(2).mul(weight).sum(dim=1)
    differences = (error / theirs.pow(2).sum(dim=1).clamp_min(TINY)).mean()
    return differences + 10 * regression(student, teacher, bank)


LOSSES: dict[str, Callable[[Tensor, Tensor, Bank], Tensor]] = {
    "regression": regression,
    "gram": gram,
    "cross": cross_gram,
    "raml": raml,
    "rkd": rkd,
    "rkd-distance": distances,
    "rkd-angle": angles,
    "pkt": pkt,
    "csd": neighbours,
    "csd-all": partial(neighbours, k=1 << 30),
    "ssp": structure,
    "darkrank": darkrank,
    "rop": rank_order,
    "d3still": d3still,
}


def _divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(softmax of the teacher's scores || softmax of the student's) along the last axis."""
    aim, found = F.log_softmax(teacher, dim=-1), F.log_softmax(student, dim=-1)
    return (aim.exp() * (aim - found)).sum(dim=-1)


def _squared_distances(rows: Tensor) -> Tensor:
    """`(n, n)`, by differences of squares: exact zeros on the diagonal matter to nobody who uses it."""
    squares = rows.pow(2).sum(dim=1)
    return (squares[:, None] + squares[None] - 2 * rows @ rows.T).clamp_min(0)


def _others(square: Tensor) -> Tensor:
    """`(n, n)` to `(n, n - 1)`: each row without its own place."""
    n = len(square)
    return square[~torch.eye(n, dtype=torch.bool, device=square.device)].view(n, n - 1)


def _others_by_similarity(rows: Tensor) -> Tensor:
    """For each row the places, in `_others`, of the others from the most to the least similar."""
    return _others(rows @ rows.T).argsort(dim=1, descending=True, stable=True)


def _first_places(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Similarities of student and teacher to the teacher's `DEPTH` most similar others, in its order."""
    order = _others_by_similarity(teacher)[:, :DEPTH]
    return _others(student @ student.T).gather(1, order), _others(teacher @ teacher.T).gather(1, order)


def _comparisons(scores: Tensor) -> Tensor:
    """`(n, k)` to `(n, k, k)`: score a minus score b."""
    return scores[:, :, None] - scores[:, None, :]


def _relative_distances(rows: Tensor) -> Tensor:
    found = _others(_squared_distances(rows)).clamp_min(TINY).sqrt()
    return found / found.mean().clamp_min(TINY)


def _triplet_cosines(rows: Tensor) -> Tensor:
    towards = F.normalize(rows[None] - rows[:, None], dim=2)  # from i to j
    return towards @ towards.transpose(1, 2)


def _neighbour_probabilities(rows: Tensor) -> Tensor:
    similarity = (_others(rows @ rows.T) + 1) / 2
    return similarity / similarity.sum(dim=1, keepdim=True).clamp_min(TINY)


def interpolate(student: Tensor, teacher: Tensor, mixing: Mixing) -> tuple[Tensor, Tensor]:
    """Mix pairs of `(n, dim)` unit rows, with the same pair and weight on both sides: `(rows, dim)` each."""
    first, second = _choose_pairs(teacher, mixing)
    weight = torch.distributions.Beta(mixing.alpha, mixing.alpha).sample((mixing.rows, 1)).to(student.device)

    def mix(vectors: Tensor) -> Tensor:
        mixed = weight * vectors[first] + (1 - weight) * vectors[second]
        return F.normalize(mixed, dim=1) if mixing.unit else mixed

    return mix(student), mix(teacher)


def join(student: Tensor, teacher: Tensor, mixing: Mixing) -> tuple[Tensor, Tensor]:
    """Make the joint set: the rows of a batch, followed by their interpolations."""
    if not mixing.rows:
        return student, teacher
    mixed_student, mixed_teacher = interpolate(student, teacher, mixing)
    return torch.cat([student, mixed_student]), torch.cat([teacher, mixed_teacher])


def _choose_pairs(teacher: Tensor, mixing: Mixing) -> tuple[Tensor, Tensor]:
    n, device = len(teacher), teacher.device
    # The chances are drawn on the CPU: all devices draw the same, and a run that goes on draws on.
    first = torch.randint(n, (mixing.rows,)).to(device)
    if mixing.pairs == "random" or n < 3:
        # A step of 1 to n - 1 further on, so that no row is mixed with itself.
        return first, (first + torch.randint(1, max(n, 2), (mixing.rows,)).to(device)) % n
    similarity = (teacher @ teacher.T).fill_diagonal_(-torch.inf)
    nearest = similarity.topk(min(NEAREST, n - 1), dim=1).indices
    return first, nearest[first, torch.randint(nearest.shape[1], (mixing.rows,)).to(device)]


def joint_loss(student: Tensor, teacher: Tensor, bank: Bank, recipe: Recipe) -> Tensor:
    """Sum the recipe's losses of `(n, dim)` unit rows, on a batch and on it with its interpolations."""
    joint = join(student, teacher, recipe.mixing)
    terms = [weight * LOSSES[name](student, teacher, bank) for name, weight in recipe.losses.items()]
    terms += [weight * LOSSES[name](*joint, bank) for name, weight in recipe.joint_losses.items()]
    return torch.stack(terms).sum()


def list_mle(scores: Tensor, weights: Tensor) -> Tensor:
    """Average the negative log-likelihood of orders (ListMLE, Xia et al. 2008), over all that is ranked."""
    ranked = weights.sum(1) + weights.sum(2) > 0
    order = torch.where(ranked, weights.sum(2), -1).argsort(dim=1, descending=True)
    known, falling = ranked.gather(1, order), (scores / LIST_TEMPERATURE).gather(1, order)
    falling = torch.where(known, falling, UNRANKED)
    rest = falling.flip(1).logcumsumexp(1).flip(1)
    return ((rest - falling) * known).sum() / known.sum().clamp_min(1)
