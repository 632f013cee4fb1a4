"""Measured runs on disk: two files per run while a study is made, two tables after it.

A run is written whole or not at all: first its items, then its rows, each by renaming a finished
file. `rows.parquet` (one row per metric) and `items.parquet` (one row per test item) are merged
from the finished runs.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from geodistill.analysis.stored_results import read_stored
from geodistill.errors import InputError
from geodistill.experiments.provenance import is_changed, provenance
from geodistill.experiments.settings import config_hash, run_id
from geodistill.files import CHECKSUMS, atomic_file, write_checksums
from geodistill.paths import in_project

TABLES = ("items", "rows")
Evaluation = tuple[dict[str, float], pd.DataFrame]
"""Metrics by name, and one row per test item, as `Run` holds them."""


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        study: folder of the study under the results folder.
        task: name of the task.
        method: name of the method.
        seed: of the run.
        config: every setting that the result depends on, under its stored name.
        data_hash: of the task's texts and labels.
        metrics: value by name.
        items: one row per test item: item, source, score, and label, prediction or nll; and `task`
            where some items belong to another task.
        wall_seconds: of training and evaluation, without the shared teacher.
        provenance: of the process that trained; None if it is this one.
    """

    study: str
    task: str
    method: str
    seed: int
    config: dict[str, Any]
    data_hash: str
    metrics: dict[str, float]
    items: pd.DataFrame
    wall_seconds: float
    provenance: dict[str, Any] | None = None

    @property
    def run_id(self) -> str:
        """The name of the run, the same for equal task, method, seed and configuration."""
        return run_id(self.task, self.method, self.seed, self.config)


@contextmanager
def locked(folder: Path, named_by: str = "GEODISTILL_RESULTS") -> Iterator[None]:
    """Hold a results folder for this process, so that no second one makes the same runs.

    The lock ends with the process, however it ends.

    Args:
        folder: is made if there is none.
        named_by: the variable or argument that names it, for messages.

    Raises:
        InputError: another process holds the folder, or it can't be written.
    """
    import fcntl

    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise InputError(
            f"{folder} can't be written ({error.strerror}); expected a folder of yours: name one "
            f"by {named_by}"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise InputError(
                f"{folder} is in use by process {file.read().strip() or 'unknown'}; wait for it, "
                f"or name another folder by {named_by}"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def refuse_changed(folder: Path, changed: bool) -> None:
    """Refuse runs of a changed checkout in the project's results, which its pages show.

    Args:
        folder: of the study.
        changed: whether the checkout that makes the runs differs from its commit.

    Raises:
        InputError: it does, and the folder is in `data/results`.
    """
    if changed and in_project(folder):
        raise InputError(
            "the code that makes the runs has changes that are not committed (`git status` lists "
            f"them), and {folder} takes runs of committed code alone; commit the changes, or name "
            "another folder of results by GEODISTILL_RESULTS"
        )


def write_run(folder: Path, run: Run) -> None:
    """Store a finished run in `folder`/runs, whole or not at all.

    Args:
        folder: of the study.
        run: the run to store.

    Raises:
        InputError: the folder holds runs of the same task on other data; the checkout was changed
            (`refuse_changed`); a full disk, or a folder that can't be written.
    """
    made_by = run.provenance or provenance()
    refuse_changed(folder, made_by["dirty"])
    _refuse_other_data(folder, run)
    for name, table in run_tables(run, made_by).items():
        _write(table, folder / "runs" / f"{run.run_id}.{name}.parquet")


def run_tables(run: Run, made_by: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """The rows of a run in each of the tables.

    Args:
        run: the run.
        made_by: provenance of the process that trained.
    """
    key = {"run_id": run.run_id, "task": run.task, "method": run.method, "seed": run.seed}
    items = pd.DataFrame(key, index=run.items.index).assign(task=run.items.get("task", run.task))
    items = items.join(run.items.drop(columns="task", errors="ignore"))
    weight = run.config.get("factor", run.config.get("weight"))  # as each study stores it
    shared = {
        "study": run.study,
        **key,
        "n_train": run.config["n_train"],
        **({} if weight is None else {"factor": weight}),
        "config": json.dumps(run.config, sort_keys=True),
        "config_hash": config_hash(run.config),
        "data_hash": run.data_hash,
        **made_by,
        "wall_seconds": run.wall_seconds,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    rows = pd.DataFrame([{**shared, "metric": k, "value": v} for k, v in run.metrics.items()])
    return {"items": items, "rows": rows}


def _refuse_other_data(folder: Path, run: Run) -> None:
    """A run's name does not depend on its data: runs on other texts would pass for finished."""
    path = folder / "rows.parquet"
    if not path.is_file():
        return
    rows = read_stored(path, ["task", "data_hash"])
    others = set(rows.loc[rows["task"] == run.task, "data_hash"]) - {run.data_hash}
    if others:
        raise InputError(
            f"{folder} holds runs of {run.task} on other data: their data_hash is "
            f"{', '.join(sorted(others))}, of {run.run_id} it is {run.data_hash}; expected the "
            "same data, or another folder of results (GEODISTILL_RESULTS)"
        )


def _write(table: pd.DataFrame, path: Path) -> None:
    try:
        with atomic_file(path) as partial:
            table.to_parquet(partial, index=False, compression="zstd")
    except OSError as error:
        raise InputError(
            f"{path} can't be written ({error.strerror or error}); finished runs are kept: "
            "make room, and the same command continues"
        ) from error


def finished_runs(folder: Path) -> dict[str, float]:
    """Wall seconds by run id of the stored runs, merged or not, whose rows and items are readable.

    A damaged file of a single run is warned of and left out. So are runs from a changed checkout,
    which pages leave out: they are to be made again. They count only while this checkout is
    changed too and the folder is not the project's.

    Args:
        folder: of the study.

    Raises:
        InputError: a merged table is damaged.
    """
    trial = not in_project(folder) and is_changed()
    seconds: dict[str, float] = {}
    items, rows = (folder / f"{name}.parquet" for name in TABLES)
    if rows.is_file() and items.is_file():
        table = read_stored(rows, ["run_id", "wall_seconds", "dirty"])
        table = table[table["run_id"].isin(read_stored(items, ["run_id"])["run_id"].unique())]
        table = table[trial | ~table["dirty"].astype(bool)]
        seconds = dict(zip(table["run_id"], table["wall_seconds"], strict=True))
    for run in _iter_runs(folder, seconds):
        first = run["rows"].iloc[0]
        if trial or not first["dirty"]:
            seconds[first["run_id"]] = first["wall_seconds"]
    return seconds


def merge_runs(folder: Path) -> None:
    """Merge the finished runs into the two tables; a newer run replaces the older one of its id.

    A damaged file of a single run is warned of and left out.

    Raises:
        InputError: a merged table is damaged, or the disk is full.
    """
    runs = list(_iter_runs(folder))
    if not runs:
        return
    tables = {}
    for name in TABLES:
        path = folder / f"{name}.parquet"
        table = pd.concat([run[name] for run in runs], ignore_index=True)
        if path.is_file():
            stored = read_stored(path)
            stored = stored[~stored["run_id"].isin(table["run_id"].unique())]
            table = pd.concat([stored, table], ignore_index=True)
        order = ["task", "method", "seed", "item" if name == "items" else "metric"]
        tables[path] = table.sort_values(order, ignore_index=True)
    (folder / CHECKSUMS).unlink(missing_ok=True)  # killed from here on, the tables are unverified
    for path, table in tables.items():
        _write(table, path)
    write_checksums(folder)


def _iter_runs(folder: Path, known: Collection[str] = ()) -> Iterator[dict[str, pd.DataFrame]]:
    """Rows and items of each readable run in `folder`/runs, without the `known` ones."""
    # Items without rows belong to a run that was killed between the two.
    for path in sorted((folder / "runs").glob("*.rows.parquet")):
        name = path.name.removesuffix(".rows.parquet")
        if name in known:
            continue
        try:
            yield {k: read_stored(path.with_name(f"{name}.{k}.parquet")) for k in TABLES}
        except InputError as error:
            warnings.warn(f"run {name} is left out: {error}", stacklevel=3)
