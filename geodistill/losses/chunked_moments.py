"""Sums over the rows that count, a few rows at a time, with their gradient.

A loss of moments needs d × d sums of its rows, not the rows: neither the kept rows, nor the centred
ones, nor those in float32 are ever copied as a whole, in the forward pass or the backward. So the
memory beyond the features and their own gradient does not grow with the rows, once they are more
than a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from geodistill.geometry.nuclear_norm import first_derivative
from geodistill.geometry.validation import check_finite, flat_rows, row_dtype
from geodistill.losses.base import NAMES

CHUNK = 1024  # rows at a time: large enough for a full-speed product, small enough for the cache
GPU_CHUNK = 8192  # there a product of few rows is over before the next one is asked for
Sums = dict[str, Tensor]


@dataclass(frozen=True)
class Rows:
    """The rows of teacher x (n, d_x) and student y (n, d_y) at `places` (k,), or all of them."""

    x: Tensor
    y: Tensor
    places: Tensor | None

    @property
    def dtype(self) -> torch.dtype:
        """Of the sums: at least float32."""
        return row_dtype(self.x, self.y)

    @classmethod
    def of(cls, student: Tensor, teacher: Tensor, mask: Tensor | None) -> Rows:
        """Those that the mask keeps; raises InputError unless the features pair."""
        return cls(*flat_rows(teacher, student, mask, NAMES))

    def __len__(self) -> int:
        return len(self.x if self.places is None else self.places)

    @property
    def chunk(self) -> int:
        """Most rows that are copied at a time."""
        return GPU_CHUNK if self.y.is_cuda else CHUNK

    def chunks(self) -> Iterator[tuple[slice | Tensor, Tensor, Tensor]]:
        """Where some rows stand, and what they are in both features."""
        for start in range(0, len(self), self.chunk):
            where: slice | Tensor = slice(start, start + self.chunk)
            if self.places is not None:
                where = self.places[where]
            yield where, self.x[where].to(self.dtype), self.y[where].to(self.dtype)

    def gathered(self) -> tuple[Tensor, Tensor]:
        """All of them at once, checked: (k, d_x), (k, d_y)."""
        x, y = self.x, self.y
        if self.places is not None:
            x, y = x[self.places], y[self.places]
        x, y = x.to(self.dtype), y.to(self.dtype)
        check_finite((x, y), NAMES)
        return x, y


@torch.no_grad()
def column_sums(rows: Rows) -> tuple[Tensor, Tensor]:
    """Σx (d_x,), Σy (d_y,); raises InputError where a row is not finite or too large."""
    x_sum, y_sum = (f.new_zeros(f.shape[-1], dtype=rows.dtype) for f in (rows.x, rows.y))
    for _, x, y in rows.chunks():
        x_sum += x.sum(0)
        y_sum += y.sum(0)
    if not torch.isfinite(x_sum.sum() + y_sum.sum()):
        rows.gathered()  # says what is not, or overflows
    return x_sum, y_sum


def products(rows: Rows, means: tuple[Tensor, Tensor], names: tuple[str, ...]) -> Sums:
    """`size_x` Σ|x − mean|², `size_y`, and of "xx", "yy", "xy" the named Σ(x − mean)(y − mean)ᵀ.

    Differentiable once, in x and y; the means are taken as given.
    """
    found: tuple[Tensor, ...] = _apply(rows.x, rows.y, rows.places, *means, names)
    return dict(zip(("size_x", "size_y", *names), found, strict=True))


def _size(rows: Tensor) -> Tensor:
    """Σ|row|². Row by row: one dot product of all numbers loses four digits in float32."""
    size: Tensor = torch.linalg.vector_norm(rows, dim=1).square().sum()
    return size


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor,
        places: Tensor | None,
        mean_x: Tensor,
        mean_y: Tensor,
        names: tuple[str, ...],
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x, y, places, mean_x, mean_y)
        ctx.names = names
        means = {"x": mean_x, "y": mean_y}
        size_x, size_y = mean_x.new_zeros(()), mean_y.new_zeros(())
        sums = [mean_x.new_zeros(len(means[name[0]]), len(means[name[1]])) for name in names]
        for _, a, b in Rows(x, y, places).chunks():
            of = {"x": a - mean_x, "y": b - mean_y}
            size_x += _size(of["x"])
            size_y += _size(of["y"])
            for total, name in zip(sums, names, strict=True):
                total.addmm_(of[name[0]].T, of[name[1]])
        return size_x, size_y, *sums

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, y, places, mean_x, mean_y = ctx.saved_tensors
        of = dict(zip(("size_x", "size_y", *ctx.names), (g.detach() for g in grads), strict=True))
        wanted = [
            torch.zeros_like(features) if needed else None
            for features, needed in zip((x, y), ctx.needs_input_grad[:2], strict=True)
        ]
        for where, a, b in Rows(x, y, places).chunks():
            a, b = a - mean_x, b - mean_y
            for grad, own, other, side in zip(wanted, (a, b), (b, a), "xy", strict=True):
                if grad is None:
                    continue
                rows = own * (2 * of[f"size_{side}"])
                if "xy" in of:
                    rows.addmm_(other, of["xy"] if side == "y" else of["xy"].T)
                if side + side in of:
                    rows.addmm_(own, of[side + side] + of[side + side].T)
                grad[where] = rows.to(grad.dtype)
        first = [
            None if grad is None else first_derivative(grad, features)
            for grad, features in zip(wanted, (x, y), strict=True)
        ]
        return *first, None, None, None, None


# A compiler gains nothing on large products: `torch.compile` steps around them.
_apply = torch.compiler.disable(_Products.apply)  # type: ignore[no-untyped-call]
