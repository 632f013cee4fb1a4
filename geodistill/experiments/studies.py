"""The studies that `geodistill grid` knows: every run of each, by name."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial

from geodistill.errors import InputError
from geodistill.experiments import classification, instruction, readout, sections
from geodistill.experiments.classification import ClassificationSetting
from geodistill.experiments.grid import Job, Report, Study
from geodistill.experiments.instruction import InstructionSetting
from geodistill.experiments.protocol import EXPLORATORY_METHODS, INSTRUCTION_METHODS
from geodistill.experiments.sections import SEEN
from geodistill.experiments.store import Run, run_id
from geodistill.experiments.synthetic_study import synthetic_study

CLASSIFICATION_TASKS = ("product", "movie")
SEEDS = range(5)
MINUTES, ALL = 0.6, 5_000
"""A first guess: of a run that sees 7,500 sentences; and the sentences of a whole task."""


def classification_study() -> Study:
    """Exploratory: both sentiment tasks, eight methods, five seeds, 500 labelled sentences."""
    jobs = [
        _classification_job(ClassificationSetting(task), method, seed)
        for seed in SEEDS
        for task in CLASSIFICATION_TASKS
        for method in EXPLORATORY_METHODS
    ]
    return Study(classification.STUDY, jobs, _prepare_classification)


def classification_section(name: str) -> Study:
    """A section of the protocol `data/protocol/classification.yaml`.

    Raises:
        InputError: no such section, or one whose weights the tuning section has still to give.
    """
    folder = f"{sections.FOLDER}/{name}"
    jobs = [_classification_job(*run, study=folder) for run in sections.runs(name)]
    return Study(folder, jobs, _prepare_classification)


def _classification_job(
    setting: ClassificationSetting, method: str, seed: int, study: str = classification.STUDY
) -> Job:
    config = classification.classification_config(setting, method)
    return Job(
        run_id=run_id(setting.task, method, seed, config),
        label=f"{setting.task} {method} seed {seed}",
        minutes=MINUTES * max(setting.n_train or ALL, 1) * setting.epochs / SEEN,
        work=partial(_classification_run, setting, method, seed, study),
    )


# One room a worker process and setting: opening it again costs seconds.
_classroom = cache(classification.open_classroom)
_instruction_room = cache(instruction.open_instruction_room)


def _classification_run(setting: ClassificationSetting, method: str, seed: int, study: str) -> Run:
    return classification.run_classification(_classroom(setting), method, seed, study)[0]


def readout_study() -> Study:
    """Described, not tested: the teacher's probe carried to students of four methods."""
    jobs = [
        replace(
            _classification_job(readout.SETTING, method, seed),
            work=partial(_readout_run, readout.SETTING, method, seed),
        )
        for seed in readout.SEEDS
        for method in readout.METHODS
    ]
    return Study(readout.STUDY, jobs, _prepare_classification)


def _readout_run(setting: ClassificationSetting, method: str, seed: int) -> Run:
    return readout.run_readout(_classroom(setting), method, seed)


def _prepare_classification(jobs: Sequence[Job], report: Report) -> None:
    """Train the teachers of the pending jobs' tasks, and cache what they say."""
    for setting in {job.work.args[0]: None for job in jobs}:  # type: ignore[attr-defined]
        classification.open_classroom(setting, report)


def instruction_study() -> Study:
    """Exploratory: the embedded prompts, all methods, five seeds."""
    setting = InstructionSetting()
    jobs = [
        Job(
            run_id=run_id(
                setting.task, method, seed, instruction.instruction_config(setting, method)
            ),
            label=f"{setting.task} {method} seed {seed}",
            minutes=2.0,
            work=partial(_instruction_run, setting, method, seed),
        )
        for seed in SEEDS
        for method in INSTRUCTION_METHODS
    ]
    return Study(instruction.STUDY, jobs, _prepare_instruction)


def _instruction_run(setting: InstructionSetting, method: str, seed: int) -> Run:
    return instruction.run_instruction(_instruction_room(setting), method, seed)[0]


def _prepare_instruction(jobs: Sequence[Job], report: Report) -> None:
    """Run the teacher once over the training prompts."""
    for setting in {job.work.args[0]: None for job in jobs}:  # type: ignore[attr-defined]
        instruction.open_instruction_room(setting, report)


STUDIES: dict[str, Callable[[], Study]] = {
    "classification": classification_study,
    "instruction": instruction_study,
    "readout": readout_study,
    "synthetic": synthetic_study,
}


def study(name: str, section: str = "") -> Study:
    """The study `name`, or one section of its protocol.

    Raises:
        InputError: no such study or section; the message lists the known ones.
    """
    if name not in STUDIES:
        raise InputError(f"study is {name!r}; expected one of {', '.join(STUDIES)}")
    if not section:
        return STUDIES[name]()
    if name != "classification":
        raise InputError(f"section is {section!r}; the study {name!r} has none")
    return classification_section(section)
