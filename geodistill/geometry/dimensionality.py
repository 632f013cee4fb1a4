"""How many directions feature vectors use, and how orthogonal they are."""

from __future__ import annotations

import torch
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry.moments import Accumulated, moments_of
from geodistill.geometry.operators import safe_divide
from geodistill.geometry.validation import paired

_CHUNK = 4096  # rows of the n × n cosine matrix held at once


def participation_ratio(x: Tensor, *, center: bool = True, mask: Tensor | None = None) -> Tensor:
    """Effective rank (...): (tr K)²/‖K‖_F² in [1, min(n, d)], 0 for constant features.

    Args:
        x: features (..., n, d).
        center: subtract the column means.
        mask: rows that count (..., n), True = keep.

    Raises:
        InputError: unusable features.

    Example:
        >>> float(participation_ratio(torch.eye(4), center=False))
        4.0
    """
    if isinstance(x, Accumulated):
        raise InputError(
            f"x is a {type(x).__name__}, of two sets of features: expected the features of one"
        )
    m = moments_of(x, x, center=center, scale="frobenius", mask=mask, names=("x", "x"))
    return safe_divide(m.size_x**2, m.kk)


def orthogonality(x: Tensor, eps: float, *, mask: Tensor | None = None) -> Tensor:
    """Share (...) of the pairs of rows with `|cos|` ≤ eps, in [0, 1].

    Args:
        x: features (..., n, d).
        eps: cosine in [0, 1).
        mask: rows that count (..., n), True = keep.

    Raises:
        InputError: unusable features, fewer than two rows, a zero row or eps outside [0, 1).

    Example:
        >>> float(orthogonality(torch.eye(3), eps=0.1))
        1.0
    """
    unit, valid = _unit_rows(x, eps, mask)
    n = valid.sum(-1)
    if n.min() < 2:
        raise InputError(f"x has {int(n.min())} row: expected at least two to form a pair")
    count = torch.zeros_like(n)
    for i in range(0, unit.shape[-2], _CHUNK):
        part = slice(i, i + _CHUNK)
        pairs = (unit[..., part, :] @ unit.mT).abs() <= eps
        count += (pairs & valid[..., part, None] & valid[..., None, :]).sum((-2, -1))
    return count.double() / (n * (n - 1))  # a row is never orthogonal to itself


def epsilon_orthogonal_subset(x: Tensor, eps: float, *, mask: Tensor | None = None) -> Tensor:
    """A subset of rows with `|cos|` ≤ eps in every pair, chosen greedily in order.

    Its size is a lower bound on the largest such subset.

    Args:
        x: features (..., n, d).
        eps: cosine in [0, 1).
        mask: rows that count (..., n), True = keep.

    Returns:
        Booleans (..., n), True for rows of the subset.

    Raises:
        InputError: unusable features, a zero row or eps outside [0, 1).

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
        >>> epsilon_orthogonal_subset(x, eps=0.2)
        tensor([ True, False,  True])
    """
    unit, free = _unit_rows(x, eps, mask)
    subset = torch.zeros_like(free)
    while free.any():
        first = free.int().argmax(-1, keepdim=True)  # of equal values the first
        subset |= torch.zeros_like(free).scatter(-1, first, free.any(-1, keepdim=True))
        added = unit.take_along_dim(first[..., None], -2)
        free = free & ((unit @ added.mT)[..., 0].abs() <= eps)
        free.scatter_(-1, first, False)  # not left to the rounding of its own cosine
    return subset


def _unit_rows(x: Tensor, eps: float, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Rows of unit norm (..., n, d), zero where masked, and which are valid (..., n)."""
    if not 0 <= eps < 1:
        raise InputError(f"eps is {eps}: expected a cosine in [0, 1)")
    rows, _, mask = paired(x, x, mask, torch.float64, ("x", "x"))
    valid = torch.ones_like(rows[..., 0], dtype=torch.bool) if mask is None else mask
    norms = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    if zero := int(((norms[..., 0] == 0) & valid).sum()):
        raise InputError(
            f"x has {zero} zero rows of {int(valid.sum())}: a zero vector has no direction"
        )
    return torch.where(valid[..., None], rows / norms, 0), valid
