"""Losses through a learned linear map from the student's features to the teacher's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from geodistill.errors import InputError
from geodistill.geometry.moments import RowMoments
from geodistill.losses.base import FeatureLoss, check_widths


class ProjectionLoss(FeatureLoss):
    """‖X − YW‖_F² with a learned W (d_s, d_t), the one parameter of the module.

    X and Y have unit norm, so it is on the scale of `ProcrustesLoss`: W starts (semi-)orthogonal,
    the maps over which D_P² is the minimum; W = 0 gives 1, the unconstrained optimum 1 − R². Any
    injective linear distortion of the teacher reaches 0. Unchanged when every row is repeated.

    Source: Romero et al. (2015), FitNets; Sun et al. (2019).

    Args:
        d_student: width of the student.
        d_teacher: width of the teacher.

    Raises:
        InputError: a width below 1.

    Example:
        >>> teacher = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
        >>> loss = ProjectionLoss(d_student=4, d_teacher=6)
        >>> 0 <= loss(teacher[:, :4], teacher).item() <= 4
        True
    """

    weight: Tensor

    def __init__(self, d_student: int, d_teacher: int) -> None:
        super().__init__()
        if min(d_student, d_teacher) < 1:
            raise InputError(
                f"d_student = {d_student}, d_teacher = {d_teacher}: expected widths of at least 1"
            )
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(d_student, d_teacher)))

    def prepare(self, teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = self.weight.shape
        check_widths(student, teacher, (rows, columns))
        return teacher, student

    def compare(self, m: RowMoments) -> Tensor:
        return (m.x - m.y @ self.weight.to(m.y.dtype)).square().sum()


class OrthogonalProjectionLoss(ProjectionLoss):
    """‖X − YQ‖_F² with a learned (semi-)orthogonal Q (d_s, d_t), in [0, 4].

    Q stays orthogonal by construction (PyTorch's `orthogonal` parametrisation), so it cannot
    distort. For d_s ≤ d_t `ProcrustesLoss` is its minimum over Q in closed form. A wider student
    can put a share η of its variance outside the range of Q at a cost of η²/4, where
    `ProcrustesLoss` costs η. Unchanged when every row is repeated.

    Source: Miles, Elezi and Deng (2024), VkD, arXiv 2403.06213, which uses a matrix exponential and
    a task-dependent normalisation of the teacher, here centring and unit norm.

    Args:
        d_student: width of the student.
        d_teacher: width of the teacher.

    Raises:
        InputError: a width below 1.

    Example:
        >>> weight = OrthogonalProjectionLoss(d_student=4, d_teacher=6).weight
        >>> torch.allclose(weight @ weight.T, torch.eye(4), atol=1e-5)
        True
    """

    def __init__(self, d_student: int, d_teacher: int) -> None:
        super().__init__(d_student, d_teacher)
        orthogonal(self, "weight")
