"""What a distillation takes, as a table to read before students are trained."""

from __future__ import annotations

import time
from typing import Any

import pandas as pd
import torch

from geodistill.distill.collate import pad, to_device
from geodistill.distill.feature_term import resolve_layer
from geodistill.experiments.classification.setup import ClassificationSetup, cached_features
from geodistill.experiments.training import torch_threads
from geodistill.experiments.your_model.settings import NO_TERM, YourModelSettings
from geodistill.geometry.outliers import diagnose
from geodistill.tasks import ClassificationData

N_SAMPLE = 200
"""Training rows on whose features the teacher's directions are measured."""
DOMINANT_CLASS, FEW_OF_A_CLASS, FEW_ROWS, MANY_CUT = 0.8, 10, 50, 0.05


def plan_table(
    settings: YourModelSettings,
    setup: ClassificationSetup,
    data: ClassificationData,
    n_runs: int,
) -> pd.DataFrame:
    """What was taken and what is odd about it.

    Args:
        settings: of the distillation.
        setup: on validation, its teacher trained.
        data: the task.
        n_runs: trainings of students, the choice of learning rates included.

    Returns:
        One row per thing: `what`, `taken`, `odd`, the last empty where nothing is.
    """
    runs = setup.settings
    student, seconds = _time_step(setup)
    accuracy, majority = _teacher_accuracy(setup)
    origin = f"fine-tuned here for {runs.teacher.epochs:g} epochs"
    origin = origin if runs.teacher.epochs else "as it is"
    n_rates = len(settings.learning_rates)
    tuning = f"each tries {n_rates} learning rates on validation" if n_rates > 1 else "not tuned"
    rows = [
        (
            "teacher",
            f"{settings.teacher}: {_size(setup.teacher)}, {origin}; validation accuracy "
            f"{accuracy:.3f}, of the most frequent class {majority:.3f}",
            "hardly above the most frequent class" if accuracy <= majority + 0.02 else "",
        ),
        ("student", f"{settings.student}: {_size(student)}", ""),
        _data_row(settings, setup, data),
        _text_row(setup),
        *(() if settings.term == NO_TERM else _term_rows(settings, setup)),
        (
            "arms",
            f"{', '.join(settings.arms)}; {tuning}; {settings.seeds} seeds on test: {n_runs} runs "
            f"of {runs.steps} steps of {runs.batch_size} texts",
            "one seed: nothing is known about another" if settings.seeds == 1 else "",
        ),
        ("time", f"about {_minutes(setup, data, n_runs, seconds) / settings.workers:.1f} min", ""),
    ]
    return pd.DataFrame(rows, columns=["what", "taken", "odd"])


def _size(model: Any) -> str:
    config = model.config
    n = sum(parameter.numel() for parameter in model.parameters())
    layers = "1 layer" if config.num_hidden_layers == 1 else f"{config.num_hidden_layers} layers"
    return f"{layers} × {config.hidden_size} wide, {n / 1e6:.1f} M weights"


def _teacher_accuracy(setup: ClassificationSetup) -> tuple[float, float]:
    """Accuracy of the teacher, and of the most frequent class, on validation."""
    labels = torch.tensor(setup.test["labels"])
    predictions = torch.tensor(setup.test_cache.array("logits")).argmax(-1)
    correct = (predictions == labels).double().mean()
    return float(correct), float(labels.bincount().max() / len(labels))


def _data_row(
    settings: YourModelSettings, setup: ClassificationSetup, data: ClassificationData
) -> tuple[str, str, str]:
    counts = torch.tensor(setup.train["labels"]).bincount(minlength=setup.n_classes)
    classes = ", ".join(
        f"{n} {name}" for name, n in zip(data.label_names, counts.tolist(), strict=True)
    )
    odd = []
    if counts.max() >= DOMINANT_CLASS * counts.sum():
        odd.append("one class has most rows: accuracy says little")
    if counts.min() < FEW_OF_A_CLASS:
        odd.append(f"a class has {counts.min()} training rows")
    if len(setup.test) < FEW_ROWS:
        odd.append("few validation rows: the learning rate is chosen on little")
    n_test = min(settings.max_test or len(data.test), len(data.test))
    if n_test < FEW_ROWS:
        odd.append("few test rows: wide intervals")
    taken = f"{len(setup.train)} rows to train ({classes}), {len(setup.test)} for validation"
    return "data", f"{taken}, {n_test} to test", "; ".join(odd)


def _text_row(setup: ClassificationSetup) -> tuple[str, str, str]:
    lengths = torch.tensor([len(ids) for ids in setup.train["input_ids"]])
    cut = float((lengths >= setup.settings.max_length).double().mean())
    taken = f"{lengths.double().mean():.0f} tokens on average, at most {setup.settings.max_length}"
    return "texts", taken, f"{cut:.0%} are cut or just as long" if cut > MANY_CUT else ""


def _term_rows(
    settings: YourModelSettings, setup: ClassificationSetup
) -> list[tuple[str, str, str]]:
    teacher = setup.teacher.config
    layer = resolve_layer(setup.settings.teacher_layer, teacher.num_hidden_layers, "teacher")
    student_layer = resolve_layer(setup.settings.student_layer, setup.layers, "student")
    sample = setup.train.select(range(min(N_SAMPLE, len(setup.train))))
    features = cached_features(setup.train_cache, sample, setup.pad_id).float()
    n_rows = len(features) / len(sample) * setup.settings.batch_size
    diagnosis = diagnose(features)
    odd = "fewer rows than directions" if n_rows < teacher.hidden_size else ""
    dominant = (
        str(diagnosis).splitlines()[-1]
        if diagnosis.rows_dominate or diagnosis.direction_dominates
        else ""
    )
    return [
        (
            "term",
            f"{settings.term}: layer {layer} of the teacher's {teacher.num_hidden_layers}, layer "
            f"{student_layer} of the student's {setup.layers}; one row per token; weight "
            f"{settings.weight:g} × the ratio of gradient norms",
            "",
        ),
        ("rows of a batch", f"about {n_rows:.0f}, {teacher.hidden_size} wide", odd),
        (
            "teacher's features",
            f"participation ratio {diagnosis.participation_ratio:.1f}, first direction "
            f"{diagnosis.first_share:.0%} of the variance",
            dominant,
        ),
    ]


def _time_step(setup: ClassificationSetup) -> tuple[torch.nn.Module, float]:
    """An untrained student, and the seconds of one of its steps."""
    student = setup.build_student(0)
    n = min(setup.settings.batch_size, len(setup.train))
    batch = pad(
        list(setup.train.select(range(n)).select_columns(["input_ids", "labels"])), setup.pad_id
    )
    batch = to_device(student, batch)
    with torch_threads(1):
        for _ in range(2):  # the first one is slower
            started = time.perf_counter()
            student(**batch).loss.backward()
    student.zero_grad()
    return student, time.perf_counter() - started


def _minutes(
    setup: ClassificationSetup, data: ClassificationData, n_runs: int, seconds: float
) -> float:
    """A first guess; the runs themselves say how much is left."""
    n_test = setup.settings.max_test or len(data.test)
    steps = setup.settings.steps + n_test / setup.settings.batch_size / 3
    return 1.2 * n_runs * steps * seconds / 60
