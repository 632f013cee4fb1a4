"""Losses between a student's and a teacher's output distributions."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, logsigmoid, mse_loss

from geodistill.errors import InputError
from geodistill.geometry.validation import check_finite, row_dtype, valid_rows

Kind = Literal["forward", "reverse", "skew"]
SKEW = 0.1  # weight of the teacher in the mixture


class LogitLoss(nn.Module):
    """Base class of losses of student and teacher logits, called as `loss(student, teacher)`.

    Attributes:
        takes_logits: True, which tells a trainer that raw logits are expected. A loss of your own
            needs it too.
        temperature: by which logits are divided.

    Example:
        >>> class LogitCosine(LogitLoss):
        ...     def forward(self, student, teacher):
        ...         return 1 - torch.cosine_similarity(student, teacher).mean()
        >>> float(LogitCosine()(torch.eye(2), 3 * torch.eye(2)))
        0.0
    """

    requires_hidden_states = False
    takes_logits = True
    temperature: float = 1.0


class KLDivergenceLoss(LogitLoss):
    """T² · mean over rows of a divergence of p = softmax(teacher/T) and q = softmax(student/T).

    For heads whose outcomes exclude each other: one label, a token. In nats, ≥ 0, computed in at
    least float32; T² keeps the size of the gradient.

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

    def __init__(self, kind: Kind = "forward", temperature: float = 1.0) -> None:
        super().__init__()
        if kind not in (kinds := get_args(Kind)):
            raise InputError(f"kind is {kind!r}: expected one of {kinds}")
        self.kind, self.temperature = kind, _checked(temperature)

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """The mean over the rows that count.

        Args:
            student_logits: (..., v).
            teacher_logits: (..., v) of the same rows.
            mask: rows that count (...), True = keep.

        Raises:
            InputError: logits that do not pair or are not finite, a mask that keeps no row, or one
                logit, whose softmax is always 1.
        """
        teacher, student = _paired(teacher_logits, student_logits, mask)
        if student.shape[-1] == 1:
            raise InputError(
                "student_logits have 1 class, whose softmax is always 1: expected "
                "SquaredErrorLoss() for regression, BernoulliKLLoss() for one yes or no"
            )
        log_p, log_q = (log_softmax(a / self.temperature, dim=-1) for a in (teacher, student))
        if self.kind == "reverse":
            log_p, log_q = log_q, log_p
        elif self.kind == "skew":
            weights = torch.tensor([SKEW, 1 - SKEW], dtype=log_p.dtype, device=log_p.device).log()
            log_q = torch.logaddexp(log_p + weights[0], log_q + weights[1])
        rows = (log_p.exp() * (log_p - log_q)).sum(-1)
        return rows.mean() * self.temperature**2


class BernoulliKLLoss(LogitLoss):
    """T² · mean over rows of Σ KL(p‖q) of p = sigmoid(teacher/T) and q = sigmoid(student/T).

    For heads of independent labels (multi-label classification), summed over the labels: the
    divergence of their joint distributions. In nats, ≥ 0, computed in at least float32.

    Args:
        temperature: T > 0, finite.

    Raises:
        InputError: a temperature that is not positive and finite.

    Example:
        >>> loss = BernoulliKLLoss()
        >>> f"{loss(torch.tensor([[0.0, 3.0]]), torch.tensor([[2.0, 3.0]])):.3f}"
        '0.328'
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = _checked(temperature)

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """The mean over the rows that count.

        Args:
            student_logits: (..., labels).
            teacher_logits: (..., labels) of the same rows.
            mask: rows that count (...), True = keep.

        Raises:
            InputError: logits that do not pair or are not finite, or a mask that keeps no row.
        """
        teacher, student = _paired(teacher_logits, student_logits, mask)
        x, y = teacher / self.temperature, student / self.temperature
        yes = x.sigmoid() * (logsigmoid(x) - logsigmoid(y))
        no = (-x).sigmoid() * (logsigmoid(-x) - logsigmoid(-y))
        return (yes + no).sum(-1).mean() * self.temperature**2


class SquaredErrorLoss(LogitLoss):
    """Mean squared difference of student and teacher outputs: the logit loss of a regression task.

    Computed in at least float32.

    Example:
        >>> float(SquaredErrorLoss()(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]])))
        2.5
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar, of outputs (..., d) of one shape.

        Raises:
            InputError: outputs of two shapes, not floating point or not finite.
        """
        names = ("student", "teacher")
        for outputs, name in zip((student, teacher), names, strict=True):
            if not outputs.is_floating_point():
                raise InputError(f"{name} has dtype {outputs.dtype}: expected floating point")
        if student.shape != teacher.shape:
            raise InputError(
                f"student outputs have shape {tuple(student.shape)}, the teacher's "
                f"{tuple(teacher.shape)}: expected one shape"
            )
        dtype = row_dtype(student, teacher)
        student, teacher = student.to(dtype), teacher.to(dtype)
        check_finite((student, teacher), names)
        return mse_loss(student, teacher)


_BY_PROBLEM: dict[str, type[LogitLoss]] = {
    "single_label_classification": KLDivergenceLoss,
    "multi_label_classification": BernoulliKLLoss,
    "regression": SquaredErrorLoss,
}


def logit_loss_for(problem_type: str) -> LogitLoss:
    """The logit loss of a kind of head, as `config.problem_type` of `transformers` names it.

    Args:
        problem_type: "single_label_classification" (also of language models),
            "multi_label_classification" or "regression".

    Raises:
        InputError: another kind.

    Example:
        >>> logit_loss_for("multi_label_classification")
        BernoulliKLLoss()
    """
    if problem_type not in _BY_PROBLEM:
        raise InputError(
            f"problem_type is {problem_type!r}: expected one of {', '.join(_BY_PROBLEM)}"
        )
    return _BY_PROBLEM[problem_type]()


def _checked(temperature: float) -> float:
    if not 0 < temperature < math.inf:
        raise InputError(f"temperature is {temperature}: expected a finite number above 0")
    return temperature


def _paired(teacher: Tensor, student: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Valid rows of both; InputError unless they have one width."""
    names = ("teacher_logits", "student_logits")
    x, y, _ = valid_rows(teacher, student, mask, names, order=torch.inf)
    if y.shape[-1] != x.shape[-1]:
        raise InputError(
            f"student_logits have {y.shape[-1]} classes, teacher_logits {x.shape[-1]}: expected "
            "one vocabulary"
        )
    return x, y
