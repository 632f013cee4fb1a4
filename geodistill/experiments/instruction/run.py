"""Train and evaluate one student of the instruction study.

The student has the OPT architecture and the teacher's tokenizer, and is untrained but for its
embeddings. Methods of one seed share the student's initialisation and the order of the batches, so
that their difference is paired; the prompts are the same for every seed.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from geodistill.distill import FeatureDistillationTrainer, TeacherCache
from geodistill.errors import check_choice
from geodistill.experiments.instruction.evaluate import evaluate_model
from geodistill.experiments.instruction.feature_metrics import (
    ParticipationRatioCallback,
    feature_metrics,
    teacher_features,
)
from geodistill.experiments.instruction.generate import Example
from geodistill.experiments.instruction.lookups import LOOKUPS, best_lookup, evaluate_lookup
from geodistill.experiments.instruction.settings import ORDER_SEED_OFFSET
from geodistill.experiments.instruction.setup import (
    InstructionSetup,
    build_student,
    cache_teacher_outputs,
    teacher_generations,
)
from geodistill.experiments.instruction.train import distillation_losses, train_on_answers
from geodistill.experiments.methods import INSTRUCTION_METHODS, INSTRUCTION_REFERENCES, base_of
from geodistill.experiments.run_store import Evaluation, Run
from geodistill.experiments.settings import run_config
from geodistill.experiments.training import default_device, torch_threads
from geodistill.tasks import assets


@torch_threads(1)  # floating-point sums depend on it
def run_instruction(
    setup: InstructionSetup,
    method: str,
    seed: int,
    study: str = "instruction",
    on_trained: Callable[[FeatureDistillationTrainer], None] | None = None,
) -> tuple[Run, Any]:
    """Train and evaluate one student, or evaluate a reference.

    Args:
        setup: the prompts with their teacher.
        method: one of `INSTRUCTION_METHODS`, or of `INSTRUCTION_REFERENCES`.
        seed: of the initialisation and of the order of the batches.
        study: folder of the run under the results folder, such as "instruction/primary".
        on_trained: called with the trainer of a student, once that is trained.

    Returns:
        The run, whose items hold the generated `answer`, and the model (None for those
        without one).

    Raises:
        InputError: unknown method.
        FloatingPointError: a loss that is not finite; the message names the loss, the step and the
            file of the batch.
    """
    check_choice("method", method, (*INSTRUCTION_METHODS, *INSTRUCTION_REFERENCES))
    started = time.perf_counter()
    settings, model = setup.settings, None
    if method in LOOKUPS:
        metrics, items = _evaluate_on_all_sets(
            setup, lambda examples: evaluate_lookup(method, setup.train, examples)
        )
    else:
        model, training_metrics = _model_of(setup, method, seed, on_trained)
        limit = settings.max_new_tokens
        metrics, items = _evaluate_on_all_sets(
            setup, lambda examples: evaluate_model(model, setup.tokenizer, examples, limit)
        )
        metrics |= training_metrics
        if method != "teacher":
            metrics |= feature_metrics(setup, model)
    metrics["lookup_exact_match"] = best_lookup(setup.train, setup.test)
    run = Run(
        study, settings.task, method, seed, run_config(settings, method), setup.data_hash, metrics,
        items, time.perf_counter() - started,
    )  # fmt: skip
    return run, model


def _model_of(
    setup: InstructionSetup,
    method: str,
    seed: int,
    on_trained: Callable[[FeatureDistillationTrainer], None] | None,
) -> tuple[Any, dict[str, float]]:
    """The model of a method, and its participation ratio during training."""
    if method == "teacher":
        return setup.teacher, {}
    settings, student = setup.settings, build_student(setup, seed)
    if method == "start":
        return student.to(default_device()), {}
    examples, cache = _training_data(setup, method)
    ratios = ParticipationRatioCallback(setup)
    with _training_folder(f"{settings.task}-{method}-s{seed}") as folder:
        trainer = train_on_answers(
            student,
            examples,
            setup.tokenizer.pad_token_id,
            folder,
            seed=ORDER_SEED_OFFSET + seed,
            callbacks=[ratios],
            distillation=_distillation(setup, method, seed, cache, student),
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
        )
    if on_trained:
        on_trained(trainer)
    return trainer.model, ratios.values


def _evaluate_on_all_sets(
    setup: InstructionSetup, evaluate: Callable[[list[Example]], Evaluation]
) -> Evaluation:
    """Metrics and items of the test set and of the further sets.

    Metrics of a further set are named `<set>/<metric>`; its items have the set's name as `task`.
    """
    metrics, test_items = evaluate(setup.test)
    items = [test_items.assign(task=setup.settings.task)]
    for name, examples in setup.extra_eval_sets.items():
        set_metrics, set_items = evaluate(examples)
        metrics |= {f"{name}/{metric}": value for metric, value in set_metrics.items()}
        items.append(set_items.assign(task=name))
    return metrics, pd.concat(items, ignore_index=True)


def _training_data(setup: InstructionSetup, method: str) -> tuple[list[Example], TeacherCache]:
    """The reference answers, or (SeqKD) the teacher's, with the teacher's outputs on them."""
    if base_of(method) != "seqkd":
        return setup.train, setup.train_cache
    examples = teacher_generations(setup)
    if method == "seqkd":
        return examples, setup.train_cache  # not read: neither a term nor logits
    return examples, cache_teacher_outputs(setup.teacher, setup.tokenizer, setup.settings, examples)


@contextmanager
def _training_folder(name: str) -> Iterator[Path]:
    """A folder of the user's cache for one training; it is kept only if a loss was not finite."""
    folder = assets.cache_dir() / "trainings" / f"{name}.{os.getpid()}"
    failed = False
    try:
        yield folder
    except FloatingPointError:
        failed = True
        raise
    finally:
        if not failed:
            shutil.rmtree(folder, ignore_errors=True)


def _distillation(
    setup: InstructionSetup, method: str, seed: int, cache: TeacherCache, student: Any
) -> dict[str, Any]:
    """Arguments of `FeatureDistillation`; none for the answers alone."""
    (layer,) = cache.manifest["layers"]
    losses = distillation_losses(
        method,
        student.config.hidden_size,
        cache.array(f"features_{layer}").shape[1],
        weight=setup.settings.weight,
        weight_warmup_batches=setup.settings.weight_warmup_batches,
        kd_weight=setup.settings.kd_weight,
        seed=seed,
        teacher_features=partial(teacher_features, cache),
    )
    return {"teacher_cache": cache, **losses} if losses else {}
