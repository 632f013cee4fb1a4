"""Checks before the first step: what the losses need must match what the teacher offers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from geodistill.distill.cross_tokenizer import CROSS_TOKENIZER_HINT
from geodistill.distill.feature_term import FeatureTerm, resolve_layer
from geodistill.distill.hooks import lm_head
from geodistill.distill.teacher_cache import TeacherCache
from geodistill.errors import InputError
from geodistill.losses.base import check_module


def check_weights(**weights: float) -> None:
    """Raise InputError unless each weight is finite and at least 0."""
    for name, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise InputError(f"{name} is {weight}; expected a finite number of at least 0")


def check_length(inputs: Mapping[str, Any], model: Any, role: str) -> None:
    """Raise InputError for a batch longer than the model's positions, which would crash a GPU."""
    positions = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if positions is None or "input_ids" not in inputs or "position_ids" in inputs:
        return
    length = inputs["input_ids"].shape[1]
    if length > positions:
        raise InputError(
            f"a batch has {length} tokens, the {role} takes {positions} "
            "(max_position_embeddings): truncate the examples, or leave long ones out"
        )


def check_teacher(teacher: Any, cache: TeacherCache | None) -> None:
    """Raise InputError unless exactly one of a loaded model and an open cache is given."""
    if (teacher is None) == (cache is None):
        number = "neither" if teacher is None else "both"
        raise InputError(f"teacher_model and teacher_cache: {number} given; expected exactly one")
    if teacher is not None:
        check_module(teacher, "teacher_model", "AutoModelForCausalLM.from_pretrained(name)")
    elif not isinstance(cache, TeacherCache):
        raise InputError(f"teacher_cache is {cache!r}: expected TeacherCache(folder)")


def resolve_layer_pairs(
    terms: Sequence[FeatureTerm], teacher: Any, cache: TeacherCache | None, student: Any
) -> list[tuple[int, int]]:
    """Teacher and student layer of each term, as indices in `hidden_states`.

    Raises:
        InputError: a model lacks the layer, or the cache does not hold it.
    """
    source = teacher if cache is None else cache
    pairs = []
    for term in terms:
        teacher_layer = resolve_layer(term.teacher_layer, source.config, "teacher")
        pairs.append((teacher_layer, resolve_layer(term.student_layer, student.config, "student")))
        if cache is not None:
            cache.require_layer(teacher_layer)
    return pairs


def check_logits(logit_loss: Any, teacher: Any, cache: TeacherCache | None, student: Any) -> None:
    """Raise InputError unless teacher and student give logits that `logit_loss` can compare."""
    check_module(logit_loss, "logit_loss", "KLDivergenceLoss()")
    if cache is not None:
        cache.require_logits(logit_loss.temperature)
    n_teacher = _num_logits(teacher) if cache is None else cache.num_logits
    n_student = _num_logits(student)
    if n_teacher is None or n_student is None or n_teacher == n_student:
        return
    source = "the cache" if cache is not None else _model_name(teacher)
    message = (
        f"the teacher has {n_teacher} logits, the student {n_student} "
        f"({source}, {_model_name(student)})"
    )
    if lm_head(student) is None:
        raise InputError(f"{message}; logit_loss needs the same labels: leave it out")
    raise InputError(f"{message}; logit distillation needs one tokenizer: {CROSS_TOKENIZER_HINT}")


def _num_logits(model: Any) -> int | None:
    """Logits of a model: one per token of its vocabulary, or one per label."""
    head = lm_head(model)
    if head is not None:
        return int(head.weight.shape[0])
    return getattr(model.config, "num_labels", None)


def _model_name(model: Any) -> str:
    return f"{type(model).__name__} {getattr(model.config, '_name_or_path', '')}".strip()


def check_embeddings(teacher: Any, student: Any) -> None:
    """Raise InputError if the models embed different numbers of tokens.

    For models whose tokenizers are unknown: one tokenizer cannot serve both.
    """
    sizes = [_num_embeddings(model) for model in (teacher, student)]
    if None not in sizes and sizes[0] != sizes[1]:
        raise InputError(
            f"the teacher embeds {sizes[0]} tokens, the student {sizes[1]}, and nothing shows that "
            "they share a tokenizer: expected teacher_tokenizer and processing_class (the same one "
            "if they do), or examples with teacher_input_ids"
        )


def _num_embeddings(model: Any) -> int | None:
    get_embeddings = getattr(model, "get_input_embeddings", None)
    return None if get_embeddings is None else getattr(get_embeddings(), "num_embeddings", None)


def check_processes(terms: nn.Module, processes: int, gpus: int) -> None:
    """Raise InputError for a parallel run that the losses do not survive.

    Parameters of terms are not synchronised across processes. Of several GPUs in one process,
    `Trainer` gives each a part of the batch, but a term compares the rows of the whole batch.
    """
    if processes > 1 and any(True for _ in terms.parameters()):
        raise InputError(
            f"terms with trainable parameters on {processes} processes; such losses train on one "
            "process only"
        )
    if gpus > 1:
        raise InputError(
            f"one process has {gpus} GPUs, over which each batch would be split: expected one "
            f"process per GPU (torchrun --nproc-per-node {gpus} ...), or one GPU "
            "(CUDA_VISIBLE_DEVICES=0)"
        )
