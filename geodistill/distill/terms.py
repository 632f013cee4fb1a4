"""What a feature term compares: which layers, which rows, by which loss, at which weight."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from geodistill.errors import InputError

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
        weight: factor of the loss; at least 0.
        rows: "all" gives one row a token (for language models: a response token), "first" the
            first token, "last" the last kept token, "mean" the mean over kept tokens.
        balance: 0 uses `weight` as it is. A positive number of optimiser steps measures, with the
            term switched off, the gradient norms of the base loss and of the term at the student's
            features; from then on the factor is `weight` times the ratio of the two means. (At step
            0 alone the ratio misleads, most of all for decoders.)
    """

    teacher_layer: int
    student_layer: int
    loss: nn.Module
    weight: float = 1.0
    rows: Rows = "all"
    balance: int = 0

    def __post_init__(self) -> None:
        if self.rows not in get_args(Rows):
            raise InputError(f"rows is {self.rows!r}; expected one of {', '.join(get_args(Rows))}")
        if not self.weight >= 0:
            raise InputError(f"weight is {self.weight}; expected a number of at least 0")
        if self.balance < 0:
            raise InputError(f"balance is {self.balance}; expected a number of steps, 0 for none")

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


def kept_rows(inputs: dict[str, Any]) -> Tensor:
    """Which token positions take part, as a (b, t) boolean mask.

    Classification keeps every token that is not padding. Language modelling keeps the positions
    whose *next* token is a target (label other than -100): those features make the response.
    """
    labels = inputs.get("labels")
    attention = inputs.get("attention_mask")
    ids = inputs["input_ids"]
    if labels is not None and labels.shape == ids.shape:
        targets = labels[:, 1:] != -100
        return torch.cat([targets, torch.zeros_like(targets[:, :1])], dim=1)
    return torch.ones_like(ids, dtype=torch.bool) if attention is None else attention.bool()


def select_rows(features: Tensor, mask: Tensor, rows: Rows) -> tuple[Tensor, Tensor | None]:
    """Features (b, t, d) and mask (b, t) as the rows that a loss compares.

    Returns:
        (b, t, d) with its mask for "all"; (b, d) and None for "first", "last" and "mean".

    Raises:
        InputError: an example has no kept token, for "last" and "mean".
    """
    if rows == "all":
        return features, mask
    if rows == "first":
        return features[:, 0], None
    if not bool(mask.any(dim=1).all()):
        raise InputError(f"mask keeps no token of example {int((~mask.any(1)).nonzero()[0])}")
    if rows == "mean":
        weight = mask.unsqueeze(-1).to(features.dtype)
        return (features * weight).sum(1) / weight.sum(1), None
    position = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, position, -1).argmax(dim=1)
    return features[torch.arange(len(features), device=mask.device), last], None
