"""Comparisons of methods on tidy item scores, one by one or as a corrected family of tests."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from geodistill.analysis.stats.crossed_anova import (
    Array,
    Estimate,
    cluster_df,
    collapse_clusters,
    estimate,
)
from geodistill.errors import InputError

Correction = Literal["holm", "bh"]
ITEM_COLUMNS = ("task", "method", "seed", "item", "source", "score")


@dataclass(frozen=True)
class Comparison(Estimate):
    """How much higher `method` scores than `baseline`; positive where the method is better.

    The interval is not adjusted for other tests.

    Attributes:
        method: that is compared.
        baseline: that it is compared with.
        tasks: with equal weight.
        n_seeds: shared by both methods in every task.
        n_items: test items of all tasks.
        n_clusters: clusters of items (`source`); equal to `n_items` where items are independent.
        seeds_left_out: seeds that only one method, or only some tasks, have.
        run_ids: of the runs compared.
        test: name of the test.
        family: number of tests corrected together; 1 for a single test.
        p_holm: p by Holm's method, in a primary family.
        p_bh: p by Benjamini and Hochberg's method, among secondary questions.
    """

    method: str
    baseline: str
    tasks: tuple[str, ...]
    n_seeds: int
    n_items: int
    n_clusters: int
    seeds_left_out: int
    run_ids: tuple[str, ...]
    test: str = "paired difference, seeds × items crossed (random-effects ANOVA, Satterthwaite t)"
    family: int = 1
    p_holm: float | None = None
    p_bh: float | None = None

    @property
    def task(self) -> str:
        """The task's name, or "pooled" for the mean over several."""
        return self.tasks[0] if len(self.tasks) == 1 else "pooled"

    @property
    def correction(self) -> str:
        """The correction for multiple tests, in words."""
        if self.family == 1:
            return "none, one test"
        rule = "Holm" if self.p_bh is None else "Benjamini–Hochberg"
        return f"{rule} over {self.family}"

    @property
    def p_adjusted(self) -> float:
        """The p-value on which a verdict is based: the corrected one if the test has a family."""
        corrected = self.p_holm if self.p_bh is None else self.p_bh
        return self.p if corrected is None else corrected


@dataclass(frozen=True)
class PairedDifferences:
    """Differences method − baseline by task, all with the same seeds.

    Attributes:
        tables: (seeds, items) of each task.
        by_cluster: (seeds, clusters) of each task.
        df_clusters: effective degrees of freedom between the clusters of each task.
        seeds_left_out: number of seeds that are not shared.
    """

    tables: dict[str, pd.DataFrame]
    by_cluster: dict[str, Array]
    df_clusters: dict[str, float]
    seeds_left_out: int

    @property
    def seed_means(self) -> pd.Series:
        """The mean difference of each seed, tasks weighted equally; indexed by seed."""
        means = pd.DataFrame({task: table.mean(axis=1) for task, table in self.tables.items()})
        return means.mean(axis=1).rename("difference")


def paired_differences(
    items: pd.DataFrame,
    method: str,
    baseline: str,
    tasks: Sequence[str] | None = None,
    min_seeds: int = 2,
) -> PairedDifferences:
    """Item scores of `method` minus those of `baseline`, on the seeds shared in every task.

    Args:
        items: `task, method, seed, item, source, score`; higher scores are better.
        method: to compare.
        baseline: that it is compared with.
        tasks: names of tasks; all in `items` by default.
        min_seeds: number of shared seeds that is required.

    Raises:
        InputError: a missing column, an unknown method or task, too few shared seeds, different
            items, or an item with two sources.
    """
    absent = [column for column in ITEM_COLUMNS if column not in items]
    if absent:
        raise InputError(
            f"items lack {', '.join(absent)}; the columns are {', '.join(map(str, items))}"
        )
    items = items[list(ITEM_COLUMNS)]  # long texts slow every selection of rows
    names = tuple(sorted(items["task"].unique())) if tasks is None else tuple(tasks)
    scores = {task: [_scores(items, task, m) for m in (method, baseline)] for task in names}
    run_seeds = [set(table.index) for pair in scores.values() for table in pair]
    seeds = sorted(set.intersection(*run_seeds))
    if len(seeds) < min_seeds:
        raise InputError(
            f"{method} and {baseline} share {len(seeds)} seeds in {', '.join(names)}; "
            f"a comparison of methods needs at least {min_seeds} (one pair of trained models is "
            "judged by the items alone: `sensitivity_table`)"
        )
    tables = {}
    for task, (of_method, of_baseline) in scores.items():
        unmatched = set(of_method.columns) ^ set(of_baseline.columns)
        if unmatched:
            raise InputError(
                f"{method} and {baseline} were not scored on the same items of {task}: "
                f"{len(unmatched)} items on one side only, such as {min(unmatched)}"
            )
        tables[task] = of_method.loc[seeds] - of_baseline.loc[seeds]
    pair = items[items["method"].isin((method, baseline))]
    clusters = {task: _clusters(pair, task, table) for task, table in tables.items()}
    return PairedDifferences(
        tables,
        {t: collapse_clusters(d.to_numpy(np.float64), clusters[t]) for t, d in tables.items()},
        {task: cluster_df(names) for task, names in clusters.items()},
        seeds_left_out=len(set.union(*run_seeds)) - len(seeds),
    )


def compare(
    items: pd.DataFrame,
    method: str,
    baseline: str,
    tasks: Sequence[str] | None = None,
    level: float = 0.95,
) -> Comparison:
    """The primary analysis of `method` against `baseline`, tasks weighted equally.

    The result is about these tasks, new seeds and new items (new clusters, where items share one).

    Args:
        items: `run_id, task, method, seed, item, source, score`; higher scores are better.
        method: to compare.
        baseline: that it is compared with, on the same seeds and items.
        tasks: names of tasks to average over; all in `items` by default.
        level: of the two-sided interval, in (0, 1).

    Raises:
        InputError: a missing column, an unknown method or task, fewer than two shared seeds,
            different items, an item with two sources, or differences that do not vary.

    Example:
        >>> from geodistill.analysis import compare, simulate_items
        >>> items = simulate_items({"kd": 0.0, "new": 0.1}, n_seeds=5, n_items=200)
        >>> result = compare(items, "new", "kd")
        >>> print(f"{result.estimate:.2f} ({result.low:.2f} to {result.high:.2f})")
        0.11 (0.06 to 0.17)
    """
    paired = paired_differences(items, method, baseline, tasks)
    first = next(iter(paired.tables.values()))
    used = items["task"].isin(paired.tables) & items["method"].isin((method, baseline))
    used &= items["seed"].isin(first.index)
    try:
        tables, dfs = list(paired.by_cluster.values()), list(paired.df_clusters.values())
        estimated = estimate(tables, level, dfs)
    except InputError as error:
        raise InputError(f"{error} ({method} against {baseline})") from error
    return Comparison(
        **vars(estimated),
        method=method,
        baseline=baseline,
        tasks=tuple(paired.tables),
        n_seeds=len(first),
        n_items=sum(table.shape[1] for table in paired.tables.values()),
        n_clusters=sum(table.shape[1] for table in tables),
        seeds_left_out=paired.seeds_left_out,
        run_ids=tuple(sorted(items.loc[used, "run_id"].unique())),
    )


def compare_family(
    items: pd.DataFrame,
    pairs: Iterable[tuple[str, str]],
    tasks: Sequence[str] | None = None,
    correction: Correction = "holm",
) -> tuple[Comparison, ...]:
    """`compare` for each (method, baseline), with p-values corrected over all of them.

    Args:
        items: `run_id, task, method, seed, item, source, score`; higher scores are better.
        pairs: the tests of the family.
        tasks: names of tasks to average over; all in `items` by default.
        correction: "holm" for the primary family (any dependence), "bh" (Benjamini and Hochberg
            1995) for secondary questions.

    Raises:
        InputError: as `compare`, or no pair at all.

    Example:
        >>> from geodistill.analysis import compare_family, simulate_items
        >>> items = simulate_items({"kd": 0.0, "a": 0.2, "b": 0.0})
        >>> family = compare_family(items, [("a", "kd"), ("b", "kd")])
        >>> [result.p_holm < 0.05 for result in family], family[0].correction
        ([True, False], 'Holm over 2')
    """
    comparisons = [compare(items, method, baseline, tasks) for method, baseline in pairs]
    if not comparisons:
        raise InputError("a family of comparisons needs at least one (method, baseline) pair")
    return adjust_family(comparisons, correction)


def adjust_family(
    comparisons: Sequence[Comparison], correction: Correction
) -> tuple[Comparison, ...]:
    """The comparisons with their p-values corrected as one family of tests."""
    if not comparisons:
        return ()
    holm = correction == "holm"
    adjusted = multipletests([c.p for c in comparisons], method="holm" if holm else "fdr_bh")[1]
    return tuple(
        replace(c, family=len(comparisons), p_holm=p if holm else None, p_bh=None if holm else p)
        for c, p in zip(comparisons, adjusted.tolist(), strict=True)
    )


def _scores(items: pd.DataFrame, task: str, method: str) -> pd.DataFrame:
    """(seeds, items) scores of one method in one task, without gaps."""
    for column, name in (("task", task), ("method", method)):
        known = sorted(items[column].unique())
        if name not in known:
            raise InputError(f"unknown {column} {name!r}; the rows hold {', '.join(known)}")
    rows = items[(items["task"] == task) & (items["method"] == method)]
    if rows.duplicated(["seed", "item"]).any():
        raise InputError(f"{task}/{method} has an item twice under one seed; keep one run per seed")
    scores = rows.pivot(index="seed", columns="item", values="score")
    gaps = int(scores.isna().sum().sum())
    if gaps:
        raise InputError(
            f"{task}/{method} lacks {gaps} of {scores.size} scores: each seed needs every item"
        )
    return scores


def _clusters(items: pd.DataFrame, task: str, differences: pd.DataFrame) -> list[str]:
    """The cluster of each column of the differences."""
    known = items.loc[items["task"] == task, ["item", "source"]].drop_duplicates()
    repeated = known[known["item"].duplicated()]
    if len(repeated):
        raise InputError(f"item {repeated['item'].iloc[0]} of {task} has two sources; it needs one")
    sources = known.set_index("item")["source"].loc[list(differences.columns)]
    return sources.astype(str).tolist()
