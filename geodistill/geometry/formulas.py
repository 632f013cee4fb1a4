"""Formulas of the measures over second moments, shared by measures, losses and layer maps."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry.moments import Accumulated, AnyMoments, Scale, moments_of, safe_sqrt
from geodistill.geometry.nuclear import nuclear_norm

Direction = Literal["to_teacher", "to_student"]


def procrustes_squared(m: AnyMoments) -> Tensor:
    """‖X‖² + ‖Y‖² − 2‖XᵀY‖_*: min over orthogonal Q of ‖X − YQ‖², the narrower zero-padded."""
    return m.size_x + m.size_y - 2 * nuclear_norm(m.xy)


def fidelity(m: AnyMoments) -> Tensor:
    """‖XᵀY‖_* / (‖X‖ ‖Y‖) in [0, 1]; 0 where either is zero."""
    return _ratio(nuclear_norm(m.xy), m.size_x * m.size_y)


def gram_squared(m: AnyMoments) -> Tensor:
    """‖XXᵀ − YYᵀ‖_F²."""
    return m.kk + m.ll - 2 * m.kl


def cka_value(m: AnyMoments) -> Tensor:
    """⟨K, L⟩ / (‖K‖ ‖L‖) of centred features; 0 where either is constant."""
    return _ratio(m.kl, m.kk * m.ll)


def debiased_cka_value(m: AnyMoments) -> Tensor:
    """CKA from the unbiased HSIC estimate (Song et al., 2012) of centred features."""
    if not bool((m.n > 3).all()):
        raise InputError(f"debiased CKA got {int(m.n.min())} rows: expected at least 4")
    n = m.n.to(m.kl.dtype)
    x4, y4, x2y2 = m.row_overlaps()

    def hsic(inner: Tensor, diagonals: Tensor, traces: Tensor) -> Tensor:
        return inner - n / (n - 2) * diagonals + traces / ((n - 1) * (n - 2))

    return _ratio(
        hsic(m.kl, x2y2, m.size_x * m.size_y),
        hsic(m.kk, x4, m.size_x**2) * hsic(m.ll, y4, m.size_y**2),
    )


def spectra_overlap(m: AnyMoments) -> Tensor:
    """Σ σ_i(X) σ_i(Y), the upper bound of ‖XᵀY‖_* (von Neumann)."""
    sx, sy = (_singular_values(g) for g in (m.xx, m.yy))
    k = min(sx.shape[-1], sy.shape[-1])
    return (sx[..., :k] * sy[..., :k]).sum(-1)


def residual_squared(m: AnyMoments, direction: Direction) -> Tensor:
    """min_A ‖X − YA‖² ("to_teacher") or min_A ‖Y − XA‖²."""
    size, cross, gram = m.size_x, m.xy, m.yy
    if direction == "to_student":
        size, cross, gram = m.size_y, m.xy.mT, m.xx
    fitted: Tensor = cross @ torch.linalg.pinv(gram, hermitian=True) * cross
    return size - fitted.sum((-2, -1))


def explained_share(m: AnyMoments, direction: Direction) -> Tensor:
    """1 − min_A ‖X − YA‖²/‖X‖², or with X and Y exchanged; 0 where the target is zero."""
    size = m.size_x if direction == "to_teacher" else m.size_y
    varies = size > 0
    share = 1 - residual_squared(m, direction) / torch.where(varies, size, 1)
    return torch.where(varies, share, 0).clamp(0, 1)


def canonical_correlations(m: AnyMoments) -> Tensor:
    """Mean canonical correlation: ‖(XᵀX)^{-½} XᵀY (YᵀY)^{-½}‖_* / min(rank X, rank Y)."""
    (white_x, rank_x), (white_y, rank_y) = (_inverse_root(g) for g in (m.xx, m.yy))
    rank = torch.minimum(rank_x, rank_y).clamp_min(1)
    return (nuclear_norm(white_x @ m.xy @ white_y) / rank).clamp(0, 1)


def fitted_moments(
    x: Tensor | Accumulated,
    y: Tensor | None,
    center: bool,
    scale: Scale,
    direction: Direction,
    mask: Tensor | None,
) -> AnyMoments:
    """Moments of both sides, with more rows than a least-squares fit has coefficients per column.

    Raises:
        InputError: unusable features, unknown direction, or too few rows.
    """
    if direction not in ("to_teacher", "to_student"):
        raise InputError(f"direction is {direction!r}: expected 'to_teacher' or 'to_student'")
    m = moments_of(x, y, center=center, scale=scale, mask=mask)
    side = 1 if direction == "to_teacher" else 0
    width = m.widths[side]
    name = f"{'xy'[side]}'s width {width}"
    require_rows(m, width + center + 1, name, "a perfect fit (R² = 1 on noise)")
    return m


def require_rows(m: AnyMoments, min_rows: int, width: str, consequence: str) -> None:
    """Raise InputError if there are fewer rows."""
    if bool((m.n < min_rows).any()):
        raise InputError(
            f"{int(m.n.min())} rows at {width} give {consequence} for any features: "
            f"expected at least {min_rows} rows"
        )


def _inverse_root(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Gram^{-½} on its range, and its rank."""
    values, vectors = torch.linalg.eigh(gram)
    floor = gram.shape[-1] * torch.finfo(gram.dtype).eps * values[..., -1:]
    nonzero = values > floor
    root = torch.where(nonzero, torch.where(nonzero, values, 1).rsqrt(), 0)
    return (vectors * root[..., None, :]) @ vectors.mT, nonzero.sum(-1)


def _singular_values(gram: Tensor) -> Tensor:
    """Square roots of the eigenvalues, largest first; differentiable (eigvalsh has no 1/gap)."""
    return safe_sqrt(torch.linalg.eigvalsh(gram.double()).flip(-1)).to(gram.dtype)


def _ratio(a: Tensor, squared: Tensor) -> Tensor:
    """a / √squared, and 0 where the denominator is not positive."""
    positive = squared > 0
    return torch.where(positive, a / torch.where(positive, squared, 1).sqrt(), 0)
