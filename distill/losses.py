"""Losses between unit rows of the student and of the teacher, both in teacher space."""

from torch import Tensor


def regression(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of half the squared distance, `mean_i |s_i - t_i|² / 2`: places each vector."""
    return (student - teacher).pow(2).sum(dim=1).mean() / 2


def gram(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of all pairwise similarities, `mean_ij (s_i·s_j - t_i·t_j)²`.

    Places the vectors relative to each other (similarity-preserving distillation, Tung and Mori 2019).
    """
    return (student @ student.T - teacher @ teacher.T).pow(2).mean()
