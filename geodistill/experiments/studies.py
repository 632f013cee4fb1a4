"""The studies that `geodistill grid` knows: every run of each, by name."""

from collections.abc import Callable, Sequence
from functools import cache, partial

from geodistill.errors import InputError
from geodistill.experiments.classification import (
    STUDY,
    ClassificationSetting,
    Classroom,
    classification_config,
    open_classroom,
    run_classification,
)
from geodistill.experiments.grid import Job, Report, Study
from geodistill.experiments.protocol import CLASSIFICATION_METHODS
from geodistill.experiments.store import Run, run_id

CLASSIFICATION_TASKS = ("product", "movie")
SEEDS = range(5)


def classification() -> Study:
    """Exploratory: both sentiment tasks, all methods, five seeds, 500 labelled sentences."""
    jobs = [
        _classification_job(ClassificationSetting(task), method, seed)
        for seed in SEEDS
        for task in CLASSIFICATION_TASKS
        for method in CLASSIFICATION_METHODS
    ]
    return Study(STUDY, jobs, _prepare_classification)


def _classification_job(setting: ClassificationSetting, method: str, seed: int) -> Job:
    config = classification_config(setting, method)
    return Job(
        run_id=run_id(setting.task, method, seed, config),
        label=f"{setting.task} {method} seed {seed}",
        minutes=0.8,
        work=partial(_classification_run, setting, method, seed),
    )


@cache
def _classroom(setting: ClassificationSetting) -> Classroom:
    """One classroom a worker process and task."""
    return open_classroom(setting)


def _classification_run(setting: ClassificationSetting, method: str, seed: int) -> Run:
    return run_classification(_classroom(setting), method, seed)[0]


def _prepare_classification(jobs: Sequence[Job], report: Report) -> None:
    """Train the teachers of the pending jobs' tasks, and cache what they say."""
    for setting in {job.work.args[0]: None for job in jobs}:  # type: ignore[attr-defined]
        open_classroom(setting, report)


STUDIES: dict[str, Callable[[], Study]] = {"classification": classification}


def study(name: str) -> Study:
    """The study `name`.

    Raises:
        InputError: no such study; the message lists the known ones.
    """
    if name not in STUDIES:
        raise InputError(f"study is {name!r}; expected one of {', '.join(STUDIES)}")
    return STUDIES[name]()
