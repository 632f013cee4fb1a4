"""Two parts and their interaction, and one task fewer, against formulas written out here."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from support.paired_items import item_rows

from geodistill.analysis.stats.compare import compare
from geodistill.analysis.stats.contrasts import leave_one_task_out, two_by_two
from geodistill.errors import InputError

METHODS = ("kd", "kd+spectrum", "kd+alignment", "kd+procrustes")
GAINS = (0.0, 0.3, 0.2, 0.9)  # interaction 0.9 − 0.3 − 0.2 = 0.4


def scores(n_seeds=6, n_items=40, tasks=("a",), seed=2):
    """Items and the arrays behind them: seeds and items have effects that depend on the method."""
    rng = np.random.default_rng(seed)
    rows, arrays = [], {}
    for task in tasks:
        common = rng.standard_normal((n_seeds, n_items))
        for method, gain in zip(METHODS, GAINS, strict=True):
            values = common + gain + 0.4 * rng.standard_normal((n_seeds, 1))
            values += 0.3 * rng.standard_normal(n_items)
            values += 0.3 * rng.standard_normal((n_seeds, n_items))
            arrays[task, method] = values
            rows.append(item_rows(values, task, method))
    return pd.concat(rows, ignore_index=True), arrays


def by_hand(table):
    """Mean, standard error and degrees of freedom of a crossed table, all components above 0."""
    n_seeds, n_items = table.shape
    mean = table.mean()
    rest = table - table.mean(1, keepdims=True) - table.mean(0, keepdims=True) + mean
    by_seed = n_items * table.mean(1).var(ddof=1)
    by_item = n_seeds * table.mean(0).var(ddof=1)
    residual = (rest**2).sum() / ((n_seeds - 1) * (n_items - 1))
    assert min(by_seed, by_item) > residual
    variance = (by_seed + by_item - residual) / table.size
    spread = by_seed**2 / (n_seeds - 1) + by_item**2 / (n_items - 1)
    spread += residual**2 / ((n_seeds - 1) * (n_items - 1))
    return mean, np.sqrt(variance), (by_seed + by_item - residual) ** 2 / spread


def test_the_effects_and_the_interaction_are_the_crossed_anova_of_their_contrast():
    items, arrays = scores()
    kd, spectrum, alignment, both = (arrays["a", method] for method in METHODS)
    contrasts = [
        ((spectrum - kd) + (both - alignment)) / 2,
        ((alignment - kd) + (both - spectrum)) / 2,
        (both - alignment) - (spectrum - kd),
    ]
    table = two_by_two(items, *METHODS)
    assert table["effect"].tolist() == [
        "kd+spectrum, averaged over kd+alignment",
        "kd+alignment, averaged over kd+spectrum",
        "interaction",
    ]
    assert table["estimate"].to_numpy() == pytest.approx([0.5, 0.4, 0.4], abs=0.5)
    for row, contrast in zip(table.itertuples(), contrasts, strict=True):
        mean, se, df = by_hand(contrast)
        half = stats.t.ppf(0.975, df) * se
        assert (row.estimate, row.se, row.df) == pytest.approx((mean, se, df))
        assert (row.low, row.high) == pytest.approx((mean - half, mean + half))
        assert row.p == pytest.approx(2 * stats.t.sf(abs(mean) / se, df))
        assert (row.n_seeds, row.n_items) == (6, 40)


def test_the_estimates_are_the_coefficients_of_a_factorial_regression():
    """By statsmodels: the interaction, and the main effects in ±½ coding."""
    items, _ = scores(tasks=("a",))
    codes = dict(zip(METHODS, [(-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5)], strict=True))
    frame = items.assign(
        s=items["method"].map(lambda m: codes[m][0]), a=items["method"].map(lambda m: codes[m][1])
    )
    fit = smf.ols("score ~ s * a", frame).fit()
    estimates = two_by_two(items, *METHODS)["estimate"].tolist()
    assert estimates == pytest.approx([fit.params["s"], fit.params["a"], fit.params["s:a"]])


def test_tasks_have_equal_weight_and_seeds_are_paired():
    items, arrays = scores(tasks=("a", "b"))
    few = items["item"].isin([f"i{i}" for i in range(10)])
    items = items[(items["task"] == "a") | few]
    expected = []
    for task, n_items in (("a", 40), ("b", 10)):
        kd, spectrum, alignment, both = (arrays[task, m][:, :n_items] for m in METHODS)
        expected.append((both - alignment - spectrum + kd).mean())
    interaction = two_by_two(items, *METHODS).iloc[2]
    assert interaction["estimate"] == pytest.approx(np.mean(expected))
    assert interaction["n_items"] == 50
    lacking = items[(items["method"] != "kd+spectrum") | (items["seed"] != 2)]
    assert two_by_two(lacking, *METHODS)["n_seeds"].tolist() == [5] * 3


def test_what_cannot_be_crossed_is_refused():
    items, _ = scores()
    with pytest.raises(InputError, match=r"kd, kd, kd\+alignment, .*; expected four different"):
        two_by_two(items, "kd", "kd", "kd+alignment", "kd+procrustes")
    other = items[(items["method"] != "kd+spectrum") | (items["item"] != "i3")]
    with pytest.raises(InputError, match=r"and kd\+procrustes were not scored on the same items"):
        two_by_two(other, *METHODS)
    equal = items.assign(score=1.0)
    with pytest.raises(InputError, match=r"the differences are all 0: .*averaged over"):
        two_by_two(equal, *METHODS)


def test_each_task_is_left_out_once():
    items, arrays = scores(tasks=("a", "b", "c"))
    pairs = [("kd+spectrum", "kd"), ("kd+procrustes", "kd+alignment")]
    table = leave_one_task_out(items, pairs)
    assert table[["method", "baseline"]].drop_duplicates().to_records(index=False).tolist() == pairs
    assert table["without"].tolist() == ["a", "b", "c"] * 2
    assert table["tasks"].tolist() == ["b, c", "a, c", "a, b"] * 2
    means = {
        (task, *pair): (arrays[task, pair[0]] - arrays[task, pair[1]]).mean()
        for task in "abc"
        for pair in pairs
    }
    for row in table.itertuples():
        rest = [means[task, row.method, row.baseline] for task in "abc" if task != row.without]
        assert row.estimate == pytest.approx(np.mean(rest))
        without = compare(items[items["task"] != row.without], row.method, row.baseline)
        assert (row.low, row.high, row.p) == (without.low, without.high, without.p)


def test_one_task_can_not_be_left_out():
    with pytest.raises(InputError, match="items are of a alone; expected two or more tasks"):
        leave_one_task_out(scores()[0], [("kd+spectrum", "kd")])
