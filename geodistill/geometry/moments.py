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
from geodistill.geometry.validation import PAIR, paired

Scale = Literal["frobenius", "rms"] | None
SCALES = (None, "frobenius", "rms")


@dataclass(frozen=True)
class Moments:
    """Moments of paired rows, batched over the leading dimensions.

    Attributes:
        n: number of rows (...).
        xx, yy, xy: XᵀX (..., d_x, d_x), YᵀY (..., d_y, d_y), XᵀY (..., d_x, d_y).
        fourth: Σ|x|⁴, Σ|x|²|y|²; Σ|x|²|y|², Σ|y|⁴ (..., 2, 2), for debiased CKA.
    """

    n: Tensor
    xx: Tensor
    yy: Tensor
    xy: Tensor
    fourth: Tensor | None = None

    @property
    def widths(self) -> tuple[int, int]:
        return self.xy.shape[-2], self.xy.shape[-1]

    @property
    def size_x(self) -> Tensor:
        """‖X‖_F² = tr K."""
        return trace(self.xx)

    @property
    def size_y(self) -> Tensor:
        """‖Y‖_F² = tr L."""
        return trace(self.yy)

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
    """

    n: Tensor
    x: Tensor
    y: Tensor

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
    def size_x(self) -> Tensor:
        return _sum_of_squares(self.x)

    @cached_property
    def size_y(self) -> Tensor:
        return _sum_of_squares(self.y)

    @cached_property
    def kk(self) -> Tensor:
        return _sum_of_squares(self.x @ self.x.mT if _wide(self.x) else self.xx)

    @cached_property
    def ll(self) -> Tensor:
        return _sum_of_squares(self.y @ self.y.mT if _wide(self.y) else self.yy)

    @cached_property
    def kl(self) -> Tensor:
        if _wide(self.x) and _wide(self.y):
            return ((self.x @ self.x.mT) * (self.y @ self.y.mT)).sum((-2, -1))
        return _sum_of_squares(self.xy)

    def row_overlaps(self) -> tuple[Tensor, Tensor, Tensor]:
        """Σ|x|⁴, Σ|y|⁴, Σ|x|²|y|²."""
        k, el = self.x.square().sum(-1), self.y.square().sum(-1)
        return k.square().sum(-1), el.square().sum(-1), (k * el).sum(-1)


AnyMoments = Moments | RowMoments


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
        InputError: an unknown scale, unusable features, or y or a mask with accumulated moments.
    """
    if scale not in SCALES:
        raise InputError(f"scale is {scale!r}: expected one of {SCALES}")
    if isinstance(x, Accumulated):
        if y is not None or mask is not None:
            raise InputError(f"y or mask was passed with {type(x).__name__}: expected neither")
        return x.moments(center=center, scale=scale)
    if y is None:
        raise InputError("y is None: expected the features to compare x with")
    x, y, mask = paired(x, y, mask, torch.float64, names)
    return row_moments(x, y, center=center, scale=scale, mask=mask)


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
    division would scale rounding noise up to norm 1.
    """
    shift = x.new_zeros(())
    if center:
        mean = x.sum(-2, keepdim=True) / n[..., None, None]
        shift = n * mean.square().sum((-2, -1))
        x = x - mean
        x = x if mask is None else torch.where(mask[..., None], x, 0)
    if scale is None:
        return x
    size = _sum_of_squares(x)
    varies = size > noise(size + shift, x.dtype)
    factor = torch.where(varies, torch.where(varies, size, 1).rsqrt(), 0)
    if scale == "rms":
        factor = factor * n.to(x.dtype).sqrt()
    return x * factor[..., None, None]


def noise(raw: Tensor, dtype: torch.dtype) -> Tensor:
    """The squared norm that rounding leaves in equal rows of squared norm `raw`."""
    return (16 * torch.finfo(dtype).eps) ** 2 * raw


def _wide(x: Tensor) -> bool:
    return x.shape[-2] < x.shape[-1]


def _sum_of_squares(a: Tensor) -> Tensor:
    return a.square().sum((-2, -1))


def trace(a: Tensor) -> Tensor:
    return a.diagonal(dim1=-2, dim2=-1).sum(-1)


def safe_sqrt(a: Tensor) -> Tensor:
    """√max(a, 0) with gradient 0, not infinity, where a ≤ 0 (as rounding may leave a square)."""
    positive = a > 0
    return torch.where(positive, torch.where(positive, a, 1).sqrt(), 0)
