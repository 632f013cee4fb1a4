"""Second moments XᵀX, YᵀY, XᵀY: all that the measures need of two sets of features.

X (n, d_x) and Y (n, d_y) hold one row an example; K = XXᵀ and L = YYᵀ are their Gram matrices,
which are never formed unless n is the small side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry.inputs import PAIR, kept_rows, paired

Scale = Literal["frobenius", "rms"] | None
SCALES = (None, "frobenius", "rms")


@dataclass(frozen=True)
class Moments:
    """Moments of paired rows; every quantity is batched over the leading dimensions."""

    n: Tensor  # (...) rows that count
    xx: Tensor  # (..., d_x, d_x)
    yy: Tensor  # (..., d_y, d_y)
    xy: Tensor  # (..., d_x, d_y)

    @property
    def size_x(self) -> Tensor:
        """‖X‖_F² = tr K."""
        return _trace(self.xx)

    @property
    def size_y(self) -> Tensor:
        """‖Y‖_F² = tr L."""
        return _trace(self.yy)

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
        raise InputError("debiased CKA got moments: expected features, it needs each row's norm")


@dataclass(frozen=True)
class RowMoments:
    """The same quantities from rows at hand, each computed when asked, on the cheaper side."""

    n: Tensor  # (...)
    x: Tensor  # (..., n, d_x), masked rows zero
    y: Tensor  # (..., n, d_y)

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
        """Σ|x|⁴, Σ|y|⁴, Σ|x|²|y|²: the Gram diagonals that a debiased estimate removes."""
        k, el = self.x.square().sum(-1), self.y.square().sum(-1)
        return k.square().sum(-1), el.square().sum(-1), (k * el).sum(-1)


AnyMoments = Moments | RowMoments


def moments_of(
    x: Tensor | SecondMoments,
    y: Tensor | None,
    *,
    center: bool,
    scale: Scale,
    mask: Tensor | None = None,
    names: tuple[str, str] = PAIR,
) -> AnyMoments:
    """Moments in float64 of features (..., n, d), or of accumulated ones, centred and scaled."""
    if scale not in SCALES:
        raise InputError(f"scale is {scale!r}: expected one of {SCALES}")
    if isinstance(x, SecondMoments):
        if y is not None or mask is not None:
            raise InputError("y and mask are given beside SecondMoments: expected neither")
        return x.moments(center=center, scale=scale)
    if y is None:
        raise InputError("y is None: expected the features to compare x with")
    x, y, mask = paired(x, y, mask, torch.float64, names)
    return row_moments(x, y, center=center, scale=scale, mask=mask)


def row_moments(
    x: Tensor, y: Tensor, *, center: bool, scale: Scale, mask: Tensor | None = None
) -> RowMoments:
    """Moments of checked rows, in their own dtype; masked rows must be zero already."""
    n = torch.full(x.shape[:-2], x.shape[-2], device=x.device) if mask is None else mask.sum(-1)
    x, y = (standardised(f, n, center=center, scale=scale, mask=mask) for f in (x, y))
    return RowMoments(n, x, y)


def standardised(
    x: Tensor, n: Tensor, *, center: bool, scale: Scale, mask: Tensor | None = None
) -> Tensor:
    """Rows centred and scaled: "frobenius" gives ‖X‖_F = 1, "rms" a mean squared row norm of 1.

    Rows that are all equal have no geometry: they become exactly zero, with gradient zero, where a
    plain division would blow rounding noise up to norm 1.
    """
    raw = _sum_of_squares(x)
    if center:
        x = x - x.sum(-2, keepdim=True) / n[..., None, None]
        x = x if mask is None else torch.where(mask[..., None], x, 0)
    if scale is None:
        return x
    size = _sum_of_squares(x)
    varies = (size > _noise(raw, x.dtype))[..., None, None]
    x = torch.where(varies, x, 0) / torch.where(varies, size[..., None, None], 1).sqrt()
    return x if scale == "frobenius" else x * n[..., None, None].to(x.dtype).sqrt()


class SecondMoments:
    """Accumulated moments of paired rows: measures of any data set in memory flat in n.

    `d_x`, `d_y` are the widths, `dtype` that of the sums. They are kept about the running mean, a
    float64 (Chan, Golub and LeVeque, 1983), so that a large mean costs no precision, and any
    chunking gives one result.
    Every measure takes it in place of its features: `cka(moments)`.

    >>> moments = SecondMoments(384, 128)
    >>> for teacher, student in batches:
    ...     moments.update(teacher, student)
    >>> procrustes_distance(moments, center=True, scale="frobenius")
    """

    _NAMES = ("n", "mean_x", "mean_y", "xx", "yy", "xy")

    def __init__(self, d_x: int, d_y: int, dtype: torch.dtype = torch.float64) -> None:
        if min(d_x, d_y) < 1 or dtype not in (torch.float32, torch.float64):
            raise InputError(
                f"d_x = {d_x}, d_y = {d_y}, dtype = {dtype}: expected widths of at least 1 and "
                "torch.float32 or torch.float64"
            )
        self.n = torch.zeros((), dtype=torch.float64)
        self.mean_x, self.mean_y = (torch.zeros(d, dtype=torch.float64) for d in (d_x, d_y))
        shapes = ((d_x, d_x), (d_y, d_y), (d_x, d_y))
        self.xx, self.yy, self.xy = (torch.zeros(shape, dtype=dtype) for shape in shapes)

    @torch.no_grad()
    def update(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> None:
        """Add rows x (..., d_x), y (..., d_y), mask (...); raises InputError as the measures do."""
        x, y = (f.to(self.mean_x) for f in kept_rows(x, y, mask))
        self._check_widths((x.shape[-1], y.shape[-1]))
        part = SecondMoments(x.shape[-1], y.shape[-1], dtype=self.xy.dtype)
        part.n = torch.tensor(len(x), dtype=torch.float64)
        part.mean_x, part.mean_y = x.mean(0), y.mean(0)
        x, y = (x - part.mean_x).to(self.xy), (y - part.mean_y).to(self.xy)
        part.xx, part.yy, part.xy = x.mT @ x, y.mT @ y, x.mT @ y
        self.merge(part)

    def merge(self, other: SecondMoments) -> None:
        """Add what another has seen; raises InputError if the widths differ."""
        self._check_widths(tuple(other.xy.shape))
        n = self.n + other.n
        if n == 0:
            return
        shift_x, shift_y = other.mean_x - self.mean_x, other.mean_y - self.mean_y
        weight, share = self.n * other.n / n, other.n / n
        self.xx = self.xx + other.xx + (weight * shift_x.outer(shift_x)).to(self.xx)
        self.yy = self.yy + other.yy + (weight * shift_y.outer(shift_y)).to(self.yy)
        self.xy = self.xy + other.xy + (weight * shift_x.outer(shift_y)).to(self.xy)
        self.mean_x, self.mean_y = self.mean_x + share * shift_x, self.mean_y + share * shift_y
        self.n = n

    def moments(self, *, center: bool, scale: Scale) -> Moments:
        """In float64, centred and scaled; raises InputError before the first update."""
        if self.n == 0:
            raise InputError("SecondMoments has seen no rows: expected an update first")
        n, mean_x, mean_y, xx, yy, xy = (getattr(self, name).double() for name in self._NAMES)
        raw = tuple(_trace(m) + n * mean.square().sum() for m, mean in ((xx, mean_x), (yy, mean_y)))
        if not center:
            xx = xx + n * mean_x.outer(mean_x)
            yy = yy + n * mean_y.outer(mean_y)
            xy = xy + n * mean_x.outer(mean_y)
        if scale is None:
            return Moments(n, xx, yy, xy)
        sizes = zip((xx, yy), raw, strict=True)
        a, b = (_inverse_norm(_trace(m), size, self.xy.dtype) for m, size in sizes)
        rows = n if scale == "rms" else torch.ones_like(n)
        return Moments(n, a * a * rows * xx, b * b * rows * yy, a * b * rows * xy)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the sums to a safetensors file."""
        save_file({name: getattr(self, name).contiguous() for name in self._NAMES}, path)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> SecondMoments:
        """Read what `save` wrote; raises InputError for another file's contents."""
        tensors = load_file(path)
        if set(tensors) != set(cls._NAMES):
            raise InputError(f"{path} holds {sorted(tensors)}: expected {sorted(cls._NAMES)}")
        d_x, d_y = tensors["xy"].shape
        loaded = cls(d_x, d_y, dtype=tensors["xy"].dtype)
        for name, value in tensors.items():
            setattr(loaded, name, value)
        return loaded

    def _check_widths(self, given: tuple[int, ...]) -> None:
        if given != tuple(self.xy.shape):
            raise InputError(f"widths (x, y) are {given}: expected {tuple(self.xy.shape)}")


def _inverse_norm(size: Tensor, raw: Tensor, dtype: torch.dtype) -> Tensor:
    """1/‖X‖_F, and 0 where all rows are equal; dtype is that of the sums."""
    varies = size > _noise(raw, dtype)
    return torch.where(varies, torch.where(varies, size, 1).rsqrt(), 0)


def _noise(raw: Tensor, dtype: torch.dtype) -> Tensor:
    """The variance that rounding alone leaves in rows that are all equal."""
    return (16 * torch.finfo(dtype).eps) ** 2 * raw


def _wide(x: Tensor) -> bool:
    return x.shape[-2] < x.shape[-1]


def _sum_of_squares(a: Tensor) -> Tensor:
    return a.square().sum((-2, -1))


def _trace(a: Tensor) -> Tensor:
    return a.diagonal(dim1=-2, dim2=-1).sum(-1)


def safe_sqrt(a: Tensor) -> Tensor:
    """√max(a, 0), of gradient 0, not infinity, where a ≤ 0 (a squared distance may round below)."""
    positive = a > 0
    return torch.where(positive, torch.where(positive, a, 1).sqrt(), 0)
