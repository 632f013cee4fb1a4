"""Execute notebooks by papermill; only complete runs are published, unchanged ones are reused."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import jupytext
import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from geodistill.errors import InputError
from geodistill.experiments.runner import in_processes
from geodistill.files import first_line
from geodistill.publish.budgets import TOLERANCE, read_budgets
from geodistill.publish.cache_key import notebook_key
from geodistill.publish.console import IndentedWriter, log
from geodistill.publish.notebook_source import check_parameters, read_source
from geodistill.publish.project import Project, check_profile, project_of_notebook

CALLER = "GEODISTILL_CALLER"
"""The environment variable that tells a kernel in which folder the command was given: paths among
the parameters are relative to it."""
LONGEST_NAME = 150
AT_A_TIME = 2
"""Notebooks that run at once; they share the cores."""


class NotebookError(InputError):
    """A notebook failed and is not published; the message names it and the cell."""


@dataclass(frozen=True)
class NotebookRun:
    """One execution of a notebook.

    Attributes:
        project: the checkout.
        source: the py:percent file.
        parameters: values by name.
        target: where the executed notebook is put once it is complete.
    """

    project: Project
    source: Path
    parameters: Mapping[str, object]
    target: Path

    @property
    def name(self) -> str:
        """The stem of the source."""
        return self.source.stem

    @property
    def in_progress(self) -> Path:
        """Where papermill writes cell by cell; a failed or killed run stays there."""
        return self.target.parent / "in_progress" / self.target.name

    def key(self) -> str:
        """The cache key of the sources, library and data as they are now."""
        return notebook_key(self.project, self.source, self.parameters)

    def is_up_to_date(self) -> bool:
        """Whether `target` is a readable, complete run with the present key."""
        try:
            metadata = json.loads(self.target.read_text(encoding="utf-8"))["metadata"]
            return bool(metadata["geodistill"]["key"] == self.key())
        except (OSError, ValueError, KeyError, TypeError):  # none yet, or damaged
            return False


def execute(run: NotebookRun) -> None:
    """Execute a notebook and move it to `run.target`, with its cache key in the metadata.

    Raises:
        InputError: a wrong parameter, before anything runs.
        NotebookError: a failed cell, or a kernel that died or did not start.
    """
    notebook = read_source(run.source)
    check_parameters(notebook, run.name, run.parameters)
    key = run.key()  # before the run: an edit during it makes the result outdated, not wrong
    run.in_progress.parent.mkdir(parents=True, exist_ok=True)
    try:
        _run_in_new_kernel(run, notebook)
    except (PapermillExecutionError, RuntimeError) as error:
        message = _failure(run.name, error)
        raise NotebookError(f"{message}; the cells so far are in {run.in_progress}") from error
    executed: NotebookNode = nbformat.read(run.in_progress, as_version=4)  # type: ignore[no-untyped-call]
    check_complete(executed, run.name)
    for cell in executed.cells:  # the page shows the notebook's own cell of parameters
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata["tags"].append("remove-cell")
    executed.metadata["geodistill"] = {"key": key, "parameters": dict(run.parameters)}
    for local_path in ("input_path", "output_path"):  # pages can be downloaded
        executed.metadata["papermill"].pop(local_path, None)
    nbformat.write(executed, run.in_progress)  # type: ignore[no-untyped-call]
    run.in_progress.replace(run.target)


def _run_in_new_kernel(run: NotebookRun, notebook: NotebookNode) -> None:
    """Run a notebook; a kernel that does not answer, as another took its port, is started again."""
    try:
        _run_papermill(run, notebook)
    except DeadKernelError:  # it answered, and died in a cell
        raise
    except RuntimeError as error:
        log(f"{run.name}: its kernel did not start ({error}); trying once more")
        _run_papermill(run, notebook)


def _run_papermill(run: NotebookRun, notebook: NotebookNode) -> None:
    jupytext.write(notebook, run.in_progress)
    # Else a kernel named python3 in the user's home folder replaces that of this environment.
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    os.environ[CALLER] = str(Path.cwd())
    os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")  # no widgets, plain bars
    papermill.execute_notebook(
        run.in_progress,
        run.in_progress,
        dict(run.parameters),
        kernel_name="python3",
        progress_bar=sys.stderr.isatty() and multiprocessing.parent_process() is None,
        stdout_file=IndentedWriter(),
        stderr_file=IndentedWriter(),
        cwd=run.source.parent,
        extra_arguments=["--IPKernelApp.log_level=50"],  # it warns at each start and each end
    )


def _failure(name: str, error: Exception) -> str:
    """Log the traceback, unless the message alone says what to do; return one line."""
    if not isinstance(error, PapermillExecutionError):
        failure = "died" if isinstance(error, DeadKernelError) else "did not start, twice"
        return f"notebook {name}: its kernel {failure} ({error})"
    where = f"notebook {name}, cell {error.cell_index}"
    message = first_line(Exception(error.evalue or ""))
    if error.ename in ("InputError", "AssetError"):
        return f"{where}: {message}"
    log(re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback)))
    return f"{where}: {error.ename}: {message}"


def check_complete(notebook: NotebookNode, name: str) -> None:
    """Check an executed notebook, as Jupyter Book publishes a failed one like any other.

    Raises:
        NotebookError: a code cell did not complete, or an image has no alternative text.
    """
    if notebook.metadata.get("papermill", {}).get("exception"):
        raise NotebookError(f"notebook {name} ended with an exception: not published")
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and (problem := _problem(cell)):
            raise NotebookError(f"notebook {name}, cell {number}: {problem}: not published")


def _problem(cell: NotebookNode) -> str | None:
    status = cell.metadata.get("papermill", {}).get("status", "never run")
    if status != "completed":
        return f"{status} instead of completed"
    for output in cell.outputs:
        if output.output_type == "error":
            return f"it raised {output.ename}"
        if any(mime_type.startswith("image/") for mime_type in output.get("data", {})):
            return "an image without alternative text (use geodistill.publish.display.show)"
    return None


def run_notebooks(project: Project, profile: str, sources: Sequence[Path]) -> list[Path]:
    """Execute notebooks, except those that are up to date, and log the progress.

    A failed notebook does not stop the others.

    Args:
        project: the checkout.
        profile: one of `PROFILES`, passed to each notebook.
        sources: the notebooks' py:percent files.

    Returns:
        The executed notebooks.

    Raises:
        NotebookError: one line for each notebook that failed.
    """
    check_profile(profile)
    folder = project.executed(profile)
    parameters = {"profile": profile}
    runs = [NotebookRun(project, s, parameters, folder / f"{s.stem}.ipynb") for s in sources]
    outdated = [run for run in runs if not run.is_up_to_date()]
    if len(outdated) < len(runs):
        log(f"{len(runs) - len(outdated)} of {len(runs)} notebooks unchanged since they last ran")
    failures = _run_outdated(project, profile, outdated)
    if failures:
        raise NotebookError("\n".join(failures))
    return [run.target for run in runs]


def _run_outdated(project: Project, profile: str, runs: Sequence[NotebookRun]) -> list[str]:
    """Run notebooks, two at a time, the longest first; returns a line for each that failed."""
    budgets = read_budgets(project, profile)
    if not runs:
        return []
    longest_first = sorted(runs, key=lambda run: -budgets[run.name])
    cores = os.cpu_count() or 1
    workers = min(AT_A_TIME, len(runs), cores)
    left, started = {run.name: budgets[run.name] for run in runs}, time.monotonic()
    log(f"notebooks to run: {len(runs)}, about {_minutes_left(left, workers, 0.0):.1f} min")
    failures: list[str] = []
    timed = partial(_timed, threads=cores // workers)
    results = in_processes(longest_first, workers if workers > 1 else 0, timed)
    for n_done, (name, minutes, failure) in enumerate(results, 1):
        expected = budgets[name]
        del left[name]
        until_end = _minutes_left(left, workers, (time.monotonic() - started) / 60)
        failures += [failure] if failure else []
        log(
            f"[{n_done}/{len(runs)}] {name}: {'FAILED' if failure else 'done'} after "
            f"{minutes:.1f} min, about {until_end:.1f} min left in all"
        )
        if minutes > TOLERANCE * expected:
            log(f"warning: {name} should take {expected:g} min on two idle cores")
    return sorted(failures)


def _minutes_left(left: Mapping[str, float], workers: int, elapsed: float) -> float:
    """Until all notebooks are done: at least what the longest, which began first, still needs."""
    return max([sum(left.values()) / workers, *(minutes - elapsed for minutes in left.values())])


def _timed(run: NotebookRun, threads: int) -> tuple[str, float, str]:
    """Execute a notebook; returns its name, the minutes it took, and why it failed, if it did."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # more would wait for each other's cores
    log(f"{run.name}: started")
    started, failure = time.monotonic(), ""
    try:
        execute(run)
    except NotebookError as error:
        failure = str(error)
    return run.name, (time.monotonic() - started) / 60, failure


def run_notebook(
    name: str, parameters: Mapping[str, object], project: Project | None = None
) -> Path:
    """Execute one notebook, whether or not it is up to date.

    Args:
        name: of the notebook, or a unique part of it.
        parameters: values by name.
        project: the checkout; by default the one around the working directory, else the notebooks
            that a wheel installs.

    Returns:
        The executed notebook, in `_build/runs`.

    Raises:
        InputError: unknown name, parameter or profile.
        NotebookError: a failed cell, or a kernel that died or did not start.
    """
    project = project or project_of_notebook(name)
    source = project.find_notebook(name)
    values = "".join(f"-{key}-{value}" for key, value in sorted(parameters.items()))
    file = re.sub(r"[^\w.-]", "_", f"{source.stem}{values}")
    if len(file) > LONGEST_NAME:
        file = f"{file[:LONGEST_NAME]}-{sha256(file.encode()).hexdigest()[:8]}"
    run = NotebookRun(project, source, parameters, project.build / "runs" / f"{file}.ipynb")
    execute(run)
    log(f"{source.stem}: see {run.target}")
    return run.target
