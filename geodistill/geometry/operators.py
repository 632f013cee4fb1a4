"""Own operators in autograd and in graphs of `torch.compile`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


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
