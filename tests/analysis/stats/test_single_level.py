"""Tests over seeds alone and over items alone, against scipy."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.paired_items import two_methods

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
    return pd.concat([two_methods(table, rng, task) for task, table in tables.items()])


def test_seeds_alone_are_the_paired_t_test(items, tables):
    result = compare_over_seeds(runs(items), "m", "kd")
    means = np.mean([table.mean(1) for table in tables.values()], axis=0)
    reference = stats.ttest_1samp(means, 0)
    assert (result.estimate, result.p) == pytest.approx((means.mean(), reference.pvalue))
    assert (result.low, result.high) == pytest.approx(tuple(reference.confidence_interval()))
    assert (result.df, result.n_seeds, result.n_items, result.n_clusters) == (4, 5, 0, 0)
    # one new pair of runs, by the normal distribution with the spread between seeds
    expected = stats.norm.cdf(means.mean() / means.std(ddof=1))
    assert result.p_better == pytest.approx(expected)
    assert (result.tasks, len(result.run_ids), result.level) == (("a", "b"), 20, 0.95)


def test_only_seeds_of_both_methods_and_all_tasks_count(items):
    metrics = runs(items)
    gone = (metrics["method"] == "m") & (metrics["task"] == "a") & (metrics["seed"] == 3)
    result = compare_over_seeds(metrics[~gone], "m", "kd")
    assert (result.n_seeds, result.seeds_left_out) == (4, 1)


def test_items_alone_are_the_paired_t_test(items, tables):
    single = items[(items["seed"] == 0) & (items["task"] == "a")]
    result = compare_over_items(single, "m", "kd")
    reference = stats.ttest_1samp(tables["a"][0], 0)
    assert (result.estimate, result.p) == pytest.approx((tables["a"][0].mean(), reference.pvalue))
    assert (result.n_seeds, result.n_items, result.n_clusters, result.df) == (1, 40, 40, 39)
    expected = stats.norm.cdf(tables["a"][0].mean() / stats.sem(tables["a"][0]))
    assert result.p_better == pytest.approx(expected)
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
        compare_over_items(single[(single["task"] == "a") | (single["item"] == "i0")], "m", "kd")
    equal = two_methods(np.full((2, 4), 0.5), np.random.default_rng(3))
    with pytest.raises(InputError, match=r"the differences are all 0\.5: .*\(m against kd\)"):
        compare_over_seeds(runs(equal), "m", "kd")
    with pytest.raises(InputError, match=r"the differences are all 0\.5: .*\(m against kd\)"):
        compare_over_items(equal[equal["seed"] == 0], "m", "kd")
