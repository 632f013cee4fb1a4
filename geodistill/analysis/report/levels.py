"""The level of each method: mean, median and collapsed runs, which a difference alone hides."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from geodistill.analysis.metric_names import is_bounded
from geodistill.analysis.report.format import Unit
from geodistill.analysis.report.matching import scored_rows
from geodistill.analysis.report.units import parse_number, split_task
from geodistill.analysis.score_columns import as_names, join, refuse_absent_columns
from geodistill.analysis.score_tables import ScoreTable
from geodistill.analysis.stats.collapse import (
    DEFAULT_RULE,
    ONE_ANSWER_RULE,
    collapsed_runs,
    find_collapsed,
)
from geodistill.errors import InputError


def level_table(
    runs: pd.DataFrame, metric: str, collapsed: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Mean and median over the runs of each task and method, and how many collapsed.

    Args:
        runs: one row per run and task: `run_id, task, method` and a column with the metric.
        metric: name of that column.
        collapsed: as `find_collapsed` gives it; without it no run is known to have collapsed or
            not.

    Returns:
        One row per task and method, in the order of the runs: `task, method, runs, mean, median,
        collapsed`, the last the number of runs, missing where it is not known.

    Raises:
        InputError: a column of `runs` is missing.

    Example:
        >>> import pandas as pd
        >>> from geodistill.analysis import level_table
        >>> runs = pd.DataFrame({"run_id": ["a", "b", "c"], "task": "t", "method": "kd",
        ...                      "accuracy": [0.9, 0.8, 0.1]})
        >>> level_table(runs, "accuracy")[["runs", "mean", "median"]].iloc[0].tolist()
        [3.0, 0.6, 0.8]
    """
    refuse_absent_columns(runs, ("run_id", "task", "method", metric), "runs")
    runs = runs.dropna(subset=[metric])
    if collapsed is not None and len(collapsed):
        runs = runs.merge(collapsed[["run_id", "task", "collapsed"]], "left", ["run_id", "task"])
    else:
        runs = runs.assign(collapsed=None)
    runs["collapsed"] = runs["collapsed"].astype("Float64")
    by_method = runs.groupby(["task", "method"], sort=False)
    table = by_method[metric].agg(["size", "mean", "median"])
    table["collapsed"] = by_method["collapsed"].sum(min_count=1)
    return table.rename(columns={"size": "runs"}).reset_index()


def score_levels(scores: ScoreTable) -> pd.DataFrame:
    """`level_table` of a score table, in the unit and with the sign of its metric."""
    frame = scored_rows(scores)
    runs = frame.groupby(["run_id", "task", "method"], sort=False)["score"].mean().reset_index()
    if scores.sign_flipped:
        runs["score"] = -runs["score"]
    return level_table(runs, "score", collapsed_runs(frame))


def with_collapse_rule(
    scores: ScoreTable, collapsed_at: str | float | Sequence[str | float]
) -> ScoreTable:
    """The table with its collapse rule among `taken`, and a column `collapsed` if scores give it.

    Args:
        scores: the table.
        collapsed_at: each a score, or one for one task ("TASK=0.5"), as the file writes it: a run
            whose mean is this or worse has collapsed. Without any, `find_collapsed` decides.

    Raises:
        InputError: a score that is not a finite number, beyond 1 of a metric in 0..1, or of an
            unknown task.
    """
    options = as_names(collapsed_at)
    if not options:
        rule = "unknown without labels; choose a score by --collapsed-at"
        if len(runs := find_collapsed(scores.frame)):
            rule = DEFAULT_RULE if runs["floor"].notna().any() else ONE_ANSWER_RULE
        return replace(scores, taken={**scores.taken, "collapsed": rule})
    rows = scored_rows(scores)
    tasks = rows["task"].unique().tolist()
    bounds: dict[str, float] = {}
    for option in options:
        names, text = split_task("--collapsed-at", option, tasks)
        if not math.isfinite(number := parse_number(text)):
            raise InputError(
                f"--collapsed-at is {option}: expected a score, or one of a task, TASK=SCORE"
            )
        if abs(number) > 1 and is_bounded(scores.metric) and rows["score"].abs().max() <= 1:
            raise InputError(
                f"--collapsed-at is {option}, but {scores.metric} lies in 0 to 1: expected a score "
                "in the unit of the table, such as 0.5"
            )
        bounds |= dict.fromkeys(names, number)
    sign = -1 if scores.sign_flipped else 1
    bound = rows["task"].map(bounds)
    means = rows.groupby(["run_id", "task"], sort=False)["score"].transform("mean")
    collapsed = (means <= sign * bound + 1e-12 * means.abs()).astype("boolean").mask(bound.isna())
    words = join(f"{task} {bound:g}" for task, bound in bounds.items())
    if len(set(bounds.values())) == 1 and len(bounds) == len(tasks):
        words = f"{next(iter(bounds.values())):g}"
    rule = f"{scores.metric} of {words} or {'more' if scores.sign_flipped else 'less'}"
    frame = scores.frame.assign(collapsed=collapsed)
    return replace(scores, frame=frame, taken={**scores.taken, "collapsed": rule})


def format_levels(levels: pd.DataFrame, unit: Unit) -> pd.DataFrame:
    """The rows of `level_table` as text; without `collapsed` where it is missing everywhere.

    Args:
        levels: as `level_table` gives it.
        unit: in which scores are printed.
    """
    text = levels[["method", "task", "runs"]].astype(str)
    for name in ("mean", "median"):
        numbers = [f"{value * unit.factor:.{unit.digits}f}" for value in levels[name]]
        text[f"{name} ({unit.name})"] = numbers
    if levels["collapsed"].notna().any():
        pairs = zip(levels["collapsed"], levels["runs"], strict=True)
        text["collapsed"] = ["–" if pd.isna(n) else f"{n:.0f} of {runs}" for n, runs in pairs]
    return text
