"""How spread and how orthogonal feature vectors are."""

from __future__ import annotations

import torch
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry.moments import Accumulated, moments_of
from geodistill.geometry.validation import paired

_CHUNK = 4096  # rows of the n × n cosine matrix held at once


def participation_ratio(x: Tensor, *, center: bool = True, mask: Tensor | None = None) -> Tensor:
    """Effective rank (...) of x (..., n, d): (tr K)²/‖K‖_F² in [1, min(n, d)], 0 for constant x.

    Raises InputError on unusable features.
    """
    if isinstance(x, Accumulated):
        raise InputError(
            f"x is a {type(x).__name__}, of two sets of features: expected the features of one"
        )
    m = moments_of(x, x, center=center, scale=None, mask=mask, names=("x", "x"))
    return torch.where(m.kk > 0, m.size_x**2 / torch.where(m.kk > 0, m.kk, 1), 0)


def orthogonality(x: Tensor, eps: float, *, mask: Tensor | None = None) -> Tensor:
    """Share (...) of the pairs of rows of x (..., n, d) with |cos| ≤ eps, in [0, 1].

    Raises InputError for fewer than two rows, a zero row or eps outside [0, 1).
    """
    unit, kept = _unit_rows(x, eps, mask)
    n = kept.sum(-1)
    if n.min() < 2:
        raise InputError(f"x has {int(n.min())} row: expected at least two to form a pair")
    close = torch.zeros_like(n)
    for i in range(0, unit.shape[-2], _CHUNK):
        part = slice(i, i + _CHUNK)
        pairs = (unit[..., part, :] @ unit.mT).abs() <= eps
        close += (pairs & kept[..., part, None] & kept[..., None, :]).sum((-2, -1))
    return close.double() / (n * (n - 1))  # a row is never orthogonal to itself


def epsilon_orthogonal_subset(x: Tensor, eps: float, *, mask: Tensor | None = None) -> Tensor:
    """Which rows (..., n) of x (..., n, d), as booleans, are pairwise |cos| ≤ eps, taken in order.

    Greedy, so a lower bound on the largest such subset. Raises InputError for a zero row or eps
    outside [0, 1).
    """
    unit, free = _unit_rows(x, eps, mask)
    taken = torch.zeros_like(free)
    while free.any():
        first = free.int().argmax(-1, keepdim=True)  # of equal values the first
        taken |= torch.zeros_like(free).scatter(-1, first, free.any(-1, keepdim=True))
        chosen = unit.take_along_dim(first[..., None], -2)
        free = free & ((unit @ chosen.mT)[..., 0].abs() <= eps)
        free.scatter_(-1, first, False)  # not left to the rounding of its own cosine
    return taken


def _unit_rows(x: Tensor, eps: float, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Rows of unit norm (..., n, d), zeros where dropped, and which are kept (..., n)."""
    if not 0 <= eps < 1:
        raise InputError(f"eps is {eps}: expected a cosine in [0, 1)")
    rows, _, mask = paired(x, x, mask, torch.float64, ("x", "x"))
    kept = torch.ones_like(rows[..., 0], dtype=torch.bool) if mask is None else mask
    norms = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    if zero := int(((norms[..., 0] == 0) & kept).sum()):
        raise InputError(
            f"x has {zero} zero rows of {int(kept.sum())}: a zero vector has no direction"
        )
    return torch.where(kept[..., None], rows / norms, 0), kept
