"""The committed simulation: what it must show, and that a small rerun shows it again."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from geodistill.analysis.stats import coverage

ROWS = Path(__file__).parents[2] / "data/results/coverage/rows.csv"
KEY = ["quantity", "interval", "n_seeds", "effect", "seed", "item", "residual"]


@pytest.fixture(scope="module")
def committed():
    return pd.read_csv(ROWS)


@pytest.fixture(scope="module")
def rerun():
    return pd.DataFrame(coverage.rows(repeats=100, effects=(0.0, 0.1)))


def test_the_primary_interval_covers_at_five_and_ten_seeds(committed):
    ours = committed.query("quantity == 'coverage' and interval == 'primary'")
    assert sorted(ours["n_seeds"].unique()) == [5, 10]
    assert len(ours) == 10
    # 0.95 within three Monte Carlo errors, and a Satterthwaite bias of at most 0.015
    assert (abs(ours["share"] - 0.95) < 0.015 + 3 * 0.0049).all()


def test_false_alarms_at_their_level_and_power_that_rises(committed):
    for _, curve in committed.query("quantity == 'power'").groupby("n_seeds"):
        shares = curve.sort_values("effect")["share"].to_numpy()
        assert abs(shares[0] - 0.05) < 0.015
        assert (np.diff(shares) > 0).all()
        assert shares[-1] > 0.9


def test_at_five_seeds_the_naive_bootstrap_covers_too_often_the_corrected_one_too_rarely(committed):
    five = committed.query("quantity == 'coverage' and n_seeds == 5")
    share = five.set_index(["interval", "seed", "item"])["share"]
    assert share["bootstrap, naive", 0.02, 0.05] > 0.97
    assert share["bootstrap, corrected", 0.2, 0.2] < 0.90
    corrected = five[five["interval"] == "bootstrap, corrected"]["share"]
    assert corrected.mean() < 0.94


def test_items_only_fail_where_seeds_matter_and_seeds_only_where_items_do(committed):
    share = committed.query("n_seeds == 5").set_index(["interval", "seed", "item"])["share"]
    assert share["items only", 0.2, 0.2] < 0.6
    assert share["seeds only", 0.0, 0.2] < 0.85


def test_a_small_rerun_agrees(committed, rerun):
    both = rerun.merge(committed, on=KEY, suffixes=("", "_committed"))
    assert len(both) == len(rerun) == 54
    p = both["share_committed"]
    error = np.sqrt(p * (1 - p) * (1 / both["repeats"] + 1 / both["repeats_committed"]))
    assert (abs(both["share"] - p) < 4 * error + 0.02).all()
