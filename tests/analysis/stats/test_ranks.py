"""Rank tests over tasks: scipy's p-values, ranks by hand, and the Bayesian test by its definition.

The Bayesian probabilities are compared with a plain loop over draws of the Dirichlet process, as
Benavoli et al. (2017) state the test.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.demsar import C45, TUNED

from geodistill.analysis.stats.ranks import bayesian_signed_rank, rank_table
from geodistill.errors import InputError


def test_the_example_of_the_field():
    """Demšar's Table 2: the signed-rank test rejects at 0.05 (T = 12, z = -2.54)."""
    means = pd.DataFrame({"c45": C45, "tuned": TUNED})
    (row,) = rank_table(means, "c45", 0.01).to_dict("records")
    assert (row["wins"], row["losses"]) == (10, 2)
    assert row["p_wilcoxon"] == pytest.approx(2 * stats.norm.cdf(-2.54), abs=0.005)
    assert np.isnan(row["p_friedman"])
    assert row["rank"] == pytest.approx((10 * 1 + 2 * 2 + 2 * 1.5) / 14)
    assert row["p_better"] + row["p_equivalent"] + row["p_worse"] == pytest.approx(1)


def test_the_bayesian_probabilities_are_those_of_the_definition():
    d = np.array(TUNED) - np.array(C45)
    rng = np.random.default_rng(5)
    values, counts, n = [0.0, *d], np.zeros(3), 1500
    for _ in range(n):
        gamma = rng.gamma([0.5] + [1.0] * len(d))
        w = gamma / gamma.sum()
        mass = np.zeros(3)
        for i, a in enumerate(values):
            for j, b in enumerate(values):
                mean = (a + b) / 2
                mass[0 if mean < -0.01 else 2 if mean > 0.01 else 1] += w[i] * w[j]
        counts[mass.argmax()] += 1
    result = bayesian_signed_rank(d, 0.01)
    expected = counts / n
    names = ("worse", "equivalent", "better")
    assert [result[name] for name in names] == pytest.approx(expected, abs=0.04)
    assert 0.2 < result["better"] < 0.95


def test_three_methods_have_friedmans_test_and_too_few_tasks_none():
    rng = np.random.default_rng(0)
    means = pd.DataFrame(rng.normal([0.0, 0.3, 0.1], 0.3, (8, 3)), columns=["kd", "a", "b"])
    table = rank_table(means, "kd", 0.01)
    expected = stats.friedmanchisquare(*means.to_numpy().T).pvalue
    assert table["p_friedman"].tolist() == pytest.approx([expected, expected])
    assert table["method"].tolist() == ["a", "b"]
    equal = rank_table(means.assign(a=means["kd"]), "kd", 0.01).iloc[0]
    assert (equal["p_wilcoxon"], equal["p_equivalent"]) == (1.0, 1.0)
    with pytest.raises(InputError, match="need 5 or more tasks that all methods have; got 4"):
        rank_table(means[:4], "kd", 0.01)
