"""What a gain is made of: the weight of the term, the items it changes, the geometry it keeps."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from geodistill.analysis.stats.compare import compare
from geodistill.errors import InputError

BINS = ("never right", "sometimes right", "always right")
"""By the share of the baseline's seeds that get an item right: none, some, all."""


def gain_by_factor(rows: pd.DataFrame, baseline: str = "kd") -> pd.DataFrame:
    """Score minus the baseline's, paired by task and seed, for every method and weight factor.

    The score of a task with classes is its accuracy, of one with scores the Pearson correlation.

    Args:
        rows: `task, method, seed, factor, metric, value`, of one part of the data.
        baseline: a method without a factor of its own.

    Returns:
        `method, factor, gain, low, high, pairs`: the mean over `pairs` (task, seed) pairs with its
        95 % t interval over them, which says how firmly the curve is known *on these seeds*.

    Raises:
        InputError: the baseline did not run.
    """
    scores = rows[rows["metric"].isin(("accuracy", "pearson"))].set_index(["task", "seed"])
    base = scores.loc[scores["method"] == baseline, "value"]
    if base.empty:
        raise InputError(f"baseline is {baseline!r}; the rows have {sorted(set(rows['method']))}")
    others = scores[scores["method"].str.startswith(f"{baseline}+")]
    gains = others.assign(gain=others["value"] - base.reindex(others.index))
    grouped = gains.groupby(["method", "factor"])["gain"]
    table = grouped.agg(gain="mean", error="sem", pairs="count").reset_index()
    width = stats.t.ppf(0.975, table["pairs"] - 1) * table["error"]
    return table.assign(low=table["gain"] - width, high=table["gain"] + width).drop(columns="error")


def gain_by_difficulty(
    items: pd.DataFrame, method: str, baseline: str, tasks: Sequence[str]
) -> pd.DataFrame:
    """Where a gain arises: among items that the baseline never, sometimes, always gets right.

    An item that the baseline got wrong by bad luck gets better with any other model. So half of
    the seeds sort the items and the other half compare, and then the other way round.

    Args:
        items: as in `compare`, scores 0 or 1; at least two seeds in either half.
        method: whose gain is asked.
        baseline: whose seeds sort the items.
        tasks: with such scores.

    Returns:
        `items` (the bin's name), `share` of all items, and `gain, low, high` within the bin, each
        the mean of the two directions; the interval is as wide as the wider of the two.

    Raises:
        InputError: as `compare`, or scores that are not 0 or 1.
    """
    asked = items[items["task"].isin(tasks)]
    if not asked["score"].isin((0, 1)).all():
        raise InputError("scores are not all 0 or 1: which items are right is not said")
    seeds = sorted(asked["seed"].unique())
    halves = seeds[::2], seeds[1::2]
    lines = []
    for sorting, comparing in (halves, halves[::-1]):
        own = asked[(asked["method"] == baseline) & asked["seed"].isin(sorting)]
        right = own.groupby(["task", "item"])["score"].mean()
        bins = right.map(lambda share: BINS[(share > 0) + (share == 1)]).rename("bin")
        rest = asked[asked["seed"].isin(comparing)].merge(bins, on=["task", "item"])
        for name in BINS:
            part = rest[rest["bin"] == name]
            found = compare(part, method, baseline, sorted(part["task"].unique()))
            lines.append((name, (bins == name).mean(), found.estimate, found.estimate - found.low))
    table = pd.DataFrame(lines, columns=["items", "share", "gain", "width"])
    mean = table.groupby("items", sort=False).agg(
        share=("share", "mean"), gain=("gain", "mean"), width=("width", "max")
    )
    low, high = mean["gain"] - mean["width"], mean["gain"] + mean["width"]
    return mean.assign(low=low, high=high).drop(columns="width").reset_index()


def kept_and_score(runs: pd.DataFrame, kept: str, score: str) -> pd.DataFrame:
    """Does more geometry kept go with a better score, between methods, and between their seeds?

    Args:
        runs: one row a run: `task, method, seed` and the two columns named below.
        kept: column of the geometry kept.
        score: column of the score.

    Returns:
        `between` ("methods", "seeds within a method"), `n`, the correlation `r` and its 95 %
        interval `low, high` (Fisher, n less the means that were subtracted). Methods: their means,
        tasks subtracted; that tasks share methods is not in the interval. Seeds: what is left of
        each run once its task's method and its task's seed are subtracted.
    """
    both = runs.set_index(["task", "method", "seed"])[[kept, score]]
    means = both.groupby(["task", "method"]).mean()
    methods = means - means.groupby("task").transform("mean")
    left = both - both.groupby(["task", "method"]).transform("mean")
    left = left - left.groupby(["task", "seed"]).transform("mean")
    tasks, cells = both.index.unique("task").size, len(means)
    seeds = both.groupby(["task", "seed"]).ngroups
    lines = []
    for name, table, taken in (
        ("methods", methods, tasks),
        ("seeds within a method", left, cells + seeds - tasks),
    ):
        r = float(stats.pearsonr(table[kept], table[score]).statistic)
        free = len(table) - taken - 2  # Fisher's n - 3, in which one mean is counted already
        low, high = -1.0, 1.0
        if free > 0:
            low, high = np.tanh(np.arctanh(r) + stats.norm.ppf([0.025, 0.975]) / free**0.5)
        lines.append((name, len(table), r, low, high))
    return pd.DataFrame(lines, columns=["between", "n", "r", "low", "high"])


def teachers_share(runs: pd.DataFrame) -> pd.Series:
    """(student − majority) / (teacher − majority) in accuracy, a run; 1 is the teacher's own."""
    span = runs["teacher_accuracy"] - runs["majority_accuracy"]
    return ((runs["accuracy"] - runs["majority_accuracy"]) / span.replace(0.0, np.nan)).rename(
        "share of the teacher's gain"
    )
