"""Orthonormal bases of column spaces, and rows rotated into fewer columns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from geodistill.geometry.operators import first_derivative, needs_gradient


def column_basis(rows: Tensor, floor: float) -> Tensor:
    """Orthonormal columns that span those of rows (..., n, d), then columns of zeros.

    From the rows and not from their d × d products, which would square the condition number; each
    column is scaled to norm 1 first, so their units do not matter. Differentiable once, in
    functions of the span.

    Args:
        rows: features (..., n, d).
        floor: columns and directions at or below this share of the largest count as zero.

    Returns:
        (..., n, min(n, d)).
    """
    basis: Tensor = _ColumnBasis.apply(rows, floor)  # type: ignore[no-untyped-call]
    return basis


class _ColumnBasis(torch.autograd.Function):
    """Q with rows · inverse = Q. Up to rotation, which no function of the span sees,
    dQ = (1 − QQᵀ) d(rows) · inverse."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, floor: float) -> Tensor:
        norms = torch.linalg.vector_norm(rows, dim=-2)
        inverse_norms = _reciprocal(norms, floor * norms.amax(-1, keepdim=True))
        u, s, vh = torch.linalg.svd(rows * inverse_norms[..., None, :], full_matrices=False)
        inverse_s = _reciprocal(s, floor * s[..., :1])
        q: Tensor = u * (inverse_s > 0)[..., None, :]
        inverse = inverse_norms[..., None] * vh.mT * inverse_s[..., None, :]
        ctx.save_for_backward(rows, q, inverse)
        return q

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        rows, q, inverse = ctx.saved_tensors
        grad = grad.detach()
        outside = grad - q @ (q.mT @ grad)
        return first_derivative(outside @ inverse.mT, rows), None


def _reciprocal(a: Tensor, floor: Tensor) -> Tensor:
    """1/a, and 0 where a is at or below the floor."""
    counts = a > floor
    return torch.where(counts, torch.where(counts, a, 1).reciprocal(), 0)


def narrow(rows: Tensor) -> Tensor:
    """Rows (..., n, d) rotated into n columns where n < d: the same Gram matrix.

    The gradient takes the rotation as constant, which is right for functions of the Gram matrix.
    """
    if not is_wide(rows):
        return rows
    if needs_gradient(rows):
        rotated: Tensor = rows @ torch.linalg.qr(rows.detach().mT).Q
        return rotated
    triangular: Tensor = torch.linalg.qr(rows.mT, mode="r").R
    return triangular.mT


def is_wide(x: Tensor) -> bool:
    """Whether rows (..., n, d) are fewer than columns."""
    return x.shape[-2] < x.shape[-1]
