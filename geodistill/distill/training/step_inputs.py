"""What a training step reads: the inputs of both models, and the labels that are counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from geodistill.distill import cross_tokenizer
from geodistill.distill.callbacks import count_labels
from geodistill.distill.models.heads import forward_names


def position_of_teacher(init: Callable[..., None]) -> int | None:
    """Where a trainer that runs a teacher itself takes it; None for other trainers."""
    names = list(signature(init).parameters)
    return names.index("teacher_model") if "teacher_model" in names else None


def teacher_names(trainer: Any) -> frozenset[str]:
    """The inputs that the forward of a live teacher names."""
    if not trainer.distils or trainer.wrapped or trainer.teacher_model is None:
        return frozenset()
    return forward_names(trainer.teacher_model)[0]


def split_inputs(
    trainer: Any, inputs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], Tensor | None]:
    """Inputs of the student, those of the teacher if they differ, and rows of the cache."""
    inputs = dict(inputs)
    rows = inputs.pop("row", None)
    teacher_batch = cross_tokenizer.pop_teacher_inputs(inputs)
    if teacher_batch and not trainer.mismatch:  # added by the collator, so not seen before
        trainer.set_mismatch("the batch has teacher_input_ids, tokens of another tokenizer")
    if not trainer.mismatch:
        named, _ = forward_names(trainer.accelerator.unwrap_model(trainer.model))
        only = {*inputs} & (teacher_names(trainer) - named) if named else set()
        if only:
            teacher_batch = dict(inputs)
            inputs = {name: x for name, x in inputs.items() if name not in only}
    return inputs, teacher_batch, rows


def as_text(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Prompts and completions as one text with labels, where TRL's trainer keeps them apart."""
    if "completion_ids" not in inputs:
        return inputs
    prompts, answers = inputs["prompt_ids"], inputs["completion_ids"]
    scored = inputs["completion_mask"] * inputs.get("tool_mask", 1)
    targets = answers.masked_fill(scored == 0, -100)
    masks = inputs["prompt_mask"], inputs["completion_mask"]
    return {
        "input_ids": torch.cat([prompts, answers], dim=1),
        "attention_mask": torch.cat(masks, dim=1),
        "labels": torch.cat([torch.full_like(prompts, -100), targets], dim=1),
    }


def item_share(
    trainer: Any, inputs: dict[str, Any], text: Mapping[str, Any], n_items: Tensor | int | None
) -> tuple[float | Tensor, Tensor | None]:
    """A micro-batch's share of the step's items, and its number of labels where they are counted.

    Removes the number of generated tokens from the inputs of TRL's DistillationTrainer, which would
    divide by it: the task loss is a mean over the micro-batch. GRPO's loss is the micro-batch's
    part of the step's loss already, and needs the number.

    Args:
        trainer: that trains.
        inputs: of the micro-batch.
        text: the same with labels, as `as_text` gives it.
        n_items: labels of the accumulated batch; None where micro-batches count alike.
    """
    if "num_items_in_batch" in inputs and not trainer.wrapped:
        return 1.0, None
    # The numbers may be those of all ranks, whose gradients are then averaged.
    joined = trainer.args.world_size if trainer.args.average_tokens_across_devices else 1
    n_generated = inputs.pop("num_items_in_batch", None)
    if n_generated is not None:  # always counted over all ranks, after `transformers` has counted
        n_items, joined = n_generated, trainer.args.world_size
    if n_items is None:
        return 1 / trainer.current_gradient_accumulation_steps, None
    count = count_labels(text, trainer._loss_shifts_labels)
    return joined * (count / n_items), count
