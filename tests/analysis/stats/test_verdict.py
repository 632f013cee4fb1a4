"""The verdict rule, word by word, and the designs that would settle an open question."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from geodistill.analysis.stats.compare import Comparison
from geodistill.analysis.stats.coverage import Truth
from geodistill.analysis.stats.crossed_anova import Components, estimate
from geodistill.analysis.stats.verdict import WORDS, Settle, p_equivalent, settle, verdict
from geodistill.errors import InputError

PARTS = Components(seed=1.0, item=0.2, residual=0.1, df_item=999.0)


def answer(mean, se=1.0, df=20.0, p_holm=None, parts=PARTS):
    half = stats.t.ppf(0.975, df) * se
    p = 2 * stats.t.sf(abs(mean) / se, df)
    return Comparison(
        estimate=mean, low=mean - half, high=mean + half, level=0.95, se=se, df=df, p=p,
        p_better=0.5, components=parts, method="m", baseline="kd", tasks=("movie",), n_seeds=5,
        n_items=1000, n_sources=1000, seeds_left_out=0, run_ids=("a", "b"), p_holm=p_holm,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("mean", "margin", "word"),
    [
        (3.0, 1.0, "better"),
        (-3.0, 1.0, "worse"),
        (0.1, 2.0, "equivalent"),
        (0.1, 1.0, "cannot tell"),
        (1.9, 2.0, "cannot tell"),
        (2.2, 9.0, "better"),  # superiority comes first
    ],
)
def test_each_word(mean, margin, word):
    assert verdict(answer(mean), margin).word == word
    assert word in WORDS


def test_better_by_less_than_the_margin_is_said():
    assert "by less than the margin" in verdict(answer(2.2), 9.0).reason
    assert "by less than the margin" not in verdict(answer(2.2), 3.0).reason


def test_holm_decides_where_there_is_a_family():
    assert verdict(answer(2.2), 1.0).word == "better"
    assert verdict(answer(2.2, p_holm=0.08), 1.0).word == "cannot tell"


def test_tost_is_the_ninety_percent_interval_inside_the_margins():
    half = stats.t.ppf(0.95, 20)
    assert p_equivalent(answer(0.3), 0.3 + half) == pytest.approx(0.05)
    assert p_equivalent(answer(-0.3), 0.3 + half) == pytest.approx(0.05)
    assert p_equivalent(answer(3.0), 1.0) > 0.5


def test_settle_is_the_least_design_that_is_short_enough():
    plan = settle(answer(0.1), 2.0)

    def reach(n_seeds, times):
        df = PARTS.df(n_seeds, times)
        t = stats.t.ppf(0.975, df) + stats.t.ppf(0.95, df)
        return t * PARTS.variance(n_seeds, times) ** 0.5

    assert reach(plan.seeds, 1) <= 2.0 < reach(plan.seeds - 1, 1)
    assert plan.items is None  # the seeds' part alone is too wide at 5 seeds
    n, items = plan.both
    assert reach(n, n / 5) <= 2.0 < reach(n - 1, (n - 1) / 5)
    assert items == n * 200
    assert str(plan) == (
        f"{plan.seeds} seeds with these items, or {n} seeds × {items:,} items "
        "(more items alone would not do)"
    )
    assert str(Settle(None, None, (7, 900))) == (
        "7 seeds × 900 items (more seeds alone or more items alone would not do)"
    )
    assert str(Settle(3, 40, None)) == "3 seeds with these items, or 40 items with these seeds"


def test_settle_asks_more_of_a_family():
    one, of_four = settle(answer(0.1), 2.0), settle(replace(answer(0.1), family=4), 2.0)
    assert of_four.seeds > one.seeds


def test_settle_needs_items_where_items_are_the_doubt():
    parts = Components(seed=0.0, item=4.0, residual=0.1, df_item=999.0)
    plan = settle(answer(0.1, parts=parts), 2.0)
    assert plan.seeds is None
    assert plan.items > 1000


def test_a_settled_design_settles():
    # The promise, tried: the planned seeds leave few "cannot tell" (components vary).
    rng = np.random.default_rng(3)
    truth = Truth(effect=0.02, seed=0.05, item=0.2, residual=0.3)
    parts = Components(0.05**2, 0.2**2 / 400, 0.3**2 / 400, 399)
    plan = settle(replace(answer(0.0, parts=parts), n_items=400), 0.06)

    def open_share(n_seeds):
        found = [vars(estimate([truth.draw(rng, n_seeds, 400)])) for _ in range(80)]
        words = [verdict(replace(answer(0.0), **one), 0.06).word for one in found]
        return words.count("cannot tell") / len(words)

    assert open_share(plan.seeds) < 0.2
    assert open_share(5) > 0.5


def test_a_margin_of_nothing_is_refused():
    with pytest.raises(InputError, match="margin is 0; it must be above 0"):
        verdict(answer(1.0), 0)


def test_equivalence_is_rarely_claimed_at_the_margin():
    rng = np.random.default_rng(5)
    truth = Truth(effect=0.05, seed=0.02, item=0.1, residual=0.1)
    found = [estimate([truth.draw(rng, 5, 100)]) for _ in range(400)]
    claimed = [p_equivalent(replace(answer(0.0), **vars(f)), 0.05) <= 0.05 for f in found]
    assert 0.005 < np.mean(claimed) < 0.09


def test_a_small_gain_is_named_as_such():
    assert str(verdict(answer(2.2), 9.0)) == "better by less than the margin"
    assert str(verdict(answer(-2.2), 9.0)) == "worse by less than the margin"
    assert str(verdict(answer(2.2), 3.0)) == "better"
    # exactly where the equivalence test says so
    edge = 2.2 + stats.t.ppf(0.95, 20)
    assert verdict(answer(2.2), edge + 0.01).by_less
    assert not verdict(answer(2.2), edge - 0.01).by_less


def test_benjamini_hochberg_decides_for_secondary_questions():
    assert verdict(replace(answer(2.2), p_bh=0.08), 1.0).word == "cannot tell"
