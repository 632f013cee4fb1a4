"""The five tests of the instruction study again from its stored items, by formulas of their own.

Sums of squares by the shortcut formula of textbooks (squared totals), Holm by hand, and a bootstrap
over seeds and items; nothing of `geodistill.analysis` computes here.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from geodistill.experiments.registry import GRIDS
from geodistill.paths import data_dir
from geodistill.publish.claims.judge import Judge

FULL = data_dir() / "results" / "instruction" / "full"
pytestmark = pytest.mark.skipif(
    not Judge(log=lambda line: None).has_results("C5"),
    reason="the section full of the instruction study is not complete",
)
FAMILY = [(pair["method"], pair["baseline"]) for pair in GRIDS["instruction"].protocol()["family"]]


@pytest.fixture(scope="module")
def scores():
    """One row per seed, one column per item, by method."""
    items = pd.read_parquet(FULL / "items.parquet").query("task == 'computed'")
    rows = pd.read_parquet(FULL / "rows.parquet", columns=["run_id", "method", "seed"])
    items = items.merge(rows.drop_duplicates(), on=["run_id", "method", "seed"])
    tables = {
        method: table.pivot(index="seed", columns=["source", "item"], values="exact_match")
        for method, table in items.groupby("method")
    }
    assert {table.shape for table in tables.values()} == {(10, 960)}
    return tables


@pytest.fixture(scope="module")
def judged():
    judge = Judge(log=lambda line: None)
    comparisons = [*judge.comparisons("C5"), *judge.comparisons("P1-opt")]
    assert [(c.method, c.baseline) for c in comparisons] == FAMILY
    return comparisons


def by_source(differences):
    """Items on the same words as one, and their effective degrees of freedom, by explicit matrices.

    M maps independent effects of the sources, of one variance, to deviations of their totals from
    the mean; its traces say how much of the variance these deviations keep.
    """
    totals = differences.T.groupby(level="source").sum().T.to_numpy()
    sizes = differences.T.groupby(level="source").size().to_numpy(float)
    assert 900 < len(sizes) < differences.shape[1] == sizes.sum()
    mean, n = differences.to_numpy().mean(1, keepdims=True), len(sizes)
    m = np.diag(sizes) - np.outer(sizes, sizes) / sizes.sum()
    kept = np.trace(m @ m)
    unbiased = (sizes @ sizes / kept * (n - 1) / n) ** 0.5
    table = mean + unbiased * (totals - sizes * mean) * n / sizes.sum()
    return table, kept**2 / np.trace(m @ m @ m @ m)


def crossed_test(differences, df_items):
    """Mean, standard error, degrees of freedom and p of a (seeds, items) table."""
    n_seeds, n_items = differences.shape
    n, total = differences.size, differences.sum()
    seeds = (differences.sum(1) ** 2).sum() / n_items - total**2 / n
    items = (differences.sum(0) ** 2).sum() / n_seeds - total**2 / n
    rest = (differences**2).sum() - total**2 / n - seeds - items
    df = np.array([n_seeds - 1, n_items - 1, (n_seeds - 1) * (n_items - 1)])
    seeds, items, rest = np.array([seeds, items, rest]) / df
    df = np.array([n_seeds - 1, df_items, (n_seeds - 1) * df_items])
    squares, signs = np.array([seeds, items, rest]), np.array([1, 1, -1])
    for i in (0, 1):  # a component below 0 counts as 0
        if squares[i] < rest:
            squares[i], df[i] = rest, df[2]
    variance = (signs * squares).sum() / n
    df = (variance * n) ** 2 / (squares**2 / df).sum()
    mean = total / n
    return mean, variance**0.5, df, 2 * stats.t.sf(abs(mean) / variance**0.5, df)


def test_the_five_tests_come_out_the_same(scores, judged):
    ps = []
    for comparison, (method, baseline) in zip(judged, FAMILY, strict=True):
        mean, se, df, p = crossed_test(*by_source(scores[method] - scores[baseline]))
        ps.append(p)
        got = (comparison.estimate, comparison.se, comparison.df, comparison.p)
        assert got == pytest.approx((mean, se, df, p), rel=1e-9)
        half = stats.t.ppf(0.975, df) * se
        ends = (comparison.low, comparison.high)
        assert ends == pytest.approx((mean - half, mean + half), rel=1e-9)
    adjusted = 0.0
    for rank, i in enumerate(np.argsort(ps)):  # Holm: the least p times 5, the next times 4, ...
        adjusted = max(adjusted, min(1.0, (5 - rank) * ps[i]))
        assert judged[i].p_adjusted == pytest.approx(adjusted, rel=1e-9)


def test_a_bootstrap_over_seeds_and_items_has_the_same_standard_errors(scores, judged):
    rng = np.random.default_rng(0)
    for comparison, (method, baseline) in zip(judged, FAMILY, strict=True):
        differences = (scores[method] - scores[baseline]).to_numpy()
        means = [
            differences[np.ix_(rng.integers(10, size=10), rng.integers(960, size=960))].mean()
            for _ in range(1000)
        ]
        # Drawing 10 seeds from 10 makes the variance between seeds a tenth smaller, and the
        # residual counts up to three times (Owen 2007).
        assert 0.85 < np.std(means) / comparison.se < 1.25


def test_the_levels_are_those_of_the_rows(scores):
    rows = pd.read_parquet(FULL / "rows.parquet").query("metric == 'exact_match'")
    for method, table in scores.items():
        stored = rows[rows["method"] == method]["value"]
        assert stored.mean() == pytest.approx(table.to_numpy().mean())
