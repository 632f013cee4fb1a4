"""Checks before the first step: what the losses need must match what the teacher offers."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from geodistill.distill import cross_tokenizer, logit_checks
from geodistill.distill.feature_term import FeatureTerm, Layer, TermModule, check_weights
from geodistill.distill.models.features import check_layer
from geodistill.distill.models.heads import (
    base_of,
    is_encoder_decoder,
    share_label_rule,
    text_shape,
)
from geodistill.distill.teacher_cache import TeacherCache
from geodistill.distill.training import ranks
from geodistill.errors import InputError
from geodistill.losses.base import check_module
from geodistill.losses.moment_loss import MomentLoss
from geodistill.positions import max_positions, num_embeddings

_logger = logging.getLogger(__name__)
_UNSUPPORTED = {
    "SentenceTransformerTrainer": "its batches are columns of several texts: expected the trainer "
    "itself with loss=SentenceEmbeddingLoss(model, ProcrustesLoss())",
    **dict.fromkeys(
        ("ServerDistillationTrainer", "AsyncDistillationTrainer"),
        "its teacher is on a server, which gives no features: expected DistillationTrainer with a "
        "teacher_model",
    ),
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
    check_memories(trainer.term_modules)
    if teacher is not None:
        check_module(teacher, "teacher_model", "AutoModelForCausalLM.from_pretrained(name)")
    check_scheduler(trainer.optimizer, trainer.lr_scheduler, trainer.terms)
    check_best_metric(trainer)
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
            labels = logit_checks.first_labels(trainer.train_dataset)
            trainer.logit_loss = logit_checks.choose_logit_loss(trainer.logit_loss, student, labels)
            _logger.info("logit loss: %s", type(trainer.logit_loss).__name__)
            padded = trainer.one_tokenizer
            logit_checks.check_logits(trainer.logit_loss, teacher, cache, student, padded=padded)
        if teacher is not None and teacher_tokenizer is None and not trainer.mismatch:
            check_embeddings(teacher, student)
    elif not trainer.wrapped and (teacher is not None or cache is not None):
        warnings.warn(
            "a teacher is given, and nothing is learned from it: expected terms or logit_loss, or "
            "neither teacher_model nor teacher_cache",
            stacklevel=4,
        )
    if teacher is not None:
        share_label_rule(teacher, student)
        teacher.to(trainer.args.device).eval().requires_grad_(False)


def check_memories(terms: Sequence[TermModule]) -> None:
    """Raise InputError for terms that would add their batches to one memory of past batches."""
    owners: dict[int, str] = {}
    for term in terms:
        for loss in term.loss.modules():
            if not (isinstance(loss, MomentLoss) and loss.decay):
                continue
            if (owner := owners.setdefault(id(loss), term.name)) != term.name:
                raise InputError(
                    f"terms: {owner} and {term.name} share one {type(loss).__name__} with decay, "
                    "which would mix their past batches: expected a loss of its own for each"
                )


def check_best_metric(trainer: Any) -> None:
    """Raise InputError for a best model by a metric of the terms that no evaluation will give."""
    name = str(trainer.args.metric_for_best_model or "")
    of_terms = name.removeprefix("eval_").startswith(("geometry_kept", "loss/"))
    measured = len(trainer.terms) and trainer.teacher_model is not None and not trainer.wrapped
    if of_terms and not measured:
        by = f"{trainer.wrapped} runs it itself" if trainer.wrapped else "there is none"
        raise InputError(
            f"metric_for_best_model is {name!r}, which is measured with a live teacher, and {by}: "
            "expected another metric, such as 'eval_loss'"
        )


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


def check_lengths(trainer: Any, text: Mapping[str, Any]) -> None:
    """`check_length` of the models that the trainer below runs."""
    check_length(text, trainer.accelerator.unwrap_model(trainer.model), "student")
    if trainer.wrapped and trainer.distils:
        check_length(text, trainer.teacher_model, "teacher")


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


def check_embeddings(teacher: Any, student: Any) -> None:
    """Raise InputError if the models embed different numbers of tokens.

    For models whose tokenizers are unknown: one tokenizer cannot serve both.
    """
    sizes = [num_embeddings(model) for model in (teacher, student)]
    if None not in sizes and sizes[0] != sizes[1]:
        raise InputError(
            f"the teacher embeds {sizes[0]} tokens, the student {sizes[1]}, and nothing shows that "
            "they share a tokenizer: expected teacher_tokenizer and processing_class (the same one "
            "if they do), or examples with teacher_input_ids"
        )


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
