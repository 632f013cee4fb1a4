"""The primary analysis against hand values, statsmodels and lme4."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import AnovaRM, anova_lm

from geodistill.analysis.stats import sensitivity
from geodistill.analysis.stats.coverage import SimulationTruth
from geodistill.analysis.stats.crossed_anova import (
    cluster_df,
    collapse_clusters,
    components,
    estimate,
    mean_squares,
)
from geodistill.errors import InputError


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_hand_case():
    # Mean 3, seed means 2 and 4, item means 2.5 and 3.5, interactions of ±0.5.
    table = np.array([[1.0, 3.0], [4.0, 4.0]])
    m = mean_squares(table)
    assert (m.mean, m.seed, m.item, m.residual) == (3.0, 4.0, 1.0, 1.0)
    result = estimate([table])
    # variance (4 + 1 − 1)/4 = 1, df = 1/(1²/1 + 0.25²/1 + 0.25²/1) = 1/1.125
    assert result.se == pytest.approx(1.0)
    assert result.df == pytest.approx(1 / 1.125)
    assert result.p == pytest.approx(2 * stats.t.sf(3.0, 1 / 1.125))
    half = stats.t.ppf(0.975, 1 / 1.125)
    assert (result.low, result.high) == pytest.approx((3 - half, 3 + half))


def test_the_predictive_probability_by_hand():
    # Of the same table: σ²_A/1 = 1.5, σ²_B/2 = 0, σ²_E/2 = 0.5 per seed; so the difference of a
    # new pair varies by 2 about its mean, and the mean itself by 1.
    result = estimate([np.array([[1.0, 3.0], [4.0, 4.0]])])
    parts = result.components
    assert (parts.seed, parts.item, parts.residual) == (1.5, 0.0, 0.5)
    # (1 + 1/2)(1.5 + 0.5) + (0 + 0.5) − 0.5 = 3 on 1, 1 and 1 degrees of freedom
    df = 3**2 / (3**2 + 0.5**2 + 0.5**2)
    assert result.p_better == pytest.approx(stats.t.cdf(3 / np.sqrt(3), df))


def test_mean_squares_are_statsmodels_anova(rng):
    table = SimulationTruth(seed=0.5, item=0.4, residual=0.3).draw(rng, 4, 6)
    frame = pd.DataFrame(
        {
            "d": table.ravel(),
            "seed": np.repeat(np.arange(4), 6),
            "item": np.tile(np.arange(6), 4),
        }
    )
    anova = anova_lm(ols("d ~ C(seed) + C(item)", frame).fit(), typ=2)
    expected = anova["sum_sq"] / anova["df"]
    m = mean_squares(table)
    assert [m.seed, m.item, m.residual] == pytest.approx(expected.tolist())
    by_subject = AnovaRM(frame, "d", "item", within=["seed"]).fit().anova_table
    assert m.seed / m.residual == pytest.approx(by_subject["F Value"].iloc[0])


def test_agrees_with_the_mixed_model_by_reml(rng):
    table = SimulationTruth(effect=0.3, seed=0.5, item=0.6, residual=0.4).draw(rng, 6, 20)
    closed, reml = estimate([table]), sensitivity.mixed_model(table)
    assert reml.estimate == pytest.approx(closed.estimate)
    se = (reml.high - reml.low) / (2 * stats.norm.ppf(0.975))
    assert se == pytest.approx(closed.se, rel=1e-3)


def test_penicillin_is_the_published_fit_of_lme4():
    # Balanced and every component positive: REML and the closed form are one. The figures are of
    # lme4 (tests/analysis/stats/reference/penicillin.R); plates stand for seeds, samples for items.
    path = Path(__file__).parent / "reference/penicillin.csv"
    result = estimate([pd.read_csv(path, index_col="plate").to_numpy(float)])
    assert result.estimate == pytest.approx(22.9722, abs=1e-4)
    assert result.se == pytest.approx(0.8086, abs=2e-4)
    parts = result.components
    assert parts.seed == pytest.approx(0.8467**2, rel=1e-3)
    assert parts.item * 6 == pytest.approx(1.9316**2, rel=1e-3)
    assert parts.residual * 6 == pytest.approx(0.5499**2, rel=1e-3)


def test_without_seed_and_item_effects_every_difference_counts():
    # Both components at 0: the variance rests on all 4 × 100 differences, not on four of them.
    parts = components([np.array([[1.0, -1.0] * 50, [-1.0, 1.0] * 50] * 2)])
    assert (parts.seed, parts.item) == (0, 0)
    assert parts.df(4) == pytest.approx(3 * 99 / 3)


def test_more_items_and_more_seeds_reduce_their_own_parts():
    parts = components([SimulationTruth(seed=0.3).draw(np.random.default_rng(0), 5, 40)])
    assert parts.seed > 0
    assert parts.item > 0
    expected = (parts.seed + parts.residual / 3) / 7 + parts.item / 3
    assert parts.variance(7, 3) == pytest.approx(expected)
    rest = parts.residual / 21
    by_seed, by_item = parts.seed / 7 + rest, parts.item / 3 + rest
    spread = by_seed**2 / 6 + by_item**2 / (3 * 39) + rest**2 / (6 * 3 * 39)
    assert parts.df(7, 3) == pytest.approx(expected**2 / spread)


def test_pooling_one_task_twice_changes_nothing_but_the_item_part(rng):
    table = SimulationTruth(effect=0.1, seed=0.3).draw(rng, 5, 50)
    single, double = components([table]), components([table, table])
    assert double.seed + double.residual == pytest.approx(single.seed + single.residual)
    item = (single.item + single.residual / 5) / 2
    assert double.item + double.residual / 5 == pytest.approx(item)
    assert double.df_item == pytest.approx(2 * single.df_item)


def test_tasks_weigh_equally_whatever_their_size(rng):
    tables = [np.full((3, 200), 1.0), np.full((3, 10), 3.0)]
    noise = [SimulationTruth().draw(rng, *table.shape) for table in tables]
    noise = [n - n.mean() for n in noise]
    result = estimate([t + n for t, n in zip(tables, noise, strict=True)])
    assert result.estimate == pytest.approx(2.0)


def test_clusters_of_one_item_change_nothing(rng):
    table = SimulationTruth().draw(rng, 4, 9)
    assert collapse_clusters(table, [f"s{i}" for i in range(9)]) == pytest.approx(table)


def test_clusters_keep_every_seed_mean_over_items(rng):
    table = SimulationTruth().draw(rng, 4, 9)
    collapsed = collapse_clusters(table, list("aabbbbccc"))
    assert collapsed.shape == (4, 3)
    assert collapsed.mean(1) == pytest.approx(table.mean(1))


def test_clusters_widen_the_interval_where_their_items_agree(rng):
    by_cluster = SimulationTruth(seed=0.0, item=1.0).draw(rng, 5, 40)
    table = np.repeat(by_cluster, 8, axis=1)
    clusters = np.repeat([f"s{i}" for i in range(40)], 8).tolist()
    collapsed, naive = estimate([collapse_clusters(table, clusters)]), estimate([table])
    assert collapsed.estimate == pytest.approx(naive.estimate)
    assert collapsed.se == pytest.approx(estimate([by_cluster]).se)
    assert collapsed.se > 2 * naive.se


def test_a_seed_effect_is_no_noise_of_large_clusters(rng):
    table = np.repeat(rng.standard_normal((5, 1)), 12, axis=1)
    collapsed = collapse_clusters(table, list("aaaaaaaabcde"))
    assert collapsed == pytest.approx(np.repeat(table[:, :1], 5, axis=1))


def test_cluster_df_is_the_trace_ratio():
    for sizes in ([1, 1, 1, 1], [3, 3, 3], [1, 2, 7, 4], [50, 1, 1]):
        n = np.array(sizes, dtype=float)
        m = np.diag(n) - np.outer(n, n) / n.sum()
        expected = np.trace(m @ m) ** 2 / np.trace(m @ m @ m @ m)
        names = np.repeat([f"s{i}" for i in range(len(n))], sizes).tolist()
        assert cluster_df(names) == pytest.approx(expected)
    assert cluster_df(list("aabbcc")) == pytest.approx(2)
    assert cluster_df(list("aaa")) == 1


def test_the_variance_between_unequal_clusters_is_unbiased():
    # Exact expectation: cluster effects of variance 1 and no other noise, one seed.
    sizes = np.array([1, 2, 7, 4])
    clusters = np.repeat(list("abcd"), sizes).tolist()
    variance = np.zeros(4)
    for k in range(4):  # the collapsed table is linear in the cluster effects
        effect = np.repeat(np.eye(4)[k], sizes)[None]
        variance += (collapse_clusters(effect, clusters)[0] - effect.mean()) ** 2
    expected = (sizes**2).sum() / sizes.sum() ** 2  # variance of the mean over items
    assert variance.sum() / (3 * 4) == pytest.approx(expected)


def test_tables_that_cannot_be_analysed_are_refused():
    with pytest.raises(InputError, match="2 or more shared seeds"):
        estimate([np.ones((3, 4)), np.ones((2, 4))])
    for shape in ((1, 4), (4, 1)):
        with pytest.raises(InputError, match="2 or more shared seeds and 2 or more items"):
            estimate([np.random.default_rng(0).random(shape)])
    with pytest.raises(InputError, match=r"the differences are all 0\.5: no variance to judge by"):
        estimate([np.full((3, 4), 0.5)])
