"""Measured runs on disk: a pair of files a run while a grid works, two tidy tables after it.

A run is written whole or not at all: its items first, its rows last, each by rename. `rows.parquet`
(a row a metric) and `items.parquet` (a row a test item) are built from the finished runs.
"""

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import warnings
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from geodistill.analysis.stored_results import read_stored
from geodistill.errors import InputError

CHECKOUT = Path(__file__).resolve().parents[2]
VERSIONED = ("geodistill", "torch", "transformers", "tokenizers", "datasets", "numpy", "peft")


def data_dir() -> Path:
    """The checkout's `data` folder.

    Raises:
        InputError: the package runs outside a checkout.
    """
    folder = CHECKOUT / "data"
    if not folder.is_dir():
        raise InputError(
            f"no data folder at {folder}; run from a clone installed by pip install -e ."
        )
    return folder


def results_dir() -> Path:
    """Where measured rows live: $GEODISTILL_RESULTS, else `data/results` of the checkout."""
    given = os.environ.get("GEODISTILL_RESULTS")
    return Path(given) if given else data_dir() / "results"


def run_config(setting: Any, method: str, later: dict[str, Any]) -> dict[str, Any]:
    """Everything that a run of `method` depends on besides its seed and the data.

    Args:
        setting: a dataclass.
        method: name of the method.
        later: by name, the defaults of settings that came after the first runs: left out where they
            hold, so that those runs keep their names.
    """
    config = {**asdict(setting), "method": method}
    return {k: v for k, v in config.items() if k not in later or v != later[k]}


def config_hash(config: dict[str, Any]) -> str:
    """Twelve hex digits that name a configuration (key order does not matter)."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        study, task, method, seed: what ran.
        config: every setting that the result depends on.
        data_hash: of the task's texts and labels.
        metrics: name to value.
        items: a row a test item: item, source, score, and label, prediction or nll; and `task`
            where some are of another one.
        wall_seconds: of training and evaluation, without the shared teacher.
        made_by: `provenance()` of the process that made it; None for the one that stores it.
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
    made_by: dict[str, Any] | None = None

    @property
    def run_id(self) -> str:
        """Readable name, equal for equal task, method, seed and configuration."""
        return run_id(self.task, self.method, self.seed, self.config)


def run_id(task: str, method: str, seed: int, config: dict[str, Any]) -> str:
    """Name of a run: `movie-kd+gram-s3-<configuration hash>`."""
    return f"{task}-{method}-s{seed}-{config_hash(config)}"


@functools.cache
def provenance() -> dict[str, Any]:
    """Commit, dirty flag, versions and device of this process, as stored with every row."""
    versions = {name: importlib.metadata.version(name) for name in VERSIONED}
    versions["python"] = platform.python_version()
    commit = _git("rev-parse", "HEAD")
    # Rows appear while a grid runs; they do not change the code that makes them.
    changed = _git("status", "--porcelain", "--", ".", ":!data/results")
    return {
        "versions": json.dumps(versions),
        "commit": commit or "unknown",
        "dirty": commit is None or changed != "",
        "device": _device(),
    }


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *words], cwd=CHECKOUT, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:  # no git on this machine
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"cpu: {names[0] if names else platform.machine()}"


def write_run(folder: Path, run: Run) -> None:
    """Store a finished run under `folder`/runs; atomic.

    Raises:
        InputError: the collected runs of its task are of other data; a full disk, or a folder that
            can't be written.
    """
    _refuse_other_data(folder, run)
    runs = folder / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    key = {"run_id": run.run_id, "task": run.task, "method": run.method, "seed": run.seed}
    other_tasks = run.items.get("task", run.task)
    items = pd.DataFrame(key, index=run.items.index).assign(task=other_tasks)
    items = items.join(run.items.drop(columns="task", errors="ignore"))
    factor = run.config.get("factor", run.config.get("weight"))  # as each study calls it
    shared = {
        "study": run.study,
        **key,
        "n_train": run.config["n_train"],
        **({} if factor is None else {"factor": factor}),
        "config": json.dumps(run.config, sort_keys=True),
        "config_hash": config_hash(run.config),
        "data_hash": run.data_hash,
        **(provenance() if run.made_by is None else run.made_by),
        "wall_seconds": run.wall_seconds,
        "status": "finished",
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    rows = pd.DataFrame([{**shared, "metric": k, "value": v} for k, v in run.metrics.items()])
    _write(items, runs / f"{run.run_id}.items.parquet")
    _write(rows, runs / f"{run.run_id}.rows.parquet")


def _refuse_other_data(folder: Path, run: Run) -> None:
    """A run's name does not tell its data: those of other texts would pass for finished."""
    path = folder / "rows.parquet"
    if not path.is_file():
        return
    rows = read_stored(path, ["task", "data_hash"])
    other = set(rows.loc[rows["task"] == run.task, "data_hash"]) - {run.data_hash}
    if other:
        raise InputError(
            f"{folder} holds runs of {run.task} on other data: their data_hash is "
            f"{', '.join(sorted(other))}, of {run.run_id} it is {run.data_hash}; expected the "
            "former data, or another folder of results (GEODISTILL_RESULTS)"
        )


def _write(table: pd.DataFrame, path: Path) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        table.to_parquet(partial, index=False, compression="zstd")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(
            f"{path} can't be written ({error.strerror or error}); what is finished is kept: "
            "make room, and the same command goes on from there"
        ) from error


def finished(folder: Path) -> dict[str, float]:
    """Wall seconds by run id of all runs, collected or not, whose rows and items can be read.

    Raises:
        InputError: a table is damaged; a run's own damaged file is warned of.
    """
    known: dict[str, float] = {}
    rows, items = (folder / f"{kind}.parquet" for kind in ("rows", "items"))
    if rows.is_file() and items.is_file():
        table = read_stored(rows, ["run_id", "wall_seconds"])
        table = table[table["run_id"].isin(read_stored(items, ["run_id"])["run_id"])]
        known = dict(zip(table["run_id"], table["wall_seconds"], strict=True))
    for run in _written(folder, known):
        known[run["rows"]["run_id"].iloc[0]] = run["rows"]["wall_seconds"].iloc[0]
    return known


def collect(folder: Path) -> None:
    """Merge the finished runs into the two tables; a newer run replaces its elder.

    Raises:
        InputError: a table is damaged, the disk is full; a run's own damaged file is warned of.
    """
    runs = list(_written(folder))
    if not runs:
        return
    for kind in ("items", "rows"):
        table = folder / f"{kind}.parquet"
        fresh = pd.concat([run[kind] for run in runs], ignore_index=True)
        if table.is_file():
            old = read_stored(table)
            fresh = pd.concat([old[~old["run_id"].isin(fresh["run_id"])], fresh], ignore_index=True)
        order = ["task", "method", "seed", "item" if kind == "items" else "metric"]
        _write(fresh.sort_values(order, ignore_index=True), table)


def _written(folder: Path, known: Collection[str] = ()) -> Iterator[dict[str, pd.DataFrame]]:
    """Rows and items of each run under `folder`/runs but the `known` ones, and damaged ones."""
    # Items without rows are of a run that was killed between the two.
    for path in sorted((folder / "runs").glob("*.rows.parquet")):
        run = path.name.removesuffix(".rows.parquet")
        if run in known:
            continue
        try:
            yield {k: read_stored(path.with_name(f"{run}.{k}.parquet")) for k in ("items", "rows")}
        except InputError as error:
            warnings.warn(f"run {run} is left out: {error}", stacklevel=3)
