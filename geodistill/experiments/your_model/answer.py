"""The answer to a distillation: the comparison in words, the levels, the student's folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError

from geodistill.analysis.figures.style import method_style
from geodistill.analysis.report.comparison_report import ComparisonReport, compare_all
from geodistill.analysis.report.export import main_sentences, markdown_table
from geodistill.analysis.report.format import POINTS
from geodistill.analysis.report.levels import format_levels, level_table
from geodistill.analysis.report.tables import mean_table
from geodistill.analysis.score_tables import read_scores
from geodistill.analysis.stats.collapse import find_collapsed
from geodistill.analysis.stats.verdict import BETTER, SLIGHTLY_BETTER
from geodistill.errors import InputError
from geodistill.experiments.your_model.record import RECORD
from geodistill.experiments.your_model.settings import YourModelSettings
from geodistill.experiments.your_model.task import DistillationTask, Inputs
from geodistill.files import atomic_folder, first_line, remove_interrupted

_MEANS = {"agreement": "agreement with the teacher", "geometry_kept/procrustes": "geometry kept"}
_CARD = """---
library_name: transformers
pipeline_tag: {pipeline}
tags: [knowledge-distillation, geodistill]
---

# A student of {teacher}, distilled on {data}

Method {arm}, learning rate {rate:g}, seed 0; all settings are in `{record}`. {sentence}{note}

{levels}

Test {metric} in points; means over seeds with 95 % intervals. Geometry kept: 0 at chance level, 1
at the best that a student of this width can do.

{section}
"""


@dataclass(frozen=True)
class Answer:
    """What the term did for the student.

    Attributes:
        sentence: the comparison in words, and what else a reader must know.
        levels: of baselines, arms and teacher, as text.
        report: the comparison of the arms; None if there is none.
        runs: one row per run on test, a column for each metric.
        metric: of levels and comparison.
        learning_rates: chosen on validation, by arm.
        arm: whose student is in the folder.
        folder: of the student, which `from_pretrained` loads.
    """

    sentence: str
    levels: pd.DataFrame
    report: ComparisonReport | None
    runs: pd.DataFrame
    metric: str
    learning_rates: dict[str, float]
    arm: str
    folder: Path


def compare_arms(
    task: DistillationTask,
    settings: YourModelSettings,
    runs: pd.DataFrame,
    items: pd.DataFrame,
    metric: str,
    best_rates: dict[str, float],
) -> Answer:
    """Compare the arms, and choose the student: of two that can't be told apart, the first.

    Args:
        task: of the students.
        settings: of the distillation.
        runs: one row per run on test, a column for each metric.
        items: of these runs.
        metric: of the comparison.
        best_rates: learning rate by arm.
    """
    items = items[items["method"].isin(settings.arms)]
    (arm, *others), report = settings.arms, None
    sentences = ["There is one arm: nothing is compared."]
    if others:
        path = settings.runs_folder / "compared.parquet"
        items.to_parquet(path, index=False)
        try:
            report = compare_all(read_scores(path, arm, metric=metric), arm, others[:1])
            sentences = main_sentences(report)
            arm = others[0] if report.rows[0].verdict.word in (BETTER, SLIGHTLY_BETTER) else arm
        except InputError as error:  # such as equal predictions of all runs
            sentences = [f"The arms can't be compared: {error}."]
    means, collapsed = runs.groupby("method")[metric].mean().fillna(0.0), find_collapsed(items)
    trivial = max(task.trivial, key=lambda name: means.get(name, 0.0))
    if means[arm] <= means[trivial]:
        label = method_style(trivial).label
        sentences += [f"The student is not above {label}, {means[trivial]:.3f}: don't keep it."]
    tried = settings.learning_rates
    for name, rate in best_rates.items():
        if len(tried) > 1 and rate in (min(tried), max(tried)):
            edge = "largest" if rate == max(tried) else "smallest"
            sentences += [f"The best learning rate of {name}, {rate:g}, is the {edge} tried."]
    levels = _level_table(task, settings, runs.dropna(subset=[metric]), metric, collapsed)
    text, out = " ".join(sentences), Path(settings.out)
    return Answer(text, levels, report, runs, metric, best_rates, arm, out)


def _level_table(
    task: DistillationTask,
    settings: YourModelSettings,
    runs: pd.DataFrame,
    metric: str,
    collapsed: pd.DataFrame,
) -> pd.DataFrame:
    order = [*task.trivial, *settings.arms, "teacher"]
    runs = runs.sort_values("method", key=lambda names: names.map(order.index), kind="stable")
    levels = format_levels(level_table(runs, metric, collapsed), POINTS)
    means = mean_table(runs, {name: title for name, title in _MEANS.items() if name in runs})
    return pd.concat([means["student"], levels.iloc[:, 2:], means.iloc[:, 1:]], axis=1)


def write_student(
    task: DistillationTask,
    answer: Answer,
    weights: Path,
    inputs: Inputs,
    setup: Any,
    record: dict[str, Any],
) -> None:
    """Write weights, tokenizer, model card and record to the student's folder, or none of them.

    Args:
        task: of the student.
        answer: whose student is kept.
        weights: folder of that student, with the section of its model card.
        inputs: data and settings.
        setup: the teacher.
        record: of the student.
    """
    section = (weights / "README.md").read_text(encoding="utf-8")
    with written(answer.folder) as folder:
        shutil.copytree(weights, folder, dirs_exist_ok=True)
        card = _CARD.format(
            pipeline=task.pipeline, teacher=Path(record["teacher"]).name, data=inputs.runs.task,
            arm=answer.arm, rate=answer.learning_rates[answer.arm], record=RECORD,
            sentence=answer.sentence, note=task.save_rest(folder, inputs, setup),
            levels=markdown_table(answer.levels), metric=answer.metric, section=section,
        )  # fmt: skip
        (folder / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
        (folder / "README.md").write_text(card, encoding="utf-8")


@contextmanager
def written(folder: Path) -> Iterator[Path]:
    """`atomic_folder`, whose errors say what is kept; the lock on the runs keeps others away."""
    remove_interrupted(folder)
    try:
        with atomic_folder(folder) as partial_folder:
            yield partial_folder
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"out: {folder} can't be written ({first_line(error)}); finished runs are kept: make "
            "room, and the same call goes on"
        ) from error
