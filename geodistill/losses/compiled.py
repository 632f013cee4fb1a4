"""Feature losses in code that `torch.compile` traces: one operator, without a graph break.

A loss branches on values (rows that a mask keeps, ranks, outliers), which a graph cannot. So the
graph holds one operator, which runs the loss as it is, and returns value and gradients at once.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from itertools import compress
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from geodistill.geometry.operators import define_operator
from geodistill.geometry.validation import row_dtype

Forward = Callable[..., Tensor]
_LOSSES: WeakValueDictionary[int, nn.Module] = WeakValueDictionary()
# Those of plain code: the operator may be called where autograd's keys are left out.
_KEYS = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()


class Opaque(nn.Module):
    """Base class of losses whose `forward` is `@opaque`; the operator finds them by their id."""

    def __init__(self) -> None:
        super().__init__()
        _LOSSES[id(self)] = self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        _LOSSES[id(self)] = self  # a copy, or a loss that was pickled


def opaque(forward: Forward) -> Forward:
    """A `forward` of student, teacher and mask, by any names: in compiled code one operator."""
    names = list(inspect.signature(forward).parameters)[1:]

    @functools.wraps(forward)
    def wrapped(self: Opaque, *args: Any, **named: Any) -> Tensor:
        if not torch.compiler.is_compiling():
            return forward(self, *args, **named)
        named.update(zip(names[: len(args)], args, strict=True))
        mask = named.get(names[2])
        inputs = (named[names[0]], named[names[1]], *self.parameters())
        needed = [torch.is_grad_enabled() and t.requires_grad for t in inputs]
        if not any(needed):
            return torch.ops.geodistill.loss(inputs, mask, id(self), needed)[0]  # type: ignore[no-any-return]
        value: Tensor = _Call.apply(mask, id(self), needed, *inputs)  # type: ignore[no-untyped-call]
        return value

    return wrapped


class _Call(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, mask: Tensor | None, loss: int, needed: list[bool], *inputs: Tensor
    ) -> Tensor:
        value, *gradients = torch.ops.geodistill.loss(inputs, mask, loss, needed)
        ctx.save_for_backward(*gradients)
        ctx.needed, ctx.dtypes = needed, [t.dtype for t in inputs]
        return value  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradients = iter(ctx.saved_tensors)
        scaled = [
            (grad * next(gradients)).to(dtype) if needed else None
            for needed, dtype in zip(ctx.needed, ctx.dtypes, strict=True)
        ]
        return None, None, None, *scaled


def _run(inputs: list[Tensor], mask: Tensor | None, loss: int, needed: list[bool]) -> list[Tensor]:
    """Value and gradients of student, teacher and parameters, as far as needed."""
    module = _LOSSES[loss]
    with torch._C._ForceDispatchKeyGuard(*_KEYS), torch.set_grad_enabled(any(needed)):
        # In at least float32: loss scaling comes after it.
        rows = [t.detach().to(torch.promote_types(t.dtype, torch.float32)) for t in inputs[:2]]
        leaves = [t.requires_grad_(need) for t, need in zip(rows, needed, strict=False)]
        value = module(*leaves, mask)
        wanted = list(compress([*leaves, *module.parameters()], needed))
        gradients = tuple(torch.zeros_like(t) for t in wanted)
        if value.requires_grad:
            gradients = torch.autograd.grad(value, wanted, materialize_grads=True)
    return [value.detach(), *(gradient.contiguous() for gradient in gradients)]


def _shapes(
    inputs: list[Tensor], mask: Tensor | None, loss: int, needed: list[bool]
) -> list[Tensor]:
    student, teacher, *parameters = inputs
    rows = [
        t.new_empty(t.shape, dtype=torch.promote_types(t.dtype, torch.float32)) for t in inputs[:2]
    ]
    wanted = compress([*rows, *(p.new_empty(p.shape) for p in parameters)], needed)
    return [student.new_empty((), dtype=row_dtype(teacher, student)), *wanted]


define_operator(
    "loss",
    "(Tensor[] inputs, Tensor? mask, int loss, bool[] needed) -> Tensor[]",
    _run,
    _shapes,
)
