"""Score tables of any origin, read into the columns of the analysis.

Accepted in CSV, TSV, JSON, JSON lines and Parquet, and from folders of JSON files, are

- long tables `method, task, seed, item, value`, with or without a column `metric`, one row per
  score; without `item`, one row per run;
- one column per metric (`accuracy`, `nll`, ...) in place of `value`;
- one column per method (`kd`, `kd+cka`, ...) in place of `method`, or one per seed;
- `label` and `prediction` in place of a value: an item's score is then whether they agree; for
  Matthews, F1, Pearson and Spearman the score of a run is computed from them.

`task`, `seed`, `fold` and `cluster` (items that share a source) are optional; `score_columns` has
the other names by which columns are recognised.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_float_dtype, is_numeric_dtype

from geodistill.analysis import score_columns as roles
from geodistill.analysis import score_shapes as shapes
from geodistill.analysis.metric_names import (
    CORRECTNESS,
    FROM_LABELS,
    HIGHER,
    LOWER,
    has_higher_better,
    metric_key,
)
from geodistill.analysis.score_columns import join
from geodistill.analysis.score_files import load_table
from geodistill.errors import InputError

MAX_SCORE, MIN_SCORE = 1e70, 1e-9
"""Fourth powers of larger scores overflow; differences of smaller ones count as rounding."""


@dataclass(frozen=True)
class ScoreTable:
    """Scores of methods, ready for comparison.

    Attributes:
        frame: `run_id, task, method, seed, score`, with items also `item, source`, of
            cross-validation `fold`; higher scores are better.
        metric: its name in the file.
        sign_flipped: whether lower is better in the file, so that signs were reversed.
        metric_from_labels: name of the metric to compute from `label, prediction`, where it is no
            mean over items (`score` is then 0); otherwise empty.
        n_rows: rows of the file that have this metric.
        left_out: rows never used, by reason.
        notes: assumptions, as sentences.
        taken: by role, what was taken as it, in words.
    """

    frame: pd.DataFrame
    metric: str
    sign_flipped: bool
    metric_from_labels: str
    n_rows: int
    left_out: dict[str, int]
    notes: tuple[str, ...]
    taken: dict[str, str] = field(default_factory=dict)

    @property
    def has_items(self) -> bool:
        """Whether scores are of items, not of whole runs."""
        return "item" in self.frame


def read_scores(
    path: Path,
    baseline: str,
    columns: Mapping[str, str] | None = None,
    metric: str | None = None,
    higher_is_better: bool | None = None,
    tasks: Sequence[str] = (),
    methods: Sequence[str] = (),
) -> ScoreTable:
    """The scores in a file, or of the finished, clean runs in a results folder.

    Args:
        path: a file or folder that `load_table` reads.
        baseline: name of a method, by which a table with one column per method is recognised.
        columns: name in the file by our name, for roles that have another name there; "" for a
            role that no column has.
        metric: name of the metric, if the file has several, or of the only one.
        higher_is_better: by default known from the metric's name.
        tasks: to include; all by default.
        methods: to include beside the baseline; all by default.

    Raises:
        InputError: an unknown kind of file, a task or method without rows, columns that are missing
            or ambiguous, a metric of unknown direction, values that are no numbers, or two values
            of one score.

    Example:
        >>> from pathlib import Path
        >>> from geodistill.analysis import read_scores
        >>> rows = "Model,seed,item,Accuracy\\nkd,0,a,1\\nnew,0,a,0\\n"
        >>> _ = Path("scores.csv").write_text(rows)
        >>> scores = read_scores(Path("scores.csv"), baseline="kd")
        >>> scores.metric, scores.n_rows, scores.taken["method"]
        ('Accuracy', 2, 'column Model: kd, new')
    """
    columns = columns or {}
    frame, name_by_role = roles.assign_roles(load_table(path), columns, baseline, path)
    notes = shapes.describe_unfinished(frame)
    frame, taken = shapes.one_row_per_score(
        frame, name_by_role, columns, baseline, metric, methods, path
    )
    original = set(frame)
    frame, name = _choose_values(frame, metric, name_by_role.get("value", "value"), path)
    sign_flipped = not (has_higher_better(name) if higher_is_better is None else higher_is_better)
    frame, left_out = _clean(frame, path, {*name_by_role, *taken})
    if not tasks and (means := shapes.is_mean_over_tasks(frame["task"])).any():
        left_out[f"of a mean over tasks ({join(frame.loc[means, 'task'].unique())})"] = int(
            means.sum()
        )
        frame = frame[~means].reset_index(drop=True)
    if sign_flipped:
        frame["score"] = -frame["score"]
    n_rows = len(frame) + sum(left_out.values())
    has_values = original & {"value", "metric", name}
    from_labels = "" if has_values else FROM_LABELS.get(metric_key(name), "")
    taken = _describe(frame, name_by_role, taken)
    taken["value"] = f"{name}; {'lower' if sign_flipped else 'higher'} is better"
    for role, names, reason in (
        ("task", tasks, "of a task that was not chosen"),
        ("method", [baseline, *methods] if methods else (), "of a method that was not chosen"),
    ):
        if names:
            known = frame[role].unique().tolist()
            if absent := [value for value in names if value not in known]:
                raise InputError(
                    f"{role} {absent[0]!r} is none of the rows'; they hold {join(known)}"
                )
            notes += [f"tasks: {join(tasks)} of {len(known)}, as chosen"] if role == "task" else []
            left_out[reason] = int((~frame[role].isin(names)).sum())
            frame = frame[frame[role].isin(names)].reset_index(drop=True)
    return ScoreTable(frame, name, sign_flipped, from_labels, n_rows, left_out, tuple(notes), taken)


def _describe(
    frame: pd.DataFrame, name_by_role: Mapping[str, str], taken: Mapping[str, str]
) -> dict[str, str]:
    """What was taken as method, task, seed, item and cluster, in words."""
    texts = {}
    absent = {
        "task": "none: all rows count as one task",
        "seed": "none: all rows count as one seed",
        "item": "none: runs are compared, on the same test items",
        "cluster": "none: items count as independent",
    }
    for role in ("method", *absent):
        column = "source" if role == "cluster" else role
        if role in taken:
            texts[role] = taken[role]
        elif role in name_by_role and column in frame:
            values = frame[column].unique()
            few = f"{len(values):,}" if role in ("seed", "item", "cluster") else join(values, 8)
            texts[role] = f"column {name_by_role[role]}: {few}"
        elif role in absent and (role != "cluster" or "item" in frame):
            texts[role] = absent[role]
    if "item" in frame and frame[["source", "task"]].drop_duplicates()["source"].duplicated().any():
        texts["item"] += ", of equal name in several tasks: crossed with the tasks"
    return texts


def _choose_values(
    frame: pd.DataFrame, metric: str | None, value_name: str, path: Path
) -> tuple[pd.DataFrame, str]:
    """The table with the chosen metric as `value`, and the metric's name."""
    if "metric" in frame:
        return _one_metric(frame, metric, path)
    others = [name for name in map(str, frame) if name not in roles.ROLES]
    wanted = shapes.match_column(frame, metric) if metric else None
    if wanted:
        return frame.assign(value=frame[wanted]), str(wanted)
    if "value" in frame:
        return frame, metric or value_name
    if {"label", "prediction"} <= set(frame):
        label, prediction = roles.comparable(frame["label"], frame["prediction"])
        frame = frame.assign(label=label, prediction=prediction)
        key, correct = metric_key(metric or "accuracy"), (label == prediction).astype(float)
        if key in FROM_LABELS and "item" in frame:
            return frame.assign(value=(0.0 * correct).where(label.notna())), str(metric)
        if key in CORRECTNESS:
            return frame.assign(value=correct.where(label.notna())), metric or "accuracy"
    names = roles.score_candidates(frame)
    known = [name for name in others if metric_key(name) in HIGHER | LOWER]
    if metric or not (names or known):
        absent = f"no metric {metric!r}" if metric else "no column with values"
        raise InputError(
            f"{path} has {absent}; its columns are {join(frame)}: name one by --column value=NAME"
        )
    if len(known) != 1 and len(names) > 1:
        raise InputError(
            f"{path} has the columns {join(names)}: choose one by --metric (or, if they are tasks, "
            "name their common metric by it)"
        )
    name = known[0] if len(known) == 1 else names[0]
    return frame.assign(value=frame[name]), name


def _one_metric(frame: pd.DataFrame, metric: str | None, path: Path) -> tuple[pd.DataFrame, str]:
    known = sorted(frame["metric"].dropna().astype(str).unique())
    if metric is None and len(known) > 1:
        raise InputError(f"{path} holds the metrics {join(known)}: choose one by --metric")
    name = shapes.match_name(metric, known) if metric else next(iter(known), "")
    if name not in known:
        raise InputError(f"{path} has no metric {metric!r}; it has {join(known)}")
    if "value" not in frame:
        raise InputError(f"{path} has a column metric and none for its value: {join(frame)}")
    return frame[frame["metric"].astype(str) == name], str(name)


def _clean(frame: pd.DataFrame, path: Path, known: set[str]) -> tuple[pd.DataFrame, dict[str, int]]:
    """Rows with a finite score, each once; and the number of rows left out, by reason."""
    roles_of_rows = ("task", "seed", *(() if "item" in frame else ("fold",)), "item")
    absent = [role for role in roles_of_rows if role not in known]
    frame = _with_names(frame)
    values = roles.to_numbers(frame["value"], path)
    keys = [name for name in ("task", "method", "seed", "item") if name in frame]
    others = [name for name in frame if name not in (*roles.ROLES, "source")]
    other_columns = frame[[name for name in others if not frame[name].equals(frame["value"])]]
    columns = [*keys, "source", "label", "prediction", "fold", "answer", "exact_match"]
    frame = frame.filter(columns).assign(score=values)
    named = frame[keys].notna().all(axis=1)
    unlabelled = pd.Series(False, index=frame.index)
    if {"label", "prediction"} <= set(frame):
        unlabelled = values.isna() & (frame["label"].isna() | frame["prediction"].isna())
    finite = np.isfinite(values)
    valid = frame[named & finite]
    largest = valid["score"].abs().max()
    if largest > MAX_SCORE or 0 < largest < MIN_SCORE:
        raise InputError(
            f"{path}: the largest score is {largest:g}; expected a unit in which it lies between "
            f"{MIN_SCORE:g} and {MAX_SCORE:g}"
        )
    cell = valid.groupby(keys, sort=False).ngroup()  # each name is read once
    repeated = cell.duplicated()
    if repeated.any():
        first = valid["score"].groupby(cell, sort=False).transform("first")
        other = valid[valid["score"] != first]
        _refuse_conflict(other, valid, keys, absent, other_columns, path)
    unique = valid[~repeated]
    left_out = {
        "without a method, task, seed or item": int((~named).sum()),
        "without a label or a prediction": int((named & unlabelled).sum()),
        "without a finite value": int((named & ~finite & ~unlabelled).sum()),
        "repeated": len(valid) - len(unique),
    }
    run = unique.groupby(["task", "method", "seed"], sort=False).ngroup()
    runs = unique.loc[~run.duplicated(), ["task", "method", "seed"]].astype(str)
    ids = runs["task"] + "/" + runs["method"] + "/" + runs["seed"]
    return unique.assign(run_id=ids.to_numpy()[run]).reset_index(drop=True), left_out


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
    different: pd.DataFrame,
    rows: pd.DataFrame,
    keys: list[str],
    absent: list[str],
    others: pd.DataFrame,
    path: Path,
) -> None:
    """Raise InputError if a score has two values, with the column that tells its rows apart."""
    if different.empty:
        return
    values = different.iloc[0][keys]
    same = others.loc[rows.index[(rows[keys] == values).all(axis=1)]].select_dtypes(exclude="float")
    differing = [name for name in same if same[name].nunique() > 1]
    hint = "keep one"
    if absent:
        options = " or ".join(f"{role}={differing[0] if differing else 'NAME'}" for role in absent)
        hint += f", or name the column that tells them apart by --column {options}"
        hint += "" if differing else " (the table has none: add it)"
    where = ", ".join(f"{name} {value}" for name, value in values.items())
    raise InputError(f"{path} has two different values for {where}: {hint}")
