"""Comparisons of methods: what is paired, counted and corrected, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.paired_items import item_rows, two_methods

from geodistill.analysis.stats.compare import compare, compare_family
from geodistill.analysis.stats.coverage import SimulationTruth
from geodistill.analysis.stats.pairing import paired_differences
from geodistill.errors import InputError


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def drawn(rng, n_seeds, n_items, **truth):
    return SimulationTruth(**truth).draw(rng, n_seeds, n_items)


def test_compare_names_what_it_did(rng):
    rows = two_methods(drawn(rng, 5, 30, effect=1.0), rng, source=list("abcdef") * 5)
    result = compare(rows, "m", "kd")
    assert (result.n_seeds, result.n_items, result.n_clusters) == (5, 30, 6)
    assert result.estimate == pytest.approx(1.0, abs=0.3)
    assert result.low > 0
    assert result.p_better > 0.99
    assert len(result.run_ids) == 10
    assert "crossed" in result.test
    assert (result.family, result.correction, result.p_adjusted) == (1, "none, one test", result.p)
    assert compare(rows, "kd", "m").estimate == pytest.approx(-result.estimate)


def test_the_level_sets_the_width(rng):
    rows = two_methods(drawn(rng, 5, 30), rng)
    narrow, wide = (compare(rows, "m", "kd", level=level) for level in (0.9, 0.99))
    for result, quantile in ((narrow, 0.95), (wide, 0.995)):
        half = stats.t.ppf(quantile, result.df) * result.se
        assert result.high - result.estimate == pytest.approx(half)
        assert result.level == pytest.approx(2 * quantile - 1)


def test_pooled_is_the_mean_of_the_tasks(rng):
    rows = pd.concat(
        [
            two_methods(drawn(rng, 4, n, effect=e), rng, task)
            for task, e, n in [("movie", 0.5, 40), ("product", -0.1, 15)]
        ]
    )
    rows["source"] = rows["task"] + rows["item"]
    by_task = [compare(rows, "m", "kd", [task]) for task in ("movie", "product")]
    pooled = compare(rows, "m", "kd")
    assert (pooled.task, by_task[1].task) == ("pooled", "product")
    assert pooled.estimate == pytest.approx(np.mean([c.estimate for c in by_task]))
    assert (pooled.n_items, pooled.n_clusters, len(pooled.run_ids)) == (55, 55, 16)


def prompts(rng, n_items=60, shared=1.0):
    """Items under three prompts, with an effect of the item that the prompts share."""
    item = 0.3 * rng.standard_normal((1, n_items))
    tables = {p: shared * item + drawn(rng, 5, n_items) for p in ("p1", "p2", "p3")}
    return pd.concat([two_methods(table, rng, task) for task, table in tables.items()]), tables


def test_tasks_that_share_items_are_one_table_of_their_means(rng):
    rows, tables = prompts(rng)
    result, mean = compare(rows, "m", "kd"), np.mean(list(tables.values()), axis=0)
    expected = compare(two_methods(mean, rng), "m", "kd")
    names = ("estimate", "se", "df", "p")
    assert [getattr(result, n) for n in names] == pytest.approx(
        [getattr(expected, n) for n in names]
    )
    assert (result.n_items, result.n_clusters) == (180, 60)
    apart = compare(rows.assign(source=rows["task"] + rows["item"]), "m", "kd")
    assert apart.se < 0.75 * result.se  # as if the prompts had new items


@pytest.mark.parametrize(("shared", "of_last"), [(1.0, 60), (1.0, 20), (0.0, 20)])
def test_intervals_cover_where_tasks_share_all_some_or_no_items(rng, shared, of_last):
    """The last prompt has some of the items; without shared effects, names alone are equal."""
    hits, ses, estimates = 0, [], []
    for _ in range(120):
        rows, _ = prompts(rng, shared=shared)
        item = rows["item"].str[1:].astype(int)
        result = compare(rows[(rows["task"] != "p3") | (item < of_last)], "m", "kd")
        hits += result.low <= 0 <= result.high
        ses.append(result.se)
        estimates.append(result.estimate)
    assert 0.9 <= hits / 120 <= 1.0
    assert np.mean(np.square(ses)) == pytest.approx(np.var(estimates), rel=0.35)


def test_the_mean_of_each_seed_weighs_tasks_equally(rng):
    tasks = {"movie": drawn(rng, 4, 40), "product": drawn(rng, 4, 15)}
    rows = pd.concat([two_methods(table, rng, task) for task, table in tasks.items()])
    means = paired_differences(rows, "m", "kd").seed_means
    assert means.to_numpy() == pytest.approx(np.mean([t.mean(1) for t in tasks.values()], axis=0))


def test_only_shared_seeds_count_and_the_others_are_reported(rng):
    rows = two_methods(drawn(rng, 5, 20), rng)
    rows = rows[~((rows["method"] == "m") & (rows["seed"] == 4))]
    rows = pd.concat([rows, item_rows(rng.random((5, 20)), method="other")])
    result = compare(rows, "m", "kd")
    assert (result.n_seeds, result.seeds_left_out) == (4, 1)
    assert not any(run_id.endswith("-4") for run_id in result.run_ids)
    assert len(result.run_ids) == 8


def family_rows(rng, effects):
    base = rng.standard_normal((5, 40))
    rows = [item_rows(base, method="kd")]
    rows += [
        item_rows(base + drawn(rng, 5, 40, effect=effect), method=name)
        for name, effect in effects.items()
    ]
    return pd.concat(rows), [(name, "kd") for name in effects]


def test_holm_by_hand(rng):
    family = compare_family(*family_rows(rng, {"a": 2.0, "b": 0.3, "c": 0.0}))
    p = sorted(result.p for result in family)
    by_hand = np.minimum(1, np.maximum.accumulate([3 * p[0], 2 * p[1], p[2]]))
    assert sorted(result.p_holm for result in family) == pytest.approx(by_hand)
    assert {result.correction for result in family} == {"Holm over 3"}
    assert family[1].p_adjusted == family[1].p_holm


def test_secondary_questions_are_corrected_by_benjamini_hochberg(rng):
    rows, pairs = family_rows(rng, {"a": 2.0, "b": 0.2, "c": 0.0})
    family = compare_family(rows, pairs, correction="bh")
    expected = stats.false_discovery_control([result.p for result in family])
    assert [result.p_bh for result in family] == pytest.approx(expected)
    assert family[1].p_adjusted == family[1].p_bh
    assert {(c.correction, c.p_holm) for c in family} == {("Benjamini–Hochberg over 3", None)}


def test_paired_differences_line_up_by_item_not_by_order(rng):
    rows = two_methods(np.full((3, 8), 0.25), rng)
    shuffled = rows.sample(frac=1, random_state=1)
    table = paired_differences(shuffled, "m", "kd").tables["movie"]
    assert table.to_numpy() == pytest.approx(0.25)


def test_bad_input_is_named(rng):
    rows = two_methods(drawn(rng, 3, 8), rng)
    with pytest.raises(InputError, match=r"unknown method 'kdd'; the rows hold kd, m"):
        compare(rows, "m", "kdd")
    with pytest.raises(InputError, match=r"unknown task 'films'; the rows hold movie"):
        compare(rows, "m", "kd", ["films"])
    with pytest.raises(InputError, match=r"share 1 seeds in movie.* judged by the items alone"):
        compare(rows[rows["seed"] == 0], "m", "kd")
    with pytest.raises(InputError, match="lacks 1 of 24 scores"):
        compare(rows.drop(index=3), "m", "kd")
    gone = (rows["method"] == "m") & rows["item"].isin(["i6", "i7"])
    with pytest.raises(InputError, match="2 items on one side only, such as i6"):
        compare(rows[~gone], "m", "kd")
    with pytest.raises(InputError, match="an item twice under one seed; keep one run per seed"):
        compare(pd.concat([rows, rows.head(1)]), "m", "kd")
    with pytest.raises(InputError, match="two sources"):
        compare(rows.assign(source=["x", *rows["source"][1:]]), "m", "kd")
    with pytest.raises(InputError, match=r"no variance to judge by.*\(m against kd\)"):
        compare(two_methods(np.full((3, 8), 0.5), np.random.default_rng(0)), "m", "kd")
    with pytest.raises(InputError, match="at least one"):
        compare_family(rows, [])
    with pytest.raises(InputError, match="items lack source, score; the columns are run_id"):
        compare(rows.drop(columns=["source", "score"]), "m", "kd")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("seed", np.nan, "items have no seed in 1 rows; expected one in each"),
        ("source", None, "items have no source in 1 rows"),
        ("score", np.inf, "movie/kd lacks 1 of 24 scores: .*with a finite score"),
        ("score", "0.5", "column score of type mixed; expected .* numbers as scores"),
        ("seed", "0", "column seed of type mixed-integer and .* expected seeds of one type"),
    ],
)
def test_a_gap_or_a_text_in_the_items_is_named(rng, column, value, message):
    rows = two_methods(drawn(rng, 3, 8), rng).astype({column: object})
    rows = rows.sort_values("method", kind="stable", ignore_index=True)
    rows.loc[0, column] = value
    if value is np.inf:
        rows = rows.astype({"score": float})
    with pytest.raises(InputError, match=message):
        compare(rows, "m", "kd")


def test_pairs_and_levels_that_make_no_test_are_refused(rng):
    rows = two_methods(drawn(rng, 3, 8), rng)
    with pytest.raises(InputError, match="method 'kd' is the baseline itself"):
        compare(rows, "kd", "kd")
    with pytest.raises(InputError, match=r"and each once; got \[\('m', 'kd'\), \('m', 'kd'\)\]"):
        compare_family(rows, [("m", "kd"), ("m", "kd")])
    for level in (0.0, 1.0, 95, float("nan")):
        with pytest.raises(InputError, match=r"level is .*; it must lie between 0 and 1"):
            compare(rows, "m", "kd", level=level)
