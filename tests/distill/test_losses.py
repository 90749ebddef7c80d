import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from distill.losses import gram, regression
from distill.mixing import interpolate


def rows(n: int, dim: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_losses_by_hand():
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    teacher = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    # |s2 - t2|² = 0.36 + 0.04; similarities differ by 0.6 in two of four places.
    assert torch.isclose(regression(student, teacher), torch.tensor(0.4 / 2 / 2))
    assert torch.isclose(gram(student, teacher), torch.tensor(2 * 0.36 / 4))


def test_losses_are_zero_for_a_perfect_student_and_gram_for_a_turned_one():
    teacher = rows(9, 5, 0)
    turn, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))
    assert regression(teacher, teacher) == gram(teacher, teacher) == 0
    assert gram(teacher @ turn, teacher) < 1e-10 < regression(teacher @ turn, teacher)


def test_the_two_sides_are_mixed_with_the_same_pairs_and_weights():
    torch.manual_seed(0)
    same = rows(8, 5, 0)
    student, teacher = interpolate(same, same.clone(), 40)
    assert torch.equal(student, teacher)
    assert torch.allclose(student.norm(dim=1), torch.ones(40), atol=1e-5)


def test_a_mixed_row_lies_in_the_plane_of_two_different_rows():
    torch.manual_seed(0)
    basis = torch.eye(6)
    mixed, _ = interpolate(basis, basis, 200)
    assert ((mixed > 0).sum(dim=1) == 2).all()
    assert mixed.std(dim=0).min() > 0.1  # every row takes part


def test_a_batch_of_one_is_mixed_with_itself():
    torch.manual_seed(0)
    one = rows(1, 5, 0)
    assert torch.allclose(interpolate(one, one, 3)[0], one.expand(3, 5), atol=1e-6)


def test_without_renormalisation_mixing_only_weights_the_same_residuals_anew():
    """The trap of the method: S'S'ᵀ - T'T'ᵀ = A (SSᵀ - TTᵀ) Aᵀ for A = [I; M]."""
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

    def scaled(x: torch.Tensor) -> torch.Tensor:
        return F.normalize(x, dim=1)

    escaped = (
        scaled(joint_student) @ scaled(joint_student).T - scaled(joint_teacher) @ scaled(joint_teacher).T
    )
    assert (escaped - right).abs().max() > 0.05  # with it, mixing tells something new
