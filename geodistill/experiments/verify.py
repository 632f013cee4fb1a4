"""Stored runs, made again and compared with their rows and items."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from geodistill.analysis.stored_results import read_stored
from geodistill.errors import InputError
from geodistill.experiments.run_store import Run
from geodistill.experiments.runner import Study, in_processes, make_run
from geodistill.files import Progress


def verify_runs(
    study: Study, count: int, *, workers: int, progress: Progress
) -> Iterator[pd.DataFrame]:
    """Rerun `count` stored runs, spread over the study, and compare them item by item.

    Args:
        study: the runs.
        count: how many to rerun.
        workers: local processes.
        progress: called with a line for each stage, and for a run that was stored with other data.

    Yields:
        One table per run: metric, stored, repeated. The metric `same_items` is the share of test
        items with the stored prediction (classification) or an NLL within 1 %.

    Raises:
        InputError: the study has no stored results, or fewer runs than `count`.
    """
    rows_file, items_file = (study.path / f"{name}.parquet" for name in ("rows", "items"))
    if not rows_file.is_file():
        raise InputError(f"no stored rows at {rows_file}; run `geodistill experiments` first")
    rows, items = read_stored(rows_file), read_stored(items_file)
    stored_ids = set(rows["run_id"])
    stored = [job for job in study.jobs if job.run_id in stored_ids]
    if not 1 <= count <= len(stored):
        raise InputError(f"verify is {count}; expected 1 to {len(stored)}, the stored runs")
    jobs = [stored[i * len(stored) // count] for i in range(count)]
    study.prepare(jobs, progress)
    for run in in_processes(jobs, min(workers, count), make_run):
        old = rows[rows["run_id"] == run.run_id].set_index("metric")
        data_hash = old["data_hash"].iloc[0]
        if data_hash != run.data_hash:
            progress(f"{run.run_id}: other data: stored {data_hash}, now {run.data_hash}")
        yield _compare(run, old["value"], items[items["run_id"] == run.run_id])


def _compare(run: Run, stored: pd.Series, stored_items: pd.DataFrame) -> pd.DataFrame:
    table = pd.DataFrame({"stored": stored, "repeated": pd.Series(run.metrics)})
    pairs = stored_items.merge(run.items, on="item", suffixes=("", "_repeated"))
    if "prediction" in pairs:  # of classes or scores
        agree = (pairs["prediction"] - pairs["prediction_repeated"]).abs() < 0.01
    else:
        value = "nll" if "nll" in pairs else "kept"  # synthetic students: the geometry kept
        agree = (pairs[f"{value}_repeated"] / pairs[value] - 1).abs() < 0.01
    table.loc["same_items"] = [1.0, agree.sum() / len(stored_items)]
    return table.rename_axis(run.run_id)
