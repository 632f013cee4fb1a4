"""Bytes that a term adds to what data parallelism (DDP) reduces over the processes in a step."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks import students
from benchmarks.timing import Row, row
from geodistill.losses import FeatureGramLoss, ProcrustesLoss
from geodistill.losses.moment_loss import MomentLoss


def data_parallel(*, tiny: bool = False) -> list[Row]:
    """Messages of a term over the student's gradients: they depend on the widths, not on the rows.

    Counted in a group of one process, whose messages are those of any number.

    Args:
        tiny: small sizes, to test the script.
    """
    size = students.small(tiny=True) if tiny else students.LARGE
    with torch.device("meta"):
        weights = students.untrained(size, *size.student).parameters()
    gradients = sum(4 * parameter.numel() for parameter in weights)
    widths = size.teacher[1], size.student[1]
    with tempfile.TemporaryDirectory() as folder, process_group(Path(folder)) as group:
        losses = {"Procrustes": ProcrustesLoss(group=group), "Gram": FeatureGramLoss(group=group)}
        messages = {name: messages_of(loss, *widths) for name, loss in losses.items()}
    return [
        row(
            f"data parallel: bytes of {name} over the gradients'",
            f"{size.student[0]} x {size.student[1]}",
            sum(sizes) / gradients,
            bytes=sum(sizes),
            messages=len(sizes),
        )
        for name, sizes in messages.items()
    ]


@contextmanager
def process_group(folder: Path) -> Iterator[Any]:
    """A group of this process alone; `folder` is empty."""
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=0, world_size=1)
    try:
        yield dist.group.WORLD
    finally:
        dist.destroy_process_group()


def messages_of(loss: MomentLoss, teacher_width: int, student_width: int) -> list[int]:
    """Bytes of each message that the loss and its gradient reduce.

    Args:
        loss: with a group.
        teacher_width: of the features.
        student_width: of the features.
    """
    messages: list[int] = []

    def count(tensor: Tensor, **_: object) -> None:
        messages.append(tensor.nbytes)

    torch.manual_seed(0)
    rows = 2 * max(teacher_width, student_width)
    teacher = torch.randn(rows, teacher_width)
    student = torch.randn(rows, student_width, requires_grad=True)
    with patch.object(dist, "all_reduce", count):
        loss(student, teacher).backward()
    return messages
