"""The verdict rule, word by word, and the designs that would decide an inconclusive one."""

from dataclasses import replace

import pytest
from scipy import stats

from geodistill.analysis.stats.compare import Comparison
from geodistill.analysis.stats.crossed_anova import Components
from geodistill.analysis.stats.verdict import (
    MAX_FACTOR,
    WORDS,
    RequiredDesign,
    p_equivalent,
    required_design,
    verdict,
)
from geodistill.errors import InputError

PARTS = Components(seed=1.0, item=0.2, residual=0.1, df_item=999.0)


def comparison(mean, se=1.0, df=20.0, p_holm=None, parts=PARTS):
    half = stats.t.ppf(0.975, df) * se
    p = 2 * stats.t.sf(abs(mean) / se, df)
    return Comparison(
        estimate=mean, low=mean - half, high=mean + half, level=0.95, se=se, df=df, p=p,
        p_better=0.5, components=parts, method="m", baseline="kd", tasks=("movie",), n_seeds=5,
        n_items=1000, n_clusters=1000, seeds_left_out=0, run_ids=("a", "b"), p_holm=p_holm,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("mean", "margin", "word"),
    [
        (3.0, 1.0, "better"),
        (-3.0, 1.0, "worse"),
        (0.1, 2.0, "equivalent"),
        (0.1, 1.0, "inconclusive"),
        (1.9, 2.0, "inconclusive"),
        (2.2, 3.0, "better"),
        (2.2, 9.0, "better by less than the margin"),  # superiority comes first
        (-2.2, 9.0, "worse by less than the margin"),
    ],
)
def test_each_word(mean, margin, word):
    assert verdict(comparison(mean), margin).word == word
    assert word in WORDS


def test_the_level_can_be_chosen():
    p = comparison(2.2).p
    assert verdict(comparison(2.2), 1.0, alpha=1.01 * p).word == "better"
    assert verdict(comparison(2.2), 1.0, alpha=0.99 * p).word == "inconclusive"


def test_the_corrected_p_decides_where_there_is_a_family():
    assert verdict(comparison(2.2), 1.0).word == "better"
    assert verdict(comparison(2.2, p_holm=0.08), 1.0).word == "inconclusive"
    assert verdict(replace(comparison(2.2), p_bh=0.08), 1.0).word == "inconclusive"


def test_tost_is_the_ninety_percent_interval_inside_the_margins():
    half = stats.t.ppf(0.95, 20)
    assert p_equivalent(comparison(0.3), 0.3 + half) == pytest.approx(0.05)
    assert p_equivalent(comparison(-0.3), 0.3 + half) == pytest.approx(0.05)
    assert p_equivalent(comparison(3.0), 1.0) > 0.5
    assert verdict(comparison(0.3), 0.4).p_equivalent == p_equivalent(comparison(0.3), 0.4)


def test_a_gain_is_small_exactly_where_the_equivalence_test_rejects():
    edge = 2.2 + stats.t.ppf(0.95, 20)
    assert verdict(comparison(2.2), edge + 0.01).word == "better by less than the margin"
    assert verdict(comparison(2.2), edge - 0.01).word == "better"


@pytest.mark.parametrize("mean", [3.0, -3.0, 0.1])
def test_there_is_no_test_against_a_baseline_of_which_more_than_a_tenth_collapsed(mean):
    words = [
        verdict(replace(comparison(mean), baseline_collapsed=share), 2.0).word
        for share in (0.0, 0.1, 3 / 30, 0.101, 1.0)
    ]
    assert len(set(words[:3])) == 1
    assert words[0] in ("better", "worse", "equivalent")
    assert words[3:] == ["no test: the control collapsed"] * 2


def test_the_required_design_is_the_smallest_that_is_short_enough():
    design = required_design(comparison(0.1), 2.0)

    def width(n_seeds, times):
        df = PARTS.df(n_seeds, times)
        t = stats.t.ppf(0.975, df) + stats.t.ppf(0.95, df)
        return t * PARTS.variance(n_seeds, times) ** 0.5

    assert width(design.seeds, 1) <= 2.0 < width(design.seeds - 1, 1)
    assert design.items is None  # the seeds' part alone is too wide at 5 seeds
    n, items = design.both
    assert width(n, n / 5) <= 2.0 < width(n - 1, (n - 1) / 5)
    assert items == n * 200
    assert str(design) == (
        f"{design.seeds} seeds with these items, or {n} seeds × {items:,} items "
        "(more items alone: not enough)"
    )


def test_required_designs_in_words():
    assert str(RequiredDesign(None, None, (7, 900))) == (
        "7 seeds × 900 items (more seeds alone or more items alone: not enough)"
    )
    assert str(RequiredDesign(3, 40, None)) == (
        "3 seeds with these items, or 40 items with these seeds"
    )
    assert str(RequiredDesign(None, None, None)).startswith("more than any number of seeds or")


def test_a_family_requires_more():
    parts = Components(seed=1.0, item=0.0, residual=0.1, df_item=999.0)
    start = comparison(0.1, parts=parts)
    single = required_design(start, 1.0)
    family = required_design(replace(start, family=4), 1.0)
    assert family.seeds > single.seeds
    strict = required_design(start, 1.0, alpha=0.0125)
    assert strict.seeds > family.seeds  # α/4 in both tests, not in one


def test_items_are_required_where_they_are_what_varies():
    parts = Components(seed=0.0, item=4.0, residual=0.1, df_item=999.0)
    design = required_design(comparison(0.1, parts=parts), 2.0)
    assert design.seeds is None
    assert design.items > 1000


def test_a_design_that_is_enough_is_its_own_answer_and_one_out_of_reach_is_none():
    wide = required_design(comparison(0.1), 100.0)
    assert (wide.seeds, wide.items, wide.both) == (5, 1000, (5, 1000))
    parts = Components(seed=1.0, item=0.0, residual=0.0, df_item=999.0)
    reach = MAX_FACTOR * 5
    t = stats.t.ppf(0.975, reach - 1) + stats.t.ppf(0.95, reach - 1)
    edge = t * (1 / reach) ** 0.5  # what the largest design reported reaches
    assert required_design(comparison(0.1, parts=parts), 1.0001 * edge).seeds > 0.99 * reach
    assert required_design(comparison(0.1, parts=parts), 0.9999 * edge).seeds is None


@pytest.mark.parametrize("rule", [verdict, required_design])
@pytest.mark.parametrize(
    ("margin", "alpha", "message"),
    [
        (float("nan"), 0.05, "margin is nan"), (0, 0.05, "margin is 0; it must be above 0"),
        (1.0, 5, "alpha is 5; it must lie between 0 and 1"), (1.0, 0.0, "alpha is 0"),
    ],
)  # fmt: skip
def test_margins_and_levels_that_make_no_rule_are_refused(rule, margin, alpha, message):
    with pytest.raises(InputError, match=message):
        rule(comparison(0.1), margin, alpha)
