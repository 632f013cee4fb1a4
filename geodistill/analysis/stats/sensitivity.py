"""Second opinions on the primary analysis, each by another route; none of them decides a verdict.

`over_seeds` and `sign_flips`: few assumptions, but they hold the test items fixed. `mixed_model`:
REML, which must agree with the closed form in a balanced table. `over_items`: the habit that the
primary analysis replaces.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.weightstats import DescrStatsW
from statsmodels.tools.sm_exceptions import ConvergenceWarning

from geodistill.analysis.stats.crossed_anova import Array
from geodistill.errors import InputError

MOST_ITEMS, MOST_SEEDS = 60, 8


@dataclass(frozen=True)
class SecondOpinion:
    """An interval by another test; `what_varies` says to which population it speaks."""

    estimate: float
    low: float
    high: float
    p: float
    n: int
    test: str
    what_varies: str


def over_seeds(differences: Array, level: float = 0.95) -> SecondOpinion:
    """Paired t-test over the mean difference of each seed; `differences` is (seeds, items)."""
    return _t(differences.mean(1), level, "paired t over seeds", "seeds, on these items")


def over_items(differences: Array, level: float = 0.95) -> SecondOpinion:
    """Paired t-test over items, each averaged over seeds: too short where seeds matter."""
    return _t(differences.mean(0), level, "paired t over items", "items, for these trained models")


def equivalent_over_seeds(differences: Array, margin: float) -> float:
    """p of two one-sided paired t-tests over seeds that the mean lies inside ± `margin`."""
    return float(DescrStatsW(differences.mean(1)).ttost_mean(-margin, margin)[0])


def sign_flips(differences: Array) -> float:
    """Exact two-sided p of the permutation test over seeds that flips the sign of each.

    All 2^S flips are made; with S seeds no p is below 2/2^S (0.0625 at 5 seeds).
    """
    means = differences.mean(1)
    signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * len(means))).reshape(len(means), -1)
    reached = np.abs(means @ signs) >= abs(means.sum()) * (1 - 1e-12)
    return float(reached.mean())


def mixed_model(differences: Array) -> SecondOpinion:
    """REML fit of the crossed model by statsmodels, with a normal interval for the mean.

    Dense in items and seeds, so only for small tables.

    Raises:
        InputError: more than 60 items or 8 seeds.
    """
    n_seeds, n_items = differences.shape
    if n_items > MOST_ITEMS or n_seeds > MOST_SEEDS:
        raise InputError(
            f"the mixed model is dense: at most {MOST_ITEMS} items × {MOST_SEEDS} seeds, "
            f"got {n_items} × {n_seeds}; take a subset"
        )
    seed, item = (index.ravel() for index in np.indices(differences.shape))
    frame = pd.DataFrame({"d": differences.ravel(), "seed": seed, "item": item, "all": 1})
    parts = {"seed": "0 + C(seed)", "item": "0 + C(item)"}
    with warnings.catch_warnings():
        # A variance component of 0 is an answer here, not a failure to converge.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit = MixedLM.from_formula(
            "d ~ 1", groups="all", re_formula="0", vc_formula=parts, data=frame
        ).fit(reml=True)
    mean, se = float(fit.fe_params.iloc[0]), float(fit.bse_fe.iloc[0])
    half = float(stats.norm.ppf(0.975)) * se
    p = float(2 * stats.norm.sf(abs(mean) / se))
    what = "seeds and items"
    return SecondOpinion(mean, mean - half, mean + half, p, n_seeds, "crossed mixed model", what)


def _t(values: Array, level: float, test: str, what_varies: str) -> SecondOpinion:
    described = DescrStatsW(values)
    low, high = described.tconfint_mean(1 - level)
    p = float(described.ttest_mean(0)[1])
    mean = float(described.mean)
    return SecondOpinion(mean, float(low), float(high), p, len(values), test, what_varies)


def mcnemar(gains: int, losses: int) -> float:
    """Exact two-sided p of McNemar's test: items that only the one or only the other got right."""
    return float(stats.binomtest(gains, gains + losses).pvalue) if gains + losses else 1.0


def paired_posterior(
    gains: int, losses: int, n_items: int, level: float = 0.95
) -> tuple[float, float]:
    """Bayesian interval for a difference of two accuracies on the same `n_items` ≥ gains + losses.

    A Dirichlet prior of ½ on the four cells (both right, only one, only the other, neither) makes
    the discordant share q and the gains' part r of it independent Beta variables; the difference is
    q(2r − 1). 20,000 draws with a fixed seed: the limits move by about 1 % of the width.
    """
    rng = np.random.default_rng(0)
    share = rng.beta(gains + losses + 1, n_items - gains - losses + 1, 20_000)
    part = rng.beta(gains + 0.5, losses + 0.5, 20_000)
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(share * (2 * part - 1), tails)
    return float(low), float(high)


def tasks_better(p_one_sided: Sequence[float], alpha: float = 0.05) -> tuple[int, list[float]]:
    """On at least how many tasks the method is better, at confidence 1 − α, and the p of 1, 2, ...

    Partial conjunction (Benjamini and Heller 2008): that u or more of n hold has the p-value
    (n − u + 1)·p_(u), valid however the tasks depend; made monotone in u.
    """
    ordered = np.sort(np.asarray(p_one_sided, dtype=np.float64))
    raw = np.minimum(1.0, np.arange(len(ordered), 0, -1) * ordered)
    p = np.maximum.accumulate(raw)
    return int((p <= alpha).sum()), [float(x) for x in p]
