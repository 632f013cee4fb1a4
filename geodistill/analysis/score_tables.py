"""The door for other people's tables: any tidy file of scores becomes the columns we analyse.

Understood are, in CSV, TSV, JSON lines and Parquet,

- long rows `method, task, seed, item, value`, with a `metric` column or without, one file row a
  score; without `item` a row is a run's metric;
- a column a metric (`accuracy`, `nll`, ...) in place of `value`;
- a column a method (`kd`, `kd+cka`, ...) in place of `method`;
- `label` and `prediction` in place of a value: an item's score is then whether they agree, or, for
  Matthews, F1, Pearson and Spearman, they are what the score of a run is computed from.

`task`, `seed` and `cluster` (items that share a source) may be absent.
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
_RECOMPUTED = {  # of all labels and predictions of a run; no mean over items
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
class Scores:
    """A table as the analysis reads it.

    frame: `run_id, task, method, seed, score`, with items also `item, source`; higher is better.
    metric: its name in the file; flipped: the file's metric is better when lower, so signs were
    turned; recomputed: the score that `label, prediction` are taken for, where it is no mean over
    items ("" else; `score` is then 0); rows: of the file that bear this metric; left_out: reason ->
    rows never looked at; notes: what was assumed, in sentences.
    """

    frame: pd.DataFrame
    metric: str
    flipped: bool
    recomputed: str
    rows: int
    left_out: dict[str, int]
    notes: tuple[str, ...]

    @property
    def has_items(self) -> bool:
        return "item" in self.frame


def read_scores(
    path: Path,
    baseline: str,
    columns: Mapping[str, str] | None = None,
    metric: str | None = None,
    higher: bool | None = None,
    tasks: Sequence[str] = (),
) -> Scores:
    """The scores in a file, or of the finished, clean runs in a results folder.

    Args:
        path: .csv, .tsv, .jsonl or .parquet, or a folder.
        baseline: tells a table with a column a method from one with a `method` column.
        columns: our name -> the file's, for the `ROLES` that are called otherwise there.
        metric: which one, where the file has several; or the name of the only one.
        higher: whether higher is better; None: by the metric's name.
        tasks: the rows of these alone; all by default.

    Raises:
        InputError: a file of another kind, a task that it has no row of, columns that are missing
            or ambiguous, a metric of unknown direction, values that are no numbers, or one score
            given twice, differently.
    """
    frame = _rename(_load(path), columns or {}, path)
    given = set(frame)
    frame, notes = _long(frame, baseline, metric, path)
    name = str(frame.attrs["metric"])
    flipped = not _higher_is_better(name, higher)
    frame, left_out = _clean(frame, path)
    frame["score"] = -frame["value"] if flipped else frame["value"]
    rows = len(frame) + sum(left_out.values())
    from_labels = not given & {"value", "metric", name} and _key(name) in _RECOMPUTED
    again = _RECOMPUTED[_key(name)] if from_labels else ""
    if tasks:
        known = list(dict.fromkeys(frame["task"]))
        if absent := [task for task in tasks if task not in known]:
            raise InputError(f"task {absent[0]!r} is none of the rows'; they hold {_all(known)}")
        notes = [*notes, f"tasks: {_all(tasks)}, as asked, of {len(known)}"]
        left_out["of another task than asked"] = int((~frame["task"].isin(tasks)).sum())
        frame = frame[frame["task"].isin(tasks)]
    scores = frame.drop(columns="value").reset_index(drop=True)
    return Scores(scores, name, flipped, again, rows, left_out, tuple(notes))


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
        raise InputError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if frame.empty:
        raise InputError(f"{path} holds no rows")
    return frame


def _rename(frame: pd.DataFrame, columns: Mapping[str, str], path: Path) -> pd.DataFrame:
    unknown = sorted(set(columns) - set(ROLES))
    if unknown:
        raise InputError(f"column {unknown[0]!r} is none of ours; these are {_all(ROLES)}")
    absent = sorted(set(columns.values()) - set(frame))
    if absent:
        raise InputError(f"{path} has no column {absent[0]!r}; it has {_all(frame)}")
    named = {theirs: ours for ours, theirs in columns.items()}
    for ours, others in _ALIASES.items():
        free = [other for other in others if other in frame and other not in named]
        if ours not in frame and ours not in columns and free:
            named[free[0]] = ours
    clash = [ours for theirs, ours in named.items() if ours in frame and theirs != ours]
    renamed = frame.drop(columns=clash).rename(columns=named)
    renamed.attrs["value"] = next((k for k, ours in named.items() if ours == "value"), "value")
    return renamed


def _long(
    frame: pd.DataFrame, baseline: str, metric: str | None, path: Path
) -> tuple[pd.DataFrame, list[str]]:
    """One row a score, columns of `ROLES`; the metric's name in `attrs`; and what was assumed."""
    notes = []
    called = frame.attrs["value"]
    if "method" not in frame:
        if baseline not in frame:
            raise InputError(f"{path} has neither a column method nor {baseline!r}: {_all(frame)}")
        keys = [role for role in ROLES if role in frame]
        wide = [c for c in frame if c not in keys and is_numeric_dtype(frame[c])]
        frame = frame.melt(keys, wide, var_name="method", value_name="value")
    if "metric" in frame:
        frame, name = _one_metric(frame, metric, path)
    else:
        frame, name = _value(frame, metric, called, path)
    for role, meaning in (("task", "one task"), ("seed", "one seed")):
        if role not in frame:
            frame = frame.assign(**{role: "all" if role == "task" else 0})
            notes.append(f"no column {role}: all rows count as {meaning}")
    if "item" in frame:
        own = frame["item"].astype(str)
        frame["source"] = frame["cluster"].fillna(own) if "cluster" in frame else own
        frame["item"] = own
    kept = ("task", "method", "seed", "item", "source", "label", "prediction", "value")
    frame = frame[[column for column in kept if column in frame]].copy()
    frame.attrs["metric"] = name
    return frame, notes


def _one_metric(frame: pd.DataFrame, metric: str | None, path: Path) -> tuple[pd.DataFrame, str]:
    known = sorted(frame["metric"].dropna().astype(str).unique())
    if metric is None and len(known) > 1:
        raise InputError(f"{path} holds the metrics {_all(known)}: choose one by --metric")
    name = metric or known[0]
    if name not in known:
        raise InputError(f"{path} has no metric {name!r}; it has {_all(known)}")
    if "value" not in frame:
        raise InputError(f"{path} has a column metric and none for its value: {_all(frame)}")
    return frame[frame["metric"] == name], name


def _value(
    frame: pd.DataFrame, metric: str | None, called: str, path: Path
) -> tuple[pd.DataFrame, str]:
    """The column that holds the score, where no column names a metric."""
    if metric and metric in frame and metric not in ROLES:
        return frame.assign(value=frame[metric]), metric
    if "value" in frame:
        return frame, metric or called
    judged = {"label", "prediction"} <= set(frame)
    if judged and metric and _key(metric) in _RECOMPUTED and "item" in frame:
        return frame.assign(value=0.0), metric
    if judged and (metric is None or _key(metric) in _CORRECTNESS):
        right = frame["label"].astype(str) == frame["prediction"].astype(str)
        return frame.assign(value=right.astype(float)), metric or "accuracy"
    rest = [c for c in frame if c not in ROLES and is_numeric_dtype(frame[c])]
    if metric or not rest:
        wanted = f"no metric {metric!r}" if metric else "no column with values"
        raise InputError(f"{path} has {wanted}; its columns are {_all(frame)}")
    if len(rest) > 1:
        raise InputError(f"{path} has the columns {_all(rest)}: choose one by --metric")
    return frame.assign(value=frame[rest[0]]), str(rest[0])


def _higher_is_better(metric: str, higher: bool | None) -> bool:
    if higher is not None:
        return higher
    if _key(metric) in HIGHER | LOWER:
        return _key(metric) in HIGHER
    raise InputError(
        f"metric {metric!r} is unknown: say --higher or --lower (which is better), or name a known "
        "one by --metric, such as accuracy or nll"
    )


def _clean(frame: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, dict[str, int]]:
    """Rows with a finite score, each once; and how many were left out, by reason."""
    values = pd.to_numeric(frame["value"], errors="coerce")
    words = values.isna() & frame["value"].notna()
    if words.any() and not is_numeric_dtype(frame["value"]):
        raise InputError(f"{path}: value {frame.loc[words, 'value'].iloc[0]!r} is not a number")
    frame = frame.assign(value=values.astype(np.float64))
    keys = [name for name in ("task", "method", "seed", "item") if name in frame]
    named = frame[keys].notna().all(axis=1)
    finite = np.isfinite(frame["value"])
    whole = frame[named & finite]
    once = whole.drop_duplicates([*keys, "value"])
    _refuse_conflicts(once, keys, path)
    left_out = {
        "without a method, task, seed or item": int((~named).sum()),
        "without a finite value": int((named & ~finite).sum()),
        "given twice": len(whole) - len(once),
    }
    once = once.assign(task=once["task"].astype(str), method=once["method"].astype(str))
    run_id = once["task"] + "/" + once["method"] + "/" + once["seed"].astype(str)
    return once.assign(run_id=run_id).reset_index(drop=True), left_out


def _refuse_conflicts(frame: pd.DataFrame, keys: list[str], path: Path) -> None:
    twice = frame[frame.duplicated(keys)]
    if len(twice):
        where = ", ".join(f"{name} {twice.iloc[0][name]}" for name in keys)
        hint = "" if "item" in keys else " (or is there an item column? name it by --column)"
        raise InputError(f"{path} gives two different values for {where}: keep one{hint}")


def _key(metric: str) -> str:
    return re.sub(r"[^a-z0-9]", "", metric.lower().replace("@", "at"))


def is_bounded(metric: str) -> bool:
    """Whether a known metric lies in 0..1, or in 0..100 where it is given in per cent."""
    return _key(metric) in BOUNDED


def _all(names: Iterable[object]) -> str:
    return ", ".join(str(name) for name in names)
