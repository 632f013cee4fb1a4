"""Losses of second moments, which may see more rows than one batch of one process.

Moments add. So such a loss can be that of the batch joined over all ranks (`group`), and of a
decayed sum of past batches (`memory`), exactly, by d × d sums alone.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry.moments import AnyMoments, Moments, Scale, noise, row_moments
from geodistill.losses.base import FeatureLoss, known_scale
from geodistill.losses.chunked_moments import Rows, Sums, column_sums, products

Group = Any  # a torch.distributed.ProcessGroup; that name is missing where torch lacks the backend
_SIDES = ("x", "y")


class MomentLoss(FeatureLoss):
    """A loss of moments alone, of the batch or of the rows that `memory` and `group` add to it.

    `memory` in (0, 1] keeps, in training mode, the sums of past batches, detached and multiplied by
    `memory` at each call (1 forgets nothing); the loss is that of past and batch together. Its
    gradient flows through the batch and is multiplied by total over batch count, or it would shrink
    as the past grows. The sums are buffers, so a resumed run goes on alike. In evaluation mode the
    past is neither read nor changed: held-out rows are compared alone.

    `group`, a process group, joins the batches of its ranks; each may hold another number of rows,
    but at least one. Every rank returns the loss of the joined batch, and the gradient is that of
    the sum of the ranks' losses, so DDP's averaging leaves the gradient of the joined batch.
    """

    products: tuple[str, ...] = ("xx", "yy", "xy")  # what `compare` asks for, besides ‖X‖ and ‖Y‖
    needs_rows = False  # whether `compare` asks for more than moments

    def __init__(
        self,
        *,
        center: bool = True,
        scale: Scale = "frobenius",
        memory: float | None = None,
        group: Group = None,
    ) -> None:
        super().__init__()
        known = memory is None or (isinstance(memory, int | float) and 0 < memory <= 1)
        if not known:
            raise InputError(f"memory is {memory!r}: expected a decay above 0 and up to 1, or None")
        self.center, self.scale = center, known_scale(scale)
        self.memory, self.group = memory, group

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        rows = Rows.of(student, teacher, mask)
        with torch.autocast(rows.y.device.type, enabled=False):
            alone = self.group is None and not (self.training and self.memory)
            # Few rows: n × n sums cost less. On a GPU each operation costs, and rows have fewer.
            many = rows.chunk if rows.y.is_cuda else max(teacher.shape[-1], student.shape[-1])
            few = len(rows) < many
            if alone and (self.needs_rows or few):
                x, y = rows.gathered()
                return self.compare(row_moments(x, y, center=self.center, scale=self.scale))
            total, n = self._pool(rows)
            value = self.compare(_moments(total, self.scale))
        if alone:
            return value
        return value + (total["n"] / n - 1) * (value - value.detach())

    @abstractmethod
    def compare(self, m: AnyMoments) -> Tensor:
        """The scalar, from moments of features centred and scaled."""

    def _pool(self, rows: Rows) -> tuple[Sums, Tensor]:
        """Sums over past and batch about their common mean, and the number of rows in the batch.

        About the mean of all these rows the sums do not change with it to first order, so the mean
        needs no gradient.
        """
        with torch.no_grad():
            x_sum, y_sum = column_sums(rows)
            past = self._past(x_sum, y_sum)
            n, x_sum, y_sum = _all_reduce([x_sum.new_full((), len(rows)), x_sum, y_sum], self.group)
            total = n + past["n"]
            means = {
                side: (batch_sum + past["n"] * past[f"mean_{side}"]) / total
                for side, batch_sum in zip(_SIDES, (x_sum, y_sum), strict=True)
            }
            if not self.center:
                means = {side: torch.zeros_like(mean) for side, mean in means.items()}
        batch = products(rows, (means["x"], means["y"]), self.products)
        batch = dict(zip(batch, _all_reduce(list(batch.values()), self.group), strict=True))
        if not torch.isfinite(batch["size_x"] + batch["size_y"]):
            rows.gathered()  # says whose squares overflow
        moved = _about(past, means)
        sums = {name: moved[name] + value for name, value in batch.items()}
        sums |= {"n": total} | {f"mean_{side}": mean for side, mean in means.items()}
        if self.training and self.memory:
            for name, value in sums.items():
                self.register_buffer(f"past_{name}", value.detach())
        return sums, n

    def _past(self, x: Tensor, y: Tensor) -> Sums:
        """The decayed sums, zero at the start; raises InputError if the widths changed."""
        width = {"x": x.shape[-1], "y": y.shape[-1]}
        shapes: dict[str, tuple[int, ...]] = {"n": (), "size_x": (), "size_y": ()}
        shapes |= {f"mean_{side}": (width[side],) for side in _SIDES}
        shapes |= {name: (width[name[0]], width[name[1]]) for name in self.products}
        if not (self.training and self.memory and hasattr(self, "past_n")):
            return {name: x.new_zeros(()).expand(shape) for name, shape in shapes.items()}
        past = {name: self.get_buffer(f"past_{name}").to(x) for name in shapes}
        held = tuple(past[f"mean_{side}"].shape[0] for side in _SIDES)
        if held != tuple(width.values()):
            raise InputError(
                f"widths (teacher, student) are {tuple(width.values())}: expected {held}, "
                "those of the past batches in memory"
            )
        kept = {n: v if n.startswith("mean") else v * self.memory for n, v in past.items()}
        return kept

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """The past has a shape only once there is one: make room for what was saved."""
        for key, value in state_dict.items():
            name = key.removeprefix(prefix)
            if key == prefix + name and name.startswith("past_"):
                self.register_buffer(name, torch.empty_like(value))
        super()._load_from_state_dict(state_dict, prefix, *args)


@dataclass(frozen=True, kw_only=True)
class _PooledMoments(Moments):
    """`Moments` with the sizes beside them: a loss may ask of XᵀX no more than its trace."""

    sizes: tuple[Tensor, Tensor]

    @property
    def size_x(self) -> Tensor:
        return self.sizes[0]

    @property
    def size_y(self) -> Tensor:
        return self.sizes[1]


def _moments(sums: Sums, scale: Scale) -> Moments:
    """The sums, scaled as `standardised` scales rows."""
    factor = {side: torch.ones_like(sums["n"]) for side in _SIDES}
    if scale is not None:
        factor = {side: _inverse_norm(sums, side) for side in _SIDES}
    if scale == "rms":
        factor = {side: a * sums["n"].sqrt() for side, a in factor.items()}
    scaled = {
        name: factor[name[0]] * factor[name[1]] * sums[name] if name in sums else sums["n"].new([])
        for name in ("xx", "yy", "xy")
    }
    sizes = tuple(factor[side] ** 2 * sums[f"size_{side}"] for side in _SIDES)
    return _PooledMoments(n=sums["n"], sizes=(sizes[0], sizes[1]), **scaled)


def _inverse_norm(sums: Sums, side: str) -> Tensor:
    """1/‖X‖_F, and 0 where all rows are equal but for rounding."""
    size, mean = sums[f"size_{side}"], sums[f"mean_{side}"]
    raw = size.detach() + sums["n"] * mean.square().sum()
    varies = size > noise(raw, size.dtype)
    return torch.where(varies, torch.where(varies, size, 1).rsqrt(), 0)


def _about(sums: Sums, means: Sums) -> Sums:
    """The same sums about other means (Chan, Golub and LeVeque, 1983)."""
    shift = {side: sums[f"mean_{side}"] - mean for side, mean in means.items()}
    moved = {f"size_{s}": sums[f"size_{s}"] + sums["n"] * shift[s].square().sum() for s in _SIDES}
    for name in sums.keys() & {"xx", "yy", "xy"}:
        moved[name] = sums[name] + sums["n"] * shift[name[0]].outer(shift[name[1]])
    return moved


def _all_reduce(tensors: list[Tensor], group: Group) -> list[Tensor]:
    """Sums over the ranks of the group, in one message; the tensors themselves without a group."""
    if group is None:
        return tensors
    flat: Tensor = _AllReduce.apply(torch.cat([t.flatten() for t in tensors]), group)  # type: ignore[no-untyped-call]
    parts = torch.split(flat, [t.numel() for t in tensors])
    return [part.view_as(t) for part, t in zip(parts, tensors, strict=True)]


class _AllReduce(torch.autograd.Function):
    """Sum over ranks. Its gradient is summed too: that of the sum of all ranks' losses."""

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
