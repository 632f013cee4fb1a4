"""Comparisons of methods on tidy item scores, one by one or as a corrected family of tests."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd
from statsmodels.stats.multitest import multipletests

from geodistill.analysis.stats.collapse import collapsed_share
from geodistill.analysis.stats.crossed_anova import Estimate, estimate
from geodistill.analysis.stats.pairing import PairedDifferences, paired_differences
from geodistill.errors import InputError

Correction = Literal["holm", "bh"]


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
        n_clusters: independent units behind the items: clusters (`source`), each counted once if
            tasks share it; equal to `n_items` where items are independent.
        seeds_left_out: seeds that only one method, or only some tasks, have.
        run_ids: of the runs compared.
        test: name of the test.
        family: number of tests corrected together; 1 for a single test.
        p_holm: p by Holm's method, in a primary family.
        p_bh: p by Benjamini and Hochberg's method, among secondary questions.
        baseline_collapsed: share of the baseline's runs that collapsed (`find_collapsed`); 0 where
            the items do not tell.
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
    baseline_collapsed: float = 0.0

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
    estimated = estimate_mean(paired, f"{method} against {baseline}", level)
    used = items["task"].isin(paired.tables) & items["method"].isin((method, baseline))
    used &= items["seed"].isin(paired.seeds)
    return Comparison(
        **vars(estimated),
        method=method,
        baseline=baseline,
        tasks=tuple(paired.tables),
        n_seeds=len(paired.seeds),
        n_items=paired.n_items,
        n_clusters=sum(len(block.clusters) for block in paired.blocks.values()),
        seeds_left_out=paired.seeds_left_out,
        run_ids=tuple(sorted(items.loc[used, "run_id"].unique())),
        baseline_collapsed=collapsed_share(items[used & (items["method"] == baseline)]),
    )


def estimate_mean(paired: PairedDifferences, what: str, level: float = 0.95) -> Estimate:
    """The mean of paired differences, tasks weighted equally, seeds and items crossed.

    Args:
        paired: the differences.
        what: names the difference in the message.
        level: of the two-sided interval, in (0, 1).

    Raises:
        InputError: differences that do not vary, or fewer than two seeds or items.
    """
    blocks = paired.blocks.values()
    tables, dfs = [block.differences for block in blocks], [block.df for block in blocks]
    try:
        return estimate(tables, level, dfs, [block.weight for block in blocks])
    except InputError as error:
        raise InputError(f"{error} ({what})") from error


def compare_family(
    items: pd.DataFrame,
    pairs: Iterable[tuple[str, str]],
    correction: Correction = "holm",
) -> tuple[Comparison, ...]:
    """`compare` for each (method, baseline), with p-values corrected over all of them.

    Args:
        items: `run_id, task, method, seed, item, source, score`; higher scores are better.
        pairs: the tests of the family.
        correction: "holm" for the primary family (any dependence), "bh" (Benjamini and Hochberg
            1995) for secondary questions.

    Raises:
        InputError: as `compare`; no pair at all, or one twice.

    Example:
        >>> from geodistill.analysis import compare_family, simulate_items
        >>> items = simulate_items({"kd": 0.0, "a": 0.2, "b": 0.0})
        >>> family = compare_family(items, [("a", "kd"), ("b", "kd")])
        >>> [result.p_holm < 0.05 for result in family], family[0].correction
        ([True, False], 'Holm over 2')
    """
    pairs = [(method, baseline) for method, baseline in pairs]
    if len(set(pairs)) < max(1, len(pairs)):
        raise InputError(
            f"a family of comparisons needs at least one (method, baseline) pair, and each once; "
            f"got {pairs}"
        )
    comparisons = [compare(items, method, baseline) for method, baseline in pairs]
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
