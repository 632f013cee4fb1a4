"""How spread and how orthogonal feature vectors are."""

from __future__ import annotations

import torch
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry.inputs import single
from geodistill.geometry.moments import moments_of

_CHUNK = 4096  # rows of the n × n cosine matrix held at once


def participation_ratio(x: Tensor, *, center: bool = True, mask: Tensor | None = None) -> Tensor:
    """Effective rank (...) of x (..., n, d): (tr K)²/‖K‖_F² in [1, min(n, d)], 0 for constant x."""
    m = moments_of(x, x, center=center, scale=None, mask=mask, names=("x", "x"))
    return torch.where(m.kk > 0, m.size_x**2 / torch.where(m.kk > 0, m.kk, 1), 0)


def orthogonality(x: Tensor, eps: float, *, mask: Tensor | None = None) -> float:
    """Share of the pairs of rows of x (n, d) with |cos| ≤ eps, in [0, 1].

    Raises InputError for fewer than two rows, a zero row or eps outside [0, 1).
    """
    unit = _unit_rows(x, eps, mask)
    n = len(unit)
    if n < 2:
        raise InputError("x has 1 row: expected at least two to form a pair")
    parts = (unit[i : i + _CHUNK] @ unit.T for i in range(0, n, _CHUNK))
    close = sum(int((part.abs() <= eps).sum()) for part in parts)
    return close / (n * (n - 1))  # a row is never orthogonal to itself


def epsilon_orthogonal_subset(x: Tensor, eps: float, *, mask: Tensor | None = None) -> Tensor:
    """Indices (k,) of rows of x, pairwise |cos| ≤ eps, taken greedily in order.

    Greedy, so a lower bound on the largest such subset. Indices count the rows that the mask keeps.
    Raises InputError for a zero row or eps outside [0, 1).
    """
    unit = _unit_rows(x, eps, mask)
    free = torch.ones(len(unit), dtype=torch.bool, device=x.device)
    kept: list[int] = []
    while free.any():
        i = int(free.nonzero()[0])
        kept.append(i)
        free &= (unit @ unit[i]).abs() <= eps
        free[i] = False
    return torch.tensor(kept, device=x.device)


def _unit_rows(x: Tensor, eps: float, mask: Tensor | None) -> Tensor:
    if not 0 <= eps < 1:
        raise InputError(f"eps is {eps}: expected a cosine in [0, 1)")
    rows = single(x, mask, torch.float64)
    norms = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    if zero := int((norms == 0).sum()):
        raise InputError(f"x has {zero} zero rows of {len(rows)}: a zero vector has no direction")
    unit: Tensor = rows / norms
    return unit
