"""The stored simulation: what it must show, and that a small rerun shows it again."""

import numpy as np
import pandas as pd
import pytest
from support.montecarlo import repeats

from geodistill.analysis.stats import coverage
from geodistill.errors import InputError

pytestmark = pytest.mark.montecarlo
KEY = ["quantity", "interval", "n_seeds", "effect", "seed", "item", "residual"]


@pytest.fixture(scope="module")
def stored():
    return coverage.load_simulation()


@pytest.fixture(scope="module")
def rerun():
    return pd.DataFrame(coverage.simulate_rows(repeats=repeats(40, 400), effects=(0.0, 0.1)))


def test_the_primary_interval_covers_at_five_and_ten_seeds(stored):
    ours = stored.query("quantity == 'coverage' and interval == 'primary'")
    assert sorted(ours["n_seeds"].unique()) == [5, 10]
    assert len(ours) == 10
    # 0.95 within three Monte Carlo errors, and a Satterthwaite bias of at most 0.015
    assert (abs(ours["share"] - 0.95) < 0.015 + 3 * 0.0049).all()


def test_false_alarms_at_their_level_and_power_that_rises(stored):
    for _, curve in stored.query("quantity == 'power'").groupby("n_seeds"):
        shares = curve.sort_values("effect")["share"].to_numpy()
        assert abs(shares[0] - 0.05) < 0.015
        assert (np.diff(shares) > 0).all()
        assert shares[-1] > 0.9


def test_at_five_seeds_the_naive_bootstrap_covers_too_often_the_corrected_one_too_rarely(stored):
    five = stored.query("quantity == 'coverage' and n_seeds == 5")
    share = five.set_index(["interval", "seed", "item"])["share"]
    assert share["bootstrap, naive", 0.02, 0.05] > 0.97
    assert share["bootstrap, corrected", 0.2, 0.2] < 0.90
    corrected = five[five["interval"] == "bootstrap, corrected"]["share"]
    assert corrected.mean() < 0.94


def test_items_only_fail_where_seeds_matter_and_seeds_only_where_items_do(stored):
    share = stored.query("n_seeds == 5").set_index(["interval", "seed", "item"])["share"]
    assert share["items only", 0.2, 0.2] < 0.6
    assert share["seeds only", 0.0, 0.2] < 0.85


def test_a_rerun_with_as_many_repeats_gives_the_stored_number(stored):
    """The random streams do not depend on the names of classes."""
    first = next(coverage.simulate_rows())
    same = (stored[KEY] == pd.Series(first)[KEY]).all(axis=1)
    assert stored.loc[same, ["share", "error"]].to_numpy().tolist() == [
        [first["share"], first["error"]]
    ]
    curve = stored[stored["quantity"] == "power"]
    assert sorted(curve["effect"].unique()) == list(coverage.EFFECTS)


def test_simulated_items_have_the_effects_and_the_sizes_that_are_asked_for():
    items = coverage.simulate_items({"kd": 0.0, "new": 5.0})
    assert items.groupby("method", sort=False).size().to_dict() == {"kd": 500, "new": 500}
    assert (items["seed"].nunique(), items["item"].nunique()) == (5, 100)
    means = items.groupby("method")["score"].mean()
    assert means["new"] - means["kd"] == pytest.approx(5, abs=0.2)
    assert not items.equals(coverage.simulate_items({"kd": 0.0, "new": 5.0}, seed=1))


def test_a_missing_simulation_is_refused_with_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(coverage, "stored_path", lambda: tmp_path / "rows.csv")
    with pytest.raises(InputError, match=r"no simulated rows at .*: make them with `python -m geo"):
        coverage.load_simulation()


def test_a_small_rerun_agrees(stored, rerun):
    both = rerun.merge(stored, on=KEY, suffixes=("", "_stored"))
    assert len(both) == len(rerun) == 54
    p = both["share_stored"]
    error = np.sqrt(p * (1 - p) * (1 / both["repeats"] + 1 / both["repeats_stored"]))
    assert (abs(both["share"] - p) < 4 * error + 0.02).all()
