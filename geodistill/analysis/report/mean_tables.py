"""Means of runs with their intervals: metrics by method, a metric on the way; a check of sanity."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from scipy import stats

from geodistill.analysis.figures.style import look


def intervals(values: "pd.Series[float]", by: list[str]) -> pd.DataFrame:
    """`mean, low, high, n` of each group: the 95 % t interval over its runs; none for one run.

    Args:
        values: with `by` as levels of its index.
        by: names of those levels.
    """
    found = values.groupby(by, sort=False).agg(mean="mean", error="sem", n="count")
    width = stats.t.ppf(0.975, found["n"].clip(lower=2) - 1) * found["error"]
    ends = {"low": found["mean"] - width, "high": found["mean"] + width}
    table: pd.DataFrame = found.assign(**ends).drop(columns="error")
    return table


def mean_table(
    runs: pd.DataFrame, columns: Mapping[str, str], digits: int = 3, first: str = "student"
) -> pd.DataFrame:
    """A line a method, a column a metric: its mean, and the interval over seeds where it has some.

    Args:
        runs: one row a run.
        columns: name to show by name of a metric.
        digits: decimals.
        first: name of the first column, the methods'.
    """
    methods = list(dict.fromkeys(runs["method"]))
    table: dict[str, list[str]] = {first: [look(method).label for method in methods]}
    for metric, name in columns.items():
        found = intervals(runs.set_index("method")[metric], ["method"])
        table[name] = [_said(found.loc[method], digits) for method in methods]
    return pd.DataFrame(table)


def in_own_metrics(runs: pd.DataFrame, metrics: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    """Scores of several tasks side by side, times 100: `method, seed`, a column a task's metric.

    Above them stand two lines to hold them against: "teacher", and "majority class", the answer
    that is most often right. (Its F1 takes that class for the positive one, as MRPC's is.)

    Args:
        runs: one row a run, with `majority_accuracy` and `teacher_<metric>` where they are known.
        metrics: by task, the name to show by name of a metric; one that no run has is not a number.
    """
    students: list[pd.DataFrame] = []
    lines: dict[str, dict[str, float]] = {"teacher": {}, "majority class": {}}
    for task, names in metrics.items():
        own = runs[runs["task"] == task].set_index(["method", "seed"])
        students.append(100 * own.reindex(columns=list(names)).rename(columns=dict(names)))
        share = own["majority_accuracy"].mean() if "majority_accuracy" in own else np.nan
        easy = {"accuracy": share, "f1": 2 * share / (1 + share)}
        for metric, name in names.items():
            known = own.get(f"teacher_{metric}", pd.Series(dtype=float)).mean()
            lines["teacher"][name] = 100 * known
            lines["majority class"][name] = 100 * easy.get(metric, np.nan)
    above = pd.DataFrame([{"method": method, **line} for method, line in lines.items()])
    return pd.concat([above, pd.concat(students, axis=1).reset_index()], ignore_index=True)


def _said(line: "pd.Series[float]", digits: int) -> str:
    if np.isnan(line["mean"]):
        return "–"
    shown = f"{line['mean']:.{digits}f}"
    if np.isnan(line["low"]):
        return shown
    return f"{shown} ({line['low']:.{digits}f} to {line['high']:.{digits}f})"


def on_the_way(runs: pd.DataFrame, prefix: str) -> pd.DataFrame:
    """A metric taken at shares of the training: `method, share` (in %), `mean, low, high, n`.

    Args:
        runs: one row a run; the columns that start with `prefix` end with the share.
        prefix: of those columns.
    """
    columns = [name for name in runs if str(name).startswith(prefix)]
    long = runs.melt(["method", "seed"], columns, "share").dropna(subset="value")
    long["share"] = long["share"].str.removeprefix(prefix).astype(int)
    found = intervals(long.set_index(["method", "share"])["value"], ["method", "share"])
    return found.reset_index().sort_values(["method", "share"], ignore_index=True)


def in_order(frame: pd.DataFrame, methods: Iterable[str]) -> pd.DataFrame:
    """The rows of these methods, in their order."""
    return pd.concat([frame[frame["method"] == method] for method in methods], ignore_index=True)


def in_percent(runs: pd.DataFrame) -> pd.DataFrame:
    """Shares of runs (Rouge-L, exact match, repetition, of every set) times 100."""
    shares = ("rougeL", "exact_match", "repetition")
    names = [name for name in map(str, runs) if any(share in name for share in shares)]
    return runs.assign(**{name: 100 * runs[name] for name in names})


def sanity(runs: pd.DataFrame, nats: float) -> tuple[pd.DataFrame, bool]:
    """The protocol's rule on the tuning runs: does sft beat its start and a unigram model?

    Args:
        runs: one row a run, with `method, nll`.
        nats: by which its mean NLL must be lower than either's.

    Returns:
        `held against, nll, lead` (nats a token), and whether both leads are large enough.
    """
    nll = runs.groupby("method")["nll"].mean()
    rivals = ("start", "unigram")
    lines = [(look(name).label, nll[name], nll[name] - nll["sft"]) for name in rivals]
    table = pd.DataFrame(lines, columns=["held against", "NLL (nats a token)", "lead of SFT"])
    return table, bool((table["lead of SFT"] >= nats).all())
