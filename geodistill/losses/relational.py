"""Relational knowledge distillation: distances of pairs, angles of triplets."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from geodistill.errors import InputError
from geodistill.geometry.moments import RowMoments, standardised
from geodistill.losses.base import FeatureLoss


class RelationalLoss(FeatureLoss):
    """distance · mean h(ψ_D(Y) − ψ_D(X)) + angle · mean h(ψ_A(Y) − ψ_A(X)), h Huber's with δ = 1.

    Formula: ψ_D(i, j) is ‖x_i − x_j‖ over its mean, ψ_A(i, j, k) the cosine of the angle at j
    between x_i and x_k. Means run over all pairs and all triplets of the n rows, those of a row
    with itself as zeros; the mean distance over pairs of rows that differ.
    Inputs: student (..., d_s), teacher (..., d_t), any widths; `distance`, `angle` the weights.
    Masking: rows are dropped exactly.
    Properties: raw rows (neither centred nor scaled): rotations, shifts and scalings of either side
    change nothing. Unchanged when every row is repeated. The angles take n³ numbers: one row an
    example, not one a token; `angle=0` skips them.

    Source: Park, Kim, Lu and Cho (2019), RKD, arXiv 1904.05068; normalisation over all pairs as in
    the authors' published code.
    """

    center = False
    scale = None

    def __init__(self, distance: float = 1.0, angle: float = 2.0) -> None:
        super().__init__()
        if min(distance, angle) < 0 or distance + angle <= 0:
            raise InputError(
                f"distance = {distance}, angle = {angle}: expected weights ≥ 0, not both 0"
            )
        self.distance, self.angle = distance, angle

    def compare(self, m: RowMoments) -> Tensor:
        value = self.distance * smooth_l1_loss(_distances(m.y), _distances(m.x))
        if self.angle:
            value = value + self.angle * smooth_l1_loss(_angles(m.y), _angles(m.x))
        return value


def _distances(x: Tensor) -> Tensor:
    """Pairwise distances (n, n) over the mean of those that are not zero."""
    # Not by products: rounding would give equal rows a small distance, and that would be counted.
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    apart = (distances > 0).sum().clamp_min(1)
    mean = distances.sum() / apart
    return distances / torch.where(mean > 0, mean, 1)


def _angles(x: Tensor) -> Tensor:
    """cosines (n, n, n): entry (j, i, k) of the angle at row j between rows i and k."""
    edges = (x[:, None] - x)[..., None, :]
    ones = edges.new_ones(edges.shape[:2])
    unit = standardised(edges, ones, center=False, scale="frobenius")[..., 0, :]
    return unit @ unit.mT
