"""The stored coverage at 2 to 10 seeds: what it must show, on the page too, and a small rerun."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import few_seeds
from support.montecarlo import binomial_error, repeats

from geodistill.analysis.stats.compare import compare
from geodistill.analysis.stats.single_level import compare_over_seeds

pytestmark = pytest.mark.montecarlo
PAGE = Path(__file__).parents[2] / "book" / "compare.md"


@pytest.fixture(scope="module")
def stored():
    return pd.read_csv(few_seeds.STORED).set_index(["world", "n_seeds"])


@pytest.mark.parametrize("name", few_seeds.WORLDS)
def test_the_simulated_interval_is_that_of_the_comparison(name):
    world = few_seeds.WORLDS[name]
    drawn = world.draw(np.random.default_rng(1), n_seeds=4)
    names = ["task", "seed", "item"]
    axes = [range(n) for n in drawn.shape]
    rows = pd.MultiIndex.from_product(axes, names=names).to_frame(index=False)
    source = np.repeat(np.arange(len(world.sources)), world.sources)
    rows = rows.assign(source=source[rows["item"]], run_id=rows["seed"].astype(str))
    rows = rows.assign(task=rows["task"].astype(str), score=drawn.ravel(), method="new")
    table = pd.concat([rows, rows.assign(score=0.0, method="kd")])
    if world.has_items:
        expected = compare(table, "new", "kd")
    else:
        expected = compare_over_seeds(table.drop(columns=["item", "source"]), "new", "kd")
    interval = few_seeds.interval(world, drawn)
    assert interval == pytest.approx((expected.low, expected.high))


def test_every_world_has_every_number_of_seeds(stored):
    expected = {(world, n) for world in few_seeds.WORLDS for n in few_seeds.N_SEEDS}
    assert set(stored.index) == expected
    assert stored["repeats"].min() >= 2000


def test_intervals_cover_where_no_run_collapses(stored):
    ideal = [name for name, world in few_seeds.WORLDS.items() if not world.collapses]
    share = stored.loc[ideal, "coverage"]
    noise = 4 * binomial_error(0.95, stored["repeats"].min())
    assert (share > 0.93 - noise).all()
    exact = stored.loc["runs alone", "coverage"]
    assert (abs(exact - 0.95) < noise).all()


def test_collapsing_runs_cost_coverage_where_they_are_rare(stored):
    """A table without a collapsed run shows neither the loss nor the spread that they cause."""
    share = stored["coverage"].unstack()
    lost = share.loc["runs alone"] - share.loc["runs alone, one in ten collapses"]
    assert (lost[[7, 10]] > 0.02).all()
    assert share.min(axis=None) > 0.9


def test_a_rerun_gives_the_stored_shares(stored):
    n = repeats(500, 2000)
    for world in ("three prompts, one set of items", "runs alone"):
        again = few_seeds.coverage(world, 3, n)
        share = stored.loc[(world, 3), "coverage"]
        assert abs(again - share) < 4 * binomial_error(0.93, n)


def test_the_true_difference_is_zero():
    rng = np.random.default_rng(0)
    for world in few_seeds.WORLDS.values():
        means = [world.draw(rng, 10).mean() for _ in range(400)]
        assert abs(np.mean(means)) < 4 * np.std(means) / 20


def test_the_page_has_the_stored_table():
    text = re.sub(r" +", " ", PAGE.read_text(encoding="utf-8"))
    assert few_seeds.page_table() in text, (
        "book/compare.md is stale: insert the output of `python -m support.few_seeds`"
    )
