"""Distil a student of your own: equal tuning, the runs, the answer, the student's folder."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pandas as pd

from geodistill.analysis.stored_results import pivot_metrics, read_stored
from geodistill.distill.training.report import card_section
from geodistill.errors import refuse_several_processes
from geodistill.experiments.cluster import check_common_folder
from geodistill.experiments.protocol_grid import PlannedRun
from geodistill.experiments.run_store import Run, locked
from geodistill.experiments.runner import Job, Study, pending_jobs, run_study
from geodistill.experiments.training import silence_libraries, torch_threads
from geodistill.experiments.your_model.answer import (
    Answer,
    compare_arms,
    write_student,
    written,
)
from geodistill.experiments.your_model.plan import plan_table
from geodistill.experiments.your_model.record import record_of
from geodistill.experiments.your_model.sentence_similarity import SentenceSimilarity
from geodistill.experiments.your_model.settings import TUNING_SEED, YourModelSettings
from geodistill.experiments.your_model.task import (
    DistillationTask,
    Inputs,
    Split,
    refuse_two_meanings,
)
from geodistill.experiments.your_model.text_classification import TextClassification
from geodistill.experiments.your_model.text_generation import TextGeneration
from geodistill.files import Progress, no_progress

TASKS: dict[str, DistillationTask] = {
    task.pipeline: task for task in (TextClassification(), TextGeneration(), SentenceSimilarity())
}


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
    refuse_several_processes("make every run", instead=", and workers=N or scheduler")
    silence_libraries()
    refuse_two_meanings(settings)
    task = TASKS[settings.task]
    inputs = task.read(settings)
    record = record_of(settings, inputs.data_hash)
    folder = settings.runs_folder / record["content"]  # other texts or models have another one
    with locked(settings.runs_folder, "out"):
        if settings.scheduler:
            check_common_folder(settings.scheduler, settings.runs_folder)
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
        answer = compare_arms(task, settings, pivot_metrics(rows), items, inputs.metric, best_rates)
        run = next(run for run in planned if run.method == answer.arm)
        weights = _student_folder(folder, run)
        if not weights.is_dir():  # removed by hand: the same run makes it again
            with torch_threads(1):
                _train(settings, folder, run, progress)
        write_student(task, answer, weights, inputs, setup, record)
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
    elsewhere = settings.workers or settings.scheduler  # other processes print nothing
    log = no_progress if elsewhere else progress
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
        runs_made = run_study(
            study, workers=settings.workers, progress=log, scheduler=settings.scheduler
        )
        for n_made, job in enumerate(runs_made, 1):
            left = n_pending - n_made
            rounds = [math.ceil(n / settings.n_parallel) for n in (n_made, left)]
            minutes = (time.perf_counter() - started) / rounds[0] * rounds[1] / 60
            progress(f"{job.label}; {left} of this stage left, about {minutes:.1f} min")
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
    with written(folder) as partial_folder:
        trainer.model.save_pretrained(partial_folder)
        (partial_folder / "README.md").write_text(card_section(trainer), encoding="utf-8")


def _best_rates(task: DistillationTask, rows: pd.DataFrame) -> dict[str, float]:
    """By arm, the learning rate of the best score on validation; of ties the smaller one."""
    runs = pivot_metrics(rows).sort_values("run_id", ignore_index=True)
    runs = runs.join(task.judge_runs(runs))
    configs = rows.drop_duplicates("run_id").set_index("run_id")["config"]
    runs["rate"] = [json.loads(configs[run_id])["learning_rate"] for run_id in runs["run_id"]]
    runs = runs.sort_values(["collapsed", "score", "rate"], ascending=[True, False, True])
    best = runs.drop_duplicates("method")
    return dict(zip(best["method"], best["rate"], strict=True))
