"""The nuclear norm ‖C‖_* with its gradient, the polar factor: no differentiation through an SVD.

If C = U S Vᵀ then ‖C‖_* = tr S and d‖C‖_*/dC = U Vᵀ over the non-zero singular values. Where C is
rank-deficient, any W with norm at most 1 on the left and right null spaces may be added (Watson,
1992). With W = 0 a direction that a student lacks would get no gradient and stay lost. Here W is
the polar factor of P G Q, with P and Q the projectors on the null spaces and G a fixed dense matrix
(cosines), hardly ever orthogonal to a null direction: what a student lacks is moved towards what is
left of the teacher. W depends on C alone, not on the bases that a solver happens to return.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry.column_space import is_wide
from geodistill.geometry.operators import define_operator, first_derivative, trace
from geodistill.geometry.validation import check_finite

Solver = Literal["auto", "svd", "eigh", "polar_express"]

_BLOCK = 64  # columns of a block of the Gram


def nuclear_norm(c: Tensor, solver: Solver = "auto") -> Tensor:
    """Sum of the singular values, differentiable once.

    Half precision is computed and returned in float32, under autocast too. Singular values at or
    below 2√max(p, q) eps of the largest count as zero (in float32 about 5e-6, the rounding of a
    product; convert to float64 to keep smaller ones). Source: Watson (1992).

    Args:
        c: matrices (..., p, q).
        solver: "svd" is the reference. "eigh", of the smaller Gram in float64, is the fastest on
            CPUs; directions that the Gram does not resolve are solved again by themselves.
            "polar_express" uses matrix products alone, for GPUs. "auto" selects by device.

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
    dense = c.is_floating_point() and c.layout == torch.strided
    if not dense or c.ndim < 2 or 0 in c.shape[-2:]:
        raise InputError(
            f"c has shape {tuple(c.shape)} and dtype {c.dtype}: expected dense floating point "
            "(..., p, q)"
        )
    # The cheaper check; it may overflow. A graph lets such values pass to the result.
    if not torch.compiler.is_compiling() and not math.isfinite(c.detach().sum()):
        check_finite((c,), ("c",))
    if solver != "auto" and solver not in _SOLVERS:
        raise InputError(f"solver is {solver!r}: expected one of {('auto', *_SOLVERS)}")
    c = c.to(torch.promote_types(c.dtype, torch.float32))
    if solver == "auto":
        solver = "eigh" if c.device.type == "cpu" else "polar_express"
    norm: Tensor = _NuclearNorm.apply(c, solver)  # type: ignore[no-untyped-call]
    return norm


class _NuclearNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, c: Tensor, solver: str) -> Tensor:
        solve = torch.ops.geodistill.nuclear_norm if torch.compiler.is_compiling() else _solve
        value: Tensor
        value, polar = solve(c, solver)
        ctx.save_for_backward(c, polar)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        c, polar = ctx.saved_tensors
        return first_derivative(grad.detach()[..., None, None] * polar, c), None


def _solve(c: Tensor, solver: str) -> tuple[Tensor, Tensor]:
    """The norm and its gradient; the solvers take matrices with no more columns than rows."""
    wide = is_wide(c)
    with torch.autocast(c.device.type, enabled=False):
        value, polar = _SOLVERS[solver](c.mT if wide else c)
    return value, polar.mT if wide else polar


def _solve_contiguous(c: Tensor, solver: str) -> tuple[Tensor, Tensor]:
    value, polar = _solve(c, solver)
    return value, polar.contiguous()


define_operator(
    "nuclear_norm",
    "(Tensor c, str solver) -> (Tensor, Tensor)",
    _solve_contiguous,
    lambda c, solver: (c.new_empty(c.shape[:-2]), c.new_empty(c.shape)),
)


def _svd(c: Tensor) -> tuple[Tensor, Tensor]:
    driver = "gesvd" if c.is_cuda else None  # Jacobi's, the default there, loses a digit
    # V of a tall matrix has the whole right null space
    u, s, vh = torch.linalg.svd(c, full_matrices=False, driver=driver)
    nonzero = s > rank_floor(c) * s[..., :1]
    polar = (u * nonzero[..., None, :]) @ vh
    for index in _rank_deficient(nonzero):
        polar[index] = _completed(polar[index], vh[index][~nonzero[index]].mT)
    return s.sum(-1), polar


RESOLVED = 1e-5
"""A float64 Gram has the directions of singular values above this share of the largest to 1e-6."""
_NULL = 1e-4  # smaller singular values of P G Q, whose largest are near 1, are rounding errors
_PRECISE = 2e-5  # relative error of the polar factor above which "eigh" takes over
_NEAR_ONE = 0.95


def _eigh(c: Tensor) -> tuple[Tensor, Tensor]:
    """polar = C · (CᵀC)^-½ in float64; a float32 Gram would lose a tenth of the gradient.

    The Gram squares the condition number. Its eigenvectors V rotate C to columns C V whose norms
    are the singular values, right to second order in what is wrong with V. Columns too small for V
    to be right are solved again by themselves.
    """
    floor = rank_floor(c)
    columns, v, s = _rotated(c.double())
    large = s > max(RESOLVED, floor) * s.amax(-1, keepdim=True)
    polar = (columns * torch.where(large, 1 / s, 0)[..., None, :]) @ v.mT
    value = (s * large).sum(-1)
    for i in _rank_deficient(large):
        limit, basis = floor * s[i].amax(), v[i]
        solved, rotated, norms = large[i], columns[i], s[i]
        while not bool(solved.all()):
            u = torch.linalg.qr(rotated[:, solved])[0]
            rest, basis = rotated[:, ~solved], basis[:, ~solved]
            rotated, v_rest, norms = _rotated(rest - u @ (u.mT @ rest))
            basis = basis @ v_rest
            solved = norms > torch.maximum(limit, RESOLVED * norms.amax())
            if not bool(solved.any()):  # the columns left are rounding errors
                polar[i] = _completed(polar[i], basis)
                break
            value[i] += norms[solved].sum()
            polar[i] += (rotated[:, solved] / norms[solved]) @ basis[:, solved].mT
    return value.to(c.dtype), polar.to(c.dtype)


def _rotated(c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """C V, V and the norms of C V's columns, for the eigenvectors V of CᵀC."""
    v = torch.linalg.eigh(_lower_gram(c))[1]  # reads the lower triangle alone
    columns = c @ v
    return columns, v, torch.linalg.vector_norm(columns, dim=-2)


def _rank_deficient(nonzero: Tensor) -> list[tuple[int, ...]]:
    """Indices of the matrices without some of their singular values (..., k)."""
    if bool(nonzero.all()):
        return []
    return [tuple(index) for index in (~nonzero.all(-1)).nonzero().tolist()]


def _completed(polar: Tensor, null: Tensor) -> Tensor:
    """The polar factor of a rank-deficient C with the W of this module's docstring.

    Args:
        polar: over the non-zero singular values (p, q).
        null: orthonormal basis of the right null space (q, m), in any rotation.
    """
    rows, columns = (torch.arange(n, device=polar.device, dtype=polar.dtype) for n in polar.shape)
    angles = torch.outer(rows + 0.5, columns + 0.5) * (math.pi / max(polar.shape))
    moved = angles.cos() @ null * (2 / max(polar.shape)) ** 0.5
    moved = moved - polar @ (polar.mT @ moved)
    u, s, vh = torch.linalg.svd(moved, full_matrices=False)
    completed: Tensor = polar + (u * (s > _NULL)) @ vh @ null.mT
    return completed


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
    Where rounding has spoilt small singular values, or C is rank-deficient, "eigh" takes over.
    Only a tall matrix is first reduced to its small square factor (QR), since its products would
    round more; for others QR on a GPU takes longer than the products.
    """
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
        root = polar.mT @ c  # V S Vᵀ, whose inverse tells the error of small singular values
        factor, failed = torch.linalg.cholesky_ex(root)
        if bool((failed > 0).any()):
            return _eigh(c)
        inverse = torch.cholesky_inverse(factor)
    norms = torch.linalg.matrix_norm(c) * torch.linalg.matrix_norm(inverse)
    asymmetry = torch.linalg.matrix_norm((root - root.mT) @ inverse)
    error = torch.finfo(c.dtype).eps * norms + asymmetry
    if not bool((error < _PRECISE * c.shape[-1] ** 0.5).all()):
        return _eigh(c)
    return trace(root), polar


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


@contextmanager
def _no_tf32() -> Iterator[None]:
    """Full float32 products: with TF32's ten bits the iteration stops at an error of 1e-3."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


_SOLVERS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "svd": _svd,
    "eigh": _eigh,
    "polar_express": _polar_express,
}
