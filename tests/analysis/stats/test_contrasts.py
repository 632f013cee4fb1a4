"""Gains by setting and between places: on items with known effects, and against `compare`."""

import numpy as np
import pandas as pd
import pytest

from geodistill.analysis.stats.compare import compare
from geodistill.analysis.stats.contrasts import (
    change_of_gain,
    changed,
    contrast,
    device_effects,
    gains,
    in_words,
    rerun_noise,
    scores,
)
from geodistill.errors import InputError

METHODS = {"kd": 0.0, "kd+gram": 0.1, "kd+cka": 0.0}


def items(
    effects=METHODS, seed=0, seeds=5, n=200, luck=0.02, own=0.01, shift=0.0, tasks=("a", "b")
):
    """Continuous scores: taste of the item + luck of the seed + effect + noise of the run."""
    rng = np.random.default_rng(seed)
    shared = np.random.default_rng(99)
    lines = []
    for task in tasks:
        taste = shared.standard_normal(n)
        lucks = luck * shared.standard_normal(seeds)
        for method, effect in effects.items():
            for s in range(seeds):
                score = taste + lucks[s] + effect + shift + own * rng.standard_normal()
                frame = pd.DataFrame({"item": np.arange(n), "source": np.arange(n)})
                frame["score"] = score + 0.05 * rng.standard_normal(n)
                key = {"task": task, "method": method, "seed": s, "run_id": f"{task}{method}{s}"}
                lines.append(frame.assign(**key))
    return pd.concat(lines, ignore_index=True)


def test_a_contrast_is_the_comparison_of_two_places():
    frame = items()
    ours, theirs = frame[frame["method"] == "kd+gram"], frame[frame["method"] == "kd"]
    one, usual = contrast(ours, theirs, "kd+gram", "kd"), compare(frame, "kd+gram", "kd")
    assert (one.estimate, one.low, one.high) == (usual.estimate, usual.low, usual.high)
    assert (one.method, one.baseline) == ("kd+gram", "kd")
    again = contrast(items(seed=1, shift=0.3), frame, "kd", "kd")
    assert again.low < 0.3 < again.high
    with pytest.raises(InputError, match=r"no rows of 'kd' to compare; there are kd\+gram"):
        contrast(frame, ours, "kd+gram", "kd")


def test_gains_are_those_of_each_setting():
    small, large = items(seed=1), items({**METHODS, "kd+gram": 0.5}, seed=2)
    frame = pd.concat([large.assign(n_train=9), small.assign(n_train=5)])
    table = gains(frame, ["n_train"])
    assert table["n_train"].tolist() == [5, 5, 9, 9]
    by = table.set_index(["n_train", "method"])
    for n, part in ((5, small), (9, large)):
        usual = compare(part, "kd+gram", "kd")
        line = by.loc[(n, "kd+gram")]
        assert line["estimate"] == pytest.approx(100 * usual.estimate)
        assert line["high"] == pytest.approx(100 * usual.high)
        assert line["seeds"] == 5
        assert by.loc[(n, "kd+cka"), "estimate"] == pytest.approx(0, abs=2)


def test_a_baseline_without_the_setting_serves_them_all():
    base = items({"kd": 0.0}, seed=3)
    terms = [items({"kd+gram": g}, seed=4).assign(factor=f) for f, g in ((5, 0.1), (20, 0.4))]
    table = gains(pd.concat(terms), ["factor"], against=base)
    assert table["estimate"].to_numpy() == pytest.approx([10, 40], abs=2)
    assert gains(items())["estimate"].to_numpy() == pytest.approx([10, 0], abs=2)


def test_scores_weigh_tasks_equally():
    a, b = items(tasks=("a",), n=300), items(tasks=("b",), n=20)
    table = scores(pd.concat([a, b]).assign(n_train=1), ["n_train"]).set_index("method")
    means = [part.loc[part["method"] == "kd", "score"].mean() for part in (a, b)]
    assert table.loc["kd", "score"] == pytest.approx(np.mean(means))


def test_a_change_of_gain_is_a_difference_of_differences():
    there, here = items({"kd": 0.0, "kd+gram": 0.3}, seed=5, shift=2.0), items(seed=6)
    one = change_of_gain(there, here, "kd+gram")
    by_hand = compare(there, "kd+gram", "kd").estimate - compare(here, "kd+gram", "kd").estimate
    assert one.estimate == pytest.approx(by_hand)
    assert one.low < 0.2 < one.high
    assert one.high < 1  # the shift of all scores is in no gain
    assert (one.method, one.baseline) == ("kd+gram", "kd")


def test_a_changed_method_meets_kd_and_itself():
    against = items(seed=7)
    table = changed(items({"kd+gram": 0.3}, seed=8), against, "memory 0.9")
    assert table["baseline"].tolist() == ["kd", "kd+gram"]
    assert table["estimate"].to_numpy() == pytest.approx([30, 20], abs=2)
    assert table["label"].tolist() == [
        "KD + Gram,\nmemory 0.9 vs KD",
        "KD + Gram,\nmemory 0.9 vs without",
    ]


def test_a_device_that_shifts_all_scores_changes_no_gain():
    table = device_effects(items(seed=9, shift=0.2), items(seed=10))
    score, *of_gains = table.to_dict("records")
    assert score["label"] == "score,\nall methods"
    assert score["low"] < 20 < score["high"]
    assert score["low"] > 0
    assert [line["method"] for line in of_gains] == ["kd+gram", "kd+cka"]
    assert all(line["low"] < 0 < line["high"] for line in of_gains)


def test_a_device_that_helps_one_method_changes_its_gain():
    table = device_effects(items({**METHODS, "kd+gram": 0.4}, seed=11), items(seed=12))
    by = table.set_index("method")
    assert by.loc["kd+gram", "low"] < 30 < by.loc["kd+gram", "high"]
    assert by.loc["kd+gram", "low"] > 10
    assert by.loc["kd+cka", "low"] < 0 < by.loc["kd+cka", "high"]


def test_noise_of_a_rerun_and_of_a_seed_are_told_apart():
    some = [items(seeds=60, n=40, luck=0.3, own=0.1, seed=s, shift=s) for s in (13, 14)]
    rerun = rerun_noise(*some)
    # A run is luck (shared by the devices) + its own throw + the mean of 40 items' noise.
    own = (0.1**2 + 0.05**2 / 40) ** 0.5
    assert rerun["device"] == pytest.approx(own, rel=0.15)
    assert rerun["seed"] == pytest.approx((0.3**2 + own**2) ** 0.5, rel=0.15)


def test_words_hold_label_setting_and_interval():
    line = {"method": "kd+gram", "baseline": "kd", "estimate": 1.25, "low": -0.5, "high": 3.0}
    assert in_words(pd.DataFrame([line]), "points") == "KD + Gram vs KD: +1.2 (-0.5 to +3.0) points"
    more = {**line, "label": "a\nb", "setting": "9"}
    assert in_words(pd.DataFrame([more]), "points").startswith("a b, 9: +1.2")
