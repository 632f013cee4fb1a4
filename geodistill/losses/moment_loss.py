"""Losses of second moments, which can include rows of past batches and of other processes.

Moments are additive, so such a loss of the batches of all ranks (`group`), or of a decayed sum of
past batches (`decay`), is exact and needs d × d sums alone.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry.moments import (
    AnyMoments,
    Moments,
    Scale,
    check_scale,
    row_moments,
    scale_factor,
)
from geodistill.geometry.validation import flat_rows, row_dtype
from geodistill.losses.base import NAMES, FeatureLoss
from geodistill.losses.chunked_moments import Rows, Sums, column_sums, products, student_gram
from geodistill.losses.compiled import opaque

Group = Any  # a torch.distributed.ProcessGroup, a name that builds without the backend lack
_SIDES = ("x", "y")


class MomentLoss(FeatureLoss):
    """Base class of losses that are functions of second moments.

    `forward` takes one of four paths; all give the same value for the same rows:

    - Rows, where there are few (on a CPU fewer than the wider side has columns, on a GPU fewer than
      8192) or `compare` needs them.
    - Sums over chunks of rows, where there are many.
    - With `decay`, in training: sums, plus the decayed sums of past batches.
    - With `group`: sums added over the ranks, plus those of past batches if `decay` is set.

    With `decay` the sums of past batches, detached and multiplied by `decay` at each call, are
    added in training mode. The gradient flows through the batch and is multiplied by total over
    batch count, since it would shrink as the past grows. Where the loss depends on the number of
    rows (`scale` None or "rms"), it is that of as many rows as the batch has. The sums are buffers,
    so a resumed run continues with them. Evaluation mode neither reads nor changes them.

    `decay=0.9` corrects most of the bias of a batch, 0.97 also that of batches with fewer rows than
    half the student's columns (chapter 2).

    With `group` every rank returns the loss of the joined batch, and the gradient is that of the
    sum of the ranks' losses: after DDP's averaging it is the gradient of the joined batch. Each
    rank may hold another number of rows, at least one.

    Args:
        center: subtract the column means.
        scale: "frobenius" for unit norm, "rms" for a mean squared row norm of 1, or None.
        decay: of past batches, in (0, 1]; 1 forgets nothing, None is the batch alone.
        group: process group whose batches are joined.

    Attributes:
        products: sums that `compare` needs besides ‖X‖ and ‖Y‖.
        needs_rows: whether `compare` needs more than moments.

    Raises:
        InputError: an unknown scale, or decay is out of its range.

    Example:
        >>> class Overlap(MomentLoss):
        ...     products = ("xy",)
        ...     def compare(self, m):
        ...         return 1 - m.kl
        >>> float(Overlap(decay=0.9)(torch.eye(3), torch.eye(3))) < 0.6
        True
    """

    products: tuple[str, ...] = ("xx", "yy", "xy")
    needs_rows = False
    _relates_rows = True

    def __init__(
        self,
        *,
        center: bool = True,
        scale: Scale = "frobenius",
        decay: float | None = None,
        group: Group = None,
    ) -> None:
        super().__init__()
        if not (decay is None or (isinstance(decay, int | float) and 0 < decay <= 1)):
            raise InputError(f"decay is {decay!r}: expected a number above 0 and up to 1, or None")
        check_scale(scale)
        self.center, self.scale = center, scale
        self.decay, self.group = decay, group

    @opaque
    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of the batch, joined with past batches and other ranks.

        Args:
            student: features (..., d_s).
            teacher: features (..., d_t) of the same rows.
            mask: rows that count (...), True or 1 = keep.

        Raises:
            InputError: unusable features or mask, or widths other than those of past batches.
        """
        rows = Rows(*flat_rows(teacher, student, mask, NAMES))
        batch_alone = self.group is None and not (self.training and self.decay)
        one_row = batch_alone and len(rows) == 1
        self.warn_of_rows(lambda: (chunk[1:] for chunk in rows.chunks()), one_row=one_row)
        with torch.autocast(rows.y.device.type, enabled=False):
            # Of few rows the n × n sums are cheaper; on a GPU rows need fewer launches.
            many = rows.chunk if rows.y.is_cuda else max(teacher.shape[-1], student.shape[-1])
            if batch_alone and (self.needs_rows or len(rows) < many):
                x, y = rows.gather()
                moments = row_moments(x, y, center=self.center, scale=self.scale)
                return self.compare(moments).to(row_dtype(teacher, student))
            sums, share = self._pool(rows)
            value = self.compare(_moments(sums, self.scale, rows if batch_alone else None))
            if not batch_alone:
                value = value + (1 / share - 1) * (value - value.detach())
        return value.to(row_dtype(teacher, student))

    @abstractmethod
    def compare(self, m: AnyMoments) -> Tensor:
        """The scalar, from moments of features centred and scaled."""

    def _pool(self, rows: Rows) -> tuple[Sums, Tensor]:
        """Sums over past and batch about their common mean, and the share of the batch in the rows.

        The sums are multiplied by the share: those of as many rows as the batch has. The sums about
        the mean of all rows are stationary in it, so the mean needs no gradient.
        """
        with torch.no_grad():
            x_sum, y_sum = column_sums(rows)
            past = self._past(x_sum, y_sum)
            n, x_sum, y_sum = _all_reduce([x_sum.new_full((), len(rows)), x_sum, y_sum], self.group)
            total, means = n, {"x": x_sum / n, "y": y_sum / n}
            if past:
                total = n + past["n"]
                means = {
                    side: (batch_sum + past["n"] * past[f"mean_{side}"]) / total
                    for side, batch_sum in zip(_SIDES, (x_sum, y_sum), strict=True)
                }
            if not self.center:
                means = {side: torch.zeros_like(mean) for side, mean in means.items()}
        sums = products(rows, (means["x"], means["y"]), self.products)
        sums = dict(zip(sums, _all_reduce(list(sums.values()), self.group), strict=True))
        if not torch.isfinite(sums["size_x"] + sums["size_y"]):
            rows.gather()  # raises, with the cause
        if past:
            sums = {name: about + sums[name] for name, about in _about(past, means).items()}
        sums |= {"n": total} | {f"mean_{side}": mean for side, mean in means.items()}
        if self.training and self.decay:
            for name, value in sums.items():
                self.register_buffer(f"past_{name}", value.detach())
        share = n / total
        if past:
            sums = {k: v if k.startswith("mean") else v * share for k, v in sums.items()}
        return sums, share

    def _past(self, x: Tensor, y: Tensor) -> Sums:
        """The decayed sums, none at the start; raises InputError if the widths changed."""
        if not (self.training and self.decay and hasattr(self, "past_n")):
            return {}
        past = {name: self.get_buffer(f"past_{name}").to(x) for name in self._memory}
        widths, past_widths = (len(x), len(y)), (len(past["mean_x"]), len(past["mean_y"]))
        if widths != past_widths:
            raise InputError(
                f"widths (teacher, student) are {widths}: expected {past_widths}, "
                "those of the past batches"
            )
        return {n: v if n.startswith("mean") else v * self.decay for n, v in past.items()}

    @property
    def _memory(self) -> tuple[str, ...]:
        """The sums of past batches that this loss needs."""
        return ("n", "mean_x", "mean_y", "size_x", "size_y", *self.products)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Register the saved sums: before the first batch they have no buffers.

        Those of a loss of other sums, or with decay for one without, stay unexpected keys.
        """
        saved = {name: state_dict.get(f"{prefix}past_{name}") for name in self._memory}
        if self.decay and all(value is not None for value in saved.values()):
            for name, value in saved.items():
                self.register_buffer(f"past_{name}", torch.empty_like(value))
        super()._load_from_state_dict(state_dict, prefix, *args)


def _moments(sums: Sums, scale: Scale, rows: Rows | None = None) -> Moments:
    """The sums, of all rows if these are given, scaled as `standardised` scales rows."""
    factor = {side: _factor(sums, side, scale) for side in _SIDES}
    scaled = {
        name: factor[name[0]] * factor[name[1]] * sums[name] if name in sums else sums["n"].new([])
        for name in ("xx", "yy", "xy")
    }
    size_x, size_y = (factor[side] ** 2 * sums[f"size_{side}"] for side in _SIDES)
    refine = None
    if rows is not None:
        square = factor["y"].detach() ** 2
        refine = lambda v: square * student_gram(rows, sums["mean_y"], v)  # noqa: E731
    return Moments(sums["n"], **scaled, refine=refine, sizes=(size_x, size_y))


def _factor(sums: Sums, side: str, scale: Scale) -> Tensor:
    if scale is None:
        return torch.ones_like(sums["n"])
    size, n = sums[f"size_{side}"], sums["n"]
    raw = size.detach() + n * sums[f"mean_{side}"].square().sum()
    return scale_factor(size, raw, n, scale)


def _about(sums: Sums, means: Sums) -> Sums:
    """The same sums about other means (Chan, Golub and LeVeque, 1983)."""
    shift = {side: sums[f"mean_{side}"] - mean for side, mean in means.items()}
    shifted = {f"size_{s}": sums[f"size_{s}"] + sums["n"] * shift[s].square().sum() for s in _SIDES}
    for name in sums.keys() & {"xx", "yy", "xy"}:
        shifted[name] = sums[name] + sums["n"] * shift[name[0]].outer(shift[name[1]])
    return shifted


def _all_reduce(tensors: list[Tensor], group: Group) -> list[Tensor]:
    """Sums over the ranks of the group in one message; without a group the tensors as they are."""
    if group is None:
        return tensors
    flat: Tensor = _AllReduce.apply(torch.cat([t.flatten() for t in tensors]), group)  # type: ignore[no-untyped-call]
    parts = torch.split(flat, [t.numel() for t in tensors])
    return [part.view_as(t) for part, t in zip(parts, tensors, strict=True)]


class _AllReduce(torch.autograd.Function):
    """Sum over ranks; gradients are summed too, as of the sum of the ranks' losses."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Group) -> Tensor:
        ctx.group = group
        total = tensor.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        total = grad.clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None
