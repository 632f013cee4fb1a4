"""The studies by name, and the jobs of each section. Loads no torch before a job is run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from geodistill.errors import InputError, check_choice
from geodistill.experiments.classification.grid import ClassificationGrid
from geodistill.experiments.instruction.grid import InstructionGrid
from geodistill.experiments.methods import base_of
from geodistill.experiments.protocol_grid import PlannedRun
from geodistill.experiments.runner import Job, Study
from geodistill.experiments.settings import setup_settings
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
    check_choice("study", name, STUDIES)
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
    return Study(folder, jobs, partial(_prepare, name))


def _job(run: PlannedRun, folder: str, minutes: float) -> Job:
    return Job(
        run_id=run.run_id,
        label=f"{run.settings.task} {run.method} seed {run.seed}",
        minutes=minutes,
        work=partial(_make_run, run, folder),
        settings=run.settings,
        method=run.method,
    )


def _functions(study: str) -> tuple[Callable[..., Any], Callable[..., tuple[Run, Any]]]:
    """What prepares the setup of a study, and what makes one of its runs; they load torch."""
    if study == "classification":
        from geodistill.experiments.classification.run import run_classification
        from geodistill.experiments.classification.setup import prepare_classification

        return prepare_classification, run_classification
    from geodistill.experiments.instruction.run import run_instruction
    from geodistill.experiments.instruction.setup import prepare_instruction

    return prepare_instruction, run_instruction


@cache
def _setup(study: str, settings: Any) -> Any:
    """One setup per worker process, however many settings its students have: it holds a teacher."""
    prepare, _ = _functions(study)
    return prepare(settings)


def _make_run(run: PlannedRun, folder: str) -> Run:
    study = folder.partition("/")[0]
    _, make_run = _functions(study)
    setup = _setup(study, setup_settings(run.settings))
    return make_run(replace(setup, settings=run.settings), run.method, run.seed, folder)[0]


def _prepare(study: str, jobs: Sequence[Job], progress: Progress) -> None:
    """Train and run the teachers of the jobs; SeqKD needs their answers too."""
    prepare, _ = _functions(study)
    methods: dict[Any, set[str]] = {}
    for job in jobs:
        methods.setdefault(setup_settings(job.settings), set()).add(base_of(job.method))
    for settings, bases in methods.items():
        setup = prepare(settings, progress)
        if "seqkd" in bases:
            from geodistill.experiments.instruction.setup import teacher_generations

            teacher_generations(setup, progress)
