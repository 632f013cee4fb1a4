"""The rows of a score table, each once and with a finite score; conflicting ones are refused."""

from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_float_dtype, is_numeric_dtype

from geodistill.analysis import score_columns as roles
from geodistill.errors import InputError

MAX_SCORE, MIN_SCORE = 1e70, 1e-9
"""Fourth powers of larger scores overflow; differences of smaller ones count as rounding."""


def clean_rows(
    frame: pd.DataFrame, path: Path, known: set[str], baseline: str
) -> tuple[pd.DataFrame, dict[str, int], list[str]]:
    """Rows with a finite score, each once.

    Args:
        frame: with a column `value`.
        path: for messages.
        known: roles that a column, or the names of columns, have.
        baseline: name of a method.

    Returns:
        The rows with their `score`; the number of rows left out, by reason; and notes on methods
        that lost rows because they have no finite score.

    Raises:
        InputError: a score with two values, too large or too small, or an item with two labels; a
            baseline without a finite score.
    """
    roles_of_rows = ("task", "seed", *(() if "item" in frame else ("fold",)), "item")
    absent = [role for role in roles_of_rows if role not in known]
    frame = _with_names(frame)
    values = roles.to_numbers(frame["value"], path)
    keys = [name for name in ("task", "method", "seed", "item") if name in frame]
    others = [name for name in frame if name not in (*roles.ROLES, "source")]
    other_columns = frame[[name for name in others if not frame[name].equals(frame["value"])]]
    columns = [*keys, "source", "label", "prediction", "fold", "n_folds", "answer", "exact_match"]
    frame = frame.filter(columns).assign(score=values)
    named = frame[keys].notna().all(axis=1)
    unlabelled = pd.Series(False, index=frame.index)
    if {"label", "prediction"} <= set(frame):
        unlabelled = values.isna() & (frame["label"].isna() | frame["prediction"].isna())
    valid = frame[named & np.isfinite(values)]
    _refuse_size(valid["score"].abs().max(), path)
    cell = valid.groupby(keys, sort=False).ngroup()  # each name is read once
    repeated = cell.duplicated()
    if repeated.any():
        _refuse_conflict(valid, cell, keys, absent, other_columns, path)
    unique = valid[~repeated]
    if {"item", "label"} <= set(unique):
        _refuse_two_labels(unique, path)
    infinite = named & np.isinf(values)
    left_out = {
        "without a method, task, seed or item": int((~named).sum()),
        "without a label or a prediction": int((named & unlabelled).sum()),
        "without a finite value": int((named & values.isna() & ~unlabelled).sum()),
        "with an infinite value": int(infinite.sum()),
        "repeated": len(valid) - len(unique),
    }
    run = unique.groupby(["task", "method", "seed"], sort=False).ngroup()
    runs = unique.loc[~run.duplicated(), ["task", "method", "seed"]].astype(str)
    ids = runs["task"] + "/" + runs["method"] + "/" + runs["seed"]
    notes = _notes_on_methods(frame, infinite, set(unique["method"]), baseline, path)
    return unique.assign(run_id=ids.to_numpy()[run]).reset_index(drop=True), left_out, notes


def _refuse_size(largest: float, path: Path) -> None:
    """Raise InputError if powers of the largest score overflow, or all scores look like 0."""
    if largest > MAX_SCORE or 0 < largest < MIN_SCORE:
        raise InputError(
            f"{path}: the largest score is {largest:g}; expected a unit in which it lies between "
            f"{MIN_SCORE:g} and {MAX_SCORE:g}"
        )


def _notes_on_methods(
    frame: pd.DataFrame, infinite: "pd.Series[bool]", scored: set[str], baseline: str, path: Path
) -> list[str]:
    """Which methods have infinite scores, and which no finite one."""
    unscored = [name for name in frame["method"].dropna().unique() if name not in scored]
    if baseline in unscored:
        raise InputError(f"{path}: no row of {baseline!r} has a finite score; expected some")
    notes = []
    if infinite.any():
        methods = roles.join(frame.loc[infinite, "method"].unique())
        notes.append(
            f"infinite scores of {methods} are left out ({int(infinite.sum())}): if these runs "
            "diverged, the result is about those alone that did not"
        )
    if unscored:
        notes.append(f"left out, since no row has a finite score: {roles.join(unscored)}")
    return notes


def _refuse_two_labels(rows: pd.DataFrame, path: Path) -> None:
    """Raise InputError if an item has different labels in different runs: it is not one item."""
    by_item = rows.groupby(["task", "item"], sort=False)["label"]
    several = by_item.transform("nunique") > 1
    if several.any():
        task, item = rows.loc[several, ["task", "item"]].iloc[0]
        labels = roles.clean_names(by_item.get_group((task, item))).dropna().unique()
        raise InputError(
            f"{path}: item {item} of {task} has the labels {' and '.join(labels[:2])}: expected "
            "one label per item; name the column of the items by --column item=NAME (row numbers "
            "of shuffled data do not identify items)"
        )


def refuse_other_coding(frame: pd.DataFrame, path: Path) -> None:
    """Raise InputError if a method's predictions in a task are none of the task's labels."""
    keys = [name for name in ("task", "method") if name in frame]
    for names, rows in frame.dropna(subset=["label", "prediction"]).groupby(keys, sort=False):
        if not rows["prediction"].isin(rows["label"]).any():
            labels, predictions = (
                roles.join(roles.clean_names(rows[name].drop_duplicates()), 3)
                for name in ("label", "prediction")
            )
            method = " in ".join(map(str, reversed(names)))
            raise InputError(
                f"{path}: the predictions of {method} ({predictions}) are none "
                f"of the labels ({labels}): expected one coding for both; for texts, of "
                "which none may match, choose --metric exact_match"
            )


def _with_names(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with a task and a seed in each row, clean names, and the `source` of each item."""
    for role, default in (("task", "all"), ("seed", 0)):
        if role not in frame:
            frame = frame.assign(**{role: default})
    if is_float_dtype(frame["seed"]) and (frame["seed"].dropna() % 1 == 0).all():
        frame = frame.assign(seed=frame["seed"].astype("Int64"))
    names = ["task", "method", *(name for name in ("item", "cluster") if name in frame)]
    names += [] if is_numeric_dtype(frame["seed"]) else ["seed"]
    frame = frame.assign(**{name: roles.clean_names(frame[name]) for name in names})
    if "item" in frame:
        item = frame["item"]  # one without a cluster is its own, whatever the clusters' names
        frame["source"] = frame["cluster"].fillna("item " + item) if "cluster" in frame else item
    return frame


def _refuse_conflict(
    rows: pd.DataFrame,
    cell: "pd.Series[int]",
    keys: list[str],
    absent: list[str],
    others: pd.DataFrame,
    path: Path,
) -> None:
    """Raise InputError if a score has two values, with the column that tells its rows apart."""
    first = rows["score"].groupby(cell, sort=False).transform("first")
    different = rows[rows["score"] != first]
    if different.empty:
        return
    values = different.iloc[0][keys]
    same = others.loc[rows.index[(rows[keys] == values).all(axis=1)]].select_dtypes(exclude="float")
    differing = [name for name in same if same[name].nunique() > 1]
    hint = "keep one"
    if differing and (role := roles.role_of(differing[0])) in absent:
        absent = [role]
    if absent:
        options = " or ".join(f"{role}={differing[0] if differing else 'NAME'}" for role in absent)
        hint += f", or name the column that tells them apart by --column {options}"
        hint += "" if differing else " (the table has none: add it)"
    where = ", ".join(f"{name} {value}" for name, value in values.items())
    raise InputError(f"{path} has two different values for {where}: {hint}")
