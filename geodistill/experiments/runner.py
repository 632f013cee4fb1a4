"""A grid: independent runs on one machine's cores or a Dask cluster, resumed where they stopped.

Each local worker computes with one thread and stores its run itself, so a killed grid loses at most
the runs in flight. (joblib pins no cores; without the one-thread rule two workers fight for both.)
"""

import functools
import json
import os
import socket
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from geodistill.analysis.stored_results import read_stored
from geodistill.errors import InputError
from geodistill.experiments.run_store import (
    Run,
    collect,
    finished,
    provenance,
    results_dir,
    write_run,
)

Report = Callable[[str], None]
RUN_KB = 15
"""Stored kilobytes of a run with a thousand test items, as measured."""
CONNECT = 10
"""Seconds to wait for a Dask scheduler."""


@dataclass(frozen=True)
class Job:
    """One run to make.

    Attributes:
        run_id: the name its rows will carry.
        label: task, method, seed for people.
        minutes: a first guess at its duration; measured runs correct it.
        work: makes the run; sent to a worker process.
    """

    run_id: str
    label: str
    minutes: float
    work: Callable[[], Run]


@dataclass(frozen=True)
class Study:
    """A named list of jobs and what they share.

    Attributes:
        folder: under the results folder.
        jobs: all runs, in order.
        prepare: makes what the pending jobs share (a teacher and its cache), given those jobs.
    """

    folder: str
    jobs: Sequence[Job]
    prepare: Callable[[Sequence[Job], Report], None]

    @property
    def path(self) -> Path:
        """Where the study's rows live."""
        return results_dir() / self.folder


def pending(study: Study) -> list[Job]:
    """The jobs without a finished run."""
    done = finished(study.path)
    return [job for job in study.jobs if job.run_id not in done]


def plan(study: Study, workers: int) -> str:
    """What `run_grid` would do, in one line: runs, minutes."""
    done = finished(study.path)
    todo = [job for job in study.jobs if job.run_id not in done]
    measured = sum(done.values()) / len(done) / 60 if done else None
    minutes = sum(job.minutes if measured is None else measured for job in todo) / workers
    return (
        f"{study.folder}: {len(study.jobs)} runs, {len(study.jobs) - len(todo)} finished, "
        f"{len(todo)} to do, about {minutes:.0f} minutes with {workers} workers, "
        f"{len(study.jobs) * RUN_KB / 1000:.1f} MB in all"
    )


def run_grid(study: Study, *, workers: int, report: Report, scheduler: str = "") -> Iterator[Job]:
    """Make every pending run, yield each as it is stored, and build the two tables.

    Args:
        study: the runs.
        workers: processes, each with one compute thread.
        report: called with a line for each stage.
        scheduler: address of a Dask scheduler, whose workers then make the runs.

    Raises:
        InputError: no scheduler answers there, or it goes away; a job that killed every worker that
            was given it, once the other runs are stored; the stored runs are of other data.
        FloatingPointError: a job whose loss is not finite, by its label.
    """
    todo = pending(study)
    collect(study.path)  # a run that is stored is compared with the collected ones
    try:
        if todo and scheduler:
            with _connected(scheduler) as client:  # first: to prepare may take minutes
                study.prepare(todo, report)
                yield from _on_cluster(client, todo, study.path)
        elif todo:
            study.prepare(todo, report)
            yield from _in_parallel(todo, workers, _Store(study.path))
    finally:
        collect(study.path)


def _in_parallel(jobs: Sequence[Job], workers: int, act: Callable[[Job], Any]) -> Iterator[Any]:
    from joblib import Parallel, delayed

    runner = Parallel(n_jobs=workers, return_as="generator_unordered")
    results = runner(delayed(_in_worker)(act, job, os.getpid()) for job in jobs)
    try:
        for result in results:  # noqa: UP028 (it would close `results` before the filter below)
            yield result
    finally:
        with warnings.catch_warnings():
            # Stopped by its reader, joblib advises on the tasks that it cancels: nothing is lost.
            warnings.simplefilter("ignore", UserWarning)
            results.close()


def _connected(address: str) -> Any:
    """A client of the Dask scheduler there; InputError where none answers."""
    from distributed import Client
    from distributed.comm.addressing import parse_address, parse_host_port

    try:
        where = parse_host_port(parse_address(address)[1])
        socket.create_connection(where, CONNECT).close()  # told without starting an event loop
        return Client(address, timeout=CONNECT)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TypeError) as error:  # none there, no address, TLS without keys
        raise InputError(
            f"scheduler is {address!r}; no Dask scheduler answers there, "
            "expected an address such as tcp://host:8786"
        ) from error


def _on_cluster(client: Any, jobs: Sequence[Job], folder: Path) -> Iterator[Job]:
    """The runs come back and are stored here: the workers need no common disk.

    `distributed` gives a dead worker's run to another one, a few times. Raises InputError at the
    end with the jobs that killed each of them.
    """
    killers = yield from _submitted(client, jobs, folder)
    if len(killers) > 1:  # a worker that dies puts all that it had in hand under suspicion
        suspects, killers = killers, []
        for job in suspects:
            killers += yield from _submitted(client, [job], folder)
    if killers:
        raise InputError(
            f"{', '.join(job.label for job in killers)}: every Dask worker that was given it died "
            "(of too little memory?); the other runs are stored, the same command tries it again"
        )


def _submitted(client: Any, jobs: Sequence[Job], folder: Path) -> Generator[Job, None, list[Job]]:
    """Store each run of `jobs` as it comes; returns the jobs whose workers died too often."""
    from distributed import KilledWorker, as_completed

    work = {client.submit(_named, _compute, job, key=job.run_id): job for job in jobs}
    killers = []
    # A result is fetched as soon as it is there: `future.result()` waits, and all others with it,
    # for one that was lost with its worker meanwhile.
    done = as_completed(work, with_results=True, raise_errors=False)  # type: ignore[no-untyped-call]
    for future, result in done:
        job = work.pop(future)
        del future  # the scheduler forgets the run: not made again when the worker that has it dies
        if isinstance(result, Run):
            write_run(folder, result)
            yield job
        elif not isinstance(result, tuple):  # cancelled
            raise InputError(
                "the Dask scheduler went away; what is finished is kept, "
                "the same command goes on from there"
            )
        elif isinstance(result[1], KilledWorker):
            killers.append(job)
        else:
            raise result[1].with_traceback(result[2])
    return killers


def _in_worker(act: Callable[[Job], Any], job: Job, owner: int) -> Any:
    _end_with(owner)
    return _named(act, job)


def _named(act: Callable[[Job], Any], job: Job) -> Any:
    """`act(job)`, whose FloatingPointError then names the job."""
    try:
        return act(job)
    except FloatingPointError as error:
        raise FloatingPointError(f"{job.label}: {error}") from error


@functools.cache
def _end_with(owner: int) -> None:
    """End this worker when the grid's process is gone: killed, it leaves none that work on."""

    def watch() -> None:
        while os.getppid() == owner:
            time.sleep(0.2)
        os._exit(1)

    if os.getppid() == owner:
        threading.Thread(target=watch, daemon=True).start()


@dataclass(frozen=True)
class _Store:
    """Runs a job in a worker and stores it there."""

    folder: Path

    def __call__(self, job: Job) -> Job:
        write_run(self.folder, _compute(job))
        return job


def _compute(job: Job) -> Run:
    """The job's run, with the provenance of this process: another machine may store it."""
    import torch

    torch.set_num_threads(1)
    made_by = provenance()
    run = job.work()
    if run.run_id != job.run_id:
        raise InputError(f"run {run.run_id} came out of the job of {job.run_id}")
    return replace(run, made_by=made_by)


def verify(study: Study, count: int, *, workers: int, report: Report) -> Iterator[pd.DataFrame]:
    """Rerun `count` stored runs, spread over the study, and compare them item by item.

    A run that was stored with other data is reported.

    Yields:
        One table a run: metric, stored, again. The metric `same_items` is the share of test items
        with the stored prediction (classification) or an NLL within 1 %, stored as 1.

    Raises:
        InputError: the study has no stored rows.
    """
    rows_file, items_file = (study.path / f"{k}.parquet" for k in ("rows", "items"))
    if not rows_file.is_file():
        raise InputError(f"no stored rows at {rows_file}; run `geodistill grid` first")
    rows, items = read_stored(rows_file), read_stored(items_file)
    stored = [job for job in study.jobs if job.run_id in set(rows["run_id"])]
    if not 1 <= count <= len(stored):
        raise InputError(f"verify is {count}; expected 1 to {len(stored)}, the stored runs")
    chosen = [stored[i * len(stored) // count] for i in range(count)]
    study.prepare(chosen, report)
    for run in _in_parallel(chosen, min(workers, count), _compute):
        old = rows[rows["run_id"] == run.run_id].set_index("metric")
        was = old["data_hash"].iloc[0]
        if was != run.data_hash:
            report(f"{run.run_id}: other data: stored with data_hash {was}, now {run.data_hash}")
        yield _compare(run, old["value"], items[items["run_id"] == run.run_id])


def _compare(run: Run, old: pd.Series, old_items: pd.DataFrame) -> pd.DataFrame:
    table = pd.DataFrame({"stored": old, "again": pd.Series(run.metrics)})
    both = old_items.merge(run.items, on="item", suffixes=("", "_again"))
    if "prediction" in both:
        same = (both["prediction"] - both["prediction_again"]).abs() < 0.01  # classes or scores
    else:
        value = "nll" if "nll" in both else "kept"  # free students: the geometry kept
        same = (both[f"{value}_again"] / both[value] - 1).abs() < 0.01
    table.loc["same_items"] = [1.0, same.sum() / len(old_items)]
    return table.rename_axis(run.run_id)


def stored_config(folder: Path, run: str) -> dict[str, Any]:
    """The configuration that a stored run was made with."""
    rows = read_stored(folder / "rows.parquet", ["run_id", "config"])
    rows = rows[rows["run_id"] == run]
    if rows.empty:
        raise InputError(f"run_id {run!r} is not in {folder / 'rows.parquet'}")
    config: dict[str, Any] = json.loads(rows["config"].iloc[0])
    return config
