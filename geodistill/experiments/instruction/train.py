"""Training of causal language models on answers, as all trainings of instructions share it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from geodistill.distill import FeatureDistillationTrainer, FeatureTerm
from geodistill.distill.collate import pad
from geodistill.distill.training.checkpoints import last_complete
from geodistill.experiments.instruction.generate import Example
from geodistill.experiments.methods import LOGIT_KINDS, base_of, build_feature_loss
from geodistill.experiments.training import fit, training_arguments
from geodistill.files import Progress
from geodistill.losses import KLDivergenceLoss

if TYPE_CHECKING:
    from torch import Tensor


def train_on_answers(
    model: Any,
    examples: list[Example],
    pad_id: int,
    folder: Path,
    *,
    seed: int,
    callbacks: Sequence[TrainerCallback] = (),
    distillation: dict[str, Any] | None = None,
    **arguments: Any,
) -> FeatureDistillationTrainer:
    """Train a causal language model, from the last complete checkpoint in `folder` if there is one.

    Args:
        model: trained in place.
        examples: with `input_ids`, `labels` and, for a cached teacher, `row`.
        pad_id: token for padding.
        folder: of the checkpoints.
        seed: of the order of examples and of dropout.
        callbacks: of the Trainer.
        distillation: arguments of `FeatureDistillation`; none trains on the answers alone.
        **arguments: of `TrainingArguments`.
    """
    trainer = FeatureDistillationTrainer(
        model=model,
        args=training_arguments(folder, seed=seed, remove_unused_columns=False, **arguments),
        train_dataset=examples,
        data_collator=partial(pad, pad_id=pad_id),
        callbacks=list(callbacks),
        **(distillation or {}),
    )
    fit(trainer, resume=last_complete(folder))
    return trainer


def distillation_losses(
    method: str,
    d_student: int,
    d_teacher: int,
    *,
    weight: float,
    weight_warmup_batches: int = 0,
    kd_weight: float,
    seed: int,
    teacher_features: Callable[[], Tensor],
) -> dict[str, Any]:
    """The losses of a method, as arguments of `FeatureDistillation`; none for the answers alone.

    Args:
        method: name of the method.
        d_student: width of the student.
        d_teacher: width of the teacher.
        weight: of the feature term, at the last layers.
        weight_warmup_batches: as in `FeatureTerm`.
        kd_weight: of the logit loss; the answers have the rest.
        seed: for the terms that draw.
        teacher_features: returns the teacher's features of the answer tokens, (tokens, d_teacher).
    """
    arguments: dict[str, Any] = {}
    loss = build_feature_loss(
        method, d_student, d_teacher, teacher_features=teacher_features, seed=seed
    )
    if loss is not None:
        warmup = weight_warmup_batches
        term = FeatureTerm(-1, -1, loss, weight=weight, weight_warmup_batches=warmup)
        arguments["terms"] = [term]
    kind = LOGIT_KINDS.get(base_of(method))
    if kind is not None:
        arguments |= {
            "logit_loss": KLDivergenceLoss(kind),
            "task_weight": 1 - kd_weight,
            "logit_weight": kd_weight,
        }
    return arguments


class ProgressCallback(TrainerCallback):
    """Calls `progress` at each log with step, loss and minutes left; logs the seconds in between.

    Args:
        progress: called with one line of text.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.last_log = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.last_log = time.perf_counter()
        if state.global_step:
            self.progress(f"resumed at step {state.global_step}")

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logs = kwargs["logs"]
        if "loss" not in logs:
            return
        now = time.perf_counter()
        seconds, self.last_log = now - self.last_log, now
        state.log_history[-1]["seconds"] = seconds
        left = (state.max_steps - state.global_step) * seconds / args.logging_steps / 60
        self.progress(
            f"step {state.global_step} of {state.max_steps}, loss {logs['loss']:.3f}, "
            f"about {left:.0f} minutes left"
        )
