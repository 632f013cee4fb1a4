"""The studies by name, and the jobs of each section. Loads no torch before a job is run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from geodistill.errors import InputError
from geodistill.experiments.classification import settings as classification
from geodistill.experiments.classification.grid import ClassificationGrid
from geodistill.experiments.instruction import settings as instruction
from geodistill.experiments.instruction.grid import InstructionGrid
from geodistill.experiments.methods import base_of
from geodistill.experiments.protocol_grid import PlannedRun
from geodistill.experiments.runner import Job, Study
from geodistill.experiments.tuned_grid import TunedGrid
from geodistill.files import Progress

if TYPE_CHECKING:
    from geodistill.experiments.run_store import Run

GRIDS: dict[str, TunedGrid] = {
    grid.study: grid for grid in (ClassificationGrid(), InstructionGrid())
}
"""The studies that are made section by section, as their protocols say."""
SYNTHETIC = "synthetic"
STUDIES = (*GRIDS, SYNTHETIC)


def find_study(name: str, section: str = "") -> Study:
    """The runs of a study, or of one section of its protocol.

    Args:
        name: one of `STUDIES`.
        section: name of a section, for the studies that have sections.

    Raises:
        InputError: no such study or section, a section where there are none, or none where one is
            needed; the message lists the known ones. Or the section can't be planned: an unknown
            method or setting, or results that set its weights and tasks and are still to be made.
    """
    if name not in STUDIES:
        raise InputError(f"study is {name!r}; expected one of {', '.join(STUDIES)}")
    if name == SYNTHETIC:
        if section:
            raise InputError(f"section is {section!r}; the study {name!r} has none")
        from geodistill.experiments.synthetic.study import synthetic_study

        return synthetic_study()
    grid = GRIDS[name]
    if not section:
        raise InputError(
            f"the study {name!r} is made by sections; add --section with one of "
            f"{', '.join(grid.protocol()['grid'])}"
        )
    spec, folder = grid.section(section), f"{name}/{section}"
    jobs = [_job(run, folder, spec.get("minutes", 1.0)) for run in grid.runs(section)]
    return Study(folder, jobs, _PREPARE[name])


def _job(run: PlannedRun, folder: str, minutes: float) -> Job:
    return Job(
        run_id=run.run_id,
        label=f"{run.settings.task} {run.method} seed {run.seed}",
        minutes=minutes,
        work=partial(_RUN[folder.partition("/")[0]], run, folder),
        settings=run.settings,
        method=run.method,
    )


@cache
def _classification_setup(settings: Any) -> Any:
    """One setup per worker process, however many settings its students have: it holds a teacher."""
    from geodistill.experiments.classification.setup import prepare_classification

    return prepare_classification(settings)


def _run_classification(run: PlannedRun, folder: str) -> Run:
    from geodistill.experiments.classification.run import run_classification

    assert isinstance(run.settings, classification.ClassificationSettings)
    setup = _classification_setup(classification.setup_settings(run.settings))
    return run_classification(setup.with_settings(run.settings), run.method, run.seed, folder)[0]


def _prepare_classification(jobs: Sequence[Job], progress: Progress) -> None:
    """Train the teachers of the jobs' tasks, and cache their outputs."""
    from geodistill.experiments.classification.setup import prepare_classification

    for settings in dict.fromkeys(classification.setup_settings(job.settings) for job in jobs):
        prepare_classification(settings, progress)


@cache
def _instruction_setup(settings: Any) -> Any:
    from geodistill.experiments.instruction.setup import prepare_instruction

    return prepare_instruction(settings)


def _run_instruction(run: PlannedRun, folder: str) -> Run:
    from dataclasses import replace

    from geodistill.experiments.instruction.run import run_instruction

    assert isinstance(run.settings, instruction.InstructionSettings)
    # One teacher per worker process, however many settings its students have.
    setup = _instruction_setup(instruction.setup_settings(run.settings))
    return run_instruction(replace(setup, settings=run.settings), run.method, run.seed, folder)[0]


def _prepare_instruction(jobs: Sequence[Job], progress: Progress) -> None:
    """Run the teachers once over the jobs' prompts; SeqKD needs their answers too."""
    from geodistill.experiments.instruction.setup import prepare_instruction, teacher_generations

    methods: dict[Any, set[str]] = {}
    for job in jobs:
        methods.setdefault(instruction.setup_settings(job.settings), set()).add(job.method)
    for settings, names in methods.items():
        setup = prepare_instruction(settings, progress)
        if any(base_of(name) == "seqkd" for name in names):
            teacher_generations(setup, progress)


_RUN = {"classification": _run_classification, "instruction": _run_instruction}
_PREPARE = {"classification": _prepare_classification, "instruction": _prepare_instruction}
