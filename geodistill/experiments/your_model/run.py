"""Distil a student of your own: equal tuning, the runs, the answer, the student's folder."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
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
from geodistill.analysis.stored_results import pivot_metrics, read_stored
from geodistill.distill.training.report import card_section
from geodistill.errors import InputError
from geodistill.experiments.protocol_grid import PlannedRun
from geodistill.experiments.run_store import Run, locked
from geodistill.experiments.runner import Job, Study, pending_jobs, run_study
from geodistill.experiments.training import silence_libraries, torch_threads
from geodistill.experiments.your_model.plan import plan_table
from geodistill.experiments.your_model.record import RECORD, record_of
from geodistill.experiments.your_model.settings import TUNING_SEED, YourModelSettings
from geodistill.experiments.your_model.task import DistillationTask, Inputs, Split
from geodistill.experiments.your_model.text_classification import TextClassification
from geodistill.experiments.your_model.text_generation import TextGeneration
from geodistill.files import Progress, atomic_folder, first_line, no_progress, remove_interrupted

TASKS: dict[str, DistillationTask] = {
    task.pipeline: task for task in (TextClassification(), TextGeneration())
}
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


def distill_your_model(
    settings: YourModelSettings,
    progress: Progress = print,
    show_plan: Callable[[pd.DataFrame], None] = lambda plan: print(plan.to_string(index=False)),
) -> Answer:
    """Train each arm, compare them, and write the student's folder.

    Every arm tries the same learning rates with one run each on validation, and is then trained
    with its best one and several seeds; test rows are seen by these runs alone. After an
    interruption the same call makes the runs that are missing. The student is that of the second
    arm if the comparison finds it better, else that of the first, with seed 0.

    Args:
        settings: what to distil.
        progress: called with a line for each stage and run.
        show_plan: called before students are trained with the table of what was taken.

    Raises:
        InputError: unusable data, teacher, student, layers or folder, before anything is trained.
        FloatingPointError: a loss is not finite.

    Example:
        >>> from geodistill import YourModelSettings, distill_your_model
        >>> settings = YourModelSettings(data="reviews.csv", text="review", label="kind")
        >>> answer = distill_your_model(settings)  # doctest: +SKIP
        >>> print(answer.sentence)  # doctest: +SKIP
    """
    silence_libraries()
    task = TASKS[settings.task]
    inputs = task.read(settings)
    record = record_of(settings, inputs.data_hash)
    folder = settings.runs_folder / record["content"]  # other texts or models have another one
    with locked(folder, "out"):
        setup = _setup(settings, folder, "validation", progress)
        show_plan(plan_table(task, settings, inputs, setup))
        best_rates = dict.fromkeys(settings.arms, settings.learning_rates[0])
        if len(settings.learning_rates) > 1:
            tuning = [
                PlannedRun(replace(setup.settings, learning_rate=rate), arm, TUNING_SEED)
                for arm in settings.arms
                for rate in settings.learning_rates
            ]
            best_rates = _best_rates(
                task, _make_runs(folder / "tuning", settings, tuning, progress)[0]
            )
        test = _setup(settings, folder, "test", progress).settings
        planned = [PlannedRun(test, name, 0) for name in (*task.trivial, "teacher")]
        planned += [
            PlannedRun(replace(test, learning_rate=best_rates[arm]), arm, seed)
            for seed in range(settings.seeds)
            for arm in settings.arms
        ]
        rows, items = _make_runs(folder / "test", settings, planned, progress)
        answer = _compare_arms(settings, pivot_metrics(rows), items, inputs.metric, best_rates)
        weights = _student_folder(folder, next(r for r in planned if r.method == answer.arm))
        _write_student(answer, weights, inputs, setup, record)
    return answer


@lru_cache(1)
def _inputs(settings: YourModelSettings, folder: Path) -> Inputs:
    """Read again in each process; `folder` bears the hash of the contents."""
    return TASKS[settings.task].read(settings)


@lru_cache(2)
def _setup(settings: YourModelSettings, folder: Path, split: Split, progress: Progress) -> Any:
    """The task with its teacher; made once in each process."""
    return TASKS[settings.task].prepare(_inputs(settings, folder), split, folder, progress)


def _make_runs(
    folder: Path, settings: YourModelSettings, planned: Sequence[PlannedRun], progress: Progress
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make the runs that are missing, with a line for each and the time left; rows and items."""
    log = no_progress if settings.workers else progress  # other processes print nothing
    jobs = []
    for run in planned:
        label = f"{folder.name}, {run.method}, seed {run.seed}"
        if folder.name == "tuning":
            runs: Any = run.settings
            label += f", learning rate {runs.learning_rate:g}"
        jobs.append(Job(run.run_id, label, 1.0, partial(_train, settings, folder.parent, run, log)))
    study = Study(str(folder), jobs, prepare=lambda pending, progress: None)
    n_pending, started = len(pending_jobs(study)), time.perf_counter()
    with torch_threads(1):  # floating-point sums depend on it
        for n_made, job in enumerate(run_study(study, workers=settings.workers, progress=log), 1):
            left = n_pending - n_made
            minutes = (time.perf_counter() - started) / n_made * left / 60
            progress(f"{job.label}; {left} runs of this stage left, about {minutes:.1f} min")
    tables = [read_stored(folder / f"{name}.parquet") for name in ("rows", "items")]
    ids = [job.run_id for job in jobs]
    rows, items = (table[table["run_id"].isin(ids)] for table in tables)
    return rows, items


def _train(settings: YourModelSettings, folder: Path, run: PlannedRun, log: Progress) -> Run:
    """A run; the first student of each arm is kept before its run is stored."""
    runs: Any = run.settings
    setup = replace(_setup(settings, folder, runs.split, log), settings=runs)
    keep = partial(_keep_student, _student_folder(folder, run)) if run.seed == 0 else None
    return TASKS[settings.task].make_run(setup, run.method, run.seed, keep)


def _student_folder(folder: Path, run: PlannedRun) -> Path:
    return folder / "students" / run.run_id


def _keep_student(folder: Path, trainer: Any) -> None:
    """Save weights, and the section on the distillation of the trainer's model card."""
    with _written(folder) as partial_folder:
        trainer.model.save_pretrained(partial_folder)
        (partial_folder / "README.md").write_text(card_section(trainer), encoding="utf-8")


@contextmanager
def _written(folder: Path) -> Iterator[Path]:
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


def _best_rates(task: DistillationTask, rows: pd.DataFrame) -> dict[str, float]:
    """By arm, the learning rate of the best score on validation; of ties the smaller one."""
    runs = pivot_metrics(rows).sort_values("run_id", ignore_index=True)
    runs = runs.join(task.judge_runs(runs))
    configs = rows.drop_duplicates("run_id").set_index("run_id")["config"]
    runs["rate"] = [json.loads(configs[run_id])["learning_rate"] for run_id in runs["run_id"]]
    runs = runs.sort_values(["collapsed", "score", "rate"], ascending=[True, False, True])
    best = runs.drop_duplicates("method")
    return dict(zip(best["method"], best["rate"], strict=True))


def _compare_arms(
    settings: YourModelSettings,
    runs: pd.DataFrame,
    items: pd.DataFrame,
    metric: str,
    best_rates: dict[str, float],
) -> Answer:
    """Compare the arms, and choose the student: of two that can't be told apart, the first."""
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
    trivial = max(TASKS[settings.task].trivial, key=lambda name: means.get(name, 0.0))
    if means[arm] <= means[trivial]:
        label = method_style(trivial).label
        sentences += [f"The student is not above {label}, {means[trivial]:.3f}: don't keep it."]
    tried = settings.learning_rates
    for name, rate in best_rates.items():
        if len(tried) > 1 and rate in (min(tried), max(tried)):
            edge = "largest" if rate == max(tried) else "smallest"
            sentences += [f"The best learning rate of {name}, {rate:g}, is the {edge} tried."]
    levels = _level_table(settings, runs.dropna(subset=[metric]), metric, collapsed)
    text, out = " ".join(sentences), Path(settings.out)
    return Answer(text, levels, report, runs, metric, best_rates, arm, out)


def _level_table(
    settings: YourModelSettings, runs: pd.DataFrame, metric: str, collapsed: pd.DataFrame
) -> pd.DataFrame:
    order = [*TASKS[settings.task].trivial, *settings.arms, "teacher"]
    runs = runs.sort_values("method", key=lambda names: names.map(order.index), kind="stable")
    levels = format_levels(level_table(runs, metric, collapsed), POINTS)
    means = mean_table(runs, {name: title for name, title in _MEANS.items() if name in runs})
    return pd.concat([means["student"], levels.iloc[:, 2:], means.iloc[:, 1:]], axis=1)


def _write_student(
    answer: Answer, weights: Path, inputs: Inputs, setup: Any, record: dict[str, Any]
) -> None:
    """Write weights, tokenizer, model card and record to the student's folder, or none of them."""
    task, section = TASKS[record["task"]], (weights / "README.md").read_text(encoding="utf-8")
    with _written(answer.folder) as folder:
        shutil.copytree(weights, folder, dirs_exist_ok=True)
        card = _CARD.format(
            pipeline=task.pipeline, teacher=Path(record["teacher"]).name, data=inputs.runs.task,
            arm=answer.arm, rate=answer.learning_rates[answer.arm], record=RECORD,
            sentence=answer.sentence, note=task.save_rest(folder, inputs, setup),
            levels=markdown_table(answer.levels), metric=answer.metric, section=section,
        )  # fmt: skip
        (folder / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
        (folder / "README.md").write_text(card, encoding="utf-8")
