"""Formulas of the measures over second moments, shared by measures, losses and layer maps."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry.column_space import is_wide
from geodistill.geometry.moments import (
    Accumulated,
    AnyMoments,
    RowMoments,
    Scale,
    moments_of,
    row_moments,
)
from geodistill.geometry.nuclear import nuclear_norm
from geodistill.geometry.operators import needs_gradient, safe_divide, safe_sqrt
from geodistill.geometry.spectra import weighted_spectrum

Direction = Literal["to_teacher", "to_student"]


def procrustes_squared(m: AnyMoments) -> Tensor:
    """‖X‖² + ‖Y‖² − 2‖XᵀY‖_*: min over orthogonal Q of ‖X − YQ‖², the narrower zero-padded."""
    return m.size_x + m.size_y - 2 * nuclear_overlap(m)


def nuclear_overlap(m: AnyMoments) -> Tensor:
    """‖XᵀY‖_*, of an n × n matrix where n is less than both widths.

    XᵀY is d_x × d_y of rank n at most; `narrow` rotates both sides into n columns.
    """
    if isinstance(m, RowMoments) and is_wide(m.x) and is_wide(m.y):
        return _nuclear_norm(m.narrow_x.mT @ m.narrow_y)
    return _nuclear_norm(m.xy)


def _nuclear_norm(c: Tensor) -> Tensor:
    """‖C‖_*; in float64 without a gradient from the singular values alone."""
    if c.dtype == torch.float64 and not needs_gradient(c):
        value: Tensor = torch.linalg.svdvals(c).sum(-1)
        return value
    return nuclear_norm(c)


def fidelity(m: AnyMoments) -> Tensor:
    """‖XᵀY‖_* / (‖X‖ ‖Y‖) in [0, 1]; 0 where either is zero."""
    return safe_divide(nuclear_overlap(m), safe_sqrt(m.size_x * m.size_y))


def gram_squared(m: AnyMoments) -> Tensor:
    """‖XXᵀ − YYᵀ‖_F²."""
    return m.kk + m.ll - 2 * m.kl


def cka_value(m: AnyMoments) -> Tensor:
    """⟨K, L⟩ / (‖K‖ ‖L‖) of centred features; 0 where either is constant."""
    return safe_divide(m.kl, safe_sqrt(m.kk * m.ll))


def debiased_cka_value(m: AnyMoments) -> Tensor:
    """CKA from the unbiased HSIC estimate (Song et al., 2012) of centred features."""
    if not bool((m.n > 3).all()):
        raise InputError(f"debiased CKA got {int(m.n.min())} rows: expected at least 4")
    n = m.n.to(m.kl.dtype)
    x4, y4, x2y2 = m.row_overlaps()

    def hsic(inner: Tensor, diagonals: Tensor, traces: Tensor) -> Tensor:
        return inner - n / (n - 2) * diagonals + traces / ((n - 1) * (n - 2))

    overlap = hsic(m.kl, x2y2, m.size_x * m.size_y)
    squared_norms = hsic(m.kk, x4, m.size_x**2) * hsic(m.ll, y4, m.size_y**2)
    return safe_divide(overlap, safe_sqrt(squared_norms))


def spectra_overlap(m: AnyMoments) -> Tensor:
    """Σ σ_i(X) σ_i(Y), the upper bound of ‖XᵀY‖_* (von Neumann)."""
    if not isinstance(m, RowMoments):
        return weighted_spectrum(m.yy, _root_eigenvalues(m.xx)[: len(m.yy)], m.refine)
    gradient = needs_gradient(m.x) or needs_gradient(m.y)
    if is_wide(m.x) and is_wide(m.y) and not gradient:
        sx, sy = torch.linalg.svdvals(m.narrow_x), torch.linalg.svdvals(m.narrow_y)
    else:
        sx = _root_eigenvalues(m.gram_x if is_wide(m.x) else m.xx)
        gram, rows = (m.gram_y, m.y.detach().mT) if is_wide(m.y) else (m.yy, m.y.detach())
        if gradient and gram.ndim == 2:
            return weighted_spectrum(gram, sx[: len(gram)], lambda v: (rows @ v).mT @ (rows @ v))
        sy = _root_eigenvalues(gram)
    k = min(sx.shape[-1], sy.shape[-1])
    overlap: Tensor = (sx[..., :k] * sy[..., :k]).sum(-1)
    return overlap


def residual_squared(m: AnyMoments, direction: Direction) -> Tensor:
    """min_A ‖X − YA‖² ("to_teacher") or min_A ‖Y − XA‖²."""
    rows = _rows_of(m)
    target, basis = rows.x, rows.basis_y
    if direction == "to_student":
        target, basis = rows.y, rows.basis_x
    residual = target - basis @ (basis.mT @ target)
    return residual.square().sum((-2, -1))


def explained_share(m: AnyMoments, direction: Direction) -> Tensor:
    """1 − min_A ‖X − YA‖²/‖X‖², or with X and Y exchanged; 0 where the target is zero."""
    size = m.size_x if direction == "to_teacher" else m.size_y
    varies = size > 0
    share = 1 - residual_squared(m, direction) / torch.where(varies, size, 1)
    return torch.where(varies, share, 0).clamp(0, 1)


def canonical_correlations(m: AnyMoments) -> Tensor:
    """Mean canonical correlation: ‖Q_xᵀQ_y‖_* / min(rank X, rank Y), Q bases of the columns."""
    rows = _rows_of(m)
    ranks = [(basis != 0).any(-2).sum(-1) for basis in (rows.basis_x, rows.basis_y)]
    rank = torch.minimum(*ranks).clamp_min(1)
    return (_nuclear_norm(rows.basis_x.mT @ rows.basis_y) / rank).clamp(0, 1)


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
    m = moments_for_fits(x, y, center, scale, mask)
    side = 1 if direction == "to_teacher" else 0
    width = m.widths[side]
    name = f"{'xy'[side]}'s width {width}"
    require_rows(m, width + center + 1, name, "a perfect fit (R² = 1 on noise)")
    return m


def moments_for_fits(
    x: Tensor | Accumulated, y: Tensor | None, center: bool, scale: Scale, mask: Tensor | None
) -> AnyMoments:
    """Moments of both sides; rows are centred twice.

    After one centring, rounding leaves a constant column a tiny direction, which a fit would use as
    it does any other.
    """
    m = moments_of(x, y, center=center, scale=scale, mask=mask)
    if not center or isinstance(x, Accumulated) or not isinstance(m, RowMoments):
        return m
    return row_moments(m.x, m.y, center=True, scale=None, mask=None if mask is None else mask > 0)


def require_rows(m: AnyMoments, min_rows: int, width: str, consequence: str) -> None:
    """Raise InputError if there are fewer rows."""
    if bool((m.n < min_rows).any()):
        raise InputError(
            f"{int(m.n.min())} rows at {width} give {consequence} for any features: "
            f"expected at least {min_rows} rows"
        )


def _rows_of(m: AnyMoments) -> RowMoments:
    """The rows, or d_x + d_y rows with the same second moments.

    Sums resolve directions to the root of their rounding error only.
    """
    if isinstance(m, RowMoments):
        return m
    joint = torch.cat([torch.cat([m.xx, m.xy], -1), torch.cat([m.xy.mT, m.yy], -1)], -2)
    norms = safe_sqrt(joint.diagonal(dim1=-2, dim2=-1))
    inverse = safe_divide(torch.ones_like(norms), norms)
    values, vectors = torch.linalg.eigh(inverse[..., None] * joint * inverse[..., None, :])
    rows = safe_sqrt(values)[..., None] * vectors.mT * norms[..., None, :]
    x, y = rows.split(m.widths, -1)
    return RowMoments(m.n, x, y, floor=math.sqrt(values.shape[-1] * float(m.rounding)))


def _root_eigenvalues(gram: Tensor) -> Tensor:
    """Square roots of the eigenvalues, largest first; differentiable (eigvalsh has no 1/gap)."""
    return safe_sqrt(torch.linalg.eigvalsh(gram.double()).flip(-1)).to(gram.dtype)
