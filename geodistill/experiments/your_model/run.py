"""Distil a student of your own: what was taken, equal tuning, the runs, the answer, the folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Literal

import pandas as pd
from safetensors import SafetensorError

from geodistill.analysis.stored_results import pivot_metrics, read_stored
from geodistill.errors import InputError
from geodistill.experiments.classification.run import run_classification
from geodistill.experiments.classification.settings import ClassificationSettings
from geodistill.experiments.classification.setup import ClassificationSetup, prepare_classification
from geodistill.experiments.run_store import Run, finished_runs, locked, merge_runs, write_run
from geodistill.experiments.runner import Job, in_processes, make_run
from geodistill.experiments.settings import run_config, run_id
from geodistill.experiments.training import torch_threads
from geodistill.experiments.your_model.answer import Answer, answer_of, write_student
from geodistill.experiments.your_model.checks import check_all, claim_folder
from geodistill.experiments.your_model.plan import plan_table
from geodistill.experiments.your_model.settings import MAX_SEEDS, YourModelSettings
from geodistill.files import Progress, atomic_folder, first_line, no_progress
from geodistill.tasks import ClassificationData

Split = Literal["test", "validation"]
BASELINES = ("majority", "tfidf", "teacher")


@dataclass(frozen=True)
class _Planned:
    """One run, and the folder that keeps its student, if any does."""

    settings: ClassificationSettings
    method: str
    seed: int
    student: Path | None = None

    @property
    def run_id(self) -> str:
        config = run_config(self.settings, self.method)
        return run_id(self.settings.task, self.method, self.seed, config)

    def is_finished(self, stored: Mapping[str, float]) -> bool:
        return self.run_id in stored and (self.student is None or self.student.is_dir())

    def job(self, train: Callable[[_Planned], Run]) -> Job:
        label = f"{self.settings.split}, {self.method}"
        if self.method not in BASELINES:
            label += f", seed {self.seed}, learning rate {self.settings.learning_rate:g}"
        return Job(self.run_id, label, 1.0, partial(train, self))


def distil_your_model(
    settings: YourModelSettings,
    progress: Progress = print,
    show_plan: Callable[[pd.DataFrame], None] | None = None,
) -> Answer:
    """Train KD and KD with a feature term, compare them, and write the student's folder.

    Every arm tries the same learning rates with one run each on validation, and is then trained
    with its best one and several seeds; test rows are seen by these runs alone. After an
    interruption the same call goes on with the runs that are missing. The student is that of the
    arm with the term if the comparison finds it better, else that of KD, with seed 0.

    Args:
        settings: what to distil.
        progress: called with a line for each stage and run.
        show_plan: called before students are trained with a table of what was taken.

    Returns:
        The comparison, the levels of all arms and baselines, and the student's folder.

    Raises:
        InputError: unusable data, teacher, student, layers or folder, before anything is trained.
        FloatingPointError: a loss is not finite.

    Example:
        >>> settings = YourModelSettings(data="reviews.csv", text="review", label="kind")
        >>> answer = distil_your_model(settings)  # doctest: +SKIP
        >>> print(answer.sentence)  # doctest: +SKIP
    """
    runs, data = check_all(settings)
    claim_folder(settings, data.data_hash)
    with locked(settings.runs_folder):
        validation = _prepare(runs, data, "validation", settings, progress)
        tuning = _plan_tuning(settings, validation.settings)
        n_runs = len(tuning) + settings.seeds * len(settings.arms)
        plan = plan_table(settings, validation, data, n_runs)
        (show_plan or (lambda table: progress(table.to_string(index=False))))(plan)
        _make(tuning, validation, settings, progress)
        rates = _best_rates(settings)
        test = _prepare(runs, data, "test", settings, progress)
        planned = _plan_test(settings, test.settings, rates)
        _make(planned, test, settings, progress)
        answer = answer_of(settings, [run.run_id for run in planned], rates)
        student = next(run.student for run in planned if run.method == answer.arm and run.student)
        write_student(answer, plan, student, test, data)
    return answer


def _prepare(
    runs: ClassificationSettings,
    data: ClassificationData,
    split: Split,
    settings: YourModelSettings,
    progress: Progress,
) -> ClassificationSetup:
    n_items = len(getattr(data, split))
    max_test = settings.max_test if settings.max_test < n_items else 0
    runs = replace(runs, split=split, max_test=max_test)
    return prepare_classification(runs, progress, data, settings.runs_folder)


def _plan_tuning(settings: YourModelSettings, runs: ClassificationSettings) -> list[_Planned]:
    """One run for each arm and learning rate; none if there is no choice."""
    rates = settings.learning_rates if len(settings.learning_rates) > 1 else ()
    return [
        _Planned(replace(runs, learning_rate=rate), method, MAX_SEEDS)
        for method in settings.arms
        for rate in rates
    ]


def _best_rates(settings: YourModelSettings) -> dict[str, float]:
    """By arm, the learning rate of the best accuracy on validation; of ties the smaller nll."""
    if len(settings.learning_rates) == 1:
        return dict.fromkeys(settings.arms, settings.learning_rates[0])
    rows = read_stored(settings.runs_folder / "tuning" / "rows.parquet")
    configs = rows.drop_duplicates("run_id").set_index("run_id")["config"]
    runs = pivot_metrics(rows).sort_values(["accuracy", "nll"], ascending=[False, True])
    best = runs.drop_duplicates("method").set_index("method")["run_id"]
    return {arm: json.loads(configs[best[arm]])["learning_rate"] for arm in settings.arms}


def _plan_test(
    settings: YourModelSettings, runs: ClassificationSettings, rates: dict[str, float]
) -> list[_Planned]:
    """The baselines once, and every arm with every seed; the first student of an arm is kept."""
    planned = [_Planned(runs, method, 0) for method in BASELINES]
    for seed in range(settings.seeds):
        for method in settings.arms:
            run = _Planned(replace(runs, learning_rate=rates[method]), method, seed)
            student = settings.runs_folder / "students" / run.run_id
            planned.append(replace(run, student=None if seed else student))
    return planned


def _make(
    planned: Sequence[_Planned],
    setup: ClassificationSetup,
    settings: YourModelSettings,
    progress: Progress,
) -> None:
    """Make and store the runs that are missing, in this process or in several others."""
    split = setup.settings.split
    folder = settings.runs_folder / ("runs" if split == "test" else "tuning")
    merge_runs(folder)
    stored, started = finished_runs(folder), time.perf_counter()
    missing = [run for run in planned if not run.is_finished(stored)]
    try:
        if settings.workers > 1 and len(missing) > 1:
            jobs = [run.job(partial(_train_in_worker, settings, split)) for run in missing]
            lines = in_processes(jobs, settings.workers, partial(_store, folder))
        else:
            lines = (_store(folder, run.job(partial(_train, setup))) for run in missing)
        for n_made, line in enumerate(lines, 1):
            left = len(missing) - n_made
            minutes = (time.perf_counter() - started) / n_made * left / 60
            progress(f"{line}; {left} runs of this stage left, about {minutes:.1f} min")
    finally:
        merge_runs(folder)


def _store(folder: Path, job: Job) -> str:
    """Make a run, store it, and describe it."""
    with torch_threads(1):  # floating-point sums depend on it
        run = make_run(job)
    write_run(folder, run)
    return f"{job.label}: accuracy {run.metrics['accuracy']:.3f}"


def _train(setup: ClassificationSetup, planned: _Planned) -> Run:
    """Train, and keep the student before its run is stored: a stored run has its student."""
    setup = setup.with_settings(planned.settings)
    run, student = run_classification(setup, planned.method, planned.seed, "your_model")
    if planned.student:
        try:
            with atomic_folder(planned.student) as partial_folder:
                student.save_pretrained(partial_folder)
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"out: {planned.student} can't be written ({first_line(error)}); finished runs are "
                "kept: make room, and the same call goes on"
            ) from error
    return run


def _train_in_worker(settings: YourModelSettings, split: Split, planned: _Planned) -> Run:
    return _train(_setup_in_worker(settings, split), planned)


@cache
def _setup_in_worker(settings: YourModelSettings, split: Split) -> ClassificationSetup:
    """The setup that the first process has made, read back once in each worker."""
    return _prepare(*check_all(settings), split, settings, no_progress)
