"""Comparisons across sets of runs and differences of gains, on items with known effects."""

import numpy as np
import pandas as pd
import pytest

from geodistill.analysis.stats.compare import compare
from geodistill.analysis.stats.contrasts import compare_across, interaction
from geodistill.errors import InputError

EFFECTS = {"kd": 0.0, "kd+gram": 0.1, "kd+cka": 0.0}


def items(effects=EFFECTS, seed=0, shift=0.0, tasks=("a", "b"), n_seeds=5, n=200):
    """Scores: difficulty of the item + seed effect + effect of the method + noise of the run."""
    rng, shared = np.random.default_rng(seed), np.random.default_rng(99)
    frames = []
    for task in tasks:
        difficulty = shared.standard_normal(n)
        seed_effects = 0.02 * shared.standard_normal(n_seeds)
        for method, effect in effects.items():
            for s in range(n_seeds):
                run = seed_effects[s] + effect + shift + 0.01 * rng.standard_normal()
                frame = pd.DataFrame({"item": np.arange(n), "source": np.arange(n)})
                frame["score"] = difficulty + run + 0.05 * rng.standard_normal(n)
                key = {"task": task, "method": method, "seed": s, "run_id": f"{task}{method}{s}"}
                frames.append(frame.assign(**key))
    return pd.concat(frames, ignore_index=True)


def test_a_comparison_across_two_sets_is_that_of_one_table():
    frame = items()
    method, baseline = frame[frame["method"] == "kd+gram"], frame[frame["method"] == "kd"]
    across = compare_across(method, baseline, "kd+gram", "kd")
    assert across == compare(frame, "kd+gram", "kd")


def test_a_method_is_compared_with_itself_in_another_set():
    across = compare_across(items(seed=1, shift=0.3), items(), "kd", "kd")
    assert across.low < 0.3 < across.high
    assert (across.method, across.baseline, across.tasks) == ("kd", "kd", ("a", "b"))
    of_one = compare_across(items(seed=1, shift=0.3), items(), "kd", "kd", ["b"])
    assert of_one.tasks == ("b",)
    fewer = compare_across(items(seed=1, tasks=("a",)), items(), "kd", "kd")
    assert fewer.tasks == ("a",)  # by default those of the method


def test_a_set_without_its_method_is_refused():
    frame = items()
    gram = frame[frame["method"] == "kd+gram"]
    with pytest.raises(InputError, match=r"no rows of 'kd' to compare; there are kd\+gram"):
        compare_across(frame, gram, "kd+gram", "kd")
    with pytest.raises(InputError, match="no rows of 'sft' to compare; there are kd, kd"):
        compare_across(frame, gram, "sft", "kd+gram")
    with pytest.raises(InputError, match="there are none at all"):
        compare_across(frame[:0], gram, "kd", "kd+gram")


def test_an_interaction_is_a_difference_in_differences():
    second, first = items({"kd": 0.0, "kd+gram": 0.3}, seed=5, shift=2.0), items(seed=6)
    pair = ("kd+gram", "kd")
    result = interaction(second, pair, first, pair)
    by_hand = compare(second, *pair).estimate - compare(first, *pair).estimate
    assert result.estimate == pytest.approx(by_hand)
    assert result.low < 0.2 < result.high
    assert result.high < 1  # the shift of all scores is in no gain
    assert (result.method, result.baseline) == pair


def test_the_interaction_of_a_two_by_two_design():
    effects = {"neither": 0.0, "a": 0.1, "b": 0.2, "both": 0.7}
    frame = items(effects, seed=7)
    result = interaction(frame, ("both", "a"), frame, ("b", "neither"))
    means = frame.groupby("method")["score"].mean()
    expected = means["both"] - means["a"] - means["b"] + means["neither"]
    assert result.estimate == pytest.approx(expected)
    assert result.low < 0.4 < result.high
    swapped = interaction(frame, ("both", "b"), frame, ("a", "neither"))
    assert swapped.estimate == pytest.approx(result.estimate)
    assert swapped.se == pytest.approx(result.se)
