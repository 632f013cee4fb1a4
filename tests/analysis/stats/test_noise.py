"""The parts of a run's variance: a hand case, statsmodels, and simulated runs of known parts."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from scipy import stats

from geodistill.analysis.stats.noise import Noise, noise, noise_of_comparison, runs_needed
from geodistill.errors import InputError


def runs(table, task="t"):
    """One row a run from a (subsamples, starts) table."""
    index = pd.MultiIndex.from_product([range(len(table)), range(len(table[0]))])
    frame = pd.DataFrame(index.to_list(), columns=["seed", "start_seed"])
    return frame.assign(task=task, score=np.ravel(table))


def drawn(rng, subsample=0.03, start=0.02, rest=0.01, shape=(5, 4)):
    a, b = rng.standard_normal(shape[0]), rng.standard_normal(shape[1])
    own = rng.standard_normal(shape)
    return 0.7 + subsample * a[:, None] + start * b[None, :] + rest * own


def test_a_hand_case():
    # Means of rows 2, 6; of columns 3, 5; grand mean 4; residuals ±1.
    found = noise(runs([[2.0, 2.0], [4.0, 8.0]]))
    # MS_A = 2·(4+4)/1 = 16, MS_B = 2·(1+1)/1 = 4, MS_E = 4·1/1 = 4.
    assert (found.subsample, found.start, found.rest) == pytest.approx((6.0, 0.0, 4.0))
    assert found.df == (1, 1, 1)
    assert found.p_subsample == pytest.approx(stats.f.sf(4, 1, 1))
    assert found.total == pytest.approx(10)
    assert found.of_mean(3, 2) == pytest.approx(6 / 3 + 4 / 6)


def test_f_tests_are_those_of_an_analysis_of_variance():
    frame = runs(drawn(np.random.default_rng(0)))
    fit = smf.ols("score ~ C(seed) + C(start_seed)", frame).fit()
    table = sm.stats.anova_lm(fit)
    found = noise(frame)
    assert found.p_subsample == pytest.approx(table.loc["C(seed)", "PR(>F)"])
    assert found.p_start == pytest.approx(table.loc["C(start_seed)", "PR(>F)"])
    assert found.rest == pytest.approx(table.loc["Residual", "mean_sq"])
    assert found.df == tuple(table["df"].astype(int))


def test_parts_are_those_of_a_mixed_model():
    """In a balanced table REML gives the same components, where none of them is negative."""
    frame = runs(100 * drawn(np.random.default_rng(1)))
    parts = {"a": "0 + C(seed)", "b": "0 + C(start_seed)"}
    fit = smf.mixedlm("score ~ 1", frame, groups=np.ones(len(frame)), vc_formula=parts).fit()
    found = noise(frame)
    assert found.start > 0
    assert fit.vcomp == pytest.approx([found.subsample, found.start], rel=1e-2)
    assert fit.scale == pytest.approx(found.rest, rel=1e-2)


def test_known_parts_are_found_on_average_over_tasks():
    rng = np.random.default_rng(2)
    many = pd.concat(runs(drawn(rng), task=f"t{i}") for i in range(400))
    found = noise(many)
    assert found.subsample == pytest.approx(0.03**2, rel=0.15)
    assert found.start == pytest.approx(0.02**2, rel=0.15)
    assert found.rest == pytest.approx(0.01**2, rel=0.05)
    assert found.df == (1600, 1200, 4800)
    assert found.p_start < 1e-6


def test_what_both_methods_share_is_not_in_their_difference():
    rng = np.random.default_rng(3)
    lines = []
    for task in ("a", "b"):
        shared = drawn(rng, subsample=0.1, start=0.05, rest=0.0)
        for method in ("kd", "kd+gram"):
            own = runs(shared + 0.01 * rng.standard_normal(shared.shape), task)
            lines += [own.assign(method=method, item=i) for i in range(3)]
    found = noise_of_comparison(pd.concat(lines), ["kd+gram"])
    assert list(found) == ["kd", "kd+gram", "kd+gram − kd"]
    assert found["kd"].subsample > 0.001
    assert found["kd+gram − kd"].total < 0.001
    assert found["kd+gram − kd"].rest == pytest.approx(2e-4, rel=0.6)


def test_tables_that_are_not_crossed_are_refused():
    frame = runs(drawn(np.random.default_rng(4)))
    with pytest.raises(InputError, match="t has 19 runs in a table of 5 subsamples × 4 starts"):
        noise(frame.iloc[1:])
    with pytest.raises(InputError, match="two runs of one subsample and start"):
        noise(pd.concat([frame, frame]))


def test_the_number_of_runs_is_the_first_that_suffices():
    n = runs_needed(0.02**2, 0.01)
    half = [stats.t.ppf(0.975, k - 1) * 0.02 / np.sqrt(k) for k in (n - 1, n)]
    assert half[0] > 0.01 >= half[1]
    with pytest.raises(InputError, match="more than 5 runs are needed for a half width"):
        runs_needed(0.02**2, 0.01, most=5)


def test_in_words():
    one = Noise(0.0004, 0.0001, 0.0, 0.1, 0.2, (4, 3, 12))
    assert one.say(100) == "subsample 4.00, start 1.00, rest 0.00"
