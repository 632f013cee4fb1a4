"""The parts of a training step's loss, for a `FeatureDistillation` trainer."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from geodistill.distill import checks, cross_tokenizer, logit_checks
from geodistill.distill.callbacks import count_labels
from geodistill.distill.feature_term import loss_mask
from geodistill.distill.hooks import (
    Recording,
    depends_on_weights,
    lm_head_on_positions,
    record_outputs,
    run_teacher,
    teacher_outputs,
)
from geodistill.distill.models.features import feature_rows, logits_of, mask_of
from geodistill.distill.models.heads import (
    base_of,
    forward_names,
    has_token_labels,
    label_rule,
    text_shape,
)
from geodistill.distill.teacher_outputs import TeacherOutputs
from geodistill.errors import InputError


def inherited_loss(
    trainer: Any,
    compute_loss: Any,
    model: nn.Module,
    inputs: Mapping[str, Any],
    return_outputs: bool,
    count: Tensor | None,
) -> tuple[Tensor, Any, Recording]:
    """Loss of the extended trainer, its outputs if they are needed, the student's features.

    The loss is a mean over this micro-batch: losses that divide by a count of items get its own.
    Outputs cost TRL's trainers a second forward pass.

    Args:
        trainer: that trains.
        compute_loss: of the extended trainer.
        model: possibly wrapped for several processes.
        inputs: of the model.
        return_outputs: whether the caller wants the outputs.
        count: of labels.

    Raises:
        InputError: a batch without labels, though the task loss has a weight.
    """
    with_outputs = return_outputs or trainer.logit_loss is not None
    student = trainer.accelerator.unwrap_model(model)
    plain = compute_loss.__func__ is Trainer.compute_loss
    custom_loss = trainer.compute_loss_func is not None
    inputs = dict(inputs)  # label smoothing removes the labels
    with ExitStack() as stack:
        if plain and not return_outputs and _scores_few_positions(trainer, student, inputs):
            mask = loss_mask(inputs)
            inputs["shift_labels"] = inputs["labels"][:, 1:][mask[:, :-1]]
            stack.enter_context(lm_head_on_positions(student, mask))
            count = None
        elif not plain and not custom_loss:
            count = None  # TRL's add losses that do not divide by it
        recorded = student if trainer.distils else None
        layers = [layer for _, layer in trainer.layers]
        calls = stack.enter_context(record_outputs(recorded, layers, grad=True))
        labelled = any(inputs.get(name) is not None for name in (*trainer.label_names, "labels"))
        if plain and not custom_loss and not labelled:
            return *_unlabelled_loss(trainer, model, inputs), calls
        result: Any = compute_loss(model, inputs, with_outputs, count)
    task, outputs = result if with_outputs else (result, None)
    counts = trainer.model_accepts_loss_kwargs or custom_loss
    if count is not None and counts and trainer.args.average_tokens_across_devices:
        task = task / trainer.args.world_size  # by which the trainer multiplies
    return task, outputs, calls


def evaluation_loss(
    trainer: Any,
    compute_loss: Any,
    model: nn.Module,
    inputs: dict[str, Any],
    return_outputs: bool,
    n_items: Tensor | int | None,
) -> Any:
    """The extended trainer's own loss, whose mean over processes is that of all items.

    A loss that ignores the count of items would be multiplied by the number of processes.
    """
    if n_items is None or compute_loss.__func__ is not Trainer.compute_loss:
        return compute_loss(model, inputs, return_outputs, n_items)
    try:
        count = count_labels(inputs, trainer._loss_shifts_labels)
    except InputError:  # no answers in this batch
        return compute_loss(model, inputs, return_outputs, n_items)
    result = compute_loss(model, inputs, return_outputs, count)
    if return_outputs:
        return result[0] * (count / n_items), result[1]
    return result * (count / n_items)


def _unlabelled_loss(trainer: Any, model: nn.Module, inputs: dict[str, Any]) -> tuple[Tensor, Any]:
    """The loss that the model gives without labels, or zero, and its outputs.

    Raises:
        InputError: it gives none, and the task loss has a weight.
    """
    outputs: Any = model(**inputs)
    task = outputs.get("loss") if isinstance(outputs, Mapping) else None
    if task is None and (trainer.task_weight or not trainer.distils):
        raise InputError(
            f"the batch has no labels ({', '.join(trainer.label_names) or 'labels'}) and "
            f"{type(base_of(trainer.model)).__name__} gives no loss: expected labelled examples, "
            "or task_weight=0 to learn from the teacher alone"
        )
    return torch.zeros((), device=trainer.args.device) if task is None else task, outputs


def _scores_few_positions(trainer: Any, student: nn.Module, inputs: Mapping[str, Any]) -> bool:
    """Whether the model's own loss can do with logits at the labelled positions alone.

    It can if it is the next-token cross-entropy of `shift_labels`; what the model adds to it, such
    as a router's loss, stays.
    """
    custom = trainer.label_smoother is not None or trainer.compute_loss_func is not None
    peft = getattr(student, "active_peft_config", None)
    prompt = peft is not None and peft.is_prompt_learning and peft.peft_type != "PREFIX_TUNING"
    return (
        not custom
        and not prompt  # whose virtual tokens come before those of the inputs
        and trainer._loss_shifts_labels
        and trainer.model_accepts_loss_kwargs
        and "shift_labels" not in inputs
        and has_token_labels(inputs, student)
        and label_rule(student).takes_kept
    )


def outputs_of_teacher(
    trainer: Any, reads: Mapping[str, Any], rows: Tensor | None, calls: Recording
) -> TeacherOutputs:
    """From the cache, from the extended trainer's calls of the teacher, or by running it.

    Args:
        trainer: with a teacher.
        reads: inputs of the teacher.
        rows: of the cache.
        calls: of the teacher, by the extended trainer.

    Raises:
        InputError: the batch lacks what the teacher needs.
    """
    layers = {teacher_layer for teacher_layer, _ in trainer.layers}
    student, teacher = trainer.accelerator.unwrap_model(trainer.model), trainer.teacher_model
    if trainer.teacher_cache is not None:
        if rows is None:
            raise InputError("the batch has no `row` column, which teacher_cache is read by")
        layer = next((layer for _, layer in trainer.layers), None)
        texts = text_shape(reads) is not None
        mask = mask_of(None, reads, student, layer) if texts else None
        cached: TeacherOutputs = trainer.teacher_cache.lookup(rows, mask, layers)
        valid = loss_mask(reads, student) if texts else None
        trainer.teacher_cache.check_examples(rows, reads, valid)
        return cached
    cross_tokenizer.require_teacher_inputs(reads, trainer.mismatch)
    checks.check_length(reads, teacher, "teacher")
    logits = trainer.logit_loss is not None
    if calls.outputs or calls.by_path:
        output = calls.outputs[-1] if calls.outputs else None
        return teacher_outputs(output, calls, reads, layers, logits=logits)
    if trainer.wrapped:
        paths = [repr(layer) for layer in layers if isinstance(layer, str)]
        what = f"the teacher's {', '.join(paths)}" if paths else "the teacher"
        raise InputError(
            f"the trainer below {trainer.wrapped} does not call {what} in a step: expected "
            f"{'another teacher_layer, or ' if paths else ''}FeatureDistillationTrainer"
        )
    others = forward_names(student)[0] - forward_names(teacher)[0]
    teacher.eval()  # whatever has been called since the last step
    return run_teacher(teacher, reads, layers, logits=logits, others=others)


def logit_term(
    trainer: Any, outputs: Any, inputs: Mapping[str, Any], teacher: TeacherOutputs
) -> Any:
    """Mean logit loss over the micro-batch's items.

    Raises:
        InputError: logits that cannot be compared, or without gradient.
    """
    student = trainer.accelerator.unwrap_model(trainer.model)
    logit_checks.choose_logit_loss(trainer.logit_loss, student, inputs.get("labels"))
    logits, mask = logits_of(outputs, student, inputs, "student")
    if not logits.requires_grad:
        raise InputError(
            f"logit_loss: the trainer below {type(trainer).__name__} gives logits without "
            "gradient; give no logit_loss, or use FeatureDistillationTrainer"
        )
    logits = trainer.losses.watch("logit", logits)
    return trainer.logit_loss(*teacher.aligned_logits(logits, mask, padded=trainer.one_tokenizer))


def add_feature_terms(
    trainer: Any, loss: Tensor, calls: Recording, inputs: Mapping[str, Any], teacher: TeacherOutputs
) -> Tensor:
    """The loss with the weighted terms.

    Raises:
        InputError: the student's features depend on no weight that is trained; texts are packed,
            and a term pools the tokens of a text.
    """
    if any(module.term.pooling != "all" for module in trainer.term_modules):
        _refuse_packed(inputs)
    share = 1 / trainer.current_gradient_accumulation_steps
    base_loss = loss / share
    for term, (teacher_layer, layer) in zip(trainer.terms, trainer.layers, strict=True):
        recorded = calls.features(layer)
        new = term.name not in trainer.losses.reached
        trainer.losses.reached.add(term.name)
        if not recorded.requires_grad or (new and not depends_on_weights(recorded, trainer.model)):
            raise InputError(
                f"{term.name}: the student's layer {layer!r} depends on no weight that is "
                "trained, or is inside reentrant gradient checkpointing: expected a later layer, "
                "or activation_checkpointing_kwargs={'use_reentrant': False}"
            )
        features, mask = feature_rows(recorded, inputs, calls.model, layer, "student")
        watched = trainer.losses.watch(term.name, features)
        value = term(watched, teacher.features[teacher_layer], mask, teacher.masks[teacher_layer])
        if term.warming_up:
            term.measure(base_loss, value, recorded)
        trainer.losses.add(term.name, value, share, term.weight)
        loss = loss + term.weight * share * value
    return loss


def _refuse_packed(inputs: Mapping[str, Any]) -> None:
    """Raise InputError for rows of several texts, whose positions start anew within the row."""
    positions = inputs.get("position_ids")
    if positions is None or positions.dim() != 2:
        return
    valid = inputs.get("attention_mask")
    valid = torch.ones_like(positions) if valid is None or valid.dim() != 2 else valid
    starts = (positions[:, 1:] <= positions[:, :-1]) & (valid[:, 1:] * valid[:, :-1]).bool()
    if starts.any():
        n = int(starts.sum(1).max()) + 1
        raise InputError(
            f"a row of the batch has {n} packed texts (position_ids start anew), and a term pools "
            "the tokens of a row: expected pooling='all', or examples that are padded, not packed"
        )
