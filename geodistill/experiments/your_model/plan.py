"""What a distillation takes, as a table to read before students are trained."""

from __future__ import annotations

import time
from typing import Any

import pandas as pd
import psutil  # type: ignore[import-untyped]

from geodistill.distill.collate import to_device
from geodistill.experiments.training import torch_threads
from geodistill.experiments.your_model.settings import YourModelSettings
from geodistill.experiments.your_model.task import DistillationTask, Inputs, PlanRow
from geodistill.geometry.outliers import diagnose


def plan_table(
    task: DistillationTask, settings: YourModelSettings, inputs: Inputs, setup: Any
) -> pd.DataFrame:
    """What was taken and what is odd about it.

    Args:
        task: of the students.
        settings: of the distillation.
        inputs: as the task read them.
        setup: on validation, its teacher trained.

    Returns:
        One row per thing: `what`, `taken`, `odd`, the last empty where nothing is.
    """
    n_rates = len(settings.learning_rates)
    with torch_threads(1):
        student, step = _time_step(task, setup)
        seconds = inputs.steps * step + task.test_seconds(inputs, setup, student, step)
    n_runs = len(settings.arms) * (settings.seeds + n_rates * (n_rates > 1))
    minutes = 1.2 * n_runs * seconds / 60 / settings.n_parallel
    of_one = " of one worker of the cluster" if settings.scheduler else ""
    gigabytes = psutil.Process().memory_info().rss / 2**30
    teacher, odd_teacher = task.teacher_row(setup)
    rows = [
        ("teacher", f"{settings.teacher}: {_size(setup.teacher)}, {teacher}", odd_teacher),
        ("student", f"{settings.student}: {_size(student)}", ""),
        *task.data_rows(inputs, setup),
        _features_row(task, setup),
        (
            "arms",
            f"{', '.join(settings.arms)}; {n_runs} runs of {inputs.steps} steps of "
            f"{settings.batch_size} texts; {_count(n_rates, 'learning rate')}, "
            f"{_count(settings.seeds, 'seed')}",
            "one seed: nothing is known about another" if settings.seeds == 1 else "",
        ),
        ("cost", f"about {minutes:.1f} min{of_one}; each process has {gigabytes:.1f} GB now", ""),
    ]
    return pd.DataFrame(rows, columns=["what", "taken", "odd"])


def _size(model: Any) -> str:
    n = sum(parameter.numel() for parameter in model.parameters())
    layers, width = model.config.num_hidden_layers, model.config.hidden_size
    return f"{_count(layers, 'layer')} × {width} wide, {n / 1e6:.1f} M weights"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def _features_row(task: DistillationTask, setup: Any) -> PlanRow:
    """What dominates the teacher's features."""
    diagnosis = diagnose(task.features(setup))
    *numbers, advice = str(diagnosis).splitlines()
    dominated = diagnosis.rows_dominate or diagnosis.direction_dominates
    return "teacher's features", "; ".join(numbers), advice if dominated else ""


def _time_step(task: DistillationTask, setup: Any) -> tuple[Any, float]:
    """A student before its training, and the seconds of one of its steps."""
    student, batch = task.build(setup)
    batch, seconds = to_device(student, batch), 0.0
    for _ in range(2):  # the first one is slower
        started = time.perf_counter()
        outputs = student(**batch)
        loss = outputs.loss if "loss" in outputs else outputs.logits.sum()
        loss.backward()
        seconds = time.perf_counter() - started
    return student, seconds
