"""Makes the runs of a study, on the cores of one machine or on a Dask cluster, and resumes.

Each local worker computes with one thread and stores its run itself, so that a killed study loses
at most the runs in progress.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from geodistill.errors import InputError
from geodistill.experiments.cluster import connect, on_cluster
from geodistill.experiments.provenance import is_changed, provenance
from geodistill.experiments.run_store import (
    Run,
    finished_runs,
    locked,
    merge_runs,
    refuse_changed,
    write_run,
)
from geodistill.files import Progress
from geodistill.paths import results_dir

RUN_KB = 15
"""Stored kilobytes of a run with a thousand test items, as measured."""


@dataclass(frozen=True)
class Job:
    """One run to make.

    Attributes:
        run_id: the name that its rows will carry.
        label: task, method and seed, for people.
        minutes: a first guess at its duration; measured runs correct it.
        work: makes the run; sent to a worker process.
        settings: of the run, for `Study.prepare`.
        method: of the run, for `Study.prepare`.
    """

    run_id: str
    label: str
    minutes: float
    work: Callable[[], Run]
    settings: Any = None
    method: str = ""


@dataclass(frozen=True)
class Study:
    """A named list of jobs and what they share.

    Attributes:
        folder: under the results folder, or an absolute path.
        jobs: all runs, in order.
        prepare: makes what the pending jobs share, such as a teacher and its cached outputs.
    """

    folder: str
    jobs: Sequence[Job]
    prepare: Callable[[Sequence[Job], Progress], None]

    @property
    def path(self) -> Path:
        """Where the results of the study are stored."""
        folder = Path(self.folder)
        return folder if folder.is_absolute() else results_dir() / folder


def pending_jobs(study: Study) -> list[Job]:
    """The jobs without a finished run, as `finished_runs` counts them.

    Args:
        study: the runs.

    Raises:
        InputError: a merged table is damaged.
    """
    stored = finished_runs(study.path)
    return [job for job in study.jobs if job.run_id not in stored]


def describe_plan(study: Study, workers: int) -> str:
    """What `run_study` would do, in one line: runs, minutes, megabytes."""
    seconds = finished_runs(study.path)
    pending = [job for job in study.jobs if job.run_id not in seconds]
    measured = sum(seconds.values()) / len(seconds) / 60 if seconds else None
    minutes = sum(job.minutes if measured is None else measured for job in pending) / workers
    return (
        f"{study.folder}: {len(study.jobs)} runs, {len(study.jobs) - len(pending)} finished, "
        f"{len(pending)} to do, about {minutes:.0f} minutes with {workers} workers, "
        f"{len(study.jobs) * RUN_KB / 1000:.1f} MB in all"
    )


def run_study(
    study: Study, *, workers: int, progress: Progress, scheduler: str = ""
) -> Iterator[Job]:
    """Make every pending run, yield its job once it is stored, and merge the two tables.

    Args:
        study: the runs.
        workers: local processes, each with one compute thread; 0 for none but this one.
        progress: called with a line for each stage.
        scheduler: address of a Dask scheduler, whose workers then make the runs.

    Raises:
        InputError: another process makes runs in the same folder, or the folder can't be written;
            the checkout was changed (`refuse_changed`); no scheduler answers, or it goes away; a
            worker dies; the stored runs are of other data.
        FloatingPointError: the loss of a job is not finite; the message names the job.
    """
    with locked(study.path):
        merge_runs(study.path)  # a new run is compared with the merged ones
        pending = pending_jobs(study)
        if pending:
            refuse_changed(study.path, is_changed())
        try:
            if pending and scheduler:
                with connect(scheduler) as client:  # first: the preparation may take minutes
                    study.prepare(pending, progress)
                    for job, run in on_cluster(client, pending, partial(_name_errors, make_run)):
                        write_run(study.path, run)
                        yield job
            elif pending:
                study.prepare(pending, progress)
                yield from in_processes(pending, workers, partial(_make_and_store, study.path))
        finally:
            merge_runs(study.path)


def in_processes(jobs: Sequence[Any], workers: int, make: Callable[[Any], Any]) -> Iterator[Any]:
    """`make` of each job in worker processes; yields the results as they come.

    Args:
        jobs: to make, each a `Job` or anything that can be sent to a process.
        workers: number of processes; 0 for none but this one.
        make: is sent to a worker with each job.

    Raises:
        InputError: a worker dies.
        FloatingPointError: from `make`; the message names the job.
    """
    if workers == 0:
        yield from (_name_errors(make, job) for job in jobs)
        return
    # Threads that wait leave the cores to the other processes.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, spawn, _start_worker, (os.getpid(),))
    try:
        futures = [pool.submit(_name_errors, make, job) for job in jobs]
        for future in as_completed(futures):
            yield future.result()
        pool.shutdown()  # idle workers end by themselves
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process died (of too little memory, or killed); finished runs are kept, the "
            "same command continues"
        ) from error
    finally:
        workers_left = multiprocessing.active_children()
        pool.shutdown(wait=False, cancel_futures=True)
        for process in workers_left:  # else their runs would go on to the end
            process.terminate()


def _start_worker(owner: int) -> None:
    """Ends a worker when the process that started it is gone; leaves Ctrl-C to that process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == owner:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _name_errors(make: Callable[[Any], Any], job: Any) -> Any:
    """`make(job)`, whose FloatingPointError then names the job."""
    try:
        return make(job)
    except FloatingPointError as error:
        raise FloatingPointError(f"{job.label}: {error}") from error


def _make_and_store(folder: Path, job: Job) -> Job:
    write_run(folder, make_run(job))
    return job


def make_run(job: Job) -> Run:
    """The job's run, with the provenance of this process: another machine may store it.

    Args:
        job: is made with one compute thread.

    Raises:
        InputError: the run that comes out is not the one that the job names.
    """
    import torch

    torch.set_num_threads(1)
    made_by = provenance()
    run = job.work()
    if run.run_id != job.run_id:
        raise InputError(f"run {run.run_id} came out of the job of {job.run_id}")
    return replace(run, provenance=made_by)
