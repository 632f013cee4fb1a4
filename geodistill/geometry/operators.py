"""Roots and quotients with finite gradients; own operators in autograd and in compiled graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def trace(a: Tensor) -> Tensor:
    return a.diagonal(dim1=-2, dim2=-1).sum(-1)


def safe_sqrt(a: Tensor) -> Tensor:
    """√max(a, 0) with gradient 0, not infinity, where a ≤ 0 (as rounding may leave a square)."""
    positive = a > 0
    return torch.where(positive, torch.where(positive, a, 1).sqrt(), 0)


def safe_divide(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 with gradient 0 where b is not positive."""
    positive = b > 0
    return torch.where(positive, a / torch.where(positive, b, 1), 0)


def define_operator(name: str, schema: str, run: Callable[..., Any], shapes: Any) -> None:
    """Define `torch.ops.geodistill.<name>`, which a graph calls and does not look inside.

    So code that branches on values needs no graph break.

    Args:
        name: of the operator.
        schema: its arguments and results, in PyTorch's notation.
        run: called on tensors; it returns contiguous ones.
        shapes: called on tensors without values; it returns empty ones of the results' shapes.
    """
    tags = [torch.Tag.nondeterministic_seeded]  # equal calls are not merged
    if hasattr(torch.Tag, "cudagraph_unsafe"):  # since PyTorch 2.9; the code waits for values
        tags.append(torch.Tag.cudagraph_unsafe)
    torch.library.define(f"geodistill::{name}", schema, tags=tags)
    torch.library.impl(f"geodistill::{name}", "CompositeExplicitAutograd", run)
    torch.library.register_fake(f"geodistill::{name}", shapes)


def needs_gradient(x: Tensor) -> bool:
    """Whether autograd records what is done with x."""
    return torch.is_grad_enabled() and x.requires_grad


def first_derivative(gradient: Tensor, of: Tensor) -> Tensor:
    """The gradient, with a RuntimeError if it is differentiated again in `of`.

    PyTorch's `once_differentiable` raises only if the incoming gradient is differentiated; a
    Hessian would come out as zeros.
    """
    if not torch.is_grad_enabled():  # without create_graph
        return gradient
    once: Tensor = _Once.apply(gradient, of)  # type: ignore[no-untyped-call]
    return once


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, of: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> None:
        raise RuntimeError(
            "a second derivative of geodistill's nuclear norm or losses: expected one derivative"
        )
