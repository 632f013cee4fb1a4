"""Checks before the first step: what the losses need must match what the teacher offers."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geodistill.distill import cross_tokenizer
from geodistill.distill.collate import first_example
from geodistill.distill.cross_tokenizer import CROSS_TOKENIZER_HINT
from geodistill.distill.feature_term import FeatureTerm, Layer
from geodistill.distill.models.features import check_layer
from geodistill.distill.models.heads import (
    base_of,
    is_encoder_decoder,
    library_class,
    lm_head,
    problem_type,
    share_label_rule,
    text_shape,
)
from geodistill.distill.teacher_cache import TeacherCache
from geodistill.distill.training import ranks
from geodistill.errors import InputError
from geodistill.losses import KLDivergenceLoss, LogitLoss, logit_loss_for
from geodistill.losses.base import check_module
from geodistill.positions import max_positions

_logger = logging.getLogger(__name__)
_UNSUPPORTED = {
    "SentenceTransformerTrainer": "its batches are columns of several texts: expected the trainer "
    "itself with loss=SentenceEmbeddingLoss(model, ProcrustesLoss())",
    "ServerDistillationTrainer": "its teacher is on a server, which gives no features: expected "
    "DistillationTrainer with a teacher_model",
    "AsyncDistillationTrainer": "its teacher is on a server, which gives no features: expected "
    "DistillationTrainer with a teacher_model",
}


def check_trainer(kind: type, logit_loss: Any) -> None:
    """Raise InputError for a trainer whose step the mixin cannot extend with these losses."""
    names = [base.__name__ for base in kind.__mro__]
    for name in names:
        if name in _UNSUPPORTED:
            raise InputError(f"{name} cannot be extended: {_UNSUPPORTED[name]}")
    if logit_loss is not None and "DistillationTrainer" in names:
        raise InputError(
            f"logit_loss is {logit_loss!r}, and TRL's DistillationTrainer has its own, which keeps "
            "no logits: expected logit_loss=None"
        )


def check_needs(trainer: Any, teacher_tokenizer: Any) -> None:
    """What the losses of a trainer need must match what the teacher offers; sets what it found."""
    teacher, cache = trainer.teacher_model, trainer.teacher_cache
    student = trainer.accelerator.unwrap_model(trainer.model)
    check_weights(task_weight=trainer.task_weight, logit_weight=trainer.logit_weight)
    check_scheduler(trainer.optimizer, trainer.lr_scheduler, trainer.terms)
    if trainer.distils:
        check_teacher(teacher, cache, student)
        sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
        ranks.check_processes(trainer.args.n_gpu, sharded)
        trainer.layers = resolve_layer_pairs(
            [module.term for module in trainer.terms], teacher, cache, student
        )
        tokenizer = getattr(trainer, "processing_class", None)
        trainer.set_mismatch(
            cross_tokenizer.tokenizer_mismatch(tokenizer, teacher_tokenizer, trainer.train_dataset)
        )
        trainer.one_tokenizer = teacher_tokenizer is not None and not trainer.mismatch
        if trainer.logit_loss is not None:
            labels = first_labels(trainer.train_dataset)
            trainer.logit_loss = choose_logit_loss(trainer.logit_loss, student, labels)
            _logger.info("logit loss: %s", type(trainer.logit_loss).__name__)
            padded = trainer.one_tokenizer
            check_logits(trainer.logit_loss, teacher, cache, student, padded=padded)
        if teacher is not None and teacher_tokenizer is None and not trainer.mismatch:
            check_embeddings(teacher, student)
    if teacher is not None:
        share_label_rule(teacher, student)
        teacher.to(trainer.args.device).eval().requires_grad_(False)


def check_weights(**weights: float) -> None:
    """Raise InputError unless each weight is finite and at least 0."""
    for name, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise InputError(f"{name} is {weight}; expected a finite number of at least 0")


def check_length(inputs: Mapping[str, Any], model: Any, role: str) -> None:
    """Raise InputError for a batch longer than the model's positions, which would crash a GPU."""
    base, lengths = base_of(model), []
    if (texts := text_shape(inputs)) is not None and "position_ids" not in inputs:
        reader = base.get_encoder() if is_encoder_decoder(base) else base
        lengths.append((texts[1], max_positions(reader)))
    labels = inputs.get("labels")
    if is_encoder_decoder(base) and isinstance(labels, Tensor) and labels.dim() == 2:
        lengths.append((labels.shape[1], max_positions(base.get_decoder())))
    for length, limit in lengths:
        if length > limit:
            raise InputError(
                f"a batch has {length} tokens, the {role} takes {limit} (its table of positions): "
                "truncate the examples, or leave long ones out"
            )


def check_teacher(teacher: Any, cache: TeacherCache | None, student: Any) -> None:
    """Raise InputError unless exactly one of a loaded model and an open cache is given.

    Warns of weights that the student shares with the teacher, which are frozen.
    """
    if (teacher is None) == (cache is None):
        number = "neither" if teacher is None else "both"
        raise InputError(f"teacher_model and teacher_cache: {number} given; expected exactly one")
    if teacher is None:
        if not isinstance(cache, TeacherCache):
            raise InputError(f"teacher_cache is {cache!r}: expected TeacherCache(folder)")
        return
    check_module(teacher, "teacher_model", "AutoModelForCausalLM.from_pretrained(name)")
    frozen = {id(parameter) for parameter in teacher.parameters()}
    trained = {name: p for name, p in student.named_parameters() if p.requires_grad}
    shared = [name for name, p in trained.items() if id(p) in frozen]
    if shared and len(shared) == len(trained):
        raise InputError(
            "teacher_model and model share every weight, so nothing would be trained: expected a "
            "copy (copy.deepcopy(model)), or another teacher"
        )
    if shared:
        warnings.warn(
            f"the student shares {len(shared)} weights with the teacher ({', '.join(shared[:3])}), "
            "which are frozen with it; give the student a copy to train them",
            stacklevel=5,
        )


def resolve_layer_pairs(
    terms: Sequence[FeatureTerm], teacher: Any, cache: TeacherCache | None, student: Any
) -> list[tuple[Layer, Layer]]:
    """Teacher and student layer of each term, counted from 0 where the model says how many it has.

    Raises:
        InputError: a model lacks the layer, or the cache does not hold it.
    """

    def of_teacher(layer: Layer) -> Layer:
        return check_layer(teacher, layer, "teacher") if cache is None else cache.check_layer(layer)

    return [
        (of_teacher(term.teacher_layer), check_layer(student, term.student_layer, "student"))
        for term in terms
    ]


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
    try:
        embeddings = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):  # no model of texts
        return None
    return getattr(embeddings, "num_embeddings", None)


def check_scheduler(optimizer: Any, scheduler: Any, terms: nn.Module) -> None:
    """Raise InputError for a scheduler that does not know the terms' parameters."""
    if optimizer is None or scheduler is None:
        return
    known = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if any(id(p) not in known for p in terms.parameters()):
        raise InputError(
            "optimizers: the scheduler was made for an optimizer without the parameters of the "
            "terms: expected an optimizer that has them ([*student.parameters(), "
            "*loss.parameters()]), or optimizers=(optimizer, None)"
        )
