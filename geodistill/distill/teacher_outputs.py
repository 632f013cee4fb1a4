"""What a teacher gives for a batch, and its logits over the outcomes of a student's."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from geodistill.distill.feature_term import Layer
from geodistill.errors import InputError


@dataclass(frozen=True)
class TeacherOutputs:
    """Outputs of a teacher for one batch.

    Attributes:
        logits: (b, classes), or (n, classes) at the n valid positions; None where a cache holds
            `top` or no logits.
        features: by layer, (b, t, d); from a cache, zeros at positions that are not valid.
        top: from a language model's cache, log-probabilities and token ids, each (n, k).
        masks: valid positions (b, t) of the features of each layer.
        logits_mask: valid positions (b, t) where the logits are of positions, not of examples; None
            where it is not known, as for tokens that a language model was asked for.
    """

    logits: Tensor | None
    features: dict[Layer, Tensor] = field(default_factory=dict)
    top: tuple[Tensor, Tensor] | None = None
    masks: dict[Layer, Tensor] = field(default_factory=dict)
    logits_mask: Tensor | None = None

    def first_nonfinite(self) -> str:
        """Name of the first output with NaN or infinity at a valid position; empty if none has."""
        outputs = {
            f"features of layer {layer}": features[self.masks[layer]]
            for layer, features in sorted(self.features.items(), key=str)
        }
        if self.logits is not None:
            outputs["logits"] = self.logits
        return next((name for name, x in outputs.items() if not x.isfinite().all()), "")

    def aligned_logits(
        self, student: Tensor, mask: Tensor | None = None, *, padded: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Student logits (n, classes) and teacher logits over the same outcomes.

        From a cache the outcomes are the teacher's top k tokens and all others as one. By the data
        processing inequality their Kullback-Leibler divergence is a lower bound of the full one.

        Args:
            student: its logits.
            mask: their valid positions (b, t), if known.
            padded: whether both share a tokenizer; the extra rows of the larger vocabulary then
                stand for no token, and are left out.

        Raises:
            InputError: the vocabularies differ, or the numbers of positions.
        """
        student = student.float()
        self._check_positions(len(student), mask)
        if self.top is not None:
            log_probs, token_ids = self.top
            student_top = student.log_softmax(-1).gather(-1, token_ids)
            return topk_with_tail(student_top), topk_with_tail(log_probs)
        assert self.logits is not None
        if padded:
            n = min(self.logits.shape[-1], student.shape[-1])
            return student[..., :n], self.logits[..., :n]
        if self.logits.shape[-1] != student.shape[-1]:
            raise InputError(
                f"the teacher has {self.logits.shape[-1]} logits, the student "
                f"{student.shape[-1]}; logit distillation needs one tokenizer: "
                "drop logit_loss, or give the student the teacher's"
            )
        return student, self.logits

    def _check_positions(self, n_student: int, mask: Tensor | None) -> None:
        """Raise InputError unless the student has a logit where the teacher has one."""
        logits = self.top[0] if self.top is not None else self.logits
        numbers: list[Any] = [n_student, n_student if logits is None else len(logits)]
        if mask is not None and self.logits_mask is not None:
            numbers = [x.sum(1).tolist() for x in (mask, self.logits_mask)]
        if numbers[0] != numbers[1]:
            raise InputError(
                f"the student gives logits at {numbers[0]} positions, the teacher at {numbers[1]}, "
                "and logit_loss compares them one by one: expected models with the same "
                "positions, or no logit_loss"
            )


def topk_with_tail(log_probs: Tensor) -> Tensor:
    """Append the log of the remaining mass, log(1 - Σ exp), to log-probabilities (n, k)."""
    mass = log_probs.exp().sum(-1, keepdim=True)
    tail = (1 - mass).clamp_min(torch.finfo(log_probs.dtype).eps)
    return torch.cat([log_probs, tail.log()], dim=-1)
