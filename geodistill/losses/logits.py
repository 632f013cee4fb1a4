"""Losses between a student's and a teacher's output distributions."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from geodistill.errors import InputError
from geodistill.geometry.validation import kept_rows

Kind = Literal["forward", "reverse", "skew"]
KINDS: tuple[Kind, ...] = ("forward", "reverse", "skew")
SKEW = 0.1  # share of the teacher in the mixture


class KLDivergenceLoss(nn.Module):
    """T² · mean over rows of a divergence of p = softmax(teacher/T) and q = softmax(student/T).

    "forward" KL(p‖q) (Hinton et al., 2015); "reverse" KL(q‖p); "skew" KL(p‖0.1 p + 0.9 q) (Ko et
    al., 2024, DistiLLM), bounded by log 10. In nats, ≥ 0; T² keeps the gradient's size.

    `loss(student_logits, teacher_logits, mask=None) -> scalar`: logits (..., v), mask (...) of the
    rows to keep, averaged over those alone. Computed in at least float32. Raises InputError for
    logits that do not pair or are not finite, and where the mask keeps no row.
    """

    requires_hidden_states = False

    def __init__(self, kind: Kind = "forward", temperature: float = 1.0) -> None:
        super().__init__()
        if kind not in KINDS:
            raise InputError(f"kind is {kind!r}: expected one of {KINDS}")
        if not temperature > 0:
            raise InputError(f"temperature is {temperature}: expected a number above 0")
        self.kind, self.temperature = kind, temperature

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        names = ("teacher_logits", "student_logits")
        teacher, student = kept_rows(teacher_logits, student_logits, mask, names)
        if student.shape[-1] != teacher.shape[-1]:
            raise InputError(
                f"student_logits have {student.shape[-1]} classes, teacher_logits "
                f"{teacher.shape[-1]}: expected one vocabulary"
            )
        log_p, log_q = (log_softmax(a / self.temperature, dim=-1) for a in (teacher, student))
        if self.kind == "reverse":
            log_p, log_q = log_q, log_p
        elif self.kind == "skew":
            shares = torch.tensor([SKEW, 1 - SKEW], dtype=log_p.dtype, device=log_p.device).log()
            log_q = torch.logaddexp(log_p + shares[0], log_q + shares[1])
        rows = (log_p.exp() * (log_p - log_q)).sum(-1)
        return rows.mean() * self.temperature**2
