"""Tests for tables in which only seeds or only items vary; each result names its population.

`compare_over_seeds` takes metrics of whole runs, so the test items are fixed. `compare_over_items`
takes one trained model per method, so the result is about these models, not about the methods.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from geodistill.analysis.stats.collapse import collapsed_share
from geodistill.analysis.stats.compare import Comparison
from geodistill.analysis.stats.crossed_anova import Components, collapse_clusters, t_estimate
from geodistill.errors import InputError


@dataclass(frozen=True)
class SingleLevel(Components):
    """Components of which one alone is measured."""

    def p_better(self, mean: float, n_seeds: int) -> float:
        return float(stats.norm.cdf(mean / np.sqrt(self.variance(1))))


@dataclass(frozen=True)
class ItemsOnly(SingleLevel):
    """Components of two trained models: more seeds change nothing."""

    def variance(self, n_seeds: int, times_items: float = 1.0) -> float:
        return self.item / times_items

    def df(self, n_seeds: int, times_items: float = 1.0) -> float:
        return self.df_item * times_items


def compare_over_seeds(metrics: pd.DataFrame, method: str, baseline: str) -> Comparison:
    """Paired t-test over the seeds that both methods ran in every task, tasks weighted equally.

    Args:
        metrics: `run_id, task, method, seed, score`, one row per run; higher scores are better.
        method: to compare.
        baseline: that it is compared with.

    Raises:
        InputError: fewer than two shared seeds, or differences that do not vary.
    """
    table = metrics.pivot(index="seed", columns=["task", "method"], values="score").dropna()
    if len(table) < 2:
        raise InputError(
            f"{method} and {baseline} share {len(table)} seeds and no items: one number per method "
            "does not show its noise; give items, or 2 or more seeds"
        )
    tasks = sorted(metrics["task"].unique())
    differences = np.mean([table[t][method] - table[t][baseline] for t in tasks], axis=0)
    parts = SingleLevel(float(differences.var(ddof=1)), 0.0, 0.0, df_item=1.0)
    test = "paired t over seeds; the test items are held fixed"
    return _comparison(differences.mean(), parts, len(table), metrics, (method, baseline), test)


def compare_over_items(items: pd.DataFrame, method: str, baseline: str) -> Comparison:
    """Paired t-test over items (clusters, where items share one), tasks weighted equally.

    Args:
        items: `run_id, task, method, seed, item, source, score` of one seed.
        method: to compare.
        baseline: that it is compared with.

    Raises:
        InputError: fewer than two items, or differences that do not vary.
    """
    means, variances, dfs = [], [], []
    for _, rows in items.groupby("task"):
        table = rows.pivot(index="item", columns="method", values="score")
        clusters = rows.drop_duplicates("item").set_index("item")["source"].loc[table.index]
        difference = (table[method] - table[baseline]).to_numpy(np.float64)
        by_cluster = collapse_clusters(difference[None], clusters.astype(str).tolist())[0]
        n = len(by_cluster)
        means.append(difference.mean())
        variances.append(by_cluster.var(ddof=1) / n if n > 1 else np.nan)
        dfs.append(n - 1)
    if min(dfs) < 1:
        raise InputError(f"{method} and {baseline} share fewer than 2 items in some task")
    variance = np.array(variances) / len(means) ** 2
    total = variance.sum()
    df = float(total**2 / (variance**2 / dfs).sum()) if total else 1.0
    parts = ItemsOnly(0.0, float(total), 0.0, df_item=df)
    test = "paired t over items; it speaks of these trained models, not of the methods"
    return _comparison(np.mean(means), parts, 1, items, (method, baseline), test)


def _comparison(
    mean: float,
    parts: Components,
    n_seeds: int,
    rows: pd.DataFrame,
    pair: tuple[str, str],
    test: str,
) -> Comparison:
    try:
        estimated = t_estimate(float(mean), parts, n_seeds)
    except InputError as error:
        raise InputError(f"{error} ({pair[0]} against {pair[1]})") from error
    n_items, n_clusters = (
        int(rows.groupby("task")[name].nunique().sum()) if "item" in rows else 0
        for name in ("item", "source")
    )
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
