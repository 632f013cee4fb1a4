"""From a notebook source to an executed notebook that may be published."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from geodistill.errors import InputError
from geodistill.publish.budgets import minutes_left, overruns, read_budgets
from geodistill.publish.cache_key import reuse_key
from geodistill.publish.console import Indented, say
from geodistill.publish.notebook_source import check_parameters, read_source
from geodistill.publish.paths import Project, check_profile, find_project


class NotebookError(InputError):
    """A notebook did not finish, so it is not published; the message names it and the cell."""


@dataclass(frozen=True)
class Run:
    """One execution: `source` with `parameters`, to be found at `target` once it has finished."""

    project: Project
    source: Path
    parameters: Mapping[str, object]
    target: Path

    @property
    def name(self) -> str:
        return self.source.stem

    @property
    def unfinished(self) -> Path:
        """Where papermill writes cell after cell; what fails or is killed stays there."""
        return self.target.parent / "unfinished" / self.target.name

    def key(self) -> str:
        return reuse_key(self.project, self.source, self.parameters)

    def finished(self) -> bool:
        """Whether `target` is a finished run of the source, library and data as they are now."""
        if not self.target.is_file():
            return False
        return bool(_read(self.target).metadata.get("geodistill", {}).get("key") == self.key())


def execute(run: Run) -> None:
    """Run a notebook by papermill and put it at `run.target` in one move, stamped with its key.

    Raises InputError for a wrong parameter (before anything runs), NotebookError for a failed cell.
    """
    notebook = read_source(run.source)
    check_parameters(notebook, run.name, run.parameters)
    key = run.key()  # before the run: an edit during it makes the result stale, not wrong
    run.unfinished.parent.mkdir(parents=True, exist_ok=True)
    jupytext.write(notebook, run.unfinished)
    try:
        _papermill(run)
    except (PapermillExecutionError, DeadKernelError) as error:
        raise NotebookError(
            f"{_reason(run.name, error)}; as far as it came: {run.unfinished}"
        ) from error
    done = _read(run.unfinished)
    refuse_unfinished(done, run.name)
    done.metadata["geodistill"] = {"key": key, "parameters": dict(run.parameters)}
    for place in ("input_path", "output_path"):  # a downloaded page must not carry local paths
        done.metadata["papermill"].pop(place, None)
    nbformat.write(done, run.unfinished)  # type: ignore[no-untyped-call]
    os.replace(run.unfinished, run.target)


def _read(path: Path) -> NotebookNode:
    notebook: NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return notebook


def _papermill(run: Run) -> None:
    with _kernels_of_this_environment():
        papermill.execute_notebook(
            run.unfinished,
            run.unfinished,
            dict(run.parameters),
            kernel_name="python3",
            progress_bar=sys.stderr.isatty(),
            stdout_file=Indented(),
            stderr_file=Indented(),
            cwd=run.source.parent,
            extra_arguments=[
                "--IPKernelApp.log_level=50"
            ],  # it warns at each start and at each end
        )


@contextmanager
def _kernels_of_this_environment() -> Iterator[None]:
    """A python3 kernel in the user's home folder must not stand in for this environment's."""
    before = os.environ.get("JUPYTER_PREFER_ENV_PATH")
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    try:
        yield
    finally:
        os.environ.pop("JUPYTER_PREFER_ENV_PATH")
        if before is not None:
            os.environ["JUPYTER_PREFER_ENV_PATH"] = before


def _reason(name: str, error: Exception) -> str:
    """One line; the traceback goes to the terminal before it."""
    if not isinstance(error, PapermillExecutionError):
        return f"notebook {name}: its kernel died ({error})"
    say(re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback)))
    message = (error.evalue or "").partition("\n")[0]
    return f"notebook {name}, cell {error.cell_index}: {error.ename}: {message}"


def refuse_unfinished(notebook: NotebookNode, name: str) -> None:
    """Raise NotebookError unless every code cell completed and every image has alternative text.

    Jupyter Book in `off` mode publishes a failed notebook like any other.
    """
    if notebook.metadata.get("papermill", {}).get("exception"):
        raise NotebookError(f"notebook {name} ended with an exception: not published")
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            fault = _fault(cell)
            if fault:
                raise NotebookError(f"notebook {name}, cell {number}: {fault}: not published")


def _fault(cell: NotebookNode) -> str | None:
    status = cell.metadata.get("papermill", {}).get("status", "never run")
    if status != "completed":
        return f"{status} instead of completed"
    for output in cell.outputs:
        if output.output_type == "error":
            return f"it raised {output.ename}"
        if any(kind.startswith("image/") for kind in output.get("data", {})):
            return "an image without alternative text (use geodistill.publish.provenance.show)"
    return None


def run_all(project: Project, profile: str, sources: Sequence[Path]) -> list[Path]:
    """The executed notebooks of `sources`, each reused or run now; tells the terminal which.

    A failing notebook does not stop the others; at the end one NotebookError names all that failed.
    """
    check_profile(profile)
    folder = project.executed(profile)
    runs = [Run(project, s, {"profile": profile}, folder / f"{s.stem}.ipynb") for s in sources]
    waiting = [run for run in runs if not run.finished()]
    if len(waiting) < len(runs):
        say(f"{len(runs) - len(waiting)} of {len(runs)} notebooks unchanged since they last ran")
    failures = _run_waiting(project, profile, waiting)
    if failures:
        raise NotebookError("\n".join(failures))
    return [run.target for run in runs]


def _run_waiting(project: Project, profile: str, waiting: Sequence[Run]) -> list[str]:
    budgets = read_budgets(project, profile)
    taken: dict[str, float] = {}  # minutes
    failures: list[str] = []
    for number, run in enumerate(waiting, start=1):
        left = minutes_left(budgets, [r.name for r in waiting[number - 1 :]], taken)
        say(f"[{number}/{len(waiting)}] {run.name}: started, about {left:.1f} min left in all")
        start = time.monotonic()
        outcome = "done"
        try:
            execute(run)
        except NotebookError as error:
            failures.append(str(error))
            outcome = "FAILED"
        taken[run.name] = (time.monotonic() - start) / 60
        say(f"[{number}/{len(waiting)}] {run.name}: {outcome} after {taken[run.name]:.1f} min")
    for line in overruns(project, profile, taken):
        say(f"over budget: {line}")
    return failures


def run_notebook(
    name: str, parameters: Mapping[str, object], project: Project | None = None
) -> Path:
    """Run one notebook with `parameters`, whether or not it ran before; return the executed file.

    `name` may be a unique part of the notebook's name. Raises InputError for an unknown name,
    parameter or profile, NotebookError if a cell fails.
    """
    project = project or find_project()
    source = project.find(name)
    given = "".join(f"-{key}-{value}" for key, value in sorted(parameters.items()))
    file = re.sub(r"[^\w.-]", "_", f"{source.stem}{given}.ipynb")
    run = Run(project, source, parameters, project.build / "runs" / file)
    execute(run)
    say(f"{source.stem}: see {run.target}")
    return run.target
