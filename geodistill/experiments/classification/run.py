"""Train and evaluate one student of the classification study.

The teacher of a task is trained once on the whole training split and run once; each student then
learns from `n_train` of those sentences. Methods of one seed share the subsample, the student's
initialisation and the order of the batches, so that their difference is paired.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from geodistill.distill import FeatureDistillationTrainer, FeatureTerm
from geodistill.distill.collate import batches_by_length, pad, to_device
from geodistill.experiments.classification.evaluate import evaluate_student
from geodistill.experiments.classification.settings import INIT_SEED_OFFSET, ORDER_SEED_OFFSET
from geodistill.experiments.classification.setup import ClassificationSetup, cached_features
from geodistill.experiments.methods import (
    CLASSIFICATION_METHODS,
    build_feature_loss,
    check_method,
    uses_teacher_logits,
)
from geodistill.experiments.run_store import Run
from geodistill.experiments.settings import run_config
from geodistill.experiments.training import fit, temporary_folder, torch_threads, training_arguments
from geodistill.losses import KLDivergenceLoss, SquaredErrorLoss
from geodistill.tasks import stratified_subsample

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import TrainerCallback


def run_classification(
    setup: ClassificationSetup,
    method: str,
    seed: int,
    study: str = "classification",
    callbacks: Sequence[TrainerCallback] = (),
) -> tuple[Run, Any]:
    """Train and evaluate one student.

    Args:
        setup: the task with its teacher.
        method: one of `CLASSIFICATION_METHODS`.
        seed: of the subsample, the initialisation and the order of the batches.
        study: folder of the run under the results folder, such as "classification/primary".
        callbacks: of the Trainer.

    Returns:
        The run, and the trained student.

    Raises:
        InputError: unknown method, or fewer training sentences than `n_train`.
    """
    check_method(method, CLASSIFICATION_METHODS)
    started = time.perf_counter()
    settings = setup.settings
    train_subset = stratified_subsample(setup.train, settings.n_train or len(setup.train), seed)
    start_seed = seed if settings.start_seed is None else settings.start_seed
    student = setup.build_student(INIT_SEED_OFFSET + start_seed)
    with temporary_folder() as folder, torch_threads(1):
        trainer = FeatureDistillationTrainer(
            model=student,
            args=training_arguments(
                Path(folder),
                seed=ORDER_SEED_OFFSET + start_seed,
                num_train_epochs=settings.epochs,
                per_device_train_batch_size=settings.batch_size,
                learning_rate=settings.learning_rate,
            ),
            train_dataset=train_subset,
            data_collator=partial(pad, pad_id=setup.pad_id),
            callbacks=list(callbacks),
            **_distillation(setup, method, seed, train_subset),
        )
        fit(trainer)
    metrics, items = evaluate_student(setup, student)
    run = Run(
        study=study,
        task=settings.task,
        method=method,
        seed=seed,
        config=run_config(settings, method),
        data_hash=setup.data_hash,
        metrics=metrics | trainer.term_weights(),
        items=items,
        wall_seconds=time.perf_counter() - started,
    )
    return run, student


def _distillation(
    setup: ClassificationSetup, method: str, seed: int, train_subset: Dataset
) -> dict[str, Any]:
    """Arguments of `FeatureDistillation`; none for a method that uses the labels alone."""
    settings = setup.settings
    terms = feature_terms(setup, method, seed, train_subset)
    arguments: dict[str, Any] = {"teacher_cache": setup.train_cache, "terms": terms}
    if uses_teacher_logits(method):
        divergence = KLDivergenceLoss(temperature=settings.temperature)
        arguments |= {
            "logit_loss": divergence if setup.n_classes else SquaredErrorLoss(),
            "task_weight": 1 - settings.kd_weight,
            "logit_weight": settings.kd_weight,
        }
    return arguments if terms or uses_teacher_logits(method) else {}


def feature_terms(
    setup: ClassificationSetup, method: str, seed: int, train_subset: Dataset
) -> list[FeatureTerm]:
    """One feature term per matched layer, or none where the method has no term.

    Args:
        setup: the task with its teacher.
        method: one of `CLASSIFICATION_METHODS`.
        seed: for the losses that draw.
        train_subset: examples to which some losses are fitted.
    """
    settings, terms = setup.settings, []
    n_layers = len(settings.teacher_layers)
    for index, layer in enumerate(settings.teacher_layers):
        loss = build_feature_loss(
            method,
            setup.width,
            setup.teacher.config.hidden_size,
            teacher_features=partial(
                cached_features, setup.train_cache, train_subset, setup.pad_id, index
            ),
            teacher_gradients=partial(teacher_gradients, setup, train_subset, layer),
            seed=seed,
            decay=settings.decay,
        )
        if loss is not None:
            terms.append(
                FeatureTerm(
                    teacher_layer=layer,
                    student_layer=index - n_layers,
                    loss=loss,
                    weight=settings.weight_multiplier / n_layers,
                    pooling=settings.pooling,
                    weight_warmup_batches=settings.weight_warmup_batches,
                )
            )
    return terms


def teacher_gradients(setup: ClassificationSetup, examples: Dataset, layer: int) -> Tensor:
    """Gradients of the teacher's own loss at its features of all tokens, (tokens, d).

    Args:
        setup: the task with its teacher.
        examples: with input_ids and labels.
        layer: of the teacher.
    """
    inputs = list(examples.select_columns(["input_ids", "labels"]))
    gradients = []
    for batch in batches_by_length(inputs, 32, setup.pad_id):
        del batch["row"]
        batch = to_device(setup.teacher, batch)
        outputs = setup.teacher(**batch, output_hidden_states=True)
        (gradient,) = torch.autograd.grad(outputs.loss, outputs.hidden_states[layer])
        gradients.append(gradient[batch["attention_mask"].bool()].cpu())
    return torch.cat(gradients)
