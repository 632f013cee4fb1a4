"""Which layers and tokens a feature loss compares, and its weight; `trainer` attaches the terms."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from operator import index
from typing import Any, SupportsIndex, get_args

import torch
from torch import Tensor, nn

from geodistill.distill.models.heads import has_token_labels, label_rule, text_shape
from geodistill.distill.training import ranks
from geodistill.errors import InputError
from geodistill.geometry.outliers import inlier_mask
from geodistill.geometry.pooling import Pooling, pool_tokens
from geodistill.losses.base import check_module
from geodistill.losses.moment_loss import MomentLoss

Layer = int | str
"""A number as in `hidden_states`, or the path of a module."""


@dataclass(frozen=True)
class FeatureTerm:
    """One feature loss between a teacher layer and a student layer.

    A layer is a number as in `hidden_states` of `transformers`: 0 is the embedding output, k the
    output of block k, -1 the last, which in most decoders (Llama, GPT-2, OPT, Gemma) is after the
    final norm; of an encoder-decoder, the decoder's. Or it is the path of any module, such as
    "encoder.layer.5" or "model.layers.29": then its output, before the final norm. Positions of
    feature maps (b, channels, height, width) are rows.

    Attributes:
        teacher_layer: layer of the teacher, a number or a path.
        student_layer: layer of the student, a number or a path.
        loss: module called as `loss(student, teacher, mask)`; its parameters, if any, are trained.
        weight: factor of the loss; finite, at least 0.
        pooling: "all" compares one row per token (in language models: per labelled token), "first"
            the first valid token of each text, "last" the last one, "mean" the mean over them.
        weight_warmup_batches: 0 uses `weight` as it is. With a positive number n, the gradient
            norms of the base loss and of the term with respect to the student's features are
            measured in the first n micro-batches; from the n-th on the factor is `weight` times
            the ratio of their means, and before it the term is off. (The ratio at step 0 alone
            misleads, above all for decoders.)
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

    teacher_layer: Layer
    student_layer: Layer
    loss: nn.Module
    weight: float = 1.0
    pooling: Pooling = "all"
    weight_warmup_batches: int = 0
    drop_outliers: bool = False

    def __post_init__(self) -> None:
        for name in ("teacher_layer", "student_layer"):
            layer = getattr(self, name)
            is_number = isinstance(layer, SupportsIndex) and not isinstance(layer, bool)
            if is_number:
                object.__setattr__(self, name, index(layer))  # also numpy's, as of a layer map
            elif not isinstance(layer, str) or layer == "":
                raise InputError(
                    f"{name} is {layer!r}; expected an integer, -1 for the last, or the path of a "
                    "module, such as 'encoder.layer.5'"
                )
        check_feature_loss(self.loss)
        if self.pooling not in (poolings := get_args(Pooling)):
            raise InputError(f"pooling is {self.pooling!r}; expected one of {', '.join(poolings)}")
        check_weights(weight=self.weight)
        if self.weight_warmup_batches < 0:
            raise InputError(
                f"weight_warmup_batches is {self.weight_warmup_batches}; expected a number of "
                "micro-batches, 0 for a fixed weight"
            )

    @property
    def name(self) -> str:
        """Short name for logs, such as `ProcrustesLoss[6-3]` (teacher layer, student layer)."""
        return f"{type(self.loss).__name__}[{self.teacher_layer}-{self.student_layer}]"


def check_weights(**weights: float) -> None:
    """Raise InputError unless each weight is finite and at least 0."""
    for name, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise InputError(f"{name} is {weight}; expected a finite number of at least 0")


def check_feature_loss(loss: Any) -> None:
    """Raise InputError unless `loss` is a module called as `loss(student, teacher, mask)`."""
    check_module(loss, "loss", "ProcrustesLoss()")
    of_others = type(loss).__module__.startswith("torch.")
    if of_others or hasattr(loss, "takes_logits") or not _takes_mask(loss):
        raise InputError(
            f"loss is {loss!r}, which is not called as loss(student, teacher, mask) of features: "
            "expected a feature loss, such as ProcrustesLoss()"
        )


def _takes_mask(loss: nn.Module) -> bool:
    try:
        signature(loss.forward).bind(None, None, None)
    except TypeError:
        return False
    return True


def resolve_layer(layer: int, last: int, role: str) -> int:
    """Index in `hidden_states` of a layer, which may count from the last (negative).

    Raises:
        InputError: there are only the layers 0 to `last`; `role` is "teacher" or "student".
    """
    index = layer + last + 1 if layer < 0 else layer
    if not 0 <= index <= last:
        raise InputError(
            f"{role}_layer is {layer}, the {role} has layers 0 (embeddings) to {last}, "
            "or -1 for the last"
        )
    return index


def loss_mask(inputs: Mapping[str, Any], model: Any = None) -> Tensor:
    """Which token positions the losses use, as a (b, t) boolean mask.

    In classification, every token but padding. Where each token has a label (other than -100), the
    labelled positions; in a causal language model, those before a label, since their features
    produce the answer.

    Args:
        inputs: of a batch of texts.
        model: that reads them; None for a causal language model.
    """
    if has_token_labels(inputs, model):
        targets: Tensor = inputs["labels"] != -100
        if model is not None and not label_rule(model).shifted:
            return targets
        return torch.cat([targets[:, 1:], torch.zeros_like(targets[:, :1])], dim=1)
    attention = inputs.get("attention_mask")
    if attention is None:
        shape = text_shape(inputs)
        assert shape is not None, "no texts"
        return torch.ones(shape, dtype=torch.bool, device=inputs["input_ids"].device)
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
        """The factor in use: 0 until the last batch of the warm-up is measured, then constant.

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

        Masks are (b, t) and (b, t'); without a teacher's, the student's holds for both. Of several
        processes, each returns the loss of the rows of all.
        """
        try:
            student, teacher, valid = self.rows(student, teacher, mask, teacher_mask)
            if ranks.count() > 1 and not isinstance(self.loss, MomentLoss):
                student, teacher = (
                    ranks.gather_rows(x.flatten(0, -2) if valid is None else x[valid])
                    for x in (student, teacher)
                )
                valid = None
            loss: Tensor = self.loss(student, teacher, valid)
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from error
        return loss

    def rows(
        self, student: Tensor, teacher: Tensor, mask: Tensor, teacher_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Pooled student and teacher features, and which of their rows count; None for all.

        Raises:
            InputError: positions that do not pair.
        """
        teacher_mask = mask if teacher_mask is None else teacher_mask
        drop, pooling = self.term.drop_outliers, self.term.pooling
        if pooling == "all" and mask is not teacher_mask and not torch.equal(mask, teacher_mask):
            counts = [x.sum(1).tolist()[:3] for x in (teacher_mask, mask)]
            raise InputError(
                f"the teacher has {counts[0]} positions in the first texts or images, the student "
                f"{counts[1]}, and pooling='all' compares them one by one: expected equal ones, or "
                "pooling='mean', 'first' or 'last'"
            )
        if drop and pooling == "mean":
            mask = _inlier_tokens(student, mask)
            teacher_mask = _inlier_tokens(teacher, teacher_mask)
        student, valid = pool_tokens(student, mask, pooling)
        teacher, _ = pool_tokens(teacher, teacher_mask, pooling)
        if drop and pooling != "mean":
            valid = inlier_mask(teacher, student, valid)
        return student, teacher, valid

    def measure(self, base_loss: Tensor, term_loss: Tensor, features: Tensor) -> None:
        """Add one micro-batch's gradient norms at the student's `features` to the warm-up.

        They are those of the batch of all processes, over which gradients are averaged.

        Raises:
            InputError: the features are inside reentrant gradient checkpointing.
        """
        for i, loss in enumerate((base_loss, term_loss)):
            try:
                (gradient,) = torch.autograd.grad(loss, features, retain_graph=True)
            except RuntimeError as error:
                if "use_reentrant" not in str(error):
                    raise
                raise InputError(
                    f"{self.name} measures a gradient inside reentrant checkpointing: expected "
                    "activation_checkpointing_kwargs={'use_reentrant': False}, or "
                    "weight_warmup_batches=0"
                ) from error
            self.gradient_norms[i] += float(ranks.joined_norm(gradient))
        self.batches_measured += 1


def _inlier_tokens(features: Tensor, mask: Tensor) -> Tensor:
    """The mask (b, t) without outlier tokens, of an example of outliers alone as it is."""
    inliers = inlier_mask(features, features, mask)
    return torch.where(inliers.any(1, keepdim=True), inliers, mask)
