"""What the losses need must meet what the teacher offers, before any step runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from geodistill.distill.cross_tokenizer import WAY_OUT
from geodistill.distill.feature_term import FeatureTerm, resolve_layer
from geodistill.distill.hooks import language_head
from geodistill.distill.teacher_cache import TeacherCache
from geodistill.errors import InputError
from geodistill.losses.base import check_module


def check_weights(**weights: float) -> None:
    """Raise InputError unless each weight is finite and at least 0."""
    for name, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise InputError(f"{name} is {weight}; expected a finite number of at least 0")


def check_length(inputs: Mapping[str, Any], model: Any, owner: str) -> None:
    """Raise InputError for a batch longer than the model's positions; on a GPU that is a crash."""
    positions = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if positions is None or "input_ids" not in inputs or "position_ids" in inputs:
        return
    length = inputs["input_ids"].shape[1]
    if length > positions:
        raise InputError(
            f"a batch has {length} tokens, the {owner} takes {positions} "
            "(max_position_embeddings): cut the examples, or leave long ones out"
        )


def check_teacher(teacher: Any, cache: TeacherCache | None) -> None:
    """Raise InputError unless exactly one of the two is given, a loaded model or an open cache."""
    if (teacher is None) == (cache is None):
        given = "neither" if teacher is None else "both"
        raise InputError(f"teacher_model and teacher_cache: {given} given; expected exactly one")
    if teacher is not None:
        check_module(teacher, "teacher_model", "AutoModelForCausalLM.from_pretrained(name)")
    elif not isinstance(cache, TeacherCache):
        raise InputError(f"teacher_cache is {cache!r}: expected TeacherCache(folder)")


def layer_pairs(
    terms: Sequence[FeatureTerm], teacher: Any, cache: TeacherCache | None, student: Any
) -> list[tuple[int, int]]:
    """Teacher and student layer of each term, as places in `hidden_states`.

    Raises:
        InputError: a model has no such layer, or the cache does not hold it.
    """
    source = teacher if cache is None else cache
    pairs = []
    for term in terms:
        pair = (
            resolve_layer(term.teacher_layer, source.config, "teacher"),
            resolve_layer(term.student_layer, student.config, "student"),
        )
        if cache is not None:
            cache.require_layer(pair[0])
        pairs.append(pair)
    return pairs


def check_logits(logit_loss: Any, teacher: Any, cache: TeacherCache | None, student: Any) -> None:
    """Raise InputError unless teacher and student give logits that `logit_loss` can compare."""
    check_module(logit_loss, "logit_loss", "KLDivergenceLoss()")
    if cache is not None:
        cache.require_logits(logit_loss.temperature)
    theirs = _outcomes(teacher) if cache is None else cache.outcomes
    ours = _outcomes(student)
    if theirs is None or ours is None or theirs == ours:
        return
    named = "the cache" if cache is not None else _model(teacher)
    sizes = f"the teacher has {theirs} logits, the student {ours} ({named}, {_model(student)})"
    if language_head(student) is None:
        raise InputError(f"{sizes}; logit_loss needs the same labels: leave it out")
    raise InputError(f"{sizes}; logit distillation needs one tokenizer: {WAY_OUT}")


def _outcomes(model: Any) -> int | None:
    """How many logits a model gives: one a token of its vocabulary, or one a label."""
    head = language_head(model)
    if head is not None:
        return int(head.weight.shape[0])
    return getattr(model.config, "num_labels", None)


def _model(model: Any) -> str:
    return f"{type(model).__name__} {getattr(model.config, '_name_or_path', '')}".strip()


def check_embeddings(teacher: Any, student: Any) -> None:
    """Raise InputError where the models embed so many tokens each that no one tokenizer fits both.

    It holds where nothing says what the tokenizers are.
    """
    sizes = [_embedded(model) for model in (teacher, student)]
    if None not in sizes and sizes[0] != sizes[1]:
        raise InputError(
            f"the teacher embeds {sizes[0]} tokens, the student {sizes[1]}, and nothing says that "
            f"they have one tokenizer: expected teacher_tokenizer and processing_class (the same "
            "one where they share it), or examples that have teacher_input_ids"
        )


def _embedded(model: Any) -> int | None:
    find = getattr(model, "get_input_embeddings", None)
    return None if find is None else getattr(find(), "num_embeddings", None)


def check_processes(terms: nn.Module, processes: int) -> None:
    """Raise InputError for terms with weights of their own, which no other process hears of."""
    if processes > 1 and any(True for _ in terms.parameters()):
        raise InputError(
            f"terms with their own weights on {processes} processes; such losses train on one "
            "process only"
        )


def check_gpus(gpus: int) -> None:
    """Raise InputError for a process with several GPUs: `Trainer` would cut each batch in pieces.

    A feature term compares the rows of a whole batch, and the head is computed at its kept rows.
    """
    if gpus > 1:
        raise InputError(
            f"one process has {gpus} GPUs, over which each batch would be split: expected one "
            f"process a GPU (torchrun --nproc-per-node {gpus} ...), or one GPU "
            "(CUDA_VISIBLE_DEVICES=0)"
        )
