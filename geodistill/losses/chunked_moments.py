"""Sums over the valid rows, a chunk of rows at a time, with their gradient.

A loss of moments needs d × d sums of its rows. Valid, centred and float32 rows are never copied as
a whole, in the forward or the backward pass, so memory beyond the features and their gradient does
not grow with the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from geodistill.geometry.operators import first_derivative
from geodistill.geometry.validation import check_finite, widest_dtype
from geodistill.losses.base import NAMES

CHUNK = 256  # rows: large enough for a full-speed product, in float64 small enough for the cache
GPU_CHUNK = 8192  # a GPU finishes a product of fewer rows before the next one is launched
Sums = dict[str, Tensor]


@dataclass(frozen=True)
class Rows:
    """Paired rows of teacher and student.

    Attributes:
        x: of the teacher (n, d_x).
        y: of the student (n, d_y).
        index: of the rows that count (k,); None for all.
    """

    x: Tensor
    y: Tensor
    index: Tensor | None

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the computation: float64, where the device has it.

        In real models one direction may have 99 % of the variance; the rounding of float32 sums is
        then larger than what the others contribute.
        """
        return widest_dtype(self.y.device)

    def __len__(self) -> int:
        return len(self.x if self.index is None else self.index)

    @property
    def chunk(self) -> int:
        """The number of rows copied at a time."""
        return GPU_CHUNK if self.y.is_cuda else CHUNK

    def chunks(
        self, means: tuple[Tensor, Tensor] | None = None
    ) -> Iterator[tuple[slice | Tensor, Tensor, Tensor]]:
        """Indices of some rows, and these rows of both features, less the means if given."""
        for start in range(0, len(self), self.chunk):
            index: slice | Tensor = slice(start, start + self.chunk)
            if self.index is not None:
                index = self.index[index]
            x, y = self.x[index], self.y[index]
            if means is None:
                yield index, x.to(self.dtype), y.to(self.dtype)
            else:  # in place: one pass less
                x, y = x.to(self.dtype, copy=True), y.to(self.dtype, copy=True)
                yield index, x.sub_(means[0]), y.sub_(means[1])

    def gather(self) -> tuple[Tensor, Tensor]:
        """All rows at once, (k, d_x) and (k, d_y); raises InputError if they are not finite."""
        x, y = self.x, self.y
        if self.index is not None:
            x, y = x[self.index], y[self.index]
        x, y = x.to(self.dtype), y.to(self.dtype)
        check_finite((x, y), NAMES)
        return x, y


@torch.no_grad()
def column_sums(rows: Rows) -> tuple[Tensor, Tensor]:
    """Σx (d_x,) and Σy (d_y,); raises InputError if a row is not finite or too large."""
    x_sum, y_sum = (f.new_zeros(f.shape[-1], dtype=rows.dtype) for f in (rows.x, rows.y))
    for _, x, y in rows.chunks():
        x_sum += x.sum(0)
        y_sum += y.sum(0)
    if not torch.isfinite(x_sum.sum() + y_sum.sum()):
        rows.gather()  # raises, with the cause
    return x_sum, y_sum


def products(rows: Rows, means: tuple[Tensor, Tensor], names: tuple[str, ...]) -> Sums:
    """Sums of products of the centred rows, differentiable once in x and y.

    Args:
        rows: of teacher and student.
        means: subtracted from x and y; constants for the gradient.
        names: of "xx", "yy" and "xy", the sums Σ(x − mean)(y − mean)ᵀ to compute.

    Returns:
        `size_x` = Σ|x − mean|², `size_y`, and the named sums.
    """
    sums: tuple[Tensor, ...] = _Products.apply(rows.x, rows.y, rows.index, *means, names)  # type: ignore[no-untyped-call]
    return dict(zip(("size_x", "size_y", *names), sums, strict=True))


@torch.no_grad()
def student_gram(rows: Rows, mean: Tensor, v: Tensor) -> Tensor:
    """(Y V)ᵀ(Y V), of the student's rows about the mean, for directions V (d_y, k)."""
    gram = v.new_zeros(v.shape[1], v.shape[1])
    for _, _, y in rows.chunks():
        inside = (y - mean).to(v.dtype) @ v
        gram.addmm_(inside.T, inside)
    return gram


def _size(rows: Tensor) -> Tensor:
    """Σ|row|², row by row: one dot product of all numbers loses four digits in float32."""
    size: Tensor = torch.linalg.vector_norm(rows, dim=1).square().sum()
    return size


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor,
        index: Tensor | None,
        mean_x: Tensor,
        mean_y: Tensor,
        names: tuple[str, ...],
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x, y, index, mean_x, mean_y)
        ctx.names = names
        widths = {"x": len(mean_x), "y": len(mean_y)}
        size_x, size_y = mean_x.new_zeros(()), mean_y.new_zeros(())
        sums = [mean_x.new_zeros(widths[name[0]], widths[name[1]]) for name in names]
        for _, chunk_x, chunk_y in Rows(x, y, index).chunks((mean_x, mean_y)):
            centred = {"x": chunk_x, "y": chunk_y}
            size_x += _size(centred["x"])
            size_y += _size(centred["y"])
            for total, name in zip(sums, names, strict=True):
                total.addmm_(centred[name[0]].T, centred[name[1]])
        return size_x, size_y, *sums

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, y, index, mean_x, mean_y = ctx.saved_tensors
        names = ("size_x", "size_y", *ctx.names)
        outer = dict(zip(names, (grad.detach() for grad in grads), strict=True))
        inner = [
            torch.zeros_like(features) if needed else None
            for features, needed in zip((x, y), ctx.needs_input_grad[:2], strict=True)
        ]
        for at, a, b in Rows(x, y, index).chunks((mean_x, mean_y)):
            for grad, rows, paired, side in zip(inner, (a, b), (b, a), "xy", strict=True):
                if grad is None:
                    continue
                total = rows * (2 * outer[f"size_{side}"])
                if "xy" in outer:
                    total.addmm_(paired, outer["xy"] if side == "y" else outer["xy"].T)
                if side + side in outer:
                    total.addmm_(rows, outer[side + side] + outer[side + side].T)
                grad[at] = total.to(grad.dtype)
        first = [
            None if grad is None else first_derivative(grad, features)
            for grad, features in zip(inner, (x, y), strict=True)
        ]
        return *first, None, None, None, None
