"""Wide tables as one row per score: with columns of seeds, methods or tasks, or from charts."""

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

_NUMBERED = re.compile(
    r"^(?P<kind>seed|run|trial|rep|replicate|repeat|cv|fold|split|)[\s_.-]*(?P<number>\d+)"
    r"(?P<rest>[\s_.-]+[a-z].*)?$",
    re.IGNORECASE,
)
_FOLDS = ("cv", "fold", "split")
MOST_FOLDS = 10
"""More folds than this probably come from repeated cross-validation."""
_CHART = re.compile(r"^(?P<method>.+) - (?P<metric>(?!.*__(MIN|MAX)$).+)$")
_CHART_RANGE = re.compile(r" - .*__(MIN|MAX)$")
_MEANS = ("average", "avg", "mean", "overall", "total", "all", "macroaverage", "macroavg")
_FINISHED = ("finished", "completed", "done", "success", "ok")
_NAME_WITH_SEED = re.compile(
    r"^(?P<method>.+?)(?:[\s_./-]*(?P<kind>seed|run|trial|cv|fold|split|s)[\s_=-]*|[\s_./-]+)"
    r"(?P<number>\d+)$"
)


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
        frame, role, names = melt_seeds(frame, columns, metric)
        if names:
            taken[role] = f"one column each: {join(names)}"
    else:
        frame, taken["method"] = melt_methods(frame, baseline, methods, path)
    frame, role = split_seed_off(frame, baseline)
    if role:
        column = name_by_role.get("method")
        named = f"column {column}" if column else "the columns"
        taken[role] = f"the number in the names of {named}"
    if not {"value", "metric", "label"} & set(frame) and metric and not match_column(frame, metric):
        frame, tasks = melt_tasks(frame, score_candidates(frame), columns, metric)
        taken |= {"task": tasks} if tasks else {}
    frame = drop_false_items(frame, columns)
    frame, folds = folds_as_seeds(frame, columns)
    if folds:
        task = frame["task"] if "task" in frame else pd.Series("all", frame.index)
        frame = frame.assign(n_folds=frame.groupby(task)["fold"].transform("nunique"))
        n_folds = int(frame["n_folds"].min())
        taken["seed"] = (
            f"{taken.pop('fold', folds)}: folds of cross-validation (K = {n_folds}), which share "
            "training data"
        )
        if n_folds > MOST_FOLDS and "seed" not in name_by_role:
            taken["seed"] += "; if it was repeated, name the repetition by --column seed=NAME"
    return frame, taken


def melt_seeds(
    frame: pd.DataFrame, columns: Mapping[str, str], metric: str | None
) -> tuple[pd.DataFrame, str, list[str]]:
    """A table with one column per seed or fold as one row per seed or fold.

    Returns:
        The table, the role of these columns, and their names; no names if there are none.
    """
    parts = {name: _NUMBERED.match(name) for name in map(str, frame)}
    by_rest: dict[str, list[str]] = {}
    for name, match in parts.items():
        if match and "train" not in (rest := match["rest"] or "") and is_numeric(frame[name]):
            by_rest.setdefault(rest, []).append(name)
    if len(by_rest) > 1 and metric:  # scikit-learn: split0_test_f1, split0_test_recall, ...
        by_rest = {r: n for r, n in by_rest.items() if canonical(r).endswith(canonical(metric))}
    names = next(iter(by_rest.values())) if len(by_rest) == 1 else []
    if len(names) < 2 or {"seed", "fold", "value"} & set(frame) or "seed" in columns:
        return frame, "", []
    match = parts[names[0]]
    role = "fold" if match and match["kind"].lower() in _FOLDS else "seed"
    keys = [role for role in ROLES if role in frame]
    long = frame.melt(keys, names, var_name=role, value_name="value")
    numbers = long[role].str.extract(_NUMBERED)["number"]
    return long.assign(**{role: numbers.astype(int)}), role, names


def melt_methods(
    frame: pd.DataFrame, baseline: str, methods: Sequence[str], path: object
) -> tuple[pd.DataFrame, str]:
    """A table with one column per method as one row per method; and what was taken, in words.

    Without `methods` these are the numeric columns that are no bookkeeping, and that lie in 0..1 or
    -1..1 where the baseline does; or all that are named like `kd_seed0`, if the baseline has such.
    Columns of texts stay, since they may tell the rows apart.

    Raises:
        InputError: no column of the baseline's name, or of one of the methods.
    """
    frame = frame.rename(columns={name: str(name).strip() for name in frame})
    keys = [role for role in ROLES if role in frame]
    rest = [name for name in map(str, frame) if name not in keys]
    numeric = [name for name in rest if is_numeric(frame[name]) and not is_bookkeeping(name)]
    taken = _with_seeds(numeric, baseline, methods)
    if not taken:
        _refuse_absent_methods(frame, baseline, methods, path)
        small = _largest(frame[baseline]) <= 1
        same_scale = [name for name in numeric if not (small and _largest(frame[name]) > 1)]
        taken = list(dict.fromkeys([baseline, *(methods or same_scale)]))
    others = [name for name in rest if name not in taken]
    words = f"one column each: {join(taken)}"
    if others and taken == [baseline] and not methods:
        raise InputError(
            f"{path}: no column beside {baseline!r} is taken as a method: choose from "
            f"{join(others)} by --methods"
        )
    if others:
        words += f" (not taken as methods: {join(others)}; choose by --methods)"
    texts = [name for name in others if not is_numeric_dtype(frame[name])]
    return frame.melt([*keys, *texts], taken, var_name="method", value_name="value"), words


def _with_seeds(names: Sequence[str], baseline: str, methods: Sequence[str]) -> list[str]:
    """The names of methods with a seed, such as `kd_seed0`, if the baseline is one of them."""
    methods_by_name = {
        name: match["method"] for name in names if (match := _NAME_WITH_SEED.match(name))
    }
    if baseline in names or baseline not in methods_by_name.values():
        return []
    included = {baseline, *(methods or methods_by_name.values())}
    return [name for name, method in methods_by_name.items() if method in included]


def _refuse_absent_methods(
    frame: pd.DataFrame, baseline: str, methods: Sequence[str], path: object
) -> None:
    for name in (baseline, *methods):
        if name not in frame:
            near = get_close_matches(name, list(map(str, frame)), 1)
            hint = "; name the former by --column method=NAME"
            hint = f"; did you mean {near[0]!r}?" if near else hint
            raise InputError(
                f"{path} has neither a column method nor {name!r}: {join(frame)}{hint}"
            )


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
        if canonical(name) not in (*_MEANS, "score", "index")
        and not (is_bounded(metric) and _largest(frame[name]) > 100)
    ]
    others = [name for name in map(str, frame) if name not in tasks and name not in ROLES]
    words = f"one column each: {join(tasks)}"
    words += f" (left out: {join(others)})" if others else ""
    keys = [role for role in ROLES if role in frame]
    return frame.melt(keys, tasks, var_name="task", value_name="value"), words


def is_mean_over_tasks(task: "pd.Series[str]") -> "pd.Series[bool]":
    """Rows of a task called `Average` or the like, if there are two or more others."""
    names = task.unique()
    means = [name for name in names if canonical(name) in _MEANS]
    return task.isin(means if len(names) > len(means) + 1 else [])


def describe_unfinished(frame: pd.DataFrame) -> list[str]:
    """A sentence on runs that a column such as `State` calls other than finished."""
    for name in frame:
        if canonical(name) not in ("state", "status") or is_numeric_dtype(frame[name]):
            continue
        state = frame[name].dropna().astype(str)
        other = state[~state.str.lower().isin(_FINISHED)]
        if 0 < len(other) < len(state):
            words = f"column {name}: {len(other):,} of {len(state):,} rows are"
            return [f"{words} {join(other.unique())}; are their values final?"]
    return []


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


def split_seed_off(frame: pd.DataFrame, baseline: str) -> tuple[pd.DataFrame, str]:
    """Methods named like `kd-seed3` as method and seed (or fold), and which of the two."""
    if {"seed", "fold"} & set(frame) or "method" not in frame:
        return frame, ""
    codes, unique = pd.factorize(frame["method"])
    names = pd.Series(unique).astype(str).str.strip()
    parts = names.str.extract(_NAME_WITH_SEED)
    known = set(parts["method"])
    if baseline in set(names) or baseline not in known or parts["number"].isna().any():
        return frame, ""
    role = "fold" if set(parts["kind"].dropna()) & set(_FOLDS) else "seed"
    columns = {"method": parts["method"], role: parts["number"].astype("Int64")}
    return frame.assign(
        **{name: part.reindex(codes).to_numpy() for name, part in columns.items()}
    ), role


def drop_false_items(frame: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """Drop a guessed column `item` that is constant within each run: it is an id of the task."""
    runs = [name for name in ("method", "task", "seed", "fold", "metric") if name in frame]
    if "item" not in frame or "item" in columns or "method" not in frame:
        return frame
    first = frame.groupby(runs, sort=False, dropna=False)["item"].transform("first")
    varies = (frame["item"].notna() & (frame["item"] != first)).any()
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
