"""Train and evaluate one student of the classification study.

The teacher of a task is trained once on the whole training split and run once; each student then
learns from `n_train` of those sentences. Methods of one seed share the subsample, the student's
initialisation and the order of the batches, so that their difference is paired.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from geodistill.distill import FeatureDistillationTrainer, FeatureTerm
from geodistill.distill.collate import pad
from geodistill.errors import check_choice
from geodistill.experiments.classification.baselines import evaluate_baseline
from geodistill.experiments.classification.cached_outputs import cached_features
from geodistill.experiments.classification.evaluate import evaluate_student
from geodistill.experiments.classification.settings import INIT_SEED_OFFSET, ORDER_SEED_OFFSET
from geodistill.experiments.classification.setup import ClassificationSetup
from geodistill.experiments.methods import (
    BASELINES,
    BEFORE_FINE_TUNING,
    CLASSIFICATION_METHODS,
    LABELS_ALONE,
    build_feature_loss,
    term_of,
)
from geodistill.experiments.run_store import Run
from geodistill.experiments.settings import run_config
from geodistill.experiments.training import fit, torch_threads, training_arguments
from geodistill.losses import KLDivergenceLoss, SquaredErrorLoss
from geodistill.tasks import stratified_subsample

if TYPE_CHECKING:
    from datasets import Dataset


def run_classification(
    setup: ClassificationSetup,
    method: str,
    seed: int,
    study: str = "classification",
    on_trained: Callable[[FeatureDistillationTrainer], None] | None = None,
) -> tuple[Run, Any]:
    """Train and evaluate one student.

    Args:
        setup: the task with its teacher.
        method: one of `CLASSIFICATION_METHODS`; `BASELINES` train no student.
        seed: of the subsample, the initialisation and the order of the batches.
        study: folder of the run under the results folder, such as "classification/full".
        on_trained: called with the trainer of a student, once that is trained.

    Returns:
        The run, and the trained student; None of a baseline.

    Raises:
        InputError: unknown method, or fewer training sentences than `n_train`.
        FloatingPointError: the loss or the weights are not finite.
    """
    check_choice("method", method, CLASSIFICATION_METHODS)
    started = time.perf_counter()
    settings = setup.settings
    train_subset = stratified_subsample(setup.train, settings.n_train or len(setup.train), seed)
    if method in BASELINES:
        student, (metrics, items) = None, evaluate_baseline(setup, method, train_subset)
    else:
        student, trainer = train_student(setup, method, seed, train_subset)
        metrics, items = evaluate_student(setup, student)
        metrics |= trainer.term_weights()
        if on_trained:
            on_trained(trainer)
    run = Run(
        study, settings.task, method, seed, run_config(settings, method), setup.data_hash, metrics,
        items, time.perf_counter() - started,
    )  # fmt: skip
    return run, student


def train_student(
    setup: ClassificationSetup, method: str, seed: int, train_subset: Dataset
) -> tuple[Any, FeatureDistillationTrainer]:
    """Train one student.

    Args:
        setup: the task with its teacher.
        method: that trains a student.
        seed: of the initialisation and the order of batches.
        train_subset: rows of `setup.train`.

    Returns:
        The trained student and its trainer.

    Raises:
        FloatingPointError: the loss or the weights are not finite.
    """
    settings = setup.settings
    student = setup.build_student(INIT_SEED_OFFSET + seed)
    with TemporaryDirectory(prefix="geodistill-") as folder, torch_threads(1):
        trainer = FeatureDistillationTrainer(
            model=student,
            args=training_arguments(
                Path(folder),
                seed=ORDER_SEED_OFFSET + seed,
                max_steps=settings.steps,
                per_device_train_batch_size=settings.batch_size,
                learning_rate=settings.learning_rate,
            ),
            train_dataset=train_subset,
            data_collator=partial(pad, pad_id=setup.pad_id),
            **_distillation(setup, method, seed, train_subset),
        )
        fit(trainer)
    return student, trainer


def _distillation(
    setup: ClassificationSetup, method: str, seed: int, train_subset: Dataset
) -> dict[str, Any]:
    """Arguments of `FeatureDistillation`; none for a method that uses the labels alone."""
    settings = setup.settings
    if method == LABELS_ALONE:
        return {}
    before = term_of(method) == BEFORE_FINE_TUNING
    cache = setup.base_features_cache if before else setup.train_cache
    loss = build_feature_loss(
        method,
        setup.width,
        setup.teacher.config.hidden_size,
        teacher_features=partial(cached_features, cache, train_subset, setup.pad_id),
        seed=seed,
    )
    terms = []
    if loss is not None:
        weight, batches = settings.weight_multiplier, settings.weight_warmup_batches
        layers = settings.teacher_layer, settings.student_layer
        terms = [FeatureTerm(*layers, loss, weight=weight, weight_warmup_batches=batches)]
    divergence = KLDivergenceLoss(temperature=settings.temperature)
    return {
        "teacher_cache": cache,
        "terms": terms,
        "logit_loss": divergence if setup.n_classes else SquaredErrorLoss(),
        "task_weight": 1 - settings.kd_weight,
        "logit_weight": settings.kd_weight,
    }
