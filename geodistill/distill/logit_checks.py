"""Checks before the first step of a logit loss: the head it compares, and equal sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from geodistill.distill.collate import first_example
from geodistill.distill.cross_tokenizer import CROSS_TOKENIZER_HINT
from geodistill.distill.models.heads import library_class, lm_head, problem_type
from geodistill.distill.teacher_cache import TeacherCache
from geodistill.errors import InputError
from geodistill.losses import KLDivergenceLoss, LogitLoss, logit_loss_for
from geodistill.losses.base import check_module


def first_labels(dataset: Any) -> Tensor | None:
    """Labels of the first example, with a batch dimension; None if there are none in numbers."""
    labels = first_example(dataset).get("labels")
    listed = labels if isinstance(labels, list | tuple) else [labels]
    if isinstance(labels, Tensor | np.ndarray) or all(isinstance(x, int | float) for x in listed):
        return torch.as_tensor(labels).unsqueeze(0)
    return None


def choose_logit_loss(logit_loss: Any, student: Any, labels: Tensor | None) -> Any:
    """The logit loss; "auto" is the one of the student's head.

    Args:
        logit_loss: as given.
        student: whose head decides.
        labels: of the first example, or None.

    Raises:
        InputError: no loss of logits, or one that the head's outputs make no sense of.
    """
    kind = problem_type(student, labels)
    if isinstance(logit_loss, str) and logit_loss == "auto":
        return logit_loss_for(kind)
    check_module(logit_loss, "logit_loss", "KLDivergenceLoss()")
    if not getattr(logit_loss, "takes_logits", False):
        raise InputError(
            f"logit_loss is {logit_loss!r}, which does not say that it takes raw logits: expected "
            "'auto', a loss of geodistill.losses such as KLDivergenceLoss(), or one of your own "
            "with takes_logits = True"
        )
    if isinstance(logit_loss, KLDivergenceLoss) and kind != "single_label_classification":
        raise InputError(
            f"logit_loss is {type(logit_loss).__name__}, a softmax over the logits, and the "
            f"student's head is for {kind}: expected {logit_loss_for(kind)!r}, or 'auto'"
        )
    return logit_loss


def check_logits(
    logit_loss: LogitLoss, teacher: Any, cache: TeacherCache | None, student: Any, *, padded: bool
) -> None:
    """Raise InputError unless teacher and student give logits that `logit_loss` can compare.

    Args:
        logit_loss: of the trainer.
        teacher: run live, or None.
        cache: of stored outputs, or None.
        student: whose logits are compared.
        padded: whether both are known to have one tokenizer, so that a live teacher's vocabulary
            may have more rows of padding.
    """
    if cache is not None:
        cache.require_logits(getattr(logit_loss, "temperature", 1.0))
    n_teacher = _num_logits(teacher) if cache is None else cache.num_logits
    n_student = _num_logits(student)
    if n_teacher is None or n_student is None or n_teacher == n_student:
        _check_label_names(teacher, student)
        return
    source = "the cache" if cache is not None else _model_name(teacher)
    message = (
        f"the teacher has {n_teacher} logits, the student {n_student} "
        f"({source}, {_model_name(student)})"
    )
    if lm_head(student) is None:
        raise InputError(f"{message}; logit_loss needs the same labels: leave it out")
    if not padded:
        raise InputError(
            f"{message}; logit distillation needs one tokenizer: if it is one, with vocabularies "
            "padded to different sizes, give it as teacher_tokenizer and processing_class; else "
            f"{CROSS_TOKENIZER_HINT}"
        )
    if cache is not None:
        raise InputError(
            f"{message}; a cache serves equal vocabularies only: expected "
            f"student.resize_token_embeddings({n_teacher}), or teacher_model"
        )


def _check_label_names(teacher: Any, student: Any) -> None:
    """Raise InputError for heads whose labels have names, but not the same in the same order."""
    configs = (getattr(model, "config", None) for model in (teacher, student))
    names: list[dict[int, str]] = [getattr(config, "id2label", None) or {} for config in configs]
    if lm_head(student) is not None or not all(names):
        return
    unnamed = any(str(name).startswith("LABEL_") for labels in names for name in labels.values())
    if not unnamed and names[0] != names[1]:
        raise InputError(
            f"the teacher's labels are {names[0]}, the student's {names[1]} (config.id2label); "
            "logit_loss needs the same labels in one order: leave it out, or train the head anew"
        )


def _num_logits(model: Any) -> int | None:
    """Logits of a model: one per token, or one per label; None if only a batch can tell."""
    head = lm_head(model)
    if head is not None:
        return int(head.weight.shape[0])
    if "Classification" not in library_class(model):  # though every configuration has num_labels
        return None
    return getattr(getattr(model, "config", None), "num_labels", None)


def _model_name(model: Any) -> str:
    return f"{type(model).__name__} {getattr(model.config, '_name_or_path', '')}".strip()
