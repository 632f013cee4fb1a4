"""Weighted sums of singular values from Gram matrices, with their gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from geodistill.geometry.nuclear import RESOLVED, rank_floor
from geodistill.geometry.operators import first_derivative

Refine = Callable[[Tensor], Tensor]
"""From directions V (d, k) to (Y V)ᵀ(Y V), summed over the rows of Y anew."""


def weighted_spectrum(gram: Tensor, weights: Tensor, refine: Refine | None = None) -> Tensor:
    """Σ weights_i σ_i, of the singular values σ of Y, largest first, from YᵀY.

    Differentiable once. A Gram matrix in float64 resolves singular values to 1e-8 of the largest;
    `refine` gives those that are small from the rows. A direction that Y lacks gets no gradient:
    YᵀY cannot name rows that would move it.

    Args:
        gram: YᵀY (d, d).
        weights: (k,), with k ≤ d.
        refine: sums the Gram matrix over the rows in other directions.

    Example:
        >>> y = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
        >>> float(weighted_spectrum(y.T @ y, torch.tensor([1.0, 2.0])))
        5.0
    """
    value: Tensor = _WeightedSpectrum.apply(gram, weights, refine)  # type: ignore[no-untyped-call]
    return value


class _WeightedSpectrum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gram: Tensor, weights: Tensor, refine: Refine | None) -> Tensor:
        squares, v = torch.linalg.eigh(gram.double())
        s, v = squares.clamp_min(0).sqrt().flip(-1), v.flip(-1)
        small = s < RESOLVED * s[:1]
        if refine is not None and bool(small.any()):
            squares, rotation = torch.linalg.eigh(refine(v[:, small]))
            v[:, small] = v[:, small] @ rotation.flip(-1)
            s[small] = squares.clamp_min(0).sqrt().flip(-1)
        k = len(weights)
        ctx.save_for_backward(gram, weights, s[:k], v[:, :k])
        value: Tensor = (s[:k] * weights).sum().to(gram.dtype)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        gram, weights, s, v = ctx.saved_tensors
        grad = grad.detach()
        floor = rank_floor(gram) * s[:1]
        inverse = torch.where(s > floor, weights / torch.where(s > floor, 2 * s, 1), 0)
        inner = (grad * (v * inverse) @ v.mT).to(gram.dtype)
        of_weights = (grad * s).to(weights.dtype)
        return first_derivative(inner, gram), first_derivative(of_weights, weights), None
