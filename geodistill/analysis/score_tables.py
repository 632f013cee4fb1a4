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
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

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
from geodistill.analysis.score_rows import clean_rows, refuse_other_coding
from geodistill.analysis.stats.collapse import is_free_text, is_scale
from geodistill.errors import InputError


@dataclass(frozen=True)
class ScoreTable:
    """Scores of methods, ready for comparison.

    Attributes:
        frame: `run_id, task, method, seed, score`, with items also `item, source`, of
            cross-validation `fold, n_folds`; higher scores are better.
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
    taken: dict[str, str]

    @property
    def has_items(self) -> bool:
        """Whether scores are of items, not of whole runs."""
        return "item" in self.frame


def read_scores(
    path: str | Path,
    baseline: str,
    columns: Mapping[str, str] | None = None,
    metric: str | None = None,
    higher_is_better: bool | None = None,
    tasks: str | Sequence[str] = (),
    methods: str | Sequence[str] = (),
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
            of one score; an item with two labels, or predictions that are none of the labels.

    Example:
        >>> from pathlib import Path
        >>> from geodistill.analysis import read_scores
        >>> rows = "Model,seed,item,Accuracy\\nkd,0,a,1\\nnew,0,a,0\\n"
        >>> _ = Path("scores.csv").write_text(rows)
        >>> scores = read_scores(Path("scores.csv"), baseline="kd")
        >>> scores.metric, scores.n_rows, scores.taken["method"]
        ('Accuracy', 2, 'column Model: kd, new')
    """
    path, columns = Path(path), columns or {}
    tasks, methods = roles.as_names(tasks), roles.as_names(methods)
    if methods and set(methods) == {baseline}:
        raise InputError(f"methods names the baseline {baseline!r} alone; expected others too")
    table = load_table(path, [columns[role] for role in roles.NAMES if role in columns])
    frame, name_by_role = roles.assign_roles(table, columns, baseline, path)
    notes = shapes.describe_unfinished(frame)
    frame, taken = shapes.one_row_per_score(
        frame, name_by_role, columns, baseline, metric, methods, path
    )
    value_name = name_by_role.get("value", "value")
    if "value" not in columns and _is_of_labels(frame, metric, value_name):
        frame = frame.drop(columns="value")
    frame, name, from_labels = _choose_values(frame, metric, value_name, path)
    sign_flipped = not (has_higher_better(name) if higher_is_better is None else higher_is_better)
    known_roles = {*name_by_role, *taken}
    if "fold" in frame and "seed" not in name_by_role:  # a repetition may be the seed
        known_roles -= {"seed"}
    frame, left_out, notes_on_methods = clean_rows(frame, path, known_roles, baseline)
    notes += notes_on_methods
    if not tasks and (means := shapes.is_mean_over_tasks(frame["task"])).any():
        left_out[f"of a mean over tasks ({join(frame.loc[means, 'task'].unique())})"] = int(
            means.sum()
        )
        frame = frame[~means].reset_index(drop=True)
    if sign_flipped:
        frame["score"] = -frame["score"]
    n_rows = len(frame) + sum(left_out.values())
    taken = _describe(frame, name_by_role, taken)
    taken["value"] = f"{name}; {'lower' if sign_flipped else 'higher'} is better"
    if tasks:
        notes.append(f"tasks: {join(tasks)} of {frame['task'].nunique()}, as chosen")
        frame, n_others = _choose(frame, "task", tasks)
        left_out["of a task that was not chosen"] = n_others
    if methods:
        frame, n_others = _choose(frame, "method", [baseline, *methods])
        left_out["of a method that was not chosen"] = n_others
    return ScoreTable(frame, name, sign_flipped, from_labels, n_rows, left_out, tuple(notes), taken)


def _choose(frame: pd.DataFrame, role: str, names: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """The rows of some tasks or methods, and the number of the other rows."""
    known = frame[role].unique().tolist()
    if absent := [name for name in names if name not in known]:
        raise InputError(f"{role} {absent[0]!r} is none of the rows'; they hold {join(known)}")
    is_chosen = frame[role].isin(names)
    return frame[is_chosen].reset_index(drop=True), int((~is_chosen).sum())


def _is_of_labels(frame: pd.DataFrame, metric: str | None, column: str) -> bool:
    """Whether labels and predictions give the metric, and the column of values is another's."""
    key = metric_key(metric or "")
    by_item = {"label", "prediction", "item", "value"} <= set(frame)
    return by_item and key in FROM_LABELS and metric_key(column) != key


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
) -> tuple[pd.DataFrame, str, str]:
    """The table with the chosen metric as `value`; its name; what labels give, if they gave it."""
    if "metric" in frame:
        return *_one_metric(frame, metric, path), ""
    others = [name for name in map(str, frame) if name not in roles.ROLES]
    wanted = shapes.match_column(frame, metric) if metric else None
    if wanted:
        return frame.assign(value=frame[wanted]), str(wanted), ""
    if "value" in frame:
        return frame, metric or value_name, ""
    names = roles.score_candidates(frame)
    known = [name for name in others if metric_key(name) in HIGHER | LOWER]
    if {"label", "prediction"} <= set(frame):
        frame, name = _score_by_labels(frame, metric, bool(known), path)
        if name:
            return frame, name, FROM_LABELS.get(metric_key(name), "")
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
    return frame.assign(value=frame[name]), name, ""


def _score_by_labels(
    frame: pd.DataFrame, metric: str | None, has_scores: bool, path: Path
) -> tuple[pd.DataFrame, str]:
    """The table with a `value` from labels and predictions, and the metric; "" if they give none.

    Without a named metric it is the accuracy, but of texts and of numbers on a scale only where no
    column has scores.
    """
    label, prediction = roles.comparable(frame["label"], frame["prediction"])
    frame = frame.assign(label=label, prediction=prediction)
    key, correct = metric_key(metric or "accuracy"), (label == prediction).astype(float)
    if metric is None:
        on_scale = is_scale(label, prediction)
        if has_scores and (on_scale or _has_free_texts(frame)):
            return frame, ""
        if on_scale:
            raise InputError(
                f"{path}: labels and predictions are numbers on a scale, which are not equal or "
                "unequal: choose --metric pearson or spearman, or name a column of scores by it"
            )
    if key in FROM_LABELS and "item" in frame:
        if key not in ("pearson", "spearman"):
            refuse_other_coding(frame, path)
        return frame.assign(value=(0.0 * correct).where(label.notna())), str(metric)
    if key in CORRECTNESS:
        if key not in ("em", "exactmatch"):  # of texts, of which none may match
            refuse_other_coding(frame, path)
        return frame.assign(value=correct.where(label.notna())), metric or "accuracy"
    return frame, ""


def _has_free_texts(frame: pd.DataFrame) -> bool:
    """Whether no task has classes as labels."""
    task = frame["task"] if "task" in frame else pd.Series("all", frame.index)
    run = [name for name in ("method", "seed") if name in frame]
    return all(
        is_free_text(rows["label"], rows["prediction"], rows.groupby(run).size().max())
        for _, rows in frame.groupby(task)
    )


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
