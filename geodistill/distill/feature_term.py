"""Which layers and tokens a feature loss compares, and its weight; `trainer` attaches the terms."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

from geodistill.errors import InputError
from geodistill.geometry.outliers import inlier_mask
from geodistill.geometry.pooling import Pooling, pool_tokens
from geodistill.losses.base import check_module


@dataclass(frozen=True)
class FeatureTerm:
    """One feature loss between a teacher layer and a student layer.

    Layers are numbered as in `hidden_states` of `transformers`: 0 is the embedding output, k the
    output of block k, -1 the last.

    Attributes:
        teacher_layer: layer of the teacher.
        student_layer: layer of the student.
        loss: module called as `loss(student, teacher, mask)`; its parameters, if any, are trained.
        weight: factor of the loss; finite, at least 0.
        pooling: "all" compares one row per token (in language models: per labelled token), "first"
            the first valid token of each text, "last" the last one, "mean" the mean over them.
        weight_warmup_batches: 0 uses `weight` as it is. A positive number is a warm-up, in
            micro-batches, during which the term is off and the gradient norms of the base loss and
            of the term with respect to the student's features are measured; afterwards the factor
            is `weight` times the ratio of their means. (The ratio at step 0 alone misleads, above
            all for decoders.)
        drop_outliers: leave out rows that `geometry.inlier_mask` finds to dominate the teacher's or
            the student's features, as the first token of a text does in inner layers of decoders.
            With pooling "mean" each model's outlier tokens are left out of its means.

    Raises:
        InputError: a value outside these ranges.

    Example:
        >>> from geodistill.losses import ProcrustesLoss
        >>> FeatureTerm(teacher_layer=6, student_layer=3, loss=ProcrustesLoss()).name
        'ProcrustesLoss[6-3]'
    """

    teacher_layer: int
    student_layer: int
    loss: nn.Module
    weight: float = 1.0
    pooling: Pooling = "all"
    weight_warmup_batches: int = 0
    drop_outliers: bool = False

    def __post_init__(self) -> None:
        for name in ("teacher_layer", "student_layer"):
            if not isinstance(layer := getattr(self, name), int):
                raise InputError(f"{name} is {layer!r}; expected an integer, -1 for the last")
        check_module(self.loss, "loss", "ProcrustesLoss()")
        if self.pooling not in (poolings := get_args(Pooling)):
            raise InputError(f"pooling is {self.pooling!r}; expected one of {', '.join(poolings)}")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise InputError(f"weight is {self.weight}; expected a finite number of at least 0")
        if self.weight_warmup_batches < 0:
            raise InputError(
                f"weight_warmup_batches is {self.weight_warmup_batches}; expected a number of "
                "micro-batches, 0 for a fixed weight"
            )

    @property
    def name(self) -> str:
        """Short name for logs, such as `ProcrustesLoss[6-3]` (teacher layer, student layer)."""
        return f"{type(self.loss).__name__}[{self.teacher_layer}-{self.student_layer}]"


def resolve_layer(layer: int, config: Any, role: str) -> int:
    """Index in `hidden_states` of a layer, which may count from the last (negative).

    Raises:
        InputError: a model with this `config` has no such layer; `role` is "teacher" or "student".
    """
    last = int(config.num_hidden_layers)
    index = layer + last + 1 if layer < 0 else layer
    if not 0 <= index <= last:
        raise InputError(
            f"{role}_layer is {layer}, the {role} has layers 0 (embeddings) to {last}, "
            "or -1 for the last"
        )
    return index


def has_token_labels(inputs: Mapping[str, Any]) -> bool:
    """Whether each token has a label, as in language modelling, rather than each example."""
    labels = inputs.get("labels")
    return labels is not None and labels.shape == inputs["input_ids"].shape


def loss_mask(inputs: Mapping[str, Any]) -> Tensor:
    """Which token positions the losses use, as a (b, t) boolean mask.

    In classification, every token but padding. In language modelling, the positions whose *next*
    token is a target (label other than -100), since their features produce the response.
    """
    if has_token_labels(inputs):
        targets = inputs["labels"][:, 1:] != -100
        return torch.cat([targets, torch.zeros_like(targets[:, :1])], dim=1)
    attention = inputs.get("attention_mask")
    if attention is None:
        return torch.ones_like(inputs["input_ids"], dtype=torch.bool)
    mask: Tensor = attention.bool()
    return mask


def term_modules(terms: Sequence[FeatureTerm]) -> list[TermModule]:
    """The terms as modules, repeated names numbered; InputError unless all are `FeatureTerm`."""
    if not (isinstance(terms, Sequence) and all(isinstance(term, FeatureTerm) for term in terms)):
        raise InputError(f"terms is {terms!r}: expected a list of FeatureTerm")
    modules = [TermModule(term) for term in terms]
    counts: Counter[str] = Counter()
    for module in modules:
        counts[module.term.name] += 1
        if counts[module.term.name] > 1:
            module.name += f" #{counts[module.term.name]}"
    return modules


class TermModule(nn.Module):
    """A `FeatureTerm` in training: its loss, its weight and the warm-up that sets the weight."""

    def __init__(self, term: FeatureTerm) -> None:
        super().__init__()
        self.term = term
        self.name = term.name
        self.loss = term.loss
        # Sums for the base loss and the term; no buffers, which would be slow to read from a GPU.
        self.gradient_norms = [0.0, 0.0]
        self.batches_measured = 0

    def get_extra_state(self) -> Tensor:
        return torch.tensor([*self.gradient_norms, self.batches_measured], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        *self.gradient_norms, batches = state.tolist()
        self.batches_measured = int(batches)

    @property
    def warming_up(self) -> bool:
        """Whether the weight is still being measured; until then the term is off."""
        return self.batches_measured < self.term.weight_warmup_batches

    @property
    def weight(self) -> float:
        """The factor in use: 0 during the warm-up, constant after it.

        Raises:
            InputError: the base loss or the term had no gradient during the warm-up.
        """
        if self.term.weight_warmup_batches == 0:
            return self.term.weight
        if self.warming_up:
            return 0.0
        base_norm, term_norm = self.gradient_norms
        if base_norm == 0 or term_norm == 0:
            raise InputError(
                f"{self.name if base_norm else 'the base loss'} has no gradient at the student's "
                f"features during the weight warm-up of {self.name}; give a fixed weight "
                "(weight_warmup_batches=0)"
            )
        return self.term.weight * base_norm / term_norm

    def forward(
        self, student: Tensor, teacher: Tensor, mask: Tensor, teacher_mask: Tensor | None = None
    ) -> Tensor:
        """The unweighted loss of features (b, t, d_s), (b, t', d_t) at valid positions.

        Masks are (b, t) and (b, t'); without a teacher's, the student's holds for both.
        """
        teacher_mask = mask if teacher_mask is None else teacher_mask
        drop, pooling = self.term.drop_outliers, self.term.pooling
        try:
            if drop and pooling == "mean":
                mask = _inlier_tokens(student, mask)
                teacher_mask = _inlier_tokens(teacher, teacher_mask)
            student, valid = pool_tokens(student, mask, pooling)
            teacher, _ = pool_tokens(teacher, teacher_mask, pooling)
            if drop and pooling != "mean":
                valid = inlier_mask(teacher, student, valid)
            loss: Tensor = self.loss(student, teacher, valid)
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from error
        return loss

    def measure(self, base_loss: Tensor, term_loss: Tensor, features: Tensor) -> None:
        """Add one micro-batch's gradient norms at the student's `features` to the warm-up."""
        for i, loss in enumerate((base_loss, term_loss)):
            (gradient,) = torch.autograd.grad(loss, features, retain_graph=True)
            self.gradient_norms[i] += float(gradient.norm())
        self.batches_measured += 1


def _inlier_tokens(features: Tensor, mask: Tensor) -> Tensor:
    """The mask (b, t) without outlier tokens, of an example of outliers alone as it is."""
    inliers = inlier_mask(features, features, mask)
    return torch.where(inliers.any(1, keepdim=True), inliers, mask)
