"""Runs that learned nothing: the collapse rule, computed from items."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from geodistill.analysis.score_columns import refuse_absent_columns

WITHIN, ONE_ANSWER, PEARSON = 0.02, 0.97, 0.1
ONE_ANSWER_RULE = f"{ONE_ANSWER:.0%} or more equal predictions"
DEFAULT_RULE = (
    f"accuracy at most {100 * WITHIN:g} points above that of the most frequent label (on a scale: "
    f"correlation at most {PEARSON:g}), or {ONE_ANSWER_RULE}"
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
    classes, and a run has collapsed if its predictions hardly correlate with the labels. Where
    labels are texts written freely (`is_free_text`), only equal answers tell.

    Args:
        items: `run_id, task, method, seed`; and `label, prediction`, or `exact_match, answer`.
        within: accuracy above the floor, in 0..1, up to which a run has collapsed.
        one_answer: share of equal answers, in 0..1, from which it has.
        pearson: correlation up to which it has, on a scale.
        floors: accuracy of the best trivial answer by task; by default that of the most frequent
            label, and none for tasks without labels or with free texts as labels.

    Returns:
        One row per run and task: `run_id, task, method, seed`, `score` (accuracy or correlation),
        `floor` (nan: none), `one_answer` (the largest share of equal answers), `collapsed`. No row
        where the items have neither pair of columns.

    Raises:
        InputError: one of the first four columns is missing.

    Example:
        >>> import pandas as pd
        >>> from geodistill.analysis import find_collapsed
        >>> items = pd.DataFrame({"run_id": "a", "task": "t", "method": "kd", "seed": 0,
        ...                       "label": [0, 0, 1, 1], "prediction": [0, 0, 0, 0]})
        >>> find_collapsed(items)[["score", "floor", "one_answer", "collapsed"]].values.tolist()
        [[0.5, 0.5, 1.0, True]]
    """
    key, lines = ["run_id", "task", "method", "seed"], []
    refuse_absent_columns(items, key)
    rows = items[key].assign(**_answers(items))
    rows = rows[rows["answer"].notna()]
    for task, of_task in rows.groupby("task", sort=False):
        scale, labels = is_scale(of_task["label"], of_task["answer"]), of_task["label"]
        largest = of_task["run_id"].value_counts().max()
        if is_free_text(labels, of_task["answer"], largest):
            of_task = of_task.assign(label=np.nan)
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


def is_scale(label: "pd.Series[Any]", answer: "pd.Series[Any]") -> bool:
    """Whether labels and answers are numbers on a scale: not all of them are integers."""
    sides = (label, answer)
    if not all(is_numeric_dtype(side) for side in sides):
        return False
    return any(bool((side % 1 > 0).any()) for side in sides)


def is_free_text(label: "pd.Series[Any]", answer: "pd.Series[Any]", n_items: int) -> bool:
    """Whether labels are texts, not classes: most are unique, or no answer equals any of them."""
    if label.isna().all() or all(is_numeric_dtype(side) for side in (label, answer)):
        return False
    return label.nunique() > n_items / 2 or not answer.isin(label.dropna().unique()).any()


def _floor(label: "pd.Series[Any]") -> float:
    return _largest_share(label) if label.notna().any() else np.nan


def _correlation(run: pd.DataFrame) -> float:
    if run["answer"].nunique() < 2 or run["label"].nunique() < 2:
        return np.nan
    return float(run["label"].corr(run["answer"]))


def _largest_share(values: "pd.Series[Any]") -> float:
    return float(values.value_counts(normalize=True).iloc[0])
