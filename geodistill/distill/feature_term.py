"""What a feature term compares: which layers, which rows, by which loss, at which weight."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from geodistill.errors import InputError
from geodistill.losses.base import check_module

Rows = Literal["all", "first", "mean", "last"]


@dataclass(frozen=True)
class FeatureTerm:
    """One feature loss between a teacher layer and a student layer.

    Layers count as in `transformers`' `hidden_states`: 0 is the embeddings' output, k the output of
    block k, -1 the last.

    Attributes:
        teacher_layer: layer of the teacher.
        student_layer: layer of the student.
        loss: module called as `loss(student, teacher, mask)`; its parameters, if any, are trained.
        weight: factor of the loss; finite, at least 0.
        rows: "all" gives one row a token (for language models: a response token), "first" the
            first kept token, "last" the last one, "mean" the mean over kept tokens.
        balance: 0 uses `weight` as it is. A positive number of micro-batches measures, with the
            term switched off, the gradient norms of the base loss and of the term at the student's
            features; from the last of them on the factor is `weight` times the ratio of the two
            means. (At step 0 alone the ratio misleads, most of all for decoders.)
    """

    teacher_layer: int
    student_layer: int
    loss: nn.Module
    weight: float = 1.0
    rows: Rows = "all"
    balance: int = 0

    def __post_init__(self) -> None:
        for name in ("teacher_layer", "student_layer"):
            if not isinstance(layer := getattr(self, name), int):
                raise InputError(f"{name} is {layer!r}; expected a whole number, -1 for the last")
        check_module(self.loss, "loss", "ProcrustesLoss()")
        if self.rows not in get_args(Rows):
            raise InputError(f"rows is {self.rows!r}; expected one of {', '.join(get_args(Rows))}")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise InputError(f"weight is {self.weight}; expected a finite number of at least 0")
        if self.balance < 0:
            raise InputError(
                f"balance is {self.balance}; expected a number of micro-batches, 0 for none"
            )

    @property
    def name(self) -> str:
        """Short name for logs, such as `ProcrustesLoss[6-3]` (teacher layer, student layer)."""
        return f"{type(self.loss).__name__}[{self.teacher_layer}-{self.student_layer}]"


def resolve_layer(layer: int, config: Any, owner: str) -> int:
    """Index of `layer` in the `hidden_states` of a model with this `config`.

    Raises:
        InputError: the model has no such layer; `owner` ("teacher" or "student") is named.
    """
    last = int(config.num_hidden_layers)
    index = layer + last + 1 if layer < 0 else layer
    if not 0 <= index <= last:
        raise InputError(
            f"{owner}_layer is {layer}, the {owner} has layers 0 (embeddings) to {last}, "
            "or -1 for the last"
        )
    return index


def labels_tokens(inputs: dict[str, Any]) -> bool:
    """Whether every token has a label, as in language modelling, and not every example."""
    labels = inputs.get("labels")
    return labels is not None and labels.shape == inputs["input_ids"].shape


def kept_rows(inputs: dict[str, Any]) -> Tensor:
    """Which token positions take part, as a (b, t) boolean mask.

    Classification keeps every token that is not padding. Language modelling keeps the positions
    whose *next* token is a target (label other than -100): those features make the response.
    """
    attention = inputs.get("attention_mask")
    ids = inputs["input_ids"]
    if labels_tokens(inputs):
        targets = inputs["labels"][:, 1:] != -100
        return torch.cat([targets, torch.zeros_like(targets[:, :1])], dim=1)
    return torch.ones_like(ids, dtype=torch.bool) if attention is None else attention.bool()


def select_rows(features: Tensor, mask: Tensor, rows: Rows) -> tuple[Tensor, Tensor | None]:
    """Features (b, t, d) and mask (b, t) as the rows that a loss compares.

    Returns:
        (b, t, d) with its mask for "all"; (b, d) and None for "first", "last" and "mean".

    Raises:
        InputError: an example has no kept token, for all but "all".
    """
    if rows == "all":
        return features, mask
    if not bool(mask.any(dim=1).all()):
        empty = int((~mask.any(1)).nonzero()[0])
        raise InputError(f"mask keeps no token of example {empty}; leave such examples out")
    if rows == "mean":
        weight = mask.unsqueeze(-1).to(features.dtype)
        return (features * weight).sum(1) / weight.sum(1), None
    # argmax takes the first of equal values.
    backwards = rows == "last"
    place = (mask.flip(1) if backwards else mask).int().argmax(dim=1)
    chosen = mask.shape[1] - 1 - place if backwards else place
    return features[torch.arange(len(features), device=mask.device), chosen], None


def balanced(terms: Sequence[FeatureTerm]) -> list[BalancedTerm]:
    """The terms as modules, each with a name of its own: equal ones are numbered.

    Raises:
        InputError: they are no list of `FeatureTerm`.
    """
    if not (isinstance(terms, Sequence) and all(isinstance(one, FeatureTerm) for one in terms)):
        raise InputError(f"terms is {terms!r}: expected a list of FeatureTerm")
    seen: Counter[str] = Counter()
    found = [BalancedTerm(term) for term in terms]
    for one in found:
        seen[one.term.name] += 1
        if seen[one.term.name] > 1:
            one.name += f" #{seen[one.term.name]}"
    return found


class BalancedTerm(nn.Module):
    """A `FeatureTerm` in training: its loss, its weight, and the window that sets the weight."""

    def __init__(self, term: FeatureTerm) -> None:
        super().__init__()
        self.term = term
        self.name = term.name
        self.loss = term.loss
        # Sums of gradient norms over the window, base loss and term, and micro-batches in them. On
        # the host: as buffers on a GPU every look at them would wait for all that is under way.
        self.norms = [0.0, 0.0]
        self.measured = 0

    def get_extra_state(self) -> Tensor:
        return torch.tensor([*self.norms, self.measured], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        *self.norms, measured = state.tolist()
        self.measured = int(measured)

    @property
    def balancing(self) -> bool:
        """Whether the window is still open (the term is off until it closes)."""
        return self.measured < self.term.balance

    @property
    def weight(self) -> float:
        """The factor in force: 0 during the window, then fixed."""
        if self.term.balance == 0:
            return self.term.weight
        if self.balancing:
            return 0.0
        base, own = self.norms
        if base == 0 or own == 0:
            raise InputError(
                f"{'the base loss' if base == 0 else self.name} has no gradient at the "
                f"student's features during the balance window of {self.name}; "
                "give a fixed weight (balance=0)"
            )
        return float(self.term.weight * base / own)

    def forward(
        self, student: Tensor, teacher: Tensor, mask: Tensor, teacher_mask: Tensor | None = None
    ) -> Tensor:
        """The term's unweighted loss on (b, t, d) features with a (b, t) mask.

        The teacher has a mask of its own where its tokens are not the student's.
        """
        theirs = mask if teacher_mask is None else teacher_mask
        try:
            student, kept = select_rows(student, mask, self.term.rows)
            teacher, _ = select_rows(teacher, theirs, self.term.rows)
            value: Tensor = self.loss(student, teacher, kept)
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from error
        return value

    def measure(self, base: Tensor, own: Tensor, features: Tensor) -> None:
        """Add one micro-batch's gradient norms at the student's `features` to the window."""
        for i, loss in enumerate((base, own)):
            (grad,) = torch.autograd.grad(loss, features, retain_graph=True)
            self.norms[i] += float(grad.norm())
        self.measured += 1
