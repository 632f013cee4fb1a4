"""Scores that are no mean over items, and the two-way bootstrap that checks every interval.

`compare_metric` feeds each item's influence on the score (`scores`) into the same crossed ANOVA as
the item means: deterministic, exact to first order, with Satterthwaite's t for few seeds. It is the
primary answer; the bootstrap, which recomputes the score on resampled pairs, stands beside it. Its
naive variance is σ²_A/S + σ²_B/I + 3σ²_E/(S·I), three times the last part, because resampling both
ways meets it thrice (McCullagh 2000; Owen 2007). Seeds alone and items alone each see their own
part and E once, hence V = 2(V_seed + V_item) − V_both. Yet V_seed is (S − 1)/S of its part, and a
normal interval knows nothing of S: at 5 seeds it is too short (data/results/coverage).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from geodistill.analysis.stats.compare import Comparison, compare, paired_differences
from geodistill.analysis.stats.crossed_anova import Array
from geodistill.analysis.stats.metric_influence import Score, score
from geodistill.errors import InputError

Resampled = Callable[[Array], Array]
"""Weights of the items, (R, items), to the difference of each seed, (R, seeds)."""


@dataclass(frozen=True)
class Bootstrap:
    """Variances of a difference under resampled seeds, items (or sources), and both."""

    estimate: float
    seed: float
    item: float
    both: float

    @property
    def corrected(self) -> float:
        """2(V_seed + V_item) − V_both, not below the larger of the two parts."""
        return max(2 * (self.seed + self.item) - self.both, self.seed, self.item)

    def interval(self, corrected: bool = True, level: float = 0.95) -> tuple[float, float]:
        """Normal interval by the corrected variance, or by the naive V_both."""
        variance = self.corrected if corrected else self.both
        half = float(stats.norm.ppf((1 + level) / 2) * np.sqrt(variance))
        return self.estimate - half, self.estimate + half


def two_way_bootstrap(
    tasks: Sequence[tuple[Resampled, int]], n_seeds: int, resamples: int = 1000, seed: int = 0
) -> Bootstrap:
    """Resample seeds and items with replacement, each alone and both at once.

    Args:
        tasks: (function, number of items) of each task; seeds are drawn once for all of them.
        n_seeds: of every task.
        resamples: R.
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=resamples) / n_seeds
    by_seed, whole = np.zeros((resamples, n_seeds)), np.zeros(n_seeds)
    for of_weights, n_items in tasks:
        weights = rng.multinomial(n_items, np.full(n_items, 1 / n_items), size=resamples)
        by_seed += of_weights(weights.astype(np.float64)) / len(tasks)
        whole += of_weights(np.ones((1, n_items)))[0] / len(tasks)
    both = (draws * by_seed).sum(1)
    parts = ((draws @ whole).var(ddof=1), by_seed.mean(1).var(ddof=1), both.var(ddof=1))
    return Bootstrap(float(whole.mean()), *(float(v) for v in parts))


def bootstrap_means(tables: Sequence[Array], resamples: int = 1000, seed: int = 0) -> Bootstrap:
    """The two-way bootstrap of mean differences, one (seeds, items or sources) table a task."""
    tasks = [
        (lambda weights, t=table: weights @ t.T / t.shape[1], table.shape[1]) for table in tables
    ]
    return two_way_bootstrap(tasks, len(tables[0]), resamples, seed)


def compare_metric(
    items: pd.DataFrame,
    method: str,
    baseline: str,
    metric: str,
    tasks: Sequence[str] | None = None,
    level: float = 0.95,
) -> Comparison:
    """The primary analysis for a score that is no mean over items, averaged over seeds and tasks.

    Args:
        items: as in `compare`, with `label, prediction` (or, for "ratio", `numerator, denominator`)
            in place of `score`.
        method: the method that is asked about.
        baseline: the method it is compared with.
        metric: "matthews", "f1", "pearson", "spearman" or "ratio".
        tasks: names of tasks to average over; all in `items` by default.
        level: of the two-sided interval.

    Raises:
        InputError: as `compare`; an unknown metric, or missing columns.
    """
    scored = with_influence(items[items["method"].isin((method, baseline))], metric)
    answer = compare(scored, method, baseline, tasks, level)
    return replace(answer, test=f"{metric} by the items' influence; {answer.test}")


def with_influence(items: pd.DataFrame, metric: str) -> pd.DataFrame:
    """`items` whose `score` is the run's metric plus the item's influence on it."""
    chosen = score(metric)
    _need(items, chosen)
    scores = np.zeros(len(items))
    for index in items.groupby(["task", "method", "seed"]).indices.values():
        first, second = (items[c].to_numpy()[index] for c in chosen.columns)
        value = chosen.values(first, second, np.ones((1, len(index))))[0]
        scores[index] = value + chosen.influence(first, second)
    return items.assign(score=scores)


def bootstrap_metric(
    items: pd.DataFrame,
    method: str,
    baseline: str,
    metric: str,
    tasks: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Bootstrap:
    """The check on `compare_metric`: the score recomputed on resampled pairs, sources kept whole.

    Raises:
        InputError: as `compare_metric`.
    """
    scored = with_influence(items[items["method"].isin((method, baseline))], metric)
    paired = paired_differences(scored, method, baseline, tasks)
    functions = []
    for task, table in paired.tables.items():
        rows = scored[(scored["task"] == task) & scored["seed"].isin(table.index)]
        functions.append(_resampling(rows.sort_values("item"), method, baseline, score(metric)))
    n_seeds = len(next(iter(paired.tables.values())))
    return two_way_bootstrap(functions, n_seeds, resamples, seed)


def _resampling(
    rows: pd.DataFrame, method: str, baseline: str, chosen: Score
) -> tuple[Resampled, int]:
    first, second = chosen.columns
    runs = {
        (name, seed): (run[first].to_numpy(), run[second].to_numpy())
        for (name, seed), run in rows.groupby(["method", "seed"])
    }
    codes, sources = pd.factorize(rows.drop_duplicates("item")["source"])
    seeds = sorted(rows["seed"].unique())

    def side(name: str, weights: Array) -> Array:
        return np.stack([chosen.values(*runs[name, seed], weights) for seed in seeds], axis=1)

    def difference(weights: Array) -> Array:
        of_items = weights[:, codes]
        return side(method, of_items) - side(baseline, of_items)

    return difference, len(sources)


def _need(items: pd.DataFrame, chosen: Score) -> None:
    absent = [column for column in chosen.columns if column not in items]
    if absent:
        raise InputError(
            f"this score needs {' and '.join(chosen.columns)}; the items lack {', '.join(absent)}"
        )
