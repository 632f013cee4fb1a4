"""Losses between a student's and a teacher's output distributions."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, mse_loss

from geodistill.errors import InputError
from geodistill.geometry.validation import flatten_valid_rows

Kind = Literal["forward", "reverse", "skew"]
KINDS: tuple[Kind, ...] = ("forward", "reverse", "skew")
SKEW = 0.1  # weight of the teacher in the mixture


class KLDivergenceLoss(nn.Module):
    """T² · mean over rows of a divergence of p = softmax(teacher/T) and q = softmax(student/T).

    In nats, ≥ 0, computed in at least float32; T² keeps the size of the gradient.

    Args:
        kind: "forward" KL(p‖q) (Hinton et al., 2015); "reverse" KL(q‖p); "skew" KL(p‖0.1 p + 0.9 q)
            (Ko et al., 2024, DistiLLM), bounded by log 10.
        temperature: T > 0, finite.

    Raises:
        InputError: an unknown kind or a temperature that is not positive and finite.

    Example:
        >>> loss = KLDivergenceLoss(temperature=2.0)
        >>> f"{loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[4.0, 0.0]])):.3f}"
        '1.311'
    """

    requires_hidden_states = False

    def __init__(self, kind: Kind = "forward", temperature: float = 1.0) -> None:
        super().__init__()
        if kind not in KINDS:
            raise InputError(f"kind is {kind!r}: expected one of {KINDS}")
        if not 0 < temperature < math.inf:
            raise InputError(f"temperature is {temperature}: expected a finite number above 0")
        self.kind, self.temperature = kind, temperature

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """The mean over the rows that count.

        Args:
            student_logits: (..., v).
            teacher_logits: (..., v) of the same rows.
            mask: rows that count (...), True = keep.

        Raises:
            InputError: logits that do not pair or are not finite, or a mask that keeps no row.
        """
        names = ("teacher_logits", "student_logits")
        teacher, student = flatten_valid_rows(teacher_logits, student_logits, mask, names)
        if student.shape[-1] != teacher.shape[-1]:
            raise InputError(
                f"student_logits have {student.shape[-1]} classes, teacher_logits "
                f"{teacher.shape[-1]}: expected one vocabulary"
            )
        log_p, log_q = (log_softmax(a / self.temperature, dim=-1) for a in (teacher, student))
        if self.kind == "reverse":
            log_p, log_q = log_q, log_p
        elif self.kind == "skew":
            weights = torch.tensor([SKEW, 1 - SKEW], dtype=log_p.dtype, device=log_p.device).log()
            log_q = torch.logaddexp(log_p + weights[0], log_q + weights[1])
        rows = (log_p.exp() * (log_p - log_q)).sum(-1)
        return rows.mean() * self.temperature**2


class SquaredErrorLoss(nn.Module):
    """Mean squared difference of student and teacher outputs: the logit loss of a regression task.

    Example:
        >>> float(SquaredErrorLoss()(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]])))
        2.5
    """

    requires_hidden_states = False
    temperature = 1.0

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar, of outputs (..., d) of one shape."""
        return mse_loss(student, teacher)
