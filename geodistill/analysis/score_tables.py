"""Score tables of any origin, read into the columns of the analysis.

Accepted in CSV, TSV, JSON lines and Parquet are

- long tables `method, task, seed, item, value`, with or without a column `metric`, one row per
  score; without `item`, one row per run;
- one column per metric (`accuracy`, `nll`, ...) in place of `value`;
- one column per method (`kd`, `kd+cka`, ...) in place of `method`;
- `label` and `prediction` in place of a value: an item's score is then whether they agree; for
  Matthews, F1, Pearson and Spearman the score of a run is computed from them.

`task`, `seed` and `cluster` (items that share a source) are optional.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from geodistill.analysis.stored_results import load_items
from geodistill.errors import InputError
from geodistill.files import first_line

ROLES = ("method", "task", "seed", "item", "metric", "value", "label", "prediction", "cluster")
_ALIASES = {
    "method": ("model", "system"),
    "task": ("dataset",),
    "item": ("example", "id"),
    "value": ("score",),
    "cluster": ("source",),
}
_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": lambda path: pd.read_csv(path),
    ".tsv": lambda path: pd.read_csv(path, sep="\t"),
    ".jsonl": lambda path: pd.read_json(path, lines=True),
    ".parquet": lambda path: pd.read_parquet(path),
}
_CORRECTNESS = {"accuracy", "acc", "correct", "correctness", "em", "exactmatch"}
_FROM_LABELS = {  # metrics of all labels and predictions of a run, no means over items
    "mcc": "matthews", "matthews": "matthews", "f1": "f1", "pearson": "pearson",
    "spearman": "spearman",
}  # fmt: skip
BOUNDED = {
    "accuracy", "acc", "correct", "correctness", "em", "exactmatch", "f1", "macrof1", "mcc",
    "matthews", "pearson", "spearman", "rouge1", "rouge2", "rougel", "bleu", "chrf", "auc",
    "precision", "recall", "agreement", "winrate", "passat1", "score",
}  # fmt: skip
HIGHER = BOUNDED | {"loglikelihood", "logprob", "reward", "r2"}
LOWER = {
    "nll", "loss", "crossentropy", "perplexity", "ppl", "error", "errorrate", "mse", "mae", "rmse",
    "squarederror", "wer", "cer", "ter", "brier", "kl", "ece", "bitsperbyte",
}  # fmt: skip


@dataclass(frozen=True)
class ScoreTable:
    """Scores of methods, ready for comparison.

    Attributes:
        frame: `run_id, task, method, seed, score`, with items also `item, source`; higher scores
            are better.
        metric: its name in the file.
        sign_flipped: whether lower is better in the file, so that signs were reversed.
        metric_from_labels: name of the metric to compute from `label, prediction`, where it is no
            mean over items (`score` is then 0); otherwise empty.
        n_rows: rows of the file that have this metric.
        left_out: rows never used, by reason.
        notes: assumptions, as sentences.
    """

    frame: pd.DataFrame
    metric: str
    sign_flipped: bool
    metric_from_labels: str
    n_rows: int
    left_out: dict[str, int]
    notes: tuple[str, ...]

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
) -> ScoreTable:
    """The scores in a file, or of the finished, clean runs in a results folder.

    Args:
        path: .csv, .tsv, .jsonl or .parquet, or a folder.
        baseline: name of a method, by which a table with one column per method is recognised.
        columns: name in the file by our name, for `ROLES` that have another name there.
        metric: name of the metric, if the file has several, or of the only one.
        higher_is_better: by default known from the metric's name.
        tasks: to include; all by default.

    Raises:
        InputError: an unknown kind of file, a task without rows, columns that are missing or
            ambiguous, a metric of unknown direction, values that are no numbers, or two different
            values of one score.

    Example:
        >>> from pathlib import Path
        >>> from geodistill.analysis import read_scores
        >>> rows = "method,seed,item,accuracy\\nkd,0,a,1\\nnew,0,a,0\\n"
        >>> _ = Path("scores.csv").write_text(rows)
        >>> scores = read_scores(Path("scores.csv"), baseline="kd")
        >>> scores.metric, scores.n_rows, scores.notes
        ('accuracy', 2, ('no column task: all rows count as one task',))
    """
    frame = _rename(_load(path), columns or {}, path)
    original = set(frame)
    frame, notes = _to_long(frame, baseline, metric, path)
    name = str(frame.attrs["metric"])
    sign_flipped = not _higher_is_better(name, higher_is_better)
    frame, left_out = _clean(frame, path)
    frame["score"] = -frame["value"] if sign_flipped else frame["value"]
    n_rows = len(frame) + sum(left_out.values())
    has_values = bool(original & {"value", "metric", name})
    from_labels = "" if has_values else _FROM_LABELS.get(_key(name), "")
    if tasks:
        known = list(dict.fromkeys(frame["task"]))
        if absent := [task for task in tasks if task not in known]:
            raise InputError(f"task {absent[0]!r} is none of the rows'; they hold {_all(known)}")
        notes = [*notes, f"tasks: {_all(tasks)} of {len(known)}, as chosen"]
        left_out["of a task that was not chosen"] = int((~frame["task"].isin(tasks)).sum())
        frame = frame[frame["task"].isin(tasks)]
    scores = frame.drop(columns="value").reset_index(drop=True)
    return ScoreTable(scores, name, sign_flipped, from_labels, n_rows, left_out, tuple(notes))


def _load(path: Path) -> pd.DataFrame:
    if path.is_dir():
        return load_items(path).frame
    if not path.is_file():
        raise InputError(f"no file at {path}")
    if path.suffix not in _READERS:
        raise InputError(f"{path} is {path.suffix or 'without ending'}; read are {_all(_READERS)}")
    try:
        frame = _READERS[path.suffix](path)
    except (ValueError, OSError) as error:  # pandas' and pyarrow's errors of form
        raise InputError(f"{path} cannot be read: {first_line(error)}") from error
    if frame.empty:
        raise InputError(f"{path} holds no rows")
    return frame


def _rename(frame: pd.DataFrame, columns: Mapping[str, str], path: Path) -> pd.DataFrame:
    unknown = sorted(set(columns) - set(ROLES))
    if unknown:
        raise InputError(f"unknown column {unknown[0]!r}; known are {_all(ROLES)}")
    absent = sorted(set(columns.values()) - set(frame))
    if absent:
        raise InputError(f"{path} has no column {absent[0]!r}; it has {_all(frame)}")
    new_names = {name: role for role, name in columns.items()}
    for role, aliases in _ALIASES.items():
        free = [alias for alias in aliases if alias in frame and alias not in new_names]
        if role not in frame and role not in columns and free:
            new_names[free[0]] = role
    replaced = [role for name, role in new_names.items() if role in frame and name != role]
    renamed = frame.drop(columns=replaced).rename(columns=new_names)
    original = (name for name, role in new_names.items() if role == "value")
    renamed.attrs["value"] = next(original, "value")
    return renamed


def _to_long(
    frame: pd.DataFrame, baseline: str, metric: str | None, path: Path
) -> tuple[pd.DataFrame, list[str]]:
    """One row per score with columns of `ROLES`, the metric's name in `attrs`; and assumptions."""
    notes = []
    value_name = frame.attrs["value"]
    if "method" not in frame:
        if baseline not in frame:
            raise InputError(f"{path} has neither a column method nor {baseline!r}: {_all(frame)}")
        keys = [role for role in ROLES if role in frame]
        methods = [c for c in frame if c not in keys and is_numeric_dtype(frame[c])]
        frame = frame.melt(keys, methods, var_name="method", value_name="value")
    if "metric" in frame:
        frame, name = _one_metric(frame, metric, path)
    else:
        frame, name = _value(frame, metric, value_name, path)
    for role, default in (("task", "all"), ("seed", 0)):
        if role not in frame:
            frame = frame.assign(**{role: default})
            notes.append(f"no column {role}: all rows count as one {role}")
    if "item" in frame:
        frame["item"] = item = frame["item"].astype(str)
        frame["source"] = frame["cluster"].fillna(item) if "cluster" in frame else item
    names = ("task", "method", "seed", "item", "source", "label", "prediction", "value")
    frame = frame[[name for name in names if name in frame]].copy()
    frame.attrs["metric"] = name
    return frame, notes


def _one_metric(frame: pd.DataFrame, metric: str | None, path: Path) -> tuple[pd.DataFrame, str]:
    known = sorted(frame["metric"].dropna().astype(str).unique())
    if metric is None and len(known) > 1:
        raise InputError(f"{path} holds the metrics {_all(known)}: choose one by --metric")
    name = metric or next(iter(known), "")
    if name not in known:
        raise InputError(f"{path} has no metric {name!r}; it has {_all(known)}")
    if "value" not in frame:
        raise InputError(f"{path} has a column metric and none for its value: {_all(frame)}")
    return frame[frame["metric"] == name], name


def _value(
    frame: pd.DataFrame, metric: str | None, value_name: str, path: Path
) -> tuple[pd.DataFrame, str]:
    """The column that holds the score, if no column names a metric."""
    if metric and metric in frame and metric not in ROLES:
        return frame.assign(value=frame[metric]), metric
    if "value" in frame:
        return frame, metric or value_name
    labelled = {"label", "prediction"} <= set(frame)
    if labelled and metric and _key(metric) in _FROM_LABELS and "item" in frame:
        return frame.assign(value=0.0), metric
    if labelled and (metric is None or _key(metric) in _CORRECTNESS):
        correct = frame["label"].astype(str) == frame["prediction"].astype(str)
        return frame.assign(value=correct.astype(float)), metric or "accuracy"
    rest = [c for c in frame if c not in ROLES and is_numeric_dtype(frame[c])]
    if metric or not rest:
        wanted = f"no metric {metric!r}" if metric else "no column with values"
        raise InputError(f"{path} has {wanted}; its columns are {_all(frame)}")
    if len(rest) > 1:
        raise InputError(f"{path} has the columns {_all(rest)}: choose one by --metric")
    return frame.assign(value=frame[rest[0]]), str(rest[0])


def _higher_is_better(metric: str, answer: bool | None) -> bool:
    if answer is not None:
        return answer
    if _key(metric) in HIGHER | LOWER:
        return _key(metric) in HIGHER
    raise InputError(
        f"metric {metric!r} is unknown: choose --higher or --lower (which is better), or name a "
        "known one by --metric, such as accuracy or nll"
    )


def _clean(frame: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, dict[str, int]]:
    """Rows with a finite score, each once; and the number of rows left out, by reason."""
    values = pd.to_numeric(frame["value"], errors="coerce")
    not_numbers = values.isna() & frame["value"].notna()
    if not_numbers.any() and not is_numeric_dtype(frame["value"]):
        value = frame.loc[not_numbers, "value"].iloc[0]
        raise InputError(f"{path}: value {value!r} is not a number")
    frame = frame.assign(value=values.astype(np.float64))
    keys = [name for name in ("task", "method", "seed", "item") if name in frame]
    named = frame[keys].notna().all(axis=1)
    finite = np.isfinite(frame["value"])
    valid = frame[named & finite]
    unique = valid.drop_duplicates([*keys, "value"])
    _refuse_conflicts(unique, keys, path)
    left_out = {
        "without a method, task, seed or item": int((~named).sum()),
        "without a finite value": int((named & ~finite).sum()),
        "repeated": len(valid) - len(unique),
    }
    unique = unique.assign(task=unique["task"].astype(str), method=unique["method"].astype(str))
    run_id = unique["task"] + "/" + unique["method"] + "/" + unique["seed"].astype(str)
    return unique.assign(run_id=run_id).reset_index(drop=True), left_out


def _refuse_conflicts(frame: pd.DataFrame, keys: list[str], path: Path) -> None:
    repeated = frame[frame.duplicated(keys)]
    if len(repeated):
        where = ", ".join(f"{name} {repeated.iloc[0][name]}" for name in keys)
        hint = "" if "item" in keys else " (or is there an item column? name it by --column)"
        raise InputError(f"{path} has two different values for {where}: keep one{hint}")


def _key(metric: str) -> str:
    return re.sub(r"[^a-z0-9]", "", metric.lower().replace("@", "at"))


def is_bounded(metric: str) -> bool:
    """Whether a metric is known to lie in 0..1 (or in 0..100 as a percentage)."""
    return _key(metric) in BOUNDED


def _all(names: Iterable[object]) -> str:
    return ", ".join(str(name) for name in names)
