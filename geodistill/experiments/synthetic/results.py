"""The stored results of the synthetic study, and means over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from geodistill.analysis.stored_results import read_stored
from geodistill.errors import InputError
from geodistill.experiments.synthetic.settings import STARTS
from geodistill.experiments.synthetic.study import STORED_COLUMNS, STUDY
from geodistill.paths import results_dir


def load_results() -> pd.DataFrame:
    """The stored runs: one row per run, seed and checkpoint, in the order of the steps.

    Returns:
        The columns of `train_block` with teacher, width, start, objective and run_id.

    Raises:
        InputError: there are none.
    """
    path = results_dir() / STUDY / "items.parquet"
    if not path.is_file():
        raise InputError(
            f"no stored rows at {path}: make them with `geodistill experiments {STUDY}`"
        )
    items = read_stored(path)
    task = items["task"].str.extract(r"^(?P<teacher>.*), d (?P<width>\d+), (?P<start>\w+)$")
    task["width"] = task["width"].astype(int)
    task["start"] = task["start"].map({stored: start for start, stored in STARTS.items()})
    names = {stored: name for name, stored in STORED_COLUMNS.items()} | {"method": "objective"}
    items = items.drop(columns=["seed", "task"]).rename(columns=names)
    return pd.concat([items, task], axis=1).sort_values("step", kind="stable", ignore_index=True)


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and Student's t interval at 95 % of independent values.

    Args:
        values: at least two.

    Returns:
        Mean, lower and upper limit.

    Raises:
        InputError: fewer than two values.
    """
    if len(values) < 2:
        raise InputError(f"values has {len(values)}: expected at least two for an interval")
    mean, sem = float(np.mean(values)), stats.sem(values)
    half = float(stats.t.ppf(0.975, len(values) - 1) * sem)
    return mean, mean - half, mean + half


def means_over_seeds(rows: pd.DataFrame, column: str, by: Sequence[str]) -> pd.DataFrame:
    """Mean and 95 % interval of a column over seeds, after the mean within each seed.

    Args:
        rows: with `column`, `seed` and the columns `by`.
        column: to average.
        by: columns that name a group.

    Returns:
        One row per group: the columns `by`, mean, low, high and n, the number of seeds.
    """
    groups = rows.groupby([*by, "seed"], sort=False)[column].mean().groupby(list(by), sort=False)
    means = pd.DataFrame(
        {group: (*mean_interval(values.tolist()), len(values)) for group, values in groups},
        index=["mean", "low", "high", "n"],
    ).T.rename_axis(list(by))
    return means.astype({"n": int}).reset_index()
