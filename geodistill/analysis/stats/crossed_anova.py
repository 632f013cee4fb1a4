"""The primary analysis: paired differences with seeds and items as crossed random effects.

Every seed is scored on the same items, so the paired difference of seed s on item i is

    D_si = μ + A_s + B_i + E_si,   with variances σ²_A, σ²_B, σ²_E,

and its mean over S seeds and I items has the variance σ²_A/S + σ²_B/I + σ²_E/(S·I). In a balanced
table the mean squares estimate it in closed form, (MS_seed + MS_item − MS_rest)/(S·I), with
Satterthwaite's degrees of freedom (Satterthwaite 1946; Searle, Casella, McCulloch, *Variance
Components*, ch. 4). An interval from the items alone omits σ²_A: it describes these trained models,
not the method. The coverage of the intervals at 5 and 10 seeds is simulated in
data/results/coverage (`python -m geodistill.experiments.coverage`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from geodistill.errors import InputError

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MeanSquares:
    """Mean squares of a two-way table of differences without replicates.

    Attributes:
        mean: of all differences.
        seed: mean square between seeds.
        item: mean square between items.
        residual: mean square of the seed × item residuals.
        n_seeds: rows of the table.
        n_items: columns of the table.
    """

    mean: float
    seed: float
    item: float
    residual: float
    n_seeds: int
    n_items: int


@dataclass(frozen=True)
class Components:
    """Variance components of the mean difference at the items measured.

    For several tasks each component is that of the tasks' mean. Negative estimates are set to 0,
    which raises the variance; `df` says what that means for the degrees of freedom.

    Attributes:
        seed: σ²_A.
        item: σ²_B/I.
        residual: σ²_E/I, the part of one seed's variance that more items reduce.
        df_item: degrees of freedom of the item mean square.
    """

    seed: float
    item: float
    residual: float
    df_item: float

    def variance(self, n_seeds: float, times_items: float = 1.0) -> float:
        """Variance of the mean over `n_seeds` seeds and `times_items` × the items measured."""
        per_seed = self.seed + self.residual / times_items
        return per_seed / n_seeds + self.item / times_items

    def df(self, n_seeds: float, times_items: float = 1.0) -> float:
        """Satterthwaite's degrees of freedom of `variance`.

        Where a component is 0, its mean square was replaced by the residual one and takes the
        residual degrees of freedom; otherwise five equal seeds would count as five numbers.
        """
        rest = self.residual / (n_seeds * times_items)
        by_seed = self.seed / n_seeds + rest
        by_item = self.item / times_items + rest
        return self._satterthwaite(by_seed, by_item, rest, n_seeds, self.df_item * times_items)

    def p_better(self, mean: float, n_seeds: float) -> float:
        """Probability that a new pair of runs, on as many new items, differs by more than 0.

        A predictive t probability: it includes the uncertainty of the mean over `n_seeds` seeds.
        """
        rest = 2 * self.residual / n_seeds
        by_seed = (1 + 1 / n_seeds) * (self.seed + self.residual)
        by_item = 2 * self.item + rest
        df = self._satterthwaite(by_seed, by_item, rest, n_seeds, self.df_item)
        return float(stats.t.cdf(mean / np.sqrt(self.variance(1) + self.variance(n_seeds)), df))

    def _satterthwaite(
        self, by_seed: float, by_item: float, rest: float, n_seeds: float, df_item: float
    ) -> float:
        """Degrees of freedom of by_seed + by_item − rest, each a multiple of a mean square."""
        df_rest = (n_seeds - 1) * df_item
        spread = by_seed**2 / (n_seeds - 1 if self.seed else df_rest)
        spread += by_item**2 / (df_item if self.item else df_rest) + rest**2 / df_rest
        return float((by_seed + by_item - rest) ** 2 / spread)


@dataclass(frozen=True)
class Estimate:
    """A mean difference with its interval and test, in the unit of the item score.

    Attributes:
        estimate: mean difference.
        low: lower end of the two-sided interval.
        high: upper end of the interval.
        level: of the interval, in (0, 1).
        se: standard error.
        df: degrees of freedom of the t distribution.
        p: two-sided p-value of no difference.
        p_better: probability that a new run of the method scores higher than a new run of the
            baseline with the same seed, on as many new items.
        components: variance components behind `se`.
    """

    estimate: float
    low: float
    high: float
    level: float
    se: float
    df: float
    p: float
    p_better: float
    components: Components


def mean_squares(differences: Array) -> MeanSquares:
    """Mean squares of a (seeds, items) table with at least two of each."""
    n_seeds, n_items = differences.shape
    mean = float(differences.mean())
    seeds, items = differences.mean(1) - mean, differences.mean(0) - mean
    rest = differences - mean - seeds[:, None] - items[None, :]
    return MeanSquares(
        mean,
        seed=float(n_items * (seeds @ seeds) / (n_seeds - 1)),
        item=float(n_seeds * (items @ items) / (n_items - 1)),
        residual=float((rest**2).sum() / ((n_seeds - 1) * (n_items - 1))),
        n_seeds=n_seeds,
        n_items=n_items,
    )


def collapse_clusters(differences: Array, clusters: Sequence[str]) -> Array:
    """Replace items by clusters where the items of one cluster are not independent.

    A cluster is weighted by its number of items, and every seed keeps its mean over items: the
    linearised ratio estimator of cluster sampling (Cochran, *Sampling Techniques*, 3rd ed.,
    ch. 9A), each seed about its own mean, so that a seed effect does not look like noise of large
    clusters. Deviations are scaled so that the variance is unbiased if the cluster effects have
    equal variance (see `cluster_df`). Clusters of one item change nothing.

    Args:
        differences: (seeds, items).
        clusters: name of each item's cluster.

    Returns:
        (seeds, clusters).
    """
    codes, names = pd.factorize(np.asarray(clusters, dtype=object))
    sizes = np.bincount(codes).astype(np.float64)
    totals = np.zeros((len(differences), len(names)))
    np.add.at(totals.T, codes, differences.T)
    mean = differences.mean(1, keepdims=True)
    n = len(names)
    scale = np.sqrt((sizes @ sizes) / _moments(sizes)[0] * (n - 1) / n) if n > 1 else 1.0
    return np.asarray(mean + scale * (totals - sizes * mean) * n / len(codes))


def cluster_df(clusters: Sequence[str], weights: Array | None = None) -> float:
    """Effective degrees of freedom between clusters of these sizes.

    G − 1 for G equal clusters, fewer for unequal ones, 1 if one cluster holds nearly all items
    (Bell and McCaffrey 2002, under the working model that cluster means have one variance).

    Args:
        clusters: name of each item's cluster.
        weights: of the items; equal by default.
    """
    codes = pd.factorize(np.asarray(clusters, dtype=object))[0]
    sizes = np.bincount(codes, weights).astype(np.float64)
    if len(sizes) < 2:
        return 1.0  # such a table is refused by `estimate`
    first, second = _moments(sizes)
    return float(first**2 / second)


def _moments(sizes: Array) -> tuple[float, float]:
    """Traces of M² and M⁴, M = diag(n) − nnᵀ/N: quadratic form of the cluster mean square."""
    total = sizes.sum()
    s2, s3, s4, s5 = (float((sizes**k).sum()) for k in (2, 3, 4, 5))
    first = s2 - 2 * s3 / total + (s2 / total) ** 2
    second = s4 - 4 * s5 / total + (4 * s2 * s4 + 2 * s3**2) / total**2
    return float(first), float(second - 4 * s2**2 * s3 / total**3 + (s2 / total) ** 4)


def components(
    tables: Sequence[Array],
    df_items: Sequence[float] | None = None,
    weights: Sequence[float] | None = None,
) -> Components:
    """Variance components of the weighted mean over tasks.

    Tasks are fixed. A seed is one draw for all tasks, so its variance is measured on their mean:
    tasks with a common seed effect do not count as independent.

    Args:
        tables: (seeds, items) differences of each task, or of tasks that share items.
        df_items: degrees of freedom of each item mean square; items − 1 by default.
        weights: of the tables, with sum 1; equal by default.
    """
    squares = [mean_squares(table) for table in tables]
    shares = [1 / len(tables)] * len(tables) if weights is None else list(weights)
    n_seeds = squares[0].n_seeds
    residual = sum(w**2 * m.residual / m.n_items for w, m in zip(shares, squares, strict=True))
    per_seed = np.dot(shares, [table.mean(1) for table in tables]).var(ddof=1)
    by_item = [w**2 * m.item / (n_seeds * m.n_items) for w, m in zip(shares, squares, strict=True)]
    dfs = [m.n_items - 1.0 for m in squares] if df_items is None else list(df_items)
    spread = sum(b**2 / df for b, df in zip(by_item, dfs, strict=True))
    return Components(
        seed=max(0.0, float(per_seed) - residual),
        item=max(0.0, sum(by_item) - residual / n_seeds),
        residual=residual,
        df_item=sum(by_item) ** 2 / spread if spread else sum(dfs),
    )


def estimate(
    tables: Sequence[Array],
    level: float = 0.95,
    df_items: Sequence[float] | None = None,
    weights: Sequence[float] | None = None,
) -> Estimate:
    """Mean over tasks of the mean difference.

    Args:
        tables: (seeds, items) differences of each task, with the same seeds.
        level: of the two-sided interval, in (0, 1).
        df_items: degrees of freedom of each item mean square; items − 1 by default.
        weights: of the tables, with sum 1; equal by default.

    Raises:
        InputError: tables with fewer than two seeds or items, different numbers of seeds, or
            differences that do not vary at all.
    """
    shapes = [table.shape for table in tables]
    if len({n_seeds for n_seeds, _ in shapes}) != 1 or min(min(shape) for shape in shapes) < 2:
        raise InputError(
            f"tables of differences need 2 or more shared seeds and 2 or more items; got {shapes}"
        )
    mean = float(np.average([table.mean() for table in tables], weights=weights))
    return t_estimate(mean, components(tables, df_items, weights), shapes[0][0], level)


def t_estimate(mean: float, parts: Components, n_seeds: float, level: float = 0.95) -> Estimate:
    """The t interval and test of a mean difference with these variance components.

    Raises:
        InputError: the variance is 0, or a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise InputError(f"level is {level}; it must lie between 0 and 1, such as 0.95")
    variance = parts.variance(n_seeds)
    if variance <= 1e-24 * max(1.0, mean**2):
        raise InputError(
            f"the differences are all {mean:g}: no variance to judge by; are these the same runs?"
        )
    se, df = float(np.sqrt(variance)), parts.df(n_seeds)
    half = float(stats.t.ppf((1 + level) / 2, df)) * se
    return Estimate(
        estimate=mean,
        low=mean - half,
        high=mean + half,
        level=level,
        se=se,
        df=df,
        p=float(2 * stats.t.sf(abs(mean) / se, df)),
        p_better=parts.p_better(mean, n_seeds),
        components=parts,
    )
