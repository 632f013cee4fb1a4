"""`geodistill experiments`: make the runs of a study with a progress bar, or repeat stored ones."""

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from geodistill.experiments import runner
from geodistill.experiments.verify import verify_runs


def run_study(study: runner.Study, workers: int, scheduler: str) -> None:
    """Make every missing run of a study.

    Args:
        study: the runs.
        workers: number of processes, each with one compute thread.
        scheduler: address of a Dask scheduler whose workers make the runs; empty for none.
    """
    typer.echo(runner.describe_plan(study, workers))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as progress:
        bar = progress.add_task(study.folder, total=len(runner.pending_jobs(study)))
        log = progress.console.print
        for job in runner.run_study(study, workers=workers, progress=log, scheduler=scheduler):
            log(f"stored {job.label}")
            progress.advance(bar)
    typer.echo(f"{len(study.jobs)} runs stored under {study.path}")


def verify_study(study: runner.Study, count: int, workers: int) -> None:
    """Repeat stored runs and print, for each, the stored and the new results.

    Args:
        study: the runs.
        count: number of runs to repeat, spread over the study.
        workers: number of processes.
    """
    for table in verify_runs(study, count, workers=workers, progress=typer.echo):
        typer.echo(table.to_string(float_format="{:.4f}".format))
