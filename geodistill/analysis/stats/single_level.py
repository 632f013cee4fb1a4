"""What can still be said where seeds or items are lacking; each answer says to what it speaks.

`by_seed`: metrics of whole runs only, so the test items are held fixed. `by_item`: one trained
model a method, so the answer is about these two models and not about the methods.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from geodistill.analysis.stats.compare import Comparison
from geodistill.analysis.stats.crossed_anova import Components, fold_sources
from geodistill.errors import InputError


@dataclass(frozen=True)
class ItemsOnly(Components):
    """Components of two given models: more seeds change nothing."""

    def variance(self, n_seeds: int, times_items: float = 1.0) -> float:
        return self.item / times_items

    def df(self, n_seeds: int, times_items: float = 1.0) -> float:
        return self.df_item * times_items


def by_seed(metrics: pd.DataFrame, method: str, baseline: str) -> Comparison:
    """Paired t-test over the seeds that both ran in every task, tasks weighted equally.

    Args:
        metrics: `run_id, task, method, seed, score`, one row a run; a higher score is better.
        method: the method that is asked about.
        baseline: the method it is compared with.

    Raises:
        InputError: fewer than two shared seeds, or differences that do not vary.
    """
    table = metrics.pivot(index="seed", columns=["task", "method"], values="score").dropna()
    if len(table) < 2:
        raise InputError(
            f"{method} and {baseline} share {len(table)} seeds and no items: one number a method "
            "says nothing of its noise; give items, or 2 or more seeds"
        )
    tasks = tuple(sorted(metrics["task"].unique()))
    differences = np.mean([table[t][method] - table[t][baseline] for t in tasks], axis=0)
    parts = Components(float(differences.var(ddof=1)), 0.0, 0.0, df_item=1.0)
    test = "paired t over seeds; the test items are held fixed"
    return _comparison(differences.mean(), parts, len(table), metrics, (method, baseline), test)


def by_item(items: pd.DataFrame, method: str, baseline: str) -> Comparison:
    """Paired t-test over items (sources, where items share one), tasks weighted equally.

    Args:
        items: `run_id, task, method, seed, item, source, score` of one seed.
        method: the method that is asked about.
        baseline: the method it is compared with.

    Raises:
        InputError: fewer than two items, or differences that do not vary.
    """
    means, variances, dfs = [], [], []
    for _, rows in items.groupby("task"):
        table = rows.pivot(index="item", columns="method", values="score")
        sources = rows.drop_duplicates("item").set_index("item")["source"].loc[table.index]
        difference = (table[method] - table[baseline]).to_numpy(np.float64)
        folded = fold_sources(difference[None], sources.astype(str).tolist())[0]
        means.append(difference.mean())
        variances.append(folded.var(ddof=1) / len(folded) if len(folded) > 1 else np.nan)
        dfs.append(len(folded) - 1)
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
    variance = parts.variance(n_seeds)
    if variance <= 1e-24 * max(1.0, mean**2):
        raise InputError(
            f"the differences of {pair[0]} and {pair[1]} are all {mean:g}: no variance to judge "
            "by; are these the same runs?"
        )
    se, df = float(np.sqrt(variance)), parts.df(n_seeds)
    half = float(stats.t.ppf(0.975, df)) * se
    n_items = rows.groupby("task")["item"].nunique().sum() if "item" in rows else 0
    n_sources = rows.groupby("task")["source"].nunique().sum() if "item" in rows else 0
    return Comparison(
        estimate=float(mean),
        low=float(mean - half),
        high=float(mean + half),
        level=0.95,
        se=se,
        df=df,
        p=float(2 * stats.t.sf(abs(mean) / se, df)),
        p_better=float(stats.norm.cdf(mean / np.sqrt(parts.variance(1)))),
        components=parts,
        method=pair[0],
        baseline=pair[1],
        tasks=tuple(sorted(rows["task"].unique())),
        n_seeds=n_seeds,
        n_items=int(n_items),
        n_sources=int(n_sources),
        seeds_left_out=rows["seed"].nunique() - n_seeds,
        run_ids=tuple(sorted(rows["run_id"].unique())),
        test=test,
    )
