"""Tests over tasks by ranks: Friedman and Wilcoxon (Demšar 2006), and the Bayesian signed rank.

None of them decides a verdict; they show whether it depends on the scale of the scores.
"""

import numpy as np
import pandas as pd
from scipy import stats

from geodistill.analysis.stats.crossed_anova import Array
from geodistill.errors import InputError

DRAWS = 20_000
MIN_TASKS = 5  # with fewer, no p of the signed-rank test is below 0.06


def bayesian_signed_rank(differences: Array, margin: float) -> dict[str, float]:
    """The Bayesian signed-rank test (Benavoli, Corani, Demšar and Zaffalon 2017, section 4.2.1).

    A Dirichlet process over the differences, with prior weight 0.5 on a difference of 0: each draw
    gives weights to the tasks, and the mass of all pairs' means below, inside and above the margin
    decides which of the three is the largest.

    Args:
        differences: of each task.
        margin: half width of the region of equivalence, at least 0.

    Returns:
        Posterior probability that the method is `worse` or `better` by more than the margin, or
        `equivalent`.

    Example:
        >>> result = bayesian_signed_rank(np.array([0.1, 0.2, 0.15, 0.12, 0.3, 0.11]), 0.01)
        >>> result["better"] > 0.99
        True
    """
    values = np.concatenate([[0.0], differences])
    weights = np.random.default_rng(0).dirichlet([0.5, *np.ones(len(differences))], DRAWS)
    sums = values[:, None] + values[None, :]
    inside = np.abs(sums) <= 2 * margin
    shares = [
        np.einsum("di,dj,ij->d", weights, weights, region.astype(float), optimize=True)
        for region in (sums < -2 * margin, inside, sums > 2 * margin)
    ]
    counts = np.bincount(np.argmax(shares, axis=0), minlength=3) / DRAWS
    return dict(zip(("worse", "equivalent", "better"), counts.tolist(), strict=True))


def rank_table(means: pd.DataFrame, baseline: str, margin: float) -> pd.DataFrame:
    """Rank tests of each method against the baseline over tasks.

    Args:
        means: one row per task and one column per method; higher is better.
        baseline: name of a column.
        margin: half width of the region of equivalence, in the unit of the means.

    Returns:
        One row per method: `method`, mean `rank` (1 the best), `wins` and `losses`, `p_friedman` of
        all methods together (nan for two), `p_wilcoxon`, and the posterior `p_worse`,
        `p_equivalent`, `p_better`.

    Raises:
        InputError: fewer than five tasks that all methods have.
    """
    complete = means.dropna()
    if len(complete) < MIN_TASKS:
        raise InputError(
            f"rank tests need {MIN_TASKS} or more tasks that all methods have; got {len(complete)}"
        )
    ranks = complete.rank(axis=1, ascending=False).mean()
    friedman = np.nan
    if complete.shape[1] > 2:
        friedman = float(stats.friedmanchisquare(*complete.to_numpy().T).pvalue)
    rows = []
    for method in complete.columns.drop(baseline):
        d = (complete[method] - complete[baseline]).to_numpy(np.float64)
        posterior = bayesian_signed_rank(d, margin)
        wilcoxon = float(stats.wilcoxon(d, zero_method="zsplit").pvalue) if d.any() else 1.0
        rows.append(
            {
                "method": method,
                "rank": ranks[method],
                "wins": int((d > 0).sum()),
                "losses": int((d < 0).sum()),
                "p_friedman": friedman,
                "p_wilcoxon": wilcoxon,
                **{f"p_{name}": share for name, share in posterior.items()},
            }
        )
    return pd.DataFrame(rows)
