"""Second moments XᵀX, YᵀY, XᵀY: all that the measures need of two sets of features.

X (n, d_x) and Y (n, d_y) hold one row per example. Their Gram matrices K = XXᵀ and L = YYᵀ are
formed only where n is the smaller side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry.column_space import column_basis, is_wide, narrow
from geodistill.geometry.operators import trace
from geodistill.geometry.spectra import Refine
from geodistill.geometry.validation import PAIR, paired, widest_dtype

Scale = Literal["frobenius", "rms"] | None
SCALES = (None, "frobenius", "rms")


@dataclass(frozen=True)
class Moments:
    """Moments of paired rows, batched over the leading dimensions.

    Attributes:
        n: number of rows (...).
        xx, yy, xy: XᵀX (..., d_x, d_x), YᵀY (..., d_y, d_y), XᵀY (..., d_x, d_y).
        fourth: Σ|x|⁴, Σ|x|²|y|²; Σ|x|²|y|², Σ|y|⁴ (..., 2, 2), for debiased CKA.
        rounding: relative error of the sums.
        refine: sums YᵀY over the rows in other directions, where these can be read again.
        sizes: tr XᵀX and tr YᵀY, where `xx` or `yy` was not summed.
    """

    n: Tensor
    xx: Tensor
    yy: Tensor
    xy: Tensor
    fourth: Tensor | None = None
    rounding: Tensor | float = torch.finfo(torch.float64).eps
    refine: Refine | None = None
    sizes: tuple[Tensor, Tensor] | None = None

    @property
    def widths(self) -> tuple[int, int]:
        return self.xy.shape[-2], self.xy.shape[-1]

    @property
    def size_x(self) -> Tensor:
        """‖X‖_F² = tr K."""
        return trace(self.xx) if self.sizes is None else self.sizes[0]

    @property
    def size_y(self) -> Tensor:
        """‖Y‖_F² = tr L."""
        return trace(self.yy) if self.sizes is None else self.sizes[1]

    @property
    def kk(self) -> Tensor:
        """‖K‖_F² = ‖XᵀX‖_F²."""
        return _sum_of_squares(self.xx)

    @property
    def ll(self) -> Tensor:
        """‖L‖_F²."""
        return _sum_of_squares(self.yy)

    @property
    def kl(self) -> Tensor:
        """⟨K, L⟩ = ‖XᵀY‖_F²."""
        return _sum_of_squares(self.xy)

    def row_overlaps(self) -> tuple[Tensor, Tensor, Tensor]:
        """Σ|x|⁴, Σ|y|⁴, Σ|x|²|y|²: the Gram diagonals that a debiased estimate removes."""
        if self.fourth is None:
            raise InputError("debiased CKA got d × d moments alone: expected each row's norm too")
        return self.fourth[..., 0, 0], self.fourth[..., 1, 1], self.fourth[..., 0, 1]


@dataclass(frozen=True)
class RowMoments:
    """The same quantities from rows, computed lazily and on the cheaper side.

    Attributes:
        n: number of rows (...).
        x, y: rows (..., n, d_x) and (..., n, d_y), masked rows zero.
        floor: directions at or below this share of the largest count as zero in the bases.
    """

    n: Tensor
    x: Tensor
    y: Tensor
    floor: float = 0.0

    @property
    def widths(self) -> tuple[int, int]:
        return self.x.shape[-1], self.y.shape[-1]

    @cached_property
    def xx(self) -> Tensor:
        return self.x.mT @ self.x

    @cached_property
    def yy(self) -> Tensor:
        return self.y.mT @ self.y

    @cached_property
    def xy(self) -> Tensor:
        return self.x.mT @ self.y

    @cached_property
    def gram_x(self) -> Tensor:
        """K, for n < d_x."""
        return self.x @ self.x.mT

    @cached_property
    def gram_y(self) -> Tensor:
        """L, for n < d_y."""
        return self.y @ self.y.mT

    @cached_property
    def narrow_x(self) -> Tensor:
        """X rotated into n columns, for n < d_x."""
        return narrow(self.x)

    @cached_property
    def narrow_y(self) -> Tensor:
        """Y rotated into n columns, for n < d_y."""
        return narrow(self.y)

    @cached_property
    def basis_x(self) -> Tensor:
        """Orthonormal columns (..., n, d_x) that span X's, zero beyond its rank."""
        return column_basis(self.x, self._floor(self.x))

    @cached_property
    def basis_y(self) -> Tensor:
        """Orthonormal columns (..., n, d_y) that span Y's, zero beyond its rank."""
        return column_basis(self.y, self._floor(self.y))

    def _floor(self, rows: Tensor) -> float:
        return max(self.floor, max(rows.shape[-2:]) * torch.finfo(rows.dtype).eps)

    @cached_property
    def size_x(self) -> Tensor:
        return _sum_of_squares(self.x)

    @cached_property
    def size_y(self) -> Tensor:
        return _sum_of_squares(self.y)

    @cached_property
    def kk(self) -> Tensor:
        return _sum_of_squares(self.gram_x if is_wide(self.x) else self.xx)

    @cached_property
    def ll(self) -> Tensor:
        return _sum_of_squares(self.gram_y if is_wide(self.y) else self.yy)

    @cached_property
    def kl(self) -> Tensor:
        if is_wide(self.x) and is_wide(self.y):
            return (self.gram_x * self.gram_y).sum((-2, -1))
        return _sum_of_squares(self.xy)

    def row_overlaps(self) -> tuple[Tensor, Tensor, Tensor]:
        """Σ|x|⁴, Σ|y|⁴, Σ|x|²|y|²."""
        k, el = self.x.square().sum(-1), self.y.square().sum(-1)
        return k.square().sum(-1), el.square().sum(-1), (k * el).sum(-1)


AnyMoments = Moments | RowMoments


def check_scale(scale: Scale) -> None:
    """Raise InputError for any other scale than None, "frobenius" and "rms"."""
    if scale not in SCALES:
        raise InputError(f"scale is {scale!r}: expected one of {SCALES}")


@runtime_checkable
class Accumulated(Protocol):
    """An object in place of both sets of features, such as `SecondMoments`."""

    def moments(self, *, center: bool, scale: Scale) -> AnyMoments: ...


def moments_of(
    x: Tensor | Accumulated,
    y: Tensor | None,
    *,
    center: bool,
    scale: Scale,
    mask: Tensor | None = None,
    names: tuple[str, str] = PAIR,
) -> AnyMoments:
    """Moments in float64 of features (..., n, d) or of accumulated ones, centred and scaled.

    Raises:
        InputError: an unknown scale, unusable features, y or a mask with accumulated moments, or
            norms whose fourth powers overflow.
    """
    check_scale(scale)
    if isinstance(x, Accumulated):
        if y is not None or mask is not None:
            raise InputError(f"y or mask was passed with {type(x).__name__}: expected neither")
        return _check_norms(x.moments(center=center, scale=scale))
    if y is None:
        raise InputError("y is None: expected the features to compare x with")
    x, y, mask = paired(x, y, mask, torch.float64, names)
    return _check_norms(row_moments(x, y, center=center, scale=scale, mask=mask))


def _check_norms(m: AnyMoments) -> AnyMoments:
    """The moments; raises InputError where ‖XXᵀ‖² or ‖YYᵀ‖² overflows."""
    if (largest := float(torch.maximum(m.size_x, m.size_y).detach().max())) > 1e150:
        raise InputError(
            f"x and y have squared norms up to {largest:.2g}: expected 1e150 at most, or "
            'scale="frobenius"'
        )
    return m


def row_moments(
    x: Tensor, y: Tensor, *, center: bool, scale: Scale, mask: Tensor | None = None
) -> RowMoments:
    """Moments of validated rows, in their dtype; masked rows must be zero already."""
    n = torch.full(x.shape[:-2], x.shape[-2], device=x.device) if mask is None else mask.sum(-1)
    x, y = (standardised(f, n, center=center, scale=scale, mask=mask) for f in (x, y))
    return RowMoments(n, x, y)


def standardised(
    x: Tensor, n: Tensor, *, center: bool, scale: Scale, mask: Tensor | None = None
) -> Tensor:
    """Rows centred and scaled: "frobenius" gives ‖X‖_F = 1, "rms" a mean squared row norm of 1.

    Rows that are all equal have no geometry: they become exactly zero, with gradient zero; a plain
    division would scale rounding noise up to norm 1. Rows that float32 would lose are computed in
    float64.
    """
    shift, original = x.new_zeros(()), x
    if center:
        mean = x.sum(-2, keepdim=True) / n[..., None, None]
        shift = n * mean.square().sum((-2, -1))
        x = x - mean
        x = x if mask is None else torch.where(mask[..., None], x, 0)
    if scale is None:
        return x
    size = _sum_of_squares(x)
    if (wide := widest_dtype(x.device)) != x.dtype and _float32_loses(x, size, shift):
        rows = standardised(original.to(wide), n, center=center, scale=scale, mask=mask)
        return rows.to(x.dtype)
    factor = scale_factor(size, size + shift, n, scale)[..., None, None]
    return x.mul_(factor) if center and not x.requires_grad else x * factor  # made here: no copy


def _float32_loses(x: Tensor, size: Tensor, shift: Tensor) -> bool:
    """Whether rows of squared norm `size` are tiny, huge or far from zero (`shift`)."""
    lost = (size < 1e-20) | (size > 1e20) | (size < 1e-8 * shift)
    return bool(lost.any()) and bool((lost & (x != 0).any(-1).any(-1)).any())


def scale_factor(size: Tensor, raw: Tensor, n: Tensor, scale: Scale) -> Tensor:
    """The factor that scales n centred rows; 0 where they were all equal up to rounding.

    Args:
        size: squared norm of the rows.
        raw: their squared norm before they were centred.
        n: number of rows.
        scale: "frobenius" or "rms".
    """
    varies = size > noise(raw)
    factor = torch.where(varies, torch.where(varies, size, 1).rsqrt(), 0)
    return factor * n.to(size.dtype).sqrt() if scale == "rms" else factor


def noise(raw: Tensor) -> Tensor:
    """The squared norm that rounding leaves in equal rows of squared norm `raw`."""
    return (16 * torch.finfo(raw.dtype).eps) ** 2 * raw


def _sum_of_squares(a: Tensor) -> Tensor:
    if a.requires_grad:
        return a.square().sum((-2, -1))
    norms: Tensor = torch.linalg.vector_norm(a, dim=-1)  # without a copy of large features
    return norms.square().sum(-1)
