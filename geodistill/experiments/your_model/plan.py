"""What a distillation takes, as a table to read before students are trained."""

from __future__ import annotations

import time
from typing import Any

import pandas as pd
import psutil  # type: ignore[import-untyped]
import torch

from geodistill.distill.collate import pad, to_device
from geodistill.experiments.classification.evaluate import task_scores
from geodistill.experiments.classification.grid import ClassificationGrid
from geodistill.experiments.classification.setup import ClassificationSetup, cached_features
from geodistill.experiments.training import torch_threads
from geodistill.experiments.your_model.settings import YourModelSettings
from geodistill.geometry.outliers import diagnose
from geodistill.tasks import ClassificationData

N_SAMPLE = 200
"""Training rows on whose features the teacher's directions are measured."""
DOMINANT_CLASS, FEW_OF_A_CLASS, FEW_ROWS, MANY_CUT = 0.8, 10, 50, 0.05


def plan_table(
    settings: YourModelSettings, setup: ClassificationSetup, data: ClassificationData
) -> pd.DataFrame:
    """What was taken and what is odd about it.

    Args:
        settings: of the distillation.
        setup: on validation, its teacher trained.
        data: the task.

    Returns:
        One row per thing: `what`, `taken`, `odd`, the last empty where nothing is.
    """
    runs, n_rates = setup.settings, len(settings.learning_rates)
    student, seconds = _time_step(setup)
    logits = torch.tensor(setup.test_cache.array("logits"))
    teacher = ClassificationGrid().judge_runs(pd.DataFrame([task_scores(setup, logits)[0]])).iloc[0]
    origin = f"fine-tuned {runs.teacher.epochs:g} epochs" if runs.teacher.epochs else "as it is"
    n_runs = len(settings.arms) * (settings.seeds + n_rates * (n_rates > 1))
    steps = runs.steps + len(data.test) / runs.batch_size / 3  # a test costs a third of training
    minutes = 1.2 * n_runs * steps * seconds / 60 / max(1, settings.workers)
    gigabytes = psutil.Process().memory_info().rss / 2**30
    taken = {
        "teacher": f"{settings.teacher}: {_size(setup.teacher)}, {origin}; "
        f"validation {setup.metric} {teacher['score'] / 100:.3f}",
        "student": f"{settings.student}: {_size(student)}",
        "arms": f"{', '.join(settings.arms)}; {n_runs} runs of {runs.steps} steps of "
        f"{runs.batch_size} texts; {n_rates} learning rates, {settings.seeds} seeds",
        "cost": f"about {minutes:.1f} min; each process has {gigabytes:.1f} GB now",
    }
    odd = {
        "teacher": "it has learned nothing" if teacher["collapsed"] else "",
        "arms": "one seed: nothing is known about another" if settings.seeds == 1 else "",
    }
    rows = [(what, text, odd.get(what, "")) for what, text in taken.items()]
    rows[2:2] = [_data_row(settings, setup, data), *_feature_rows(setup)]
    return pd.DataFrame(rows, columns=["what", "taken", "odd"])


def _size(model: Any) -> str:
    n = sum(parameter.numel() for parameter in model.parameters())
    layers, width = model.config.num_hidden_layers, model.config.hidden_size
    return f"{layers} layer{'s' * (layers > 1)} × {width} wide, {n / 1e6:.1f} M weights"


def _data_row(
    settings: YourModelSettings, setup: ClassificationSetup, data: ClassificationData
) -> tuple[str, str, str]:
    n_test, classes = min(settings.max_rows or len(data.test), len(data.test)), "numbers"
    checks = {
        "few validation rows: the learning rate is chosen on little": len(setup.test) < FEW_ROWS,
        "few test rows: wide intervals": n_test < FEW_ROWS,
    }
    if setup.n_classes:
        counts = torch.tensor(setup.train["labels"]).bincount(minlength=setup.n_classes).tolist()
        pairs = zip(counts, data.label_names, strict=True)
        classes = ", ".join(f"{count} {name}" for count, name in pairs)
        checks["one class has most rows"] = max(counts) >= DOMINANT_CLASS * len(setup.train)
        checks[f"a class has {min(counts)} training rows"] = min(counts) < FEW_OF_A_CLASS
    taken = f"{len(setup.train)} rows to train ({classes}), {len(setup.test)} for validation"
    return "data", f"{taken}, {n_test} to test", "; ".join(text for text in checks if checks[text])


def _feature_rows(setup: ClassificationSetup) -> list[tuple[str, str, str]]:
    """Lengths of the texts, rows of a batch against width, and what dominates the features."""
    lengths, runs = torch.tensor([len(ids) for ids in setup.train["input_ids"]]), setup.settings
    n_tokens, cut = (
        float(lengths.double().mean()),
        float((lengths >= runs.max_length).double().mean()),
    )
    width, n_rows = setup.teacher.config.hidden_size, n_tokens * runs.batch_size
    sample = setup.train.select(range(min(N_SAMPLE, len(setup.train))))
    diagnosis = diagnose(cached_features(setup.train_cache, sample, setup.pad_id).float())
    *numbers, advice = str(diagnosis).splitlines()
    dominated = diagnosis.rows_dominate or diagnosis.direction_dominates
    return [
        (
            "texts",
            f"{n_tokens:.0f} tokens on average, at most {runs.max_length}",
            f"{cut:.0%} are cut or just as long" if cut > MANY_CUT else "",
        ),
        (
            "rows of a batch",
            f"about {n_rows:.0f}, one per token, {width} wide",
            "fewer rows than directions" if n_rows < width else "",
        ),
        ("teacher's features", "; ".join(numbers), advice if dominated else ""),
    ]


def _time_step(setup: ClassificationSetup) -> tuple[Any, float]:
    """An untrained student, and the seconds of one of its steps."""
    student = setup.build_student(0)
    rows = setup.train.select(range(min(setup.settings.batch_size, len(setup.train))))
    batch = pad(list(rows.select_columns(["input_ids", "labels"])), setup.pad_id)
    batch, seconds = to_device(student, batch), 0.0
    with torch_threads(1):
        for _ in range(2):  # the first one is slower
            started = time.perf_counter()
            student(**batch).loss.backward()
            seconds = time.perf_counter() - started
    return student, seconds
