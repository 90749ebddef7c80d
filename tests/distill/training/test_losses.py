"""Every loss against plain loops written from its formula, and the properties that tell them apart."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from distill.training import recipes
from distill.training.losses import LOSSES, Bank, interpolate, join, neighbours, structure
from distill.training.recipes import Mixing
from index.errors import UsageError

NO_BANK = Bank(torch.empty(0, 5))


def rows(n: int, dim: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def smooth_l1(x: float) -> float:
    return x * x / 2 if abs(x) < 1 else abs(x) - 0.5


def softmax(scores: list[float]) -> list[float]:
    powers = [math.exp(score) for score in scores]
    return [power / sum(powers) for power in powers]


def others(i: int, n: int) -> list[int]:
    return [j for j in range(n) if j != i]


def nearest(t: np.ndarray, i: int) -> list[int]:
    return sorted(others(i, len(t)), key=lambda j: -float(t[i] @ t[j]))


def by_hand(name: str, s: np.ndarray, t: np.ndarray) -> float:  # noqa: C901, PLR0911, PLR0912
    n = len(s)
    pairs = list(itertools.product(range(n), range(n)))
    different = [(i, j) for i, j in pairs if i != j]
    if name == "regression":
        return np.mean([np.sum((s[i] - t[i]) ** 2) / 2 for i in range(n)])
    if name == "gram":
        return np.mean([(s[i] @ s[j] - t[i] @ t[j]) ** 2 for i, j in pairs])
    if name == "cross":
        return np.mean([(s[i] @ t[j] - t[i] @ t[j]) ** 2 for i, j in pairs])
    if name == "raml":
        absolute = np.mean([(1 - s[i] @ t[i]) ** 2 for i in range(n)])
        return absolute + 0.7 * (by_hand("cross", s, t) + by_hand("gram", s, t))
    if name == "rkd-distance":
        ours = {(i, j): np.linalg.norm(s[i] - s[j]) for i, j in different}
        theirs = {(i, j): np.linalg.norm(t[i] - t[j]) for i, j in different}
        mean_ours, mean_theirs = np.mean(list(ours.values())), np.mean(list(theirs.values()))
        return np.mean([smooth_l1(ours[p] / mean_ours - theirs[p] / mean_theirs) for p in different])
    if name == "rkd-angle":

        def cosine(x, j, i, k):
            if j in (i, k):
                return 0.0
            a, b = x[i] - x[j], x[k] - x[j]
            return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

        triples = itertools.product(range(n), repeat=3)
        return np.mean([smooth_l1(cosine(s, *triple) - cosine(t, *triple)) for triple in triples])
    if name == "rkd":
        return by_hand("rkd-distance", s, t) + 2 * by_hand("rkd-angle", s, t)
    if name == "pkt":
        total = 0.0
        for i in range(n):
            p = [(t[i] @ t[j] + 1) / 2 for j in others(i, n)]
            q = [(s[i] @ s[j] + 1) / 2 for j in others(i, n)]
            total += sum(
                a / sum(p) * math.log((a / sum(p)) / (b / sum(q))) for a, b in zip(p, q, strict=True)
            )
        return total / n
    if name == "darkrank":
        total = 0.0
        for i in range(n):
            scores = [-3 * np.linalg.norm(s[i] - s[j]) ** 3 for j in nearest(t, i)]
            for place in range(min(4, n - 1)):
                total -= math.log(math.exp(scores[place]) / sum(map(math.exp, scores[place:])))
        return total / n
    if name == "rop":
        values = []
        for i in range(n):
            first = nearest(t, i)[:10]
            for (a, j), k in itertools.product(enumerate(first), first):
                ours, theirs = s[i] @ s[j] - s[i] @ s[k], t[i] @ t[j] - t[i] @ t[k]
                gap = 1 / (1 + math.exp(-ours / 0.1)) - 1 / (1 + math.exp(-theirs / 0.1))
                values.append(gap**2 / math.log2(a + 2))
        return np.mean(values)
    if name == "d3still":
        values = []
        for i in range(n):
            error = size = 0.0
            for j, k in itertools.combinations(nearest(t, i)[:10], 2):
                ours, theirs = s[i] @ s[j] - s[i] @ s[k], t[i] @ t[j] - t[i] @ t[k]
                error += (ours - theirs) ** 2 * (2 if ours * theirs < 0 else 1)
                size += theirs**2
            values.append(error / size)
        return np.mean(values) + 10 * by_hand("regression", s, t)
    raise AssertionError(f"{name} has no computation by hand")


@pytest.mark.parametrize("n", [4, 13])
@pytest.mark.parametrize("name", sorted(LOSSES.keys() - {"csd", "csd-all", "ssp"}))
def test_each_loss_is_what_its_formula_says(name: str, n: int):
    s, t = rows(n, 5, 0).double(), rows(n, 5, 1).double()
    assert LOSSES[name](s, t, NO_BANK).item() == pytest.approx(by_hand(name, s.numpy(), t.numpy()), abs=1e-6)


@pytest.mark.parametrize("k", [3, 50])
def test_divergence_over_the_nearest_of_the_bank(k: int):
    s, t, bank = (rows(m, 5, seed).double() for m, seed in ((4, 0), (4, 1), (9, 2)))
    expected = 0.0
    for i in range(4):
        near = sorted(range(9), key=lambda g: -float(t[i] @ bank[g]))[:k]
        p = softmax([float(t[i] @ bank[g]) / 0.05 for g in near])
        q = softmax([float(s[i] @ bank[g]) / 0.05 for g in near])
        expected += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / 4
    assert neighbours(s, t, Bank(bank), k=k).item() == pytest.approx(expected, abs=1e-6)
    if k >= 9:
        assert LOSSES["csd-all"](s, t, Bank(bank)).item() == pytest.approx(expected, abs=1e-6)


def test_similarity_to_the_centroids_of_a_product_quantiser(capfd):
    s, t, bank = (rows(m, 16, seed) for m, seed in ((4, 0), (4, 1), (64, 2)))
    codebook = Bank(bank).codebook
    assert "WARNING" not in "".join(capfd.readouterr())
    assert codebook.shape == (8, 16, 2)  # 8 parts of 2, and 64 / 4 centroids in each
    assert torch.allclose(codebook.norm(dim=2), torch.ones(8, 16), atol=1e-5)
    assert torch.equal(codebook, Bank(bank).codebook)
    expected = 0.0
    for i, part in itertools.product(range(4), range(8)):
        mine, theirs = (x[i, 2 * part : 2 * part + 2] / x[i, 2 * part : 2 * part + 2].norm() for x in (s, t))
        p = softmax([float(theirs @ centroid) / 0.1 for centroid in codebook[part]])
        q = softmax([float(mine @ centroid) / 0.1 for centroid in codebook[part]])
        expected += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / 32
    assert structure(s, t, Bank(bank)).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_perfect_student_is_best_and_gradients_are_finite(name: str):
    teacher = rows(8, 5, 1)
    perfect = teacher.clone().requires_grad_()
    loss = LOSSES[name](perfect, teacher, Bank(teacher))
    loss.backward()
    assert torch.isfinite(perfect.grad).all()
    assert name == "darkrank" or loss.item() == pytest.approx(0, abs=1e-6)
    student = F.normalize(teacher + 0.3 * rows(8, 5, 2), dim=1).requires_grad_()
    worse = LOSSES[name](student, teacher, Bank(teacher))
    worse.backward()
    assert worse > loss
    assert student.grad.abs().sum() > 0
    assert torch.isfinite(student.grad).all()


PLACING = {"regression", "cross", "raml", "csd", "csd-all", "ssp", "d3still"}


@pytest.mark.parametrize("name", LOSSES)
def test_only_placing_losses_see_a_turn_of_the_whole_space(name: str):
    teacher = rows(9, 5, 0)
    turn, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))
    turned, straight = (
        LOSSES[name](student, teacher, Bank(teacher)) for student in (teacher @ turn, teacher)
    )
    assert (turned - straight > 1e-3) == (name in PLACING)


def test_the_two_sides_are_mixed_with_the_same_pairs_and_weights():
    torch.manual_seed(0)
    same = rows(8, 5, 0)
    for pairs in ("random", "neighbours"):
        student, teacher = interpolate(same, same.clone(), Mixing(40, pairs=pairs))
        assert torch.equal(student, teacher)
        assert torch.allclose(student.norm(dim=1), torch.ones(40), atol=1e-5)


def test_a_mixed_row_lies_between_two_different_rows():
    torch.manual_seed(0)
    basis = torch.eye(6)
    mixed, _ = interpolate(basis, basis, Mixing(400, unit=False))
    assert ((mixed > 0).sum(dim=1) == 2).all()
    assert torch.allclose(mixed.sum(dim=1), torch.ones(400))
    assert mixed.std(dim=0).min() > 0.1  # every row takes part


def test_the_law_of_the_weight():
    torch.manual_seed(0)
    basis = torch.eye(6)

    def spread(alpha: float) -> float:
        mixed, _ = interpolate(basis, basis, Mixing(4000, alpha=alpha, unit=False))
        return (mixed.max(dim=1).values - 0.5).mean().item()

    assert spread(1) == pytest.approx(0.25, abs=0.01)  # uniform
    assert spread(100) < 0.05
    assert spread(0.1) > 0.4


def test_neighbours_are_the_teachers():
    torch.manual_seed(0)
    groups = F.normalize(
        torch.cat([torch.eye(2).repeat_interleave(8, 0), 0.05 * torch.rand(16, 3)], dim=1), dim=1
    )
    mixed, _ = interpolate(groups, groups, Mixing(300, pairs="neighbours", unit=False))
    assert (mixed[:, :2].amin(dim=1) < 0.1).all()  # never across the two groups


def test_small_batches_and_wrong_mixing():
    one = rows(1, 5, 0)
    assert torch.allclose(interpolate(one, one, Mixing(3))[0], one.expand(3, 5), atol=1e-6)
    two = rows(2, 5, 0)
    assert interpolate(two, two, Mixing(3, pairs="neighbours"))[0].shape == (3, 5)
    assert join(two, two, Mixing(0))[0] is two
    assert len(join(two, two, Mixing(7))[1]) == 9
    for wrong in ({"rows": -1}, {"alpha": 0}, {"pairs": "enemies"}):
        with pytest.raises(UsageError, match="No such mixing"):
            Mixing(**wrong)


def test_without_renormalisation_mixing_only_weights_the_same_residuals_anew():
    """The trap of the method: S'S'ᵀ - T'T'ᵀ = A (SSᵀ - TTᵀ) Aᵀ for A = [I; M], and distances likewise."""
    student, teacher = rows(6, 4, 0).double(), rows(6, 4, 1).double()
    generator = np.random.default_rng(0)
    mix = torch.zeros(10, 6, dtype=torch.float64)
    for row in mix:
        i, j = generator.choice(6, 2, replace=False)
        weight = generator.uniform()
        row[i], row[j] = weight, 1 - weight
    a = torch.cat([torch.eye(6, dtype=torch.float64), mix])
    joint_student, joint_teacher = a @ student, a @ teacher
    left = joint_student @ joint_student.T - joint_teacher @ joint_teacher.T
    right = a @ (student @ student.T - teacher @ teacher.T) @ a.T
    assert torch.allclose(left, right, atol=1e-12)

    def unit(x: torch.Tensor) -> torch.Tensor:
        return F.normalize(x, dim=1)

    escaped = unit(joint_student) @ unit(joint_student).T - unit(joint_teacher) @ unit(joint_teacher).T
    assert (escaped - right).abs().max() > 0.05  # with it, mixing tells something new

    weight, x, y, z = 0.3, *student[:3]
    mixed = ((weight * x + (1 - weight) * y) - z).pow(2).sum()
    parts = weight * (x - z).pow(2).sum() + (1 - weight) * (y - z).pow(2).sum()
    assert torch.isclose(mixed, parts - weight * (1 - weight) * (x - y).pow(2).sum())


def test_recipes_name_the_losses_there_are():
    assert set(recipes.LOSSES) == set(LOSSES)
