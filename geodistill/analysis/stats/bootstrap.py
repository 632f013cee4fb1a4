"""The two-way bootstrap, a check of the intervals of the primary analysis.

Its naive variance is σ²_A/S + σ²_B/I + 3σ²_E/(S·I), three times the last part, because resampling
both ways counts it three times (McCullagh 2000; Owen 2007). Resampling seeds alone and items alone
each sees its own part and E once, hence V = 2(V_seed + V_item) − V_both. Yet V_seed is (S − 1)/S of
its part, and a normal interval ignores S: at 5 seeds it is too short (data/results/coverage).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from geodistill.analysis.stats.crossed_anova import Array


@dataclass(frozen=True)
class Bootstrap:
    """A mean difference and its variances under resampling.

    Attributes:
        estimate: mean difference.
        seed: variance under resampled seeds.
        item: variance under resampled items (or clusters).
        both: variance under resampled seeds and items.
    """

    estimate: float
    seed: float
    item: float
    both: float

    @property
    def corrected(self) -> float:
        """2(V_seed + V_item) − V_both, not below the larger of the two parts."""
        return max(2 * (self.seed + self.item) - self.both, self.seed, self.item)

    def interval(self, corrected: bool = True) -> tuple[float, float]:
        """Normal 95 % interval by the corrected variance, or by the naive V_both."""
        variance = self.corrected if corrected else self.both
        half = float(stats.norm.ppf(0.975) * np.sqrt(variance))
        return self.estimate - half, self.estimate + half


def two_way_bootstrap(
    tables: Sequence[Array],
    resamples: int = 1000,
    seed: int = 0,
    weights: Sequence[float] | None = None,
) -> Bootstrap:
    """Resample seeds and items with replacement, each alone and both at once.

    Args:
        tables: (seeds, items or clusters) differences of each task. Seeds are the same in all of
            them and drawn once for all.
        resamples: number of resamples.
        seed: of the random numbers.
        weights: of the tables, with sum 1; equal by default.
    """
    shares = weights or [1 / len(tables)] * len(tables)
    rng, n_seeds = np.random.default_rng(seed), len(tables[0])
    draws = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=resamples) / n_seeds
    by_seed, original = np.zeros((resamples, n_seeds)), np.zeros(n_seeds)
    for table, share in zip(tables, shares, strict=True):
        n_items = table.shape[1]
        times = rng.multinomial(n_items, np.full(n_items, 1 / n_items), size=resamples)
        by_seed += times @ table.T / n_items * share
        original += table.mean(1) * share
    both = (draws * by_seed).sum(1)
    variances = ((draws @ original).var(ddof=1), by_seed.mean(1).var(ddof=1), both.var(ddof=1))
    return Bootstrap(float(original.mean()), *(float(v) for v in variances))
