"""The nuclear norm ‖C‖_* with its gradient, the polar factor: no differentiation through an SVD.

If C = U S Vᵀ then ‖C‖_* = tr S and d‖C‖_*/dC = U Vᵀ over the non-zero singular values, which is
the subgradient of least norm where C is rank-deficient (zero at C = 0) (Watson, 1992).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry.validation import check_finite

Solver = Literal["auto", "svd", "eigh", "polar_express"]

_BLOCK = 64  # columns of a block of the Gram


def nuclear_norm(c: Tensor, solver: Solver = "auto") -> Tensor:
    """Sum of the singular values, differentiable once.

    Half precision is computed and returned in float32, under autocast too. Source: Watson (1992).

    Args:
        c: matrices (..., p, q).
        solver: "svd" is the reference. "eigh" of the smaller Gram in float64 is the fastest on CPUs
            for float32 (it loses singular values below about 1e-8 of the largest, so it is not for
            float64). "polar_express" uses matrix products alone, for GPUs. "auto" selects by dtype
            and device.

    Returns:
        Norms (...).

    Raises:
        InputError: an unknown solver, or c is not a finite floating point matrix.
        RuntimeError: a second derivative is taken.

    Example:
        >>> c = torch.tensor([[3.0, 0.0], [0.0, -1.0]], requires_grad=True)
        >>> nuclear_norm(c, solver="svd").backward()
        >>> c.grad.tolist()
        [[1.0, 0.0], [0.0, -1.0]]
    """
    if not isinstance(c, Tensor):
        raise InputError(f"c is a {type(c).__name__}: expected a torch.Tensor (..., p, q)")
    if not c.is_floating_point() or c.ndim < 2 or 0 in c.shape[-2:]:
        raise InputError(
            f"c has shape {tuple(c.shape)} and dtype {c.dtype}: expected floating point (..., p, q)"
        )
    if not math.isfinite(c.detach().sum()):  # the cheaper check; it may overflow
        check_finite((c,), ("c",))
    if solver != "auto" and solver not in _SOLVERS:
        raise InputError(f"solver is {solver!r}: expected one of {('auto', *_SOLVERS)}")
    c = c.to(torch.promote_types(c.dtype, torch.float32))
    if solver == "auto" and c.dtype == torch.float64:
        solver = "svd"
    elif solver == "auto":
        solver = "eigh" if c.device.type == "cpu" else "polar_express"
    norm: Tensor = _apply(c, solver)
    return norm


class _NuclearNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, c: Tensor, solver: str) -> Tensor:
        with torch.autocast(c.device.type, enabled=False):
            value, polar = _SOLVERS[solver](c)
        ctx.save_for_backward(c, polar)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        c, polar = ctx.saved_tensors
        return first_derivative(grad.detach()[..., None, None] * polar, c), None


def first_derivative(gradient: Tensor, of: Tensor) -> Tensor:
    """The gradient, with a RuntimeError if it is differentiated again in `of`.

    PyTorch's `once_differentiable` raises only if the incoming gradient is differentiated; a
    Hessian would come out as zeros.
    """
    if not torch.is_grad_enabled():  # without create_graph
        return gradient
    once: Tensor = _Once.apply(gradient, of)  # type: ignore[no-untyped-call]
    return once


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, of: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> None:
        raise RuntimeError(
            "a second derivative of geodistill's nuclear norm or losses: expected one derivative"
        )


# A compiler gains nothing on LAPACK calls and large products: `torch.compile` steps around them.
_apply = torch.compiler.disable(_NuclearNorm.apply)  # type: ignore[no-untyped-call]


def _svd(c: Tensor) -> tuple[Tensor, Tensor]:
    driver = "gesvd" if c.is_cuda else None  # Jacobi's, the default there, loses a digit
    u, s, vh = torch.linalg.svd(c, full_matrices=False, driver=driver)
    nonzero = s > rank_floor(c) * s[..., :1]
    return s.sum(-1), (u * nonzero[..., None, :]) @ vh


def _eigh(c: Tensor) -> tuple[Tensor, Tensor]:
    """polar = C · (CᵀC)^-½, the root in float64: a float32 Gram loses a tenth of the gradient.

    The product with C stays in c's precision, since it only adds its rounding.
    """
    if c.shape[-2] < c.shape[-1]:
        value, polar = _eigh(c.mT)
        return value, polar.mT
    squares, v = torch.linalg.eigh(_lower_gram(c.double()))  # reads the lower triangle alone
    s = squares.clamp_min(0).sqrt()
    floor = max(rank_floor(c), 1e-7)  # a float64 Gram resolves singular values to √eps only
    nonzero = s > floor * s[..., -1:]
    inverse = torch.where(nonzero, torch.where(nonzero, s, 1).reciprocal(), 0)
    root = v * inverse[..., None, :] @ v.mT
    return s.sum(-1).to(c.dtype), c @ root.to(c.dtype)


def _lower_gram(c: Tensor) -> Tensor:
    """The lower triangle of CᵀC, by blocks of rows: little more than half of the products."""
    width = c.shape[-1]
    gram = c.new_zeros(*c.shape[:-2], width, width)
    for start in range(0, width, _BLOCK):
        end = start + _BLOCK
        gram[..., start:end, :end] = c[..., start:end].mT @ c[..., :end]
    return gram


def _polar_express(c: Tensor) -> tuple[Tensor, Tensor]:
    """Odd polynomials that drive every singular value to 1, by matrix products alone.

    Source: Amsel, Persson, Musco and Gower, arXiv 2505.16932; coefficients are computed below for
    the interval of singular values. (Muon's fixed Newton-Schulz coefficients do not converge to 1.)
    The interval starts at ten times the rank floor, so that rounding noise amounts to a few
    hundredths of a direction. Only a tall matrix is first reduced to its small square factor (QR),
    since its products would round more; for others QR on a GPU takes longer than the products.
    """
    if c.shape[-2] < c.shape[-1]:
        value, polar = _polar_express(c.mT)
        return value, polar.mT
    a = c.flatten(0, -3) if c.ndim > 2 else c[None]
    tall = a.shape[-2] >= 3 * a.shape[-1]
    q, a = torch.linalg.qr(a) if tall else (None, a)
    largest = a.abs().amax((-2, -1), keepdim=True)
    a = a / torch.where(largest > 0, largest, 1)  # its squares neither over- nor underflow
    a = a / torch.linalg.matrix_norm(a, keepdim=True).clamp_min(1)
    with _no_tf32():
        for first, third, fifth in _coefficients(10 * rank_floor(c)):
            gram = a.mT @ a
            inner = torch.baddbmm(gram, gram, gram, beta=third, alpha=fifth)
            a = torch.baddbmm(a, a, inner, beta=first)
        polar = (a if q is None else q @ a).view_as(c)
    return (c * polar).sum((-2, -1)), polar


_NEAR_ONE = 0.95


@lru_cache
def _coefficients(lower: float) -> tuple[tuple[float, float, float], ...]:
    """Odd quintics, each the best approximation of 1 on the image of [lower, 1] under the others.

    Intervals are widened by 1 %: above its upper end a quintic is steep, and rounding there would
    grow from step to step.
    """
    low, high, steps = lower, 1.0, []
    while high - low > 1e-9:
        first, third, fifth, error = _best_quintic(low, high if low > _NEAR_ONE else 1.01 * high)
        steps.append((first, third, fifth))
        low, high = 1 - error, 1 + error
    return tuple(steps)


def _best_quintic(low: float, high: float) -> tuple[float, float, float, float]:
    """Remez exchange: a x + b x³ + c x⁵ meets 1 - E, 1 + E, 1 - E, 1 + E at four points."""
    if low > _NEAR_ONE:  # the Taylor limit of the exchange, which is ill-conditioned here
        a, b, c = 15 / 8, -10 / 8, 3 / 8
        return a, b, c, max(abs(1 - (a * x + b * x**3 + c * x**5)) for x in (low, high))
    inner = [low + (high - low) * position for position in (0.25, 0.75)]
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    for _ in range(100):
        x = torch.tensor([low, *inner, high], dtype=torch.float64)
        system = torch.stack([x, x**3, x**5, signs], dim=1)
        a, b, c, error = torch.linalg.solve(system, torch.ones(4, dtype=torch.float64)).tolist()
        root = (9 * b * b - 20 * a * c) ** 0.5
        extrema = [((-3 * b + sign * root) / (10 * c)) ** 0.5 for sign in (-1, 1)]
        if max(abs(e - i) for e, i in zip(extrema, inner, strict=True)) < 1e-14:
            break
        inner = extrema
    return a, b, c, error


def rank_floor(c: Tensor) -> float:
    """Singular values at or below this share of the largest count as zero.

    Rounding of a product XᵀY leaves singular values of about eps in place of exact zeros; this is
    about fifty times that, and below the max(p, q) eps of `matrix_rank`.
    """
    return float(2 * max(c.shape[-2:]) ** 0.5 * torch.finfo(c.dtype).eps)


class _no_tf32:
    """Full float32 products: with TF32's ten bits the iteration stops at an error of 1e-3."""

    def __enter__(self) -> None:
        self.before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = False

    def __exit__(self, *_: object) -> None:
        torch.backends.cuda.matmul.allow_tf32 = self.before


_SOLVERS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "svd": _svd,
    "eigh": _eigh,
    "polar_express": _polar_express,
}
