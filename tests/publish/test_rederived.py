"""The five tests of both studies again from their stored items, by formulas of their own.

Sums of squares by the shortcut formula of textbooks (squared totals), Holm by hand, and a bootstrap
over seeds and sources; nothing of `geodistill.analysis` computes here.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from geodistill.experiments.registry import GRIDS
from geodistill.paths import data_dir
from geodistill.publish.claims.judge import Judge

STUDIES = {
    "classification": (
        ("C4a", "C4b", "P1-bert"),
        {"news": (1134, 114), "tweets": (984, 949)},
        "accuracy",
    ),
    "instruction": (("C5", "P1-opt"), {"computed": (960, 948)}, "exact_match"),
}
"""Keys of the claims, test items and their sources by task, and name of the score."""


@pytest.fixture(scope="module", params=list(STUDIES))
def study(request):
    return request.param


@pytest.fixture(scope="module")
def judged(study):
    judge, keys = Judge(log=lambda line: None), STUDIES[study][0]
    assert judge.has_results(keys[0])
    comparisons = [c for key in keys for c in judge.comparisons(key)]
    assert len(comparisons) == 5
    family = GRIDS[study].protocol()["family"]
    assert [{"method": c.method, "baseline": c.baseline} for c in comparisons] == family
    return comparisons


@pytest.fixture(scope="module")
def scores(study):
    """By method and task a table with one row per seed and one column per source and item."""
    folder = data_dir() / "results" / study / "full"
    items = pd.read_parquet(folder / "items.parquet")
    if study == "classification":
        items["exact_match"] = (items["label"] == items["prediction"]).astype(float)
    sizes = STUDIES[study][1]
    tables = {
        (method, task): table.pivot(index="seed", columns=["source", "item"], values="exact_match")
        for (method, task), table in items[items["task"].isin([*sizes])].groupby(["method", "task"])
    }
    assert len(tables) == 7 * len(sizes)
    for (_, task), table in tables.items():
        n_sources = table.columns.get_level_values("source").nunique()
        assert (*table.shape, n_sources) == (10, *sizes[task])
        assert table.notna().all(axis=None)
    return tables


def differences(scores, comparison):
    """The tables of a comparison, one per task."""
    tasks = sorted({task for _, task in scores})
    pair = comparison.method, comparison.baseline
    return [scores[pair[0], task] - scores[pair[1], task] for task in tasks]


def by_source(table):
    """Items of one source as one, and their effective degrees of freedom, by explicit matrices.

    M maps independent effects of the sources, of one variance, to deviations of their totals from
    the mean; its traces say how much of the variance these deviations keep.
    """
    totals = table.T.groupby(level="source").sum().T.to_numpy()
    sizes = table.T.groupby(level="source").size().to_numpy(float)
    assert len(sizes) < table.shape[1] == sizes.sum()
    mean, n = table.to_numpy().mean(1, keepdims=True), len(sizes)
    m = np.diag(sizes) - np.outer(sizes, sizes) / sizes.sum()
    kept = np.trace(m @ m)
    unbiased = (sizes @ sizes / kept * (n - 1) / n) ** 0.5
    adjusted = mean + unbiased * (totals - sizes * mean) * n / sizes.sum()
    return adjusted, kept**2 / np.trace(m @ m @ m @ m)


def crossed_test(tables):
    """Mean, standard error, degrees of freedom and p of (seeds, items) tables of fixed tasks.

    Each part is a variance of the mean over tasks: a seed is one draw for all of them.
    """
    by_seed, item_parts, item_dfs, rest = 0.0, [], [], 0.0
    for table, df_items in map(by_source, tables):
        n_seeds, n_items = table.shape
        n, total = table.size, table.sum()
        by_seed = by_seed + table.sum(1) / n_items / len(tables)
        seeds = (table.sum(1) ** 2).sum() / n_items - total**2 / n
        items = (table.sum(0) ** 2).sum() / n_seeds - total**2 / n
        residual = (table**2).sum() - total**2 / n - seeds - items
        item_parts.append(items / (n_items - 1) / n / len(tables) ** 2)
        item_dfs.append(df_items)
        rest += residual / (n_seeds - 1) / (n_items - 1) / n / len(tables) ** 2
    mean = by_seed.sum() / n_seeds
    seed = ((by_seed**2).sum() - n_seeds * mean**2) / (n_seeds - 1) / n_seeds
    df_items = sum(item_parts) ** 2 / sum(
        part**2 / df for part, df in zip(item_parts, item_dfs, strict=True)
    )
    parts = np.array([seed, sum(item_parts), rest])
    df = np.array([n_seeds - 1, df_items, (n_seeds - 1) * df_items])
    for i in (0, 1):  # a component below 0 counts as 0
        if parts[i] < rest:
            parts[i], df[i] = rest, df[2]
    variance = parts @ [1, 1, -1]
    df = variance**2 / (parts**2 / df).sum()
    return mean, variance**0.5, df, 2 * stats.t.sf(abs(mean) / variance**0.5, df)


def test_the_five_tests_come_out_the_same(scores, judged):
    ps = []
    for comparison in judged:
        mean, se, df, p = crossed_test(differences(scores, comparison))
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


def test_a_bootstrap_over_seeds_and_sources_has_the_same_standard_errors(scores, judged):
    rng = np.random.default_rng(0)

    def bootstrap_variance(tables, draws_seeds, draws_sources):
        means = []
        for _ in range(1000):
            seeds = rng.integers(10, size=10) if draws_seeds else np.arange(10)
            mean = 0.0
            for totals, sizes in tables:
                n = len(sizes)
                drawn = rng.integers(n, size=n) if draws_sources else np.arange(n)
                mean += totals[np.ix_(seeds, drawn)].sum() / (10 * sizes[drawn].sum())
            means.append(mean / len(tables))
        return np.var(means)

    for comparison in judged:
        tables = []
        for table in differences(scores, comparison):
            sources = table.T.groupby(level="source")
            tables.append((sources.sum().T.to_numpy(), sources.size().to_numpy()))
        # Each bootstrap counts the residual once, that of both three times (Owen 2007).
        seeds, sources, both = (
            bootstrap_variance(tables, *draws)
            for draws in ((True, False), (False, True), (True, True))
        )
        # Drawing 10 seeds from 10 makes the variance between seeds a tenth smaller.
        assert 0.85 < (2 * (seeds + sources) - both) ** 0.5 / comparison.se < 1.15


def test_the_levels_are_those_of_the_rows(study, scores):
    rows = pd.read_parquet(data_dir() / "results" / study / "full" / "rows.parquet")
    rows = rows[rows["metric"] == STUDIES[study][2]]
    for (method, task), table in scores.items():
        stored = rows[(rows["method"] == method) & (rows["task"] == task)]["value"]
        assert len(stored) == 10
        assert stored.mean() == pytest.approx(table.to_numpy().mean())
