"""Relational knowledge distillation: distances of pairs, angles of triplets."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from geodistill.errors import InputError
from geodistill.geometry.moments import RowMoments, standardised
from geodistill.losses.base import FeatureLoss


class RelationalLoss(FeatureLoss):
    """distance · mean h(ψ_D(Y) − ψ_D(X)) + angle · mean h(ψ_A(Y) − ψ_A(X)), h Huber's with δ = 1.

    ψ_D(i, j) is ‖x_i − x_j‖ over its mean, ψ_A(i, j, k) the cosine of the angle at j between x_i
    and x_k. Means run over all pairs and triplets of the n rows, with zeros for those of a row with
    itself; the mean distance is over pairs that differ. Rows are neither centred nor scaled;
    invariant to rotation, shift and scale of either side. Unchanged when every row is repeated.
    Angles take n³ numbers: use one row per example, not per token, or `angle=0`.

    Source: Park, Kim, Lu and Cho (2019), RKD, arXiv 1904.05068; normalisation over all pairs as in
    the authors' published code.

    Args:
        distance: weight of the distances, ≥ 0.
        angle: weight of the angles, ≥ 0.

    Raises:
        InputError: a weight that is negative or not finite, or both 0.

    Example:
        >>> x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
        >>> f"{RelationalLoss()(3 * x + 1, x):.4f}"
        '0.0000'
    """

    center = False
    scale = None
    _relates_rows = True

    def __init__(self, distance: float = 1.0, angle: float = 2.0) -> None:
        super().__init__()
        if not (all(0 <= w < math.inf for w in (distance, angle)) and distance + angle > 0):
            raise InputError(
                f"distance = {distance}, angle = {angle}: expected finite weights ≥ 0, not both 0"
            )
        self.distance, self.angle = distance, angle

    def prepare(self, teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
        return _near_one(teacher), _near_one(student)

    def compare(self, m: RowMoments) -> Tensor:
        value = self.distance * smooth_l1_loss(_distances(m.y), _distances(m.x))
        if self.angle:
            value = value + self.angle * smooth_l1_loss(_angles(m.y), _angles(m.x))
        return value


def _near_one(x: Tensor) -> Tensor:
    """Rows times a power of two, exactly, so that no square over- or underflows."""
    _, exponent = math.frexp(float(x.detach().abs().max()))
    return x * 2.0 ** -min(max(exponent, -126), 126)


def _distances(x: Tensor) -> Tensor:
    """Pairwise distances (n, n) over the mean of those that are not zero."""
    # Not by products: their rounding would count equal rows as different.
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    different = (distances > 0).sum().clamp_min(1)
    mean = distances.sum() / different
    return distances / torch.where(mean > 0, mean, 1)


def _angles(x: Tensor) -> Tensor:
    """Cosines (n, n, n): entry (j, i, k) is that of the angle at row j between rows i and k."""
    edges = (x[:, None] - x)[..., None, :]
    ones = edges.new_ones(edges.shape[:2])
    unit = standardised(edges, ones, center=False, scale="frobenius")[..., 0, :]
    return unit @ unit.mT
