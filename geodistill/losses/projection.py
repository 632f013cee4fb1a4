"""Losses through a learned linear map from the student's features to the teacher's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from geodistill.errors import InputError
from geodistill.geometry.moments import RowMoments
from geodistill.losses.base import FeatureLoss, check_widths


class ProjectionLoss(FeatureLoss):
    """‖X − YW‖_F² with a learned W (d_s, d_t), student → teacher; the module's one parameter.

    Inputs: student (..., d_student), teacher (..., d_teacher). Masking: rows are dropped exactly.
    Properties: since X and Y have unit norm it is on the scale of `ProcrustesLoss`: W starts
    (semi-)orthogonal, where the loss is the ‖X − YW‖² that D_P² minimises over such W; at W = 0 it
    is 1, at the free optimum 1 − R². Any injective linear distortion of the teacher reaches 0.
    Unchanged when every row is repeated.

    Source: Romero et al. (2015), FitNets; Sun et al. (2019).
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

    Inputs, masking: as `ProjectionLoss`.
    Properties: Q stays orthogonal by construction (PyTorch's `orthogonal` parametrisation), so it
    can't distort; for d_s ≤ d_t `ProcrustesLoss` is its minimum over Q, found in closed form and
    not along the way. A wider student may put a share η of its variance where Q does not look, for
    η²/4 where `ProcrustesLoss` asks η. Unchanged when every row is repeated.

    Source: Miles, Elezi and Deng (2024), VkD, arXiv 2403.06213, which keeps the map orthogonal by a
    matrix exponential, and whose task-dependent normalisation of the teacher is here the centring
    and unit norm of every loss.
    """

    def __init__(self, d_student: int, d_teacher: int) -> None:
        super().__init__(d_student, d_teacher)
        orthogonal(self, "weight")
