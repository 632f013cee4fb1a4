"""Shapes of tables, turned into one row per score: columns of seeds, methods, tasks or charts."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from geodistill.analysis.metric_names import is_bounded
from geodistill.analysis.score_columns import (
    ROLES,
    canonical,
    is_bookkeeping,
    is_numeric,
    join,
    score_candidates,
)
from geodistill.errors import InputError

_A_SEED = re.compile(
    r"^(seed|run|trial|rep|replicate|repeat|fold|split)?[\s_.-]*\d+$", re.IGNORECASE
)
_CHART = re.compile(r"^(?P<method>.+) - (?P<metric>(?!.*__(MIN|MAX)$).+)$")
_CHART_RANGE = re.compile(r" - .*__(MIN|MAX)$")
_MEANS = ("average", "avg", "mean", "overall", "total", "all", "macroaverage", "score", "index")
_NAME_WITH_SEED = re.compile(r"^(?P<method>.+?)[\s_./-]*(?:seed|run|trial|s)[\s_=-]*(?P<seed>\d+)$")


def one_row_per_score(
    frame: pd.DataFrame,
    name_by_role: dict[str, str],
    columns: Mapping[str, str],
    baseline: str,
    metric: str | None,
    methods: Sequence[str],
    path: Path,
) -> tuple[pd.DataFrame, dict[str, str]]:
    """The table with a column for each role that it has; and what was taken, in words."""
    taken = {}
    if "method" not in frame:
        frame, chart = melt_chart(frame)
        if chart:
            taken["method"] = "one column each, of which the last value counts"
    if "method" in frame:
        frame, seeds = melt_seeds(frame, columns)
        if seeds:
            taken["seed"] = f"one column each: {join(seeds)}"
    else:
        frame, taken["method"] = melt_methods(frame, baseline, methods, path)
    frame, split = split_seed_off(frame, baseline)
    if split:
        taken["seed"] = f"the number in the names of column {name_by_role.get('method', 'method')}"
    if not {"value", "metric", "label"} & set(frame) and metric and not match_column(frame, metric):
        frame, tasks = melt_tasks(frame, score_candidates(frame), columns, metric)
        taken |= {"task": tasks} if tasks else {}
    frame = drop_false_items(frame, columns)
    frame, folds = folds_as_seeds(frame, columns)
    if folds:
        taken["seed"] = f"{folds}: folds of cross-validation, which share training data"
    return frame, taken


def melt_seeds(frame: pd.DataFrame, columns: Mapping[str, str]) -> tuple[pd.DataFrame, list[str]]:
    """A table with one column per seed as one row per seed, and the names of these columns."""
    names = [
        name for name in map(str, frame) if _A_SEED.match(name) and is_numeric_dtype(frame[name])
    ]
    if len(names) < 2 or {"seed", "fold", "value"} & set(frame) or "seed" in columns:
        return frame, []
    keys = [role for role in ROLES if role in frame]
    long = frame.melt(keys, names, var_name="seed", value_name="value")
    return long.assign(seed=long["seed"].str.extract(r"(\d+)$")[0].astype(int)), names


def melt_methods(
    frame: pd.DataFrame, baseline: str, methods: Sequence[str], path: object
) -> tuple[pd.DataFrame, str]:
    """A table with one column per method as one row per method; and what was taken, in words.

    Without `methods` these are the numeric columns that are no bookkeeping, and that lie in 0..1 or
    -1..1 where the baseline does.

    Raises:
        InputError: no column of the baseline's name, or of one of the methods.
    """
    names = {str(name).strip(): name for name in frame}
    for name in (baseline, *methods):
        if name not in names:
            near = get_close_matches(name, list(names), 1)
            hint = (
                f"; did you mean {near[0]!r}?"
                if near
                else "; name the former by --column method=NAME"
            )
            raise InputError(
                f"{path} has neither a column method nor {name!r}: {join(names)}{hint}"
            )
    keys = [role for role in ROLES if role in frame]
    rest = [name for name in map(str, frame) if name not in keys and name != baseline]
    small = _largest(frame[baseline]) <= 1
    taken = list(methods) or [
        name
        for name in rest
        if is_numeric(frame[name])
        and not is_bookkeeping(name)
        and not (small and _largest(frame[name]) > 1)
    ]
    taken = [name for name in taken if name != baseline]
    others = [name for name in rest if name not in taken]
    words = f"one column each: {join([baseline, *taken])}"
    if others:
        words += f" (not taken as methods: {join(others)}; choose by --methods)"
    return frame.melt(keys, [baseline, *taken], var_name="method", value_name="value"), words


def _largest(values: "pd.Series[Any]") -> float:
    return float(pd.to_numeric(values, errors="coerce").abs().max())


def melt_tasks(
    frame: pd.DataFrame, names: Sequence[str], columns: Mapping[str, str], metric: str
) -> tuple[pd.DataFrame, str]:
    """A table with one column per task as one row per task, without means over tasks.

    Of a metric in 0..1 or 0..100, columns with larger numbers are no tasks.
    """
    if "task" in frame or "task" in columns or "method" not in frame or len(names) < 2:
        return frame, ""
    tasks = [
        name
        for name in names
        if canonical(name) not in _MEANS
        and not (is_bounded(metric) and _largest(frame[name]) > 100)
    ]
    others = [name for name in map(str, frame) if name not in tasks and name not in ROLES]
    words = f"one column each: {join(tasks)}"
    words += f" (left out: {join(others)})" if others else ""
    keys = [role for role in ROLES if role in frame]
    return frame.melt(keys, tasks, var_name="task", value_name="value"), words


def melt_chart(frame: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """The last value of each run in an export of a chart, with columns `RUN - METRIC`."""
    parts = {name: _CHART.match(str(name)) for name in frame}
    values = {name: match for name, match in parts.items() if match}
    bare = [name for name in frame if not values.get(name) and not _CHART_RANGE.search(str(name))]
    if len(values) < 2 or len(bare) != 1:
        return frame, False
    rows = [
        {**match.groupdict(), "value": last.iloc[-1] if len(last) else None}
        for name, match in values.items()
        for last in [frame.sort_values(str(bare[0]))[name].dropna()]
    ]
    return pd.DataFrame(rows), True


def split_seed_off(frame: pd.DataFrame, baseline: str) -> tuple[pd.DataFrame, bool]:
    """Methods named like `kd-seed3` as method and seed, if all are and one is the baseline."""
    if "seed" in frame or "method" not in frame:
        return frame, False
    names = pd.Series(frame["method"].dropna().unique()).astype(str)
    parts = names.str.strip().str.extract(_NAME_WITH_SEED)
    if (
        baseline in set(names)
        or parts.isna().any(axis=None)
        or baseline not in set(parts["method"])
    ):
        return frame, False
    by_name = dict(zip(names, parts.to_records(index=False), strict=True))
    pairs = [by_name[str(name)] for name in frame["method"]]
    return frame.assign(method=[p[0] for p in pairs], seed=[int(p[1]) for p in pairs]), True


def drop_false_items(frame: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """Without a column `item` that was guessed and is the same throughout each run: a task's id."""
    runs = [name for name in ("method", "task", "seed", "fold", "metric") if name in frame]
    if "item" not in frame or "item" in columns or "method" not in frame:
        return frame
    varies = len(frame[[*runs, "item"]].drop_duplicates()) > len(frame[runs].drop_duplicates())
    return frame if varies else frame.drop(columns="item")


def folds_as_seeds(frame: pd.DataFrame, columns: Mapping[str, str]) -> tuple[pd.DataFrame, str]:
    """Folds, or repetitions × folds, as seeds; and what was taken, in words.

    A column of seeds counts only if methods share its values within a fold: elsewhere it holds
    another random number in each row.
    """
    if "fold" not in frame or "item" in frame:
        return frame.drop(columns="fold", errors="ignore"), ""
    if "seed" not in frame:
        return frame.assign(seed=frame["fold"]), "the fold"
    keys = [name for name in ("task", "seed", "fold", "metric") if name in frame]
    n_methods = frame.drop_duplicates([*keys, "method"]).groupby(keys)["method"].size()
    if "seed" in columns or (n_methods > 1).mean() > 0.5:
        seed = frame["seed"].astype(str) + "/" + frame["fold"].astype(str)
        return frame.assign(seed=seed), "seed and fold together"
    return frame.assign(seed=frame["fold"]), "the fold (methods share no value of the column seed)"


def match_column(frame: pd.DataFrame, metric: str) -> str | None:
    """The column of a metric's name, of those that have no role."""
    return match_name(metric, [name for name in map(str, frame) if name not in ROLES])


def match_name(metric: str, names: Sequence[str]) -> str | None:
    """The column of this name, or of this name in another spelling."""
    if metric in names:
        return metric
    same = [name for name in names if canonical(name) == canonical(metric)]
    return same[0] if len(same) == 1 else None
