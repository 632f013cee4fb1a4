"""Tests over seeds alone and over items alone, against scipy."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.paired_items import crossed_rows, two_methods

from geodistill.analysis.stats.single_level import compare_over_items, compare_over_seeds
from geodistill.errors import InputError


def runs(items):
    keys = ["run_id", "task", "method", "seed"]
    return items.groupby(keys)["score"].mean().reset_index()


@pytest.fixture
def tables():
    rng = np.random.default_rng(0)
    return {task: 0.3 + rng.standard_normal((5, n)) for task, n in (("a", 40), ("b", 12))}


@pytest.fixture
def items(tables):
    rng = np.random.default_rng(1)
    rows = pd.concat([two_methods(table, rng, task) for task, table in tables.items()])
    return rows.assign(source=rows["task"] + rows["item"])


def test_seeds_alone_are_the_paired_t_test(items, tables):
    result = compare_over_seeds(runs(items), "m", "kd")
    means = np.mean([table.mean(1) for table in tables.values()], axis=0)
    reference = stats.ttest_1samp(means, 0)
    assert (result.estimate, result.p) == pytest.approx((means.mean(), reference.pvalue))
    assert (result.low, result.high) == pytest.approx(tuple(reference.confidence_interval()))
    assert (result.df, result.n_seeds, result.n_items, result.n_clusters) == (4, 5, 0, 0)
    # a sixth pair of runs lies above 0, by the t distribution of its prediction error
    expected = stats.t.cdf(means.mean() / (means.std(ddof=1) * np.sqrt(1 + 1 / 5)), 4)
    assert result.p_better == pytest.approx(expected)
    assert (result.tasks, len(result.run_ids), result.level) == (("a", "b"), 20, 0.95)


def test_each_task_counts_with_its_own_seeds(items, tables):
    metrics = runs(items)
    gone = (metrics["method"] == "m") & (metrics["task"] == "a") & (metrics["seed"] == 3)
    result = compare_over_seeds(metrics[~gone], "m", "kd")
    assert (result.n_seeds, result.seeds_left_out) == (4, 1)
    a, b = np.delete(tables["a"].mean(1), 3), tables["b"].mean(1)
    assert result.estimate == pytest.approx((a.mean() + b.mean()) / 2)
    # Var(½ā + ½b̄) = ¼(s_a²/4 + s_b²/5 + 2·cov), the covariance from the four common seeds
    deviations_a = (a - a.mean()) / 4 * np.sqrt(4 / 3)
    deviations_b = (b - b.mean()) / 5 * np.sqrt(5 / 4)
    covariance = deviations_a @ np.delete(deviations_b, 3)
    variance = (a.var(ddof=1) / 4 + b.var(ddof=1) / 5 + 2 * covariance) / 4
    assert result.se**2 == pytest.approx(variance)
    assert result.df == pytest.approx(2 / (1 / 4 + 1 / 5) - 1)


def test_seeds_that_only_tasks_apart_have_still_give_an_interval():
    """Fifteen runs a task, of which some crashed: no seed is left in all of eight tasks."""
    rng = np.random.default_rng(3)
    covered, widths = 0, []
    for _ in range(300):
        metrics = crossed_rows(task="abcdefgh", method=["kd", "m"], seed=range(15))
        metrics = metrics.assign(score=rng.standard_normal(len(metrics)), run_id="r")
        result = compare_over_seeds(metrics[rng.random(len(metrics)) > 0.14], "m", "kd")
        covered += result.low <= 0 <= result.high
        widths.append(result.se)
    assert 0.92 <= covered / 300 <= 0.98
    # independent runs: σ² = 2 a difference, 8 tasks with about 15·0.86² = 11.1 seeds each
    assert np.mean(widths) == pytest.approx(np.sqrt(2 / 8 / 11.1), rel=0.1)


def test_folds_share_training_data():
    """Nadeau and Bengio's correction of 10-fold cross-validation, step by step."""
    scores = np.random.default_rng(0).normal([[0.0], [2.0]], 1.0, (2, 10))
    rows = [
        {"method": m, "seed": f, "fold": f, "score": scores[i, f], "task": "t", "run_id": f"{m}{f}"}
        for i, m in enumerate(("kd", "m"))
        for f in range(10)
    ]
    result = compare_over_seeds(pd.DataFrame(rows), "m", "kd")
    d = scores[1] - scores[0]
    se = np.sqrt(d.var(ddof=1) * (1 / 10 + 1 / 9))
    assert (result.se, result.df) == (pytest.approx(se), 9)
    assert result.p == pytest.approx(2 * stats.t.sf(abs(d.mean()) / se, 9))
    assert result.p > 1.5 * stats.ttest_rel(scores[1], scores[0]).pvalue


def test_k_is_that_of_the_split_also_where_a_fold_is_missing():
    d = np.random.default_rng(1).normal(0.5, 1.0, 5)
    rows = [
        {"method": m, "seed": f, "fold": f, "score": i * d[f], "task": "t", "run_id": f"{m}{f}"}
        for i, m in enumerate(("kd", "m"))
        for f in range(5)
    ]
    frame = pd.DataFrame(rows).assign(n_folds=5)
    result = compare_over_seeds(frame[frame["fold"] < 4], "m", "kd")
    assert result.se == pytest.approx(np.sqrt(d[:4].var(ddof=1) * (1 / 4 + 1 / 4)))
    with pytest.raises(InputError, match="m and kd share 5 of 10 folds: expected the same split"):
        compare_over_seeds(frame.assign(n_folds=10), "m", "kd")


def test_the_folds_of_each_task_are_its_own():
    """Two tasks of five folds with names of their own are no cross-validation of ten folds."""
    d = np.random.default_rng(0).normal(0.5, 1.0, (2, 5))  # by task and fold
    rows = [
        {"method": m, "seed": f"{t}{f}", "fold": f"{t}{f}", "score": i * d[k, f], "task": t}
        for i, m in enumerate(("kd", "m"))
        for k, t in enumerate("ab")
        for f in range(5)
    ]
    frame = pd.DataFrame(rows)
    frame["run_id"] = frame["method"] + frame["seed"]
    result = compare_over_seeds(frame, "m", "kd")
    variance = d.var(axis=1, ddof=1).sum() / 4  # of the mean over both tasks, for one fold
    assert result.estimate == pytest.approx(d.mean())
    assert result.se == pytest.approx(np.sqrt(variance * (1 / 5 + 1 / 4)))


def test_items_alone_are_the_paired_t_test(items, tables):
    single = items[(items["seed"] == 0) & (items["task"] == "a")]
    result = compare_over_items(single, "m", "kd")
    reference = stats.ttest_1samp(tables["a"][0], 0)
    assert (result.estimate, result.p) == pytest.approx((tables["a"][0].mean(), reference.pvalue))
    assert (result.n_seeds, result.n_items, result.n_clusters, result.df) == (1, 40, 40, 39)
    assert np.isnan(result.p_better)  # one training run does not show what another would do
    # more items shrink the variance, more seeds do not
    parts = result.components
    assert parts.variance(9, times_items=4) == pytest.approx(result.se**2 / 4)
    assert parts.df(9, times_items=4) == 4 * 39


def test_tasks_are_averaged_with_their_variances(items, tables):
    result = compare_over_items(items[items["seed"] == 0], "m", "kd")
    first, second = (table[0] for table in tables.values())
    assert result.estimate == pytest.approx((first.mean() + second.mean()) / 2)
    variances = np.array([stats.sem(first) ** 2, stats.sem(second) ** 2]) / 4
    assert result.se**2 == pytest.approx(variances.sum())
    welch = variances.sum() ** 2 / (variances**2 / [39, 11]).sum()
    assert result.df == pytest.approx(welch)
    assert result.n_items == 52


def test_items_of_one_cluster_count_once(tables):
    rng = np.random.default_rng(2)
    table = np.repeat(tables["b"][:1], 3, axis=1)
    clusters = np.repeat([f"s{i}" for i in range(12)], 3).tolist()
    result = compare_over_items(two_methods(table, rng, source=clusters), "m", "kd")
    reference = stats.ttest_1samp(tables["b"][0], 0)
    assert result.p == pytest.approx(reference.pvalue)
    assert (result.n_items, result.n_clusters, result.df) == (36, 12, 11)


def test_tables_that_cannot_be_tested_are_refused(items):
    single = items[items["seed"] == 0]
    with pytest.raises(InputError, match="share 1 seeds and no items: one number per method"):
        compare_over_seeds(runs(single), "m", "kd")
    with pytest.raises(InputError, match="share fewer than 2 items in some task"):
        compare_over_items(single[(single["task"] == "a") | (single["source"] == "bi0")], "m", "kd")
    equal = two_methods(np.full((2, 4), 0.5), np.random.default_rng(3))
    with pytest.raises(InputError, match=r"the differences are all 0\.5: .*\(m against kd\)"):
        compare_over_items(equal[equal["seed"] == 0], "m", "kd")
