"""Tests for tables in which only seeds or only items vary; each result names its population.

`compare_over_seeds` takes metrics of whole runs, so the test items are fixed. `compare_over_items`
takes one trained model per method, so the result is about these models, not about the methods.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from geodistill.analysis.stats.collapse import collapsed_share
from geodistill.analysis.stats.compare import Comparison
from geodistill.analysis.stats.crossed_anova import Components, t_estimate
from geodistill.analysis.stats.pairing import paired_differences
from geodistill.errors import InputError


@dataclass(frozen=True)
class ItemsOnly(Components):
    """Components of two trained models: more seeds change nothing."""

    def variance(self, n_seeds: float, times_items: float = 1.0) -> float:
        return self.item / times_items

    def df(self, n_seeds: float, times_items: float = 1.0) -> float:
        return self.df_item * times_items

    def p_better(self, mean: float, n_seeds: float) -> float:
        """Nan: one training run does not show what another would do."""
        return np.nan


@dataclass(frozen=True)
class FoldsOnly(Components):
    """Components of cross-validation, whose folds share training data.

    The variance of the mean over n folds is σ²(1/n + 1/(K − 1)), the second part for the overlap of
    the K training sets (Nadeau and Bengio 2003, eq. 10; for repeated cross-validation Bouckaert and
    Frank 2004).

    Attributes:
        folds: K.
    """

    folds: int = 2

    def variance(self, n_seeds: float, times_items: float = 1.0) -> float:
        return self.seed * (1 / n_seeds + 1 / (self.folds - 1))

    def df(self, n_seeds: float, times_items: float = 1.0) -> float:
        return n_seeds - 1


def compare_over_seeds(metrics: pd.DataFrame, method: str, baseline: str) -> Comparison:
    """Paired t-test over the seeds that both methods ran, tasks weighted equally.

    Where tasks have different seeds, each counts with its own: the variance of the mean over tasks
    adds up what each seed contributes, and the degrees of freedom are those of the harmonic mean of
    the numbers of seeds. With the same seeds in every task it is the t-test of the seeds' means.

    Args:
        metrics: `run_id, task, method, seed, score`, one row per run; higher scores are better.
            With a column `fold`, seeds are folds of cross-validation, and K is the number of
            folds here, or given as `n_folds` where some are missing.
        method: to compare.
        baseline: that it is compared with.

    Raises:
        InputError: a task with fewer than two shared seeds, half of the folds or fewer in every
            task, or differences that do not vary.
    """
    by_method = metrics.pivot(index=["task", "seed"], columns="method", values="score")
    differences = (by_method[method] - by_method[baseline]).dropna()
    by_task = differences.groupby(level="task")
    sizes = by_task.size().reindex(metrics["task"].unique(), fill_value=0)
    if sizes.min() < 2:
        raise InputError(
            f"{method} and {baseline} share {sizes.min()} seeds and no items: one number per "
            "method does not show its noise; give items, or 2 or more seeds"
        )
    scale = np.sqrt(sizes / (sizes - 1)) / (sizes * len(sizes))
    deviations = differences - by_task.transform("mean")
    by_seed = deviations.mul(scale, level="task").groupby(level="seed")
    n_effective = len(sizes) / float((1 / sizes).sum())
    variance = float((by_seed.sum() ** 2).sum()) * n_effective
    parts, test = Components(variance, 0.0, 0.0, df_item=1.0), "paired t over seeds"
    if "fold" in metrics:
        if "n_folds" not in metrics:
            counts = metrics.groupby("task")["fold"].transform("nunique")
            metrics = metrics.assign(n_folds=counts)
        n_folds = int(metrics["n_folds"].min())
        n_shared = metrics.groupby("task")["fold"].nunique()
        if (2 * n_shared <= metrics.groupby("task")["n_folds"].first()).all():
            raise InputError(
                f"{method} and {baseline} share {n_shared.max()} of {n_folds} folds: expected the "
                "same split for both"
            )
        parts = FoldsOnly(variance, 0.0, 0.0, df_item=1.0, folds=n_folds)
        test = "paired t over folds, corrected for their shared training data (Nadeau and Bengio)"
    return _comparison(
        float(by_task.mean().mean()), parts, n_effective, int(sizes.min()), metrics,
        (method, baseline), f"{test}; the test items are held fixed",
    )  # fmt: skip


def compare_over_items(items: pd.DataFrame, method: str, baseline: str) -> Comparison:
    """Paired t-test over items (clusters, where items share one), tasks weighted equally.

    Args:
        items: `run_id, task, method, seed, item, source, score` of one seed.
        method: to compare.
        baseline: that it is compared with.

    Raises:
        InputError: fewer than two items, or differences that do not vary.
    """
    paired = paired_differences(items, method, baseline, min_seeds=1)
    blocks = paired.blocks.values()
    weights = np.array([block.weight for block in blocks])
    dfs = np.array([block.df for block in blocks])
    tables = [block.differences[0] for block in blocks]
    sizes = [table.shape[1] for table in paired.tables.values()]
    if min([*sizes, *map(len, tables)]) < 2:
        raise InputError(f"{method} and {baseline} share fewer than 2 items in some task")
    variance = weights**2 * [table.var(ddof=1) / len(table) for table in tables]
    total = float(variance.sum())
    df = float(total**2 / (variance**2 / dfs).sum()) if total else 1.0
    parts = ItemsOnly(0.0, total, 0.0, df_item=df)
    mean = float(weights @ [table.mean() for table in tables])
    test = "paired t over items; it speaks of these trained models, not of the methods"
    n_clusters = sum(map(len, tables))
    return _comparison(mean, parts, 1, 1, items, (method, baseline), test, n_clusters)


def _comparison(
    mean: float,
    parts: Components,
    n_effective: float,
    n_seeds: int,
    rows: pd.DataFrame,
    pair: tuple[str, str],
    test: str,
    n_clusters: int = 0,
) -> Comparison:
    try:
        estimated = t_estimate(mean, parts, n_effective)
    except InputError as error:
        raise InputError(f"{error} ({pair[0]} against {pair[1]})") from error
    n_items = int(rows.groupby("task")["item"].nunique().sum()) if "item" in rows else 0
    return Comparison(
        **vars(estimated),
        method=pair[0],
        baseline=pair[1],
        tasks=tuple(sorted(rows["task"].unique())),
        n_seeds=n_seeds,
        n_items=n_items,
        n_clusters=n_clusters,
        seeds_left_out=rows["seed"].nunique() - n_seeds,
        run_ids=tuple(sorted(rows["run_id"].unique())),
        test=test,
        baseline_collapsed=collapsed_share(rows[rows["method"] == pair[1]]),
    )
