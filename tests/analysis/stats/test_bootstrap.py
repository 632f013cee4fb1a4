"""The two-way bootstrap against brute force."""

import numpy as np
import pytest

from geodistill.analysis.stats.bootstrap import Bootstrap, two_way_bootstrap
from geodistill.analysis.stats.coverage import SimulationTruth
from geodistill.analysis.stats.crossed_anova import estimate


def test_the_bootstrap_of_a_mean_is_brute_force():
    table = SimulationTruth(seed=0.3).draw(np.random.default_rng(13), 4, 6)
    rng, means = np.random.default_rng(14), []
    for _ in range(4000):
        drawn = table[np.ix_(rng.integers(0, 4, 4), rng.integers(0, 6, 6))]
        means.append(drawn.mean())
    result = two_way_bootstrap([table], 4000)
    assert result.both == pytest.approx(np.var(means), rel=0.1)
    assert result.estimate == pytest.approx(estimate([table]).estimate)
    # seeds alone and items alone: variances of the means of 4 and of 6 numbers
    assert result.seed == pytest.approx(table.mean(1).var() / 4, rel=0.1)
    assert result.item == pytest.approx(table.mean(0).var() / 6, rel=0.1)
    low, high = result.interval(corrected=False)
    assert (high - low) / 2 == pytest.approx(1.959964 * result.both**0.5)


def test_seeds_are_drawn_once_for_all_tasks_and_items_for_each():
    table = SimulationTruth(seed=0.3).draw(np.random.default_rng(15), 4, 6)
    single, double = two_way_bootstrap([table], 4000), two_way_bootstrap([table, table], 4000)
    assert double.estimate == pytest.approx(single.estimate)
    assert double.seed == pytest.approx(single.seed, rel=0.1)
    assert double.item == pytest.approx(single.item / 2, rel=0.1)


def test_the_corrected_variance_is_not_below_either_part():
    assert Bootstrap(0.0, seed=1.0, item=2.0, both=4.0).corrected == 2.0
    assert Bootstrap(0.0, seed=1.0, item=2.0, both=5.0).corrected == 2.0
    assert Bootstrap(0.0, seed=3.0, item=1.0, both=6.5).corrected == 3.0
    assert Bootstrap(0.0, seed=3.0, item=1.0, both=4.5).corrected == 3.5
    low, high = Bootstrap(1.0, seed=3.0, item=1.0, both=4.0).interval()
    assert (low, high) == pytest.approx((1 - 2 * 1.959964, 1 + 2 * 1.959964))
