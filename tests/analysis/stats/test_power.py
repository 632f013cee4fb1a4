"""Plans against closed forms and other libraries."""

import math
from dataclasses import replace

import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from geodistill.analysis.stats.crossed_anova import Components
from geodistill.analysis.stats.power import (
    RTE_DEV,
    Design,
    components_from_sd,
    mcnemar_sample_size,
    pilot_components,
    required_sizes,
    rule_of_thumb,
    smallest_sufficient,
)
from geodistill.errors import InputError

NOISE = {"seed": 0.01, "item": 0.2, "residual": 0.3}


def design(seeds=5, items=1000, tests=1, **noise):
    return Design(components_from_sd(**{**NOISE, **noise}), 1, seeds, items, tests)


def test_seeds_alone_give_the_power_of_the_t_test():
    alone = design(item=0.0, residual=0.0)
    for seeds, gain in ((3, 0.03), (5, 0.01), (12, 0.01)):
        expected = TTestPower().power(gain / 0.01, seeds, 0.05)
        assert alone.power_at(gain, seeds, 1000) == pytest.approx(expected, abs=2e-3)


def test_the_smallest_gain_is_found_with_the_wanted_power():
    for one in (design(), design(seeds=2), design(seeds=20, items=277, tests=3)):
        least = one.smallest_gain()
        assert one.power_at(least, one.seeds, one.items) == pytest.approx(0.8, abs=1e-6)
    assert design(tests=2).smallest_gain() > design().smallest_gain()


def test_required_sizes_are_the_smallest_or_none():
    plan = design()
    seeds, items = plan.seeds_for(0.02, 1000), plan.items_for(0.02, 5)
    assert plan.power_at(0.02, seeds, 1000) >= 0.8 > plan.power_at(0.02, seeds - 1, 1000)
    assert plan.power_at(0.02, 5, items) >= 0.8 > plan.power_at(0.02, 5, items - 1)
    # σ_A/√5 alone is 0.0045: no item helps against 0.005; σ_B/√100 = 0.02: no seed against 0.02.
    assert plan.items_for(0.005, 5) is None
    assert plan.seeds_for(0.02, 100) is None
    table = required_sizes(plan, (0.005, 0.02))
    assert table["items"].isna().tolist() == [True, False]
    assert table["seeds"].iloc[1] == seeds
    assert table["power"].iloc[1] == pytest.approx(plan.power_at(0.02, 5, 1000))


def test_power_that_falls_again_with_more_items_is_still_found():
    plan = design()
    least = plan.items_for(0.032, 3)
    assert plan.power_at(0.032, 3, least) >= 0.8 > plan.power_at(0.032, 3, least - 1)
    assert plan.power_at(0.032, 3, 10**7) < 0.8  # two degrees of freedom are all that is left


def test_more_seeds_leave_the_items_part():
    least = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    many = design(seeds=5000, items=277)
    assert many.smallest_gain() == pytest.approx(least * 0.2 / math.sqrt(277), rel=0.02)


def test_one_pair_of_runs_needs_the_items_of_the_rule_of_thumb():
    items = mcnemar_sample_size(0.02, 0.15)
    plain = (1.959964 + 0.841621) ** 2 * (0.15 - 0.02**2) / 0.02**2  # the unconditional z-test
    assert items == pytest.approx(plain, rel=0.01)
    assert round(items, -2) == 2900
    assert f"{items:,} items to detect 2 points at 80 % power" in rule_of_thumb()
    assert mcnemar_sample_size(0.02) == items
    assert str(RTE_DEV) == "277"
    assert "277" in rule_of_thumb()


BAD = [
    (lambda: design(seeds=1), "needs 2 or more seeds and items and 1 or more tests; got 1 seeds"),
    (lambda: design(items=1), "got 5 seeds, 1 items, 1 tests"),
    (lambda: design(tests=0), "got 5 seeds, 1000 items, 0 tests"),
    (lambda: Design(components_from_sd(1, 1, 1), 1, 5, 10, power=1.0), "power is 1.0; it must lie"),
    (lambda: Design(components_from_sd(1, 1, 1), 1, 5, 10, alpha=0.0), "alpha is 0.0; it must lie"),
    (lambda: components_from_sd(-1, 0, 0), "the seed deviation is -1; it must be 0, or lie"),
    (lambda: components_from_sd(0, math.inf, 0), "the item deviation is inf; it must be 0, or lie"),
    (lambda: components_from_sd(0, math.nan, 0), "the item deviation is nan; it must be 0, or lie"),
    (lambda: components_from_sd(0, 0, 1e200), "the residual deviation is 1e.200; it must be 0"),
    (lambda: components_from_sd(1e-200, 0, 0), "lie between 1e-50 and 1e.50"),
    (lambda: components_from_sd(0, 0, 0), "the deviations are all 0"),
    (lambda: mcnemar_sample_size(0.2, 0.1), "gain is 0.2 and discordant 0.1"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_impossible_designs_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_smallest_designs_are_allowed():
    assert design(seeds=2, items=2).smallest_gain() > 0
    assert components_from_sd(0, 1, 0).item == 1
    assert mcnemar_sample_size(0.1, 0.1) > 0
    assert mcnemar_sample_size(0.5, 1.0) > 0


def test_components_of_many_items_plan_as_those_of_one():
    single = design(seeds=4, items=600)
    parts = Components(0.01**2, 0.2**2 / 300, 0.3**2 / 300, df_item=300.0)
    measured = Design(parts, 300, 4, 600)
    assert measured.se(4, 600) == pytest.approx(single.se(4, 600))
    assert measured.power_at(0.03, 4, 600) == pytest.approx(single.power_at(0.03, 4, 600))
    assert measured.items_for(0.03, 4) == single.items_for(0.03, 4)


def test_a_gain_that_no_size_of_effect_reaches_is_infinite():
    # With 2 seeds and a family of 10,000 the critical value is beyond 1,000 standard errors.
    alone = design(seeds=2, item=0.0, residual=0.0, tests=10_000)
    assert alone.smallest_gain() == math.inf


@pytest.mark.parametrize("start", [1, 2, 5, 277])
def test_the_smallest_sufficient_number_is_found_in_its_range(start):
    for target in (start, start + 1, 3 * start + 2, 5000):
        assert smallest_sufficient(lambda n, t=target: n >= t, start, 5000) == target
    assert smallest_sufficient(lambda n: n >= 5001, start, 5000) is None


def test_the_noisiest_pilot_counts():
    class Pilot:
        def __init__(self, se):
            self.se, self.n_items = se, 10
            self.components = Components(se**2, 0.0, 0.0, 9.0)

    parts, measured = pilot_components([Pilot(1.0), Pilot(3.0), Pilot(2.0)])
    assert (parts.seed, measured) == (9.0, 10)


def test_sizes_without_a_variance_are_refused():
    with pytest.raises(InputError, match="measured is 0; expected 1 or more items"):
        replace(design(), measured=0)
    for seeds, items in ((1, 100), (5, 1)):
        with pytest.raises(InputError, match=f"got {seeds} seeds, {items} items"):
            design().power_at(0.01, seeds, items)
