"""The studies that `geodistill grid` knows: every run of each, by name."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial

from geodistill.errors import InputError
from geodistill.experiments import probe_transfer
from geodistill.experiments.classification import (
    grid as classification_grid,
)
from geodistill.experiments.classification import (
    run as classification_run,
)
from geodistill.experiments.classification.grid import SEEN
from geodistill.experiments.classification.run import ClassificationSetting
from geodistill.experiments.instruction import (
    grid as instruction_grid,
)
from geodistill.experiments.instruction import (
    run as instruction_run,
)
from geodistill.experiments.instruction import (
    setup as instruction_setup,
)
from geodistill.experiments.instruction.setup import InstructionRoom, InstructionSetting
from geodistill.experiments.methods import EXPLORATORY_INSTRUCTION, EXPLORATORY_METHODS
from geodistill.experiments.run_store import Run, run_id
from geodistill.experiments.runner import Job, Report, Study
from geodistill.experiments.synthetic.study import synthetic_study

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
    return Study(classification_run.STUDY, jobs, _prepare_classification)


def classification_section(name: str) -> Study:
    """A section of the protocol `data/protocol/classification.yaml`.

    Raises:
        InputError: no such section, or one whose weights the tuning section has still to give.
    """
    folder = f"{classification_grid.FOLDER}/{name}"
    jobs = [_classification_job(*run, study=folder) for run in classification_grid.runs(name)]
    return Study(folder, jobs, _prepare_classification)


def _classification_job(
    setting: ClassificationSetting, method: str, seed: int, study: str = classification_run.STUDY
) -> Job:
    config = classification_run.classification_config(setting, method)
    return Job(
        run_id=run_id(setting.task, method, seed, config),
        label=f"{setting.task} {method} seed {seed}",
        minutes=MINUTES * max(setting.n_train or ALL, 1) * setting.epochs / SEEN,
        work=partial(_classification_run, setting, method, seed, study),
    )


# One room a worker process and setting: opening it again costs seconds.
_classroom = cache(classification_run.open_classroom)
_shared_room = cache(instruction_setup.open_instruction_room)


def _classification_run(setting: ClassificationSetting, method: str, seed: int, study: str) -> Run:
    return classification_run.run_classification(_classroom(setting), method, seed, study)[0]


def readout_study() -> Study:
    """Described, not tested: the teacher's probe carried to students of four methods."""
    jobs = [
        replace(
            _classification_job(probe_transfer.SETTING, method, seed),
            work=partial(_readout_run, probe_transfer.SETTING, method, seed),
        )
        for seed in probe_transfer.SEEDS
        for method in probe_transfer.METHODS
    ]
    return Study(probe_transfer.STUDY, jobs, _prepare_classification)


def _readout_run(setting: ClassificationSetting, method: str, seed: int) -> Run:
    return probe_transfer.run_readout(_classroom(setting), method, seed)


def _prepare_classification(jobs: Sequence[Job], report: Report) -> None:
    """Train the teachers of the pending jobs' tasks, and cache what they say."""
    for setting in {job.work.args[0]: None for job in jobs}:  # type: ignore[attr-defined]
        classification_run.open_classroom(setting, report)


def instruction_study() -> Study:
    """Exploratory: the embedded prompts, four methods, five seeds."""
    jobs = [
        _instruction_job(InstructionSetting(), method, seed)
        for seed in SEEDS
        for method in EXPLORATORY_INSTRUCTION
    ]
    return Study(instruction_run.STUDY, jobs, _prepare_instruction)


def instruction_section(name: str) -> Study:
    """A section of the protocol `data/protocol/instruction.yaml`.

    Raises:
        InputError: no such section, or one whose weights the tuning section has still to give.
    """
    folder = f"{instruction_grid.FOLDER}/{name}"
    planned, minutes = instruction_grid.runs(name), instruction_grid.minutes(name)
    jobs = [_instruction_job(*run, study=folder, minutes=minutes) for run in planned]
    return Study(folder, jobs, _prepare_instruction)


def _instruction_job(
    setting: InstructionSetting,
    method: str,
    seed: int,
    study: str = instruction_run.STUDY,
    minutes: float = 2.0,
) -> Job:
    config = instruction_run.instruction_config(setting, method)
    return Job(
        run_id=run_id(setting.task, method, seed, config),
        label=f"{setting.task} {method} seed {seed}",
        minutes=minutes,
        work=partial(_instruction_run, setting, method, seed, study),
    )


def _instruction_run(setting: InstructionSetting, method: str, seed: int, study: str) -> Run:
    return instruction_run.run_instruction(_instruction_room(setting), method, seed, study)[0]


def _instruction_room(setting: InstructionSetting) -> InstructionRoom:
    """One teacher a worker process, however many settings its students have."""
    return replace(_shared_room(instruction_setup.shared_setting(setting)), setting=setting)


def _prepare_instruction(jobs: Sequence[Job], report: Report) -> None:
    """Run the teachers once over the pending jobs' prompts; SeqKD needs their answers too."""
    wanted: dict[InstructionSetting, set[str]] = {}
    for job in jobs:
        setting, method = job.work.args[:2]  # type: ignore[attr-defined]
        wanted.setdefault(instruction_setup.shared_setting(setting), set()).add(method)
    for setting, methods in wanted.items():
        room = instruction_setup.open_instruction_room(setting, report)
        if any(method.startswith("seqkd") for method in methods):
            instruction_setup.own_words(room, report)


STUDIES: dict[str, Callable[[], Study]] = {
    "classification": classification_study,
    "instruction": instruction_study,
    "readout": readout_study,
    "synthetic": synthetic_study,
}
SECTIONS: dict[str, Callable[[str], Study]] = {
    "classification": classification_section,
    "instruction": instruction_section,
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
    if name not in SECTIONS:
        raise InputError(f"section is {section!r}; the study {name!r} has none")
    return SECTIONS[name](section)
