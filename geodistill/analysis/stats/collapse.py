"""Runs that learned nothing: the collapse rule, computed from items."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

WITHIN, ONE_ANSWER, PEARSON = 0.02, 0.97, 0.1
DEFAULT_RULE = (
    f"accuracy at most {100 * WITHIN:g} points above that of the most frequent label (on a scale: "
    f"correlation at most {PEARSON:g}), or {ONE_ANSWER:.0%} or more equal predictions"
)
TOLERATED = 0.1
"""Share of a baseline's runs that may collapse; beyond it, there is no test against it."""


def find_collapsed(
    items: pd.DataFrame,
    *,
    within: float = WITHIN,
    one_answer: float = ONE_ANSWER,
    pearson: float = PEARSON,
    floors: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Which runs collapsed, each judged task by task.

    Answers are the column `prediction`, or the text `answer` where items have no label. A run has
    collapsed if one answer is too frequent, or if its accuracy is hardly above the floor: that of
    always giving the most frequent label. Where labels are numbers on a scale, there are no
    classes, and a run has collapsed if its predictions hardly correlate with the labels.

    Args:
        items: `run_id, task, method, seed`; and `label, prediction`, or `exact_match, answer`.
        within: accuracy above the floor, in 0..1, up to which a run has collapsed.
        one_answer: share of equal answers, in 0..1, from which it has.
        pearson: correlation up to which it has, on a scale.
        floors: accuracy of the best trivial answer by task; by default that of the most frequent
            label, and none for tasks without labels.

    Returns:
        One row per run and task: `run_id, task, method, seed`, `score` (accuracy or correlation),
        `floor` (nan: none), `one_answer` (the largest share of equal answers), `collapsed`. No row
        where the items have neither pair of columns.

    Example:
        >>> import pandas as pd
        >>> from geodistill.analysis import find_collapsed
        >>> items = pd.DataFrame({"run_id": "a", "task": "t", "method": "kd", "seed": 0,
        ...                       "label": [0, 0, 1, 1], "prediction": [0, 0, 0, 0]})
        >>> find_collapsed(items)[["score", "floor", "one_answer", "collapsed"]].values.tolist()
        [[0.5, 0.5, 1.0, True]]
    """
    key, lines = ["run_id", "task", "method", "seed"], []
    rows = items[key].assign(**_answers(items))
    rows = rows[rows["answer"].notna()]
    for task, of_task in rows.groupby("task", sort=False):
        scale = _is_scale(of_task)
        for _, run in of_task.groupby("run_id", sort=False):
            floor = (floors or {}).get(str(task), _floor(run["label"]))
            line = {**run[key].iloc[0].to_dict(), "one_answer": _largest_share(run["answer"])}
            if scale:
                line |= {"score": _correlation(run), "floor": 0.0}
                low = not line["score"] > pearson
            else:
                line |= {"score": float(run["correct"].mean()), "floor": floor}
                low = line["score"] <= floor + within + 1e-12
            lines.append({**line, "collapsed": bool(low or line["one_answer"] >= one_answer)})
    return pd.DataFrame(lines, columns=[*key, "score", "floor", "one_answer", "collapsed"])


def collapsed_runs(rows: pd.DataFrame) -> pd.DataFrame:
    """`run_id, task, collapsed`: by a column `collapsed` if there is one, else `find_collapsed`."""
    names = ["run_id", "task", "collapsed"]
    if "collapsed" in rows:
        return rows[names].drop_duplicates()
    return find_collapsed(rows)[names]


def collapsed_share(rows: pd.DataFrame) -> float:
    """The share of runs that collapsed, of those of which it is known; 0 if there are none."""
    known = collapsed_runs(rows)["collapsed"].dropna()
    return float(known.mean()) if len(known) else 0.0


def _answers(items: pd.DataFrame) -> dict[str, Any]:
    """The answer, the label and whether it is correct, by item; nan where there is none."""
    columns: dict[str, Any] = {"answer": np.nan, "label": np.nan, "correct": np.nan}
    if {"label", "prediction"} <= set(items):
        answer, label = items["prediction"], items["label"]
        columns = {"answer": answer, "label": label, "correct": answer == label}
    elif {"exact_match", "answer"} <= set(items):
        columns |= {"answer": items["answer"].str.strip(), "correct": items["exact_match"]}
    return columns


def _is_scale(rows: pd.DataFrame) -> bool:
    """Whether labels and predictions are numbers on a scale: not all of them are integers."""
    columns = [rows[name] for name in ("label", "answer")]
    if not all(is_numeric_dtype(column) for column in columns):
        return False
    return any(bool((column % 1 > 0).any()) for column in columns)


def _floor(label: "pd.Series[Any]") -> float:
    return _largest_share(label) if label.notna().any() else np.nan


def _correlation(run: pd.DataFrame) -> float:
    if run["answer"].nunique() < 2 or run["label"].nunique() < 2:
        return np.nan
    return float(run["label"].corr(run["answer"]))


def _largest_share(values: "pd.Series[Any]") -> float:
    return float(values.value_counts(normalize=True).iloc[0])
