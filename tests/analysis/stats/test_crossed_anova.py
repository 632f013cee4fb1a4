"""The primary analysis against hand values, statsmodels, and simulations with a known truth."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import AnovaRM, anova_lm

from geodistill import analysis
from geodistill.analysis.stats import sensitivity
from geodistill.analysis.stats.compare import compare, compare_family, paired_differences
from geodistill.analysis.stats.coverage import Truth, coverage
from geodistill.analysis.stats.crossed_anova import (
    components,
    estimate,
    fold_sources,
    mean_squares,
    source_df,
)
from geodistill.errors import InputError


def tidy(scores, task="movie", method="m", source=None):
    """Tidy item rows of a (seeds, items) array."""
    seed, item = np.indices(scores.shape)
    names = [f"i{i}" for i in item.ravel()]
    return pd.DataFrame(
        {
            "run_id": [f"{task}-{method}-{s}" for s in seed.ravel()],
            "task": task,
            "method": method,
            "seed": seed.ravel(),
            "item": names,
            "source": names if source is None else [source[i] for i in item.ravel()],
            "score": scores.ravel(),
        }
    )


def two_methods(difference, rng, task="movie", source=None):
    base = rng.standard_normal(difference.shape)
    rows = [tidy(base, task, "kd", source), tidy(base + difference, task, "m", source)]
    return pd.concat(rows, ignore_index=True)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_hand_case():
    # Mean 3, seed means 2 and 4, item means 2.5 and 3.5, interactions of ±0.5.
    table = np.array([[1.0, 3.0], [4.0, 4.0]])
    m = mean_squares(table)
    assert (m.mean, m.seed, m.item, m.residual) == (3.0, 4.0, 1.0, 1.0)
    answer = estimate([table])
    # variance (4 + 1 − 1)/4 = 1, df = 1/(1²/1 + 0.25²/1 + 0.25²/1) = 1/1.125
    assert answer.se == pytest.approx(1.0)
    assert answer.df == pytest.approx(1 / 1.125)
    assert answer.p == pytest.approx(2 * stats.t.sf(3.0, 1 / 1.125))
    half = stats.t.ppf(0.975, 1 / 1.125)
    assert (answer.low, answer.high) == pytest.approx((3 - half, 3 + half))


def test_mean_squares_are_statsmodels_anova(rng):
    table = Truth(seed=0.5, item=0.4, residual=0.3).draw(rng, 4, 6)
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
    table = Truth(effect=0.3, seed=0.5, item=0.6, residual=0.4).draw(rng, 6, 20)
    ours, theirs = estimate([table]), sensitivity.mixed_model(table)
    assert theirs.estimate == pytest.approx(ours.estimate)
    se = (theirs.high - theirs.low) / (2 * stats.norm.ppf(0.975))
    assert se == pytest.approx(ours.se, rel=1e-3)


def test_variance_is_the_truth_on_average(rng):
    truth = Truth(seed=0.4, item=1.5, residual=1.0)
    parts = [components([truth.draw(rng, 5, 30)]) for _ in range(400)]
    found = np.mean([[p.seed, p.item, p.residual] for p in parts], axis=0)
    assert found == pytest.approx([0.4**2, 1.5**2 / 30, 1.0 / 30], rel=0.12)


CASES = [(5, Truth(seed=s)) for s in (0.0, 0.01, 0.05, 0.2)] + [(10, Truth(seed=0.05))]


@pytest.mark.parametrize(("n_seeds", "truth"), CASES)
def test_intervals_cover_at_their_level(n_seeds, truth, rng):
    def interval(table):
        answer = estimate([table])
        return answer.low, answer.high

    share = coverage(interval, truth, n_seeds, 100, 1000, rng)
    # Binomial error 0.007 at 0.95; Satterthwaite's t itself is off by up to 0.015 at 5 seeds.
    assert 0.95 - 0.015 - 3 * 0.007 < share < 0.95 + 0.015 + 3 * 0.007


def test_seeds_and_items_without_effect_leave_every_number_its_say(rng):
    # Both components at 0: the variance rests on all 5 × 100 differences, not on five of them.
    parts = components([np.array([[1.0, -1.0] * 50, [-1.0, 1.0] * 50] * 2)])
    assert (parts.seed, parts.item) == (0, 0)
    assert parts.df(4) == pytest.approx(3 * 99 / 3)

    def interval(table):
        answer = estimate([table])
        return answer.low, answer.high

    share = coverage(interval, Truth(seed=0.0, item=0.0), 5, 100, 1000, rng)
    assert 0.93 < share < 0.993


def test_items_only_intervals_are_too_short_where_seeds_matter(rng):
    def interval(table):
        answer = sensitivity.over_items(table)
        return answer.low, answer.high

    assert coverage(interval, Truth(seed=0.1), 5, 100, 500, rng) < 0.7
    assert coverage(interval, Truth(seed=0.0, residual=0.0), 5, 100, 500, rng) > 0.92


def test_seeds_only_intervals_are_too_short_where_items_matter(rng):
    def interval(table):
        answer = sensitivity.over_seeds(table)
        return answer.low, answer.high

    assert coverage(interval, Truth(seed=0.01, item=1.0), 5, 100, 500, rng) < 0.7


def test_type_one_error_and_power_of_a_comparison(rng):
    def rejects(effect):
        tables = [Truth(effect=effect, seed=0.02).draw(rng, 5, 200) for _ in range(400)]
        return np.mean([estimate([table]).p <= 0.05 for table in tables])

    assert rejects(0.0) < 0.09
    assert rejects(0.15) > 0.9


def test_p_better_is_how_often_a_new_run_on_new_items_wins(rng):
    truth = Truth(effect=0.05, seed=0.05, item=0.3, residual=0.3)
    wins = np.mean([truth.draw(rng, 1, 200).mean() > 0 for _ in range(4000)])
    said = np.mean([estimate([truth.draw(rng, 40, 200)]).p_better for _ in range(20)])
    assert said == pytest.approx(wins, abs=0.03)


def test_pooling_one_task_twice_changes_nothing_but_the_item_part(rng):
    table = Truth(effect=0.1, seed=0.3).draw(rng, 5, 50)
    one, two = components([table]), components([table, table])
    assert two.seed + two.residual == pytest.approx(one.seed + one.residual)
    assert two.item + two.residual / 5 == pytest.approx((one.item + one.residual / 5) / 2)


def test_tasks_weigh_equally_whatever_their_size(rng):
    tables = [np.full((3, 200), 1.0), np.full((3, 10), 3.0)]
    noise = [Truth().draw(rng, *table.shape) for table in tables]
    noise = [n - n.mean() for n in noise]
    answer = estimate([t + n for t, n in zip(tables, noise, strict=True)])
    assert answer.estimate == pytest.approx(2.0)


def test_sources_of_one_item_change_nothing(rng):
    table = Truth().draw(rng, 4, 9)
    assert fold_sources(table, [f"s{i}" for i in range(9)]) == pytest.approx(table)


def test_sources_keep_every_seed_mean_over_items(rng):
    table = Truth().draw(rng, 4, 9)
    folded = fold_sources(table, list("aabbbbccc"))
    assert folded.shape == (4, 3)
    assert folded.mean() == pytest.approx(table.mean())
    # a seed's mean moves with the others', scaled by nothing: sums over items are kept
    assert folded.mean(1) == pytest.approx(table.mean(1))


def test_sources_widen_the_interval_where_their_items_agree(rng):
    by_source = Truth(seed=0.0, item=1.0).draw(rng, 5, 40)
    table = np.repeat(by_source, 8, axis=1)
    sources = np.repeat([f"s{i}" for i in range(40)], 8).tolist()
    folded, naive = estimate([fold_sources(table, sources)]), estimate([table])
    assert folded.estimate == pytest.approx(naive.estimate)
    assert folded.se == pytest.approx(estimate([by_source]).se)
    assert folded.se > 2 * naive.se


def test_unequal_sources_cover(rng):
    sizes = rng.integers(1, 12, 60)
    sources = np.repeat([f"s{i}" for i in range(60)], sizes).tolist()

    def hit():
        shared = np.repeat(rng.standard_normal(60), sizes)
        answer = estimate([fold_sources(Truth().draw(rng, 5, sizes.sum()) + shared, sources)])
        return answer.low <= 0 <= answer.high

    assert np.mean([hit() for _ in range(600)]) > 0.91


def test_compare_names_what_it_did(rng):
    rows = two_methods(Truth(effect=1.0).draw(rng, 5, 30), rng, source=list("abcdef") * 5)
    answer = compare(rows, "m", "kd")
    assert (answer.n_seeds, answer.n_items, answer.n_sources) == (5, 30, 6)
    assert answer.estimate == pytest.approx(1.0, abs=0.3)
    assert answer.low > 0
    assert answer.p_better > 0.99
    assert len(answer.run_ids) == 10
    assert "crossed" in answer.test
    assert compare(rows, "kd", "m").estimate == pytest.approx(-answer.estimate)


def test_pooled_is_the_mean_of_the_tasks(rng):
    rows = pd.concat(
        [
            two_methods(Truth(effect=e).draw(rng, 4, n), rng, task)
            for task, e, n in [("movie", 0.5, 40), ("product", -0.1, 15)]
        ]
    )
    each = [compare(rows, "m", "kd", [task]) for task in ("movie", "product")]
    pooled = compare(rows, "m", "kd")
    assert pooled.task == "pooled"
    assert pooled.estimate == pytest.approx(np.mean([a.estimate for a in each]))


def test_only_shared_seeds_count_and_the_others_are_reported(rng):
    rows = two_methods(Truth().draw(rng, 5, 20), rng)
    rows = rows[~((rows["method"] == "m") & (rows["seed"] == 4))]
    answer = compare(rows, "m", "kd")
    assert (answer.n_seeds, answer.seeds_left_out) == (4, 1)
    assert not any(run_id.endswith("-4") for run_id in answer.run_ids)


def test_holm_by_hand(rng):
    rows = [tidy(rng.standard_normal((5, 40)), method="kd")]
    for name, effect in [("a", 2.0), ("b", 0.3), ("c", 0.0)]:
        scores = rows[0]["score"].to_numpy().reshape(5, 40)
        rows.append(tidy(scores + Truth(effect=effect).draw(rng, 5, 40), method=name))
    family = compare_family(pd.concat(rows), [(name, "kd") for name in "abc"])
    p = sorted(answer.p for answer in family)
    by_hand = np.minimum(1, np.maximum.accumulate([3 * p[0], 2 * p[1], p[2]]))
    assert sorted(answer.p_holm for answer in family) == pytest.approx(by_hand)
    assert {answer.correction for answer in family} == {"Holm over 3"}


def test_checks_agree_with_scipy(rng):
    table = Truth(effect=0.02, seed=0.05).draw(rng, 6, 50)
    ours = sensitivity.over_seeds(table)
    assert ours.p == pytest.approx(stats.ttest_1samp(table.mean(1), 0).pvalue)
    flips = stats.permutation_test(
        (table.mean(1),), lambda x, axis: x.mean(axis), permutation_type="samples"
    )
    assert sensitivity.sign_flips(table) == pytest.approx(flips.pvalue)
    assert sensitivity.sign_flips(np.ones((5, 3))) == pytest.approx(2 / 32)
    one_sided = [
        stats.ttest_1samp(table.mean(1), at, alternative=side).pvalue
        for at, side in [(-0.1, "greater"), (0.1, "less")]
    ]
    assert sensitivity.equivalent_over_seeds(table, 0.1) == pytest.approx(max(one_sided))


def test_bad_input_is_named(rng):
    rows = two_methods(Truth().draw(rng, 3, 8), rng)
    with pytest.raises(InputError, match=r"unknown method 'kdd'; the rows hold kd, m"):
        compare(rows, "m", "kdd")
    with pytest.raises(InputError, match=r"unknown task 'films'; the rows hold movie"):
        compare(rows, "m", "kd", ["films"])
    with pytest.raises(InputError, match="share 1 seeds in movie"):
        compare(rows[rows["seed"] == 0], "m", "kd")
    with pytest.raises(InputError, match="lacks 1 of 24 scores"):
        compare(rows.drop(index=3), "m", "kd")
    gone = (rows["method"] == "m") & rows["item"].isin(["i6", "i7"])
    with pytest.raises(InputError, match="2 items on one side only, such as i6"):
        compare(rows[~gone], "m", "kd")
    with pytest.raises(InputError, match="an item twice"):
        compare(pd.concat([rows, rows.head(1)]), "m", "kd")
    with pytest.raises(InputError, match="two sources"):
        compare(rows.assign(source=["x", *rows["source"][1:]]), "m", "kd")
    with pytest.raises(InputError, match="no variance to judge by"):
        compare(two_methods(np.full((3, 8), 0.5), np.random.default_rng(0)), "m", "kd")
    with pytest.raises(InputError, match="at least one"):
        compare_family(rows, [])
    with pytest.raises(InputError, match="at most 60 items × 8 seeds, got 61 × 5"):
        sensitivity.mixed_model(np.zeros((5, 61)))
    with pytest.raises(InputError, match="2 or more shared seeds"):
        estimate([np.ones((3, 4)), np.ones((2, 4))])


def test_paired_differences_line_up_by_item_not_by_order(rng):
    rows = two_methods(np.full((3, 8), 0.25), rng)
    shuffled = rows.sample(frac=1, random_state=1)
    table = paired_differences(shuffled, "m", "kd").tables["movie"]
    assert table.to_numpy() == pytest.approx(0.25)


def loads_torch(imports):
    code = f"import sys, {imports}; sys.exit('torch' in sys.modules)"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 1


def test_analysis_never_imports_torch():
    modules = [
        f"geodistill.analysis.{path.stem}" for path in Path(analysis.__path__[0]).glob("*.py")
    ]
    assert len(modules) > 8
    assert not loads_torch(", ".join(modules))
    assert loads_torch("torch")


def test_source_df_is_the_trace_ratio():
    for sizes in ([1, 1, 1, 1], [3, 3, 3], [1, 2, 7, 4], [50, 1, 1]):
        n = np.array(sizes, dtype=float)
        m = np.diag(n) - np.outer(n, n) / n.sum()
        expected = np.trace(m @ m) ** 2 / np.trace(m @ m @ m @ m)
        names = np.repeat([f"s{i}" for i in range(len(n))], sizes).tolist()
        assert source_df(names) == pytest.approx(expected)
    assert source_df(list("aabbcc")) == pytest.approx(2)


def test_one_large_source_does_not_pass_for_many(rng):
    # 300 items of one source beside 40 sources of 10: counted as 41 equals it covered 79 %.
    sources = np.repeat([f"s{i}" for i in range(41)], [300, *[10] * 40]).tolist()
    codes = pd.factorize(np.array(sources))[0]

    def hit():
        table = rng.standard_normal(41)[codes] + Truth().draw(rng, 5, len(sources))
        answer = estimate([fold_sources(table, sources)], df_items=[source_df(sources)])
        return answer.low <= 0 <= answer.high

    assert np.mean([hit() for _ in range(200)]) > 0.95


def test_a_seeds_luck_is_no_noise_of_large_sources(rng):
    table = np.repeat(rng.standard_normal((5, 1)), 12, axis=1)
    folded = fold_sources(table, list("aaaaaaaabcde"))
    assert folded == pytest.approx(np.repeat(table[:, :1], 5, axis=1))


def test_p_better_is_calibrated_at_five_seeds():
    rng, said, won = np.random.default_rng(2), [], []
    for effect in rng.uniform(-0.5, 0.5, 1500):
        truth = Truth(effect=effect, seed=0.1, item=0.3, residual=0.3)
        said.append(estimate([truth.draw(rng, 5, 50)]).p_better)
        won.append(truth.draw(rng, 1, 50).mean() > 0)
    said, won = np.array(said), np.array(won)
    for low, high in [(0.1, 0.4), (0.4, 0.6), (0.6, 0.9)]:
        chosen = (said > low) & (said < high)
        assert won[chosen].mean() == pytest.approx(said[chosen].mean(), abs=0.1)


def test_secondary_questions_are_corrected_by_benjamini_hochberg(rng):
    base = rng.standard_normal((5, 40))
    rows = [tidy(base, method="kd")]
    for name, effect in [("a", 2.0), ("b", 0.2), ("c", 0.0)]:
        rows.append(tidy(base + Truth(effect=effect).draw(rng, 5, 40), method=name))
    pairs = [(name, "kd") for name in "abc"]
    family = compare_family(pd.concat(rows), pairs, correction="bh")
    assert [a.p_bh for a in family] == pytest.approx(
        stats.false_discovery_control([a.p for a in family])
    )
    assert family[1].p_decisive == family[1].p_bh
    assert {(a.correction, a.p_holm) for a in family} == {("Benjamini–Hochberg over 3", None)}


def test_rows_used_and_left_out_are_counted_and_the_claim_is_named(rng):
    rows = two_methods(Truth().draw(rng, 5, 20), rng)
    rows = rows[~((rows["method"] == "m") & (rows["seed"] == 4))]
    answer = compare(pd.concat([rows, tidy(rng.random((5, 20)), method="other")]), "m", "kd")
    assert (answer.rows_used, answer.rows_left_out) == (160, 20)
    assert answer.claim == "movie, for new seeds and new items"
    two = pd.concat([rows, two_methods(Truth().draw(rng, 5, 20), rng, "product")])
    assert "the mean of these 2 tasks (movie, product)" in compare(two, "m", "kd").claim


def test_more_bad_input_is_named(rng):
    rows = two_methods(Truth().draw(rng, 3, 8), rng)
    with pytest.raises(InputError, match="items lack source, score; the columns are run_id"):
        compare(rows.drop(columns=["source", "score"]), "m", "kd")
    with pytest.raises(InputError, match=r"the differences are all .* \(m against kd\)"):
        compare(rows.assign(score=1.0), "m", "kd")
    with pytest.raises(InputError, match="one pair of trained models is judged by the items alone"):
        compare(rows[rows["seed"] == 1], "m", "kd")


def test_penicillin_is_the_published_fit_of_lme4():
    # Balanced and every component positive: REML and the closed form are one. The figures are of
    # lme4 (tests/analysis/stats/reference/penicillin.R); plates stand for seeds, samples for items.
    path = Path(__file__).parent / "reference/penicillin.csv"
    answer = estimate([pd.read_csv(path, index_col="plate").to_numpy(float)])
    assert answer.estimate == pytest.approx(22.9722, abs=1e-4)
    assert answer.se == pytest.approx(0.8086, abs=2e-4)
    parts = answer.components
    assert parts.seed == pytest.approx(0.8467**2, rel=1e-3)
    assert parts.item * 6 == pytest.approx(1.9316**2, rel=1e-3)
    assert parts.residual * 6 == pytest.approx(0.5499**2, rel=1e-3)
