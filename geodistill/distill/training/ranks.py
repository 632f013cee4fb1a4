"""Several processes that train one student: joined rows, reduced norms, equal terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from geodistill.errors import InputError
from geodistill.losses.moment_loss import MomentLoss


def count() -> int:
    """Number of processes, 1 outside of `torch.distributed`."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def check_processes(gpus: int, sharded: bool) -> None:
    """Raise InputError for a parallel run that splits the rows of a batch, or the weights."""
    if gpus > 1:
        raise InputError(
            f"one process has {gpus} GPUs, over which each batch would be split: expected one "
            f"process per GPU (torchrun --nproc-per-node {gpus} ...), or one GPU "
            "(CUDA_VISIBLE_DEVICES=0)"
        )
    if sharded:
        raise InputError(
            "the training arguments ask for FSDP or DeepSpeed, with which distillation is not "
            "supported: expected plain data parallelism (torchrun without fsdp and deepspeed)"
        )


def join(terms: nn.Module) -> None:
    """Give all processes the first one's terms, and moment losses the group of all."""
    if count() == 1:
        return
    for tensor in terms.state_dict(keep_vars=True).values():
        if isinstance(tensor, Tensor) and tensor.numel():
            dist.broadcast(tensor.data, src=0)
    for term in terms.children():
        loss = getattr(term, "loss", None)
        if isinstance(loss, MomentLoss) and loss.group is None:
            loss.group = dist.group.WORLD


def gather_rows(rows: Tensor) -> Tensor:
    """The rows (n, d) of all processes, in their order; n may differ.

    The gradient is that of the sum of the processes' losses: averaged over processes, that of the
    joined batch.
    """
    joined: Tensor = _GatherRows.apply(rows)  # type: ignore[no-untyped-call]
    return joined


def joined_norm(gradient: Tensor) -> Tensor:
    """Norm of the gradient at the features of all processes, each over their number."""
    norm: Tensor = torch.linalg.vector_norm(gradient)
    if count() > 1:
        squares = norm.float() ** 2
        dist.all_reduce(squares)
        norm = squares.sqrt() / count()
    return norm


def average_gradients(terms: nn.Module) -> None:
    """Average the gradients of the terms' parameters, which no DDP wraps, over processes."""
    if count() > 1:
        for parameter in terms.parameters():
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= count()


def means(values: Mapping[str, float], device: Any) -> dict[str, float]:
    """The mean of each value over processes, which must have the same names."""
    if count() == 1 or not values:
        return dict(values)
    names = sorted(values)
    dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
    total = torch.tensor([values[name] for name in names], dtype=dtype, device=device)
    dist.all_reduce(total)
    return dict(zip(names, (total / count()).tolist(), strict=True))


class _GatherRows(torch.autograd.Function):
    """Rows of all processes; gradients are summed over them."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        lengths = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(count())]
        dist.all_gather(lengths, torch.tensor([len(rows)], device=rows.device))
        sizes = [int(length) for length in lengths]
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        gathered = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(gathered, padded)
        ctx.begin, ctx.n = sum(sizes[: dist.get_rank()]), len(rows)
        return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.begin : ctx.begin + ctx.n]
