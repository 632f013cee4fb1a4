"""Scores that are no item means: against other libraries, brute force, and a known truth."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef

from geodistill.analysis.stats.bootstrap import (
    bootstrap_means,
    bootstrap_metric,
    compare_metric,
    with_influence,
)
from geodistill.analysis.stats.compare import compare
from geodistill.analysis.stats.coverage import Truth
from geodistill.analysis.stats.crossed_anova import estimate
from geodistill.analysis.stats.metric_influence import SCORES, score
from geodistill.errors import InputError

OTHERS = {
    "matthews": matthews_corrcoef,
    "f1": f1_score,
    "pearson": lambda x, y: stats.pearsonr(x, y).statistic,
    "spearman": lambda x, y: stats.spearmanr(x, y).statistic,
    "ratio": lambda x, y: x.sum() / y.sum(),
}


def pairs(name, rng, n=40):
    if name in ("matthews", "f1"):
        label = rng.integers(0, 2, n)
        return label, np.where(rng.random(n) < 0.7, label, 1 - label)
    x = rng.integers(1, 12, n)  # with ties
    return x, x + rng.integers(0, 9, n)


def pair_items(rng, n_seeds=4, n_items=60, skill=(0.75, 0.65), difficulty=0.15):
    """Tidy rows of two classifiers that find the same items hard."""
    label = rng.integers(0, 2, n_items)
    hard = difficulty * rng.standard_normal(n_items)
    frames = []
    for method, right in zip(("m", "kd"), skill, strict=True):
        for seed in range(n_seeds):
            hit = rng.random(n_items) < right + hard
            frame = pd.DataFrame({"item": [f"i{i}" for i in range(n_items)], "label": label})
            frame["prediction"] = np.where(hit, label, 1 - label)
            key = {"task": "cola", "method": method, "seed": seed, "run_id": f"{method}{seed}"}
            frames.append(frame.assign(source=frame["item"], score=hit.astype(float), **key))
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize("name", OTHERS)
def test_values_are_those_of_other_libraries(name):
    rng = np.random.default_rng(1)
    x, y = pairs(name, rng)
    counts = rng.multinomial(len(x), np.full(len(x), 1 / len(x)), size=5)
    found = SCORES[name].values(x, y, np.vstack([np.ones(len(x)), counts]))
    rows = [np.arange(len(x)), *(np.repeat(np.arange(len(x)), c) for c in counts)]
    assert found == pytest.approx([OTHERS[name](x[r], y[r]) for r in rows])
    assert len(set(found.round(6))) > 3


@pytest.mark.parametrize("name", OTHERS)
def test_influence_is_the_derivative_by_an_items_weight(name):
    x, y = pairs(name, np.random.default_rng(2))
    more = np.ones((len(x), len(x))) + 1e-5 * np.eye(len(x))
    less = np.ones((len(x), len(x))) - 1e-5 * np.eye(len(x))
    slope = SCORES[name].values(x, y, more) - SCORES[name].values(x, y, less)
    influence = SCORES[name].influence(x, y)
    assert influence == pytest.approx(slope / 2e-5 * len(x), abs=1e-4)
    assert influence.mean() == pytest.approx(0, abs=1e-8)
    assert influence.std() > 0.05


def test_matthews_of_three_classes():
    rng = np.random.default_rng(3)
    x = rng.integers(0, 3, 50)
    y = np.where(rng.random(50) < 0.6, x, rng.integers(0, 3, 50))
    assert SCORES["matthews"].values(x, y, np.ones((1, 50)))[0] == pytest.approx(
        matthews_corrcoef(x, y)
    )


@pytest.mark.parametrize("name", ["matthews", "pearson", "spearman"])
def test_a_constant_prediction_scores_nothing(name):
    x, y = np.array([0, 1, 1, 0]), np.ones(4, dtype=int)
    assert SCORES[name].values(x, y, np.ones((1, 4))).tolist() == [0.0]
    assert SCORES[name].influence(x, y).tolist() == [0.0] * 4


def test_an_item_mean_as_a_ratio_is_the_primary_analysis():
    items = pair_items(np.random.default_rng(4)).rename(columns={"score": "numerator"})
    means = items.rename(columns={"numerator": "score"})
    ours = compare_metric(items.assign(denominator=1.0), "m", "kd", "ratio")
    theirs = compare(means, "m", "kd")
    assert (ours.estimate, ours.se, ours.df) == pytest.approx(
        (theirs.estimate, theirs.se, theirs.df)
    )
    assert "ratio by the items' influence" in ours.test


def test_estimate_is_the_mean_over_seeds_of_the_score_itself():
    items = pair_items(np.random.default_rng(5))
    by_run = {
        key: matthews_corrcoef(run["label"], run["prediction"])
        for key, run in items.groupby(["method", "seed"])
    }
    expected = np.mean([by_run["m", s] - by_run["kd", s] for s in range(4)])
    shuffled = items.sample(frac=1, random_state=0)
    assert compare_metric(shuffled, "m", "kd", "matthews").estimate == pytest.approx(expected)
    assert bootstrap_metric(items, "m", "kd", "matthews", resamples=5).estimate == pytest.approx(
        expected
    )
    assert with_influence(items, "matthews").groupby(["method", "seed"])["score"].mean()[
        "m", 2
    ] == pytest.approx(by_run["m", 2])


def test_the_bootstrap_agrees_where_it_can():
    items = pair_items(np.random.default_rng(6), n_seeds=10, n_items=500)
    for name in ("matthews", "f1"):
        ours = compare_metric(items, "m", "kd", name)
        check = bootstrap_metric(items, "m", "kd", name)
        assert check.corrected**0.5 == pytest.approx(ours.se, rel=0.15)
        assert check.both > 1.3 * check.corrected


def test_the_bootstrap_keeps_sources_whole():
    rng = np.random.default_rng(7)
    items = pair_items(rng, n_items=50)
    copies = [items.assign(item=items["item"] + str(k)) for k in range(6)]
    together = pd.concat(copies, ignore_index=True)
    apart = together.assign(source=together["item"])
    one, six, naive = (bootstrap_metric(x, "m", "kd", "f1") for x in (items, together, apart))
    assert six.item == pytest.approx(one.item, rel=0.15)
    assert naive.item < 0.4 * one.item
    assert compare_metric(together, "m", "kd", "f1").se == pytest.approx(
        compare_metric(items, "m", "kd", "f1").se
    )


def test_three_times_the_noise_and_the_correction():
    # V_both holds A + B + 3E, the corrected one A + B + E, up to (n − 1)/n: here E alone.
    rng = np.random.default_rng(8)
    truth = Truth(seed=0.0, item=0.0, residual=1.0)
    boots = [bootstrap_means([truth.draw(rng, 30, 40)], 400, seed) for seed in range(60)]
    assert np.mean([b.both for b in boots]) * 1200 == pytest.approx(3, rel=0.1)
    raw = [2 * (b.seed + b.item) - b.both for b in boots]
    assert np.mean(raw) * 1200 == pytest.approx(1, rel=0.15)


def test_influence_intervals_cover_at_five_seeds():
    # Truth by one large experiment; seeds are exchangeable runs, so item luck dominates.
    big = pair_items(np.random.default_rng(9), n_seeds=3, n_items=60_000)
    truth = compare_metric(big, "m", "kd", "matthews").estimate
    rng, hits = np.random.default_rng(10), []
    for _ in range(100):
        items = pair_items(rng, n_seeds=5, n_items=200)
        found = compare_metric(items, "m", "kd", "matthews")
        hits.append(found.low <= truth <= found.high)
    assert 0.90 < np.mean(hits) <= 1


def test_a_thousand_resamples_of_ten_seeds_and_a_thousand_items_take_seconds():
    items = pair_items(np.random.default_rng(11), n_seeds=10, n_items=1000)
    check = bootstrap_metric(items, "m", "kd", "matthews")
    assert check.corrected > 0  # the suite's time budget is the clock


def test_bad_input_is_named():
    items = pair_items(np.random.default_rng(12), n_items=10)
    with pytest.raises(InputError, match="unknown score 'bleu'; known, higher better: matthews"):
        compare_metric(items, "m", "kd", "bleu")
    with pytest.raises(InputError, match=r"the items lack numerator, denominator"):
        compare_metric(items, "m", "kd", "ratio")
    with pytest.raises(
        InputError, match=r"f1 needs labels and predictions of 0 and 1; got \[0, 1, 2"
    ):
        compare_metric(items.assign(label=items["label"] + 1), "m", "kd", "f1")
    with pytest.raises(InputError, match="101 classes"):
        score("matthews").influence(np.arange(101), np.arange(101))
    with pytest.raises(InputError, match="unknown method 'x'"):
        bootstrap_metric(items, "x", "kd", "f1")


def test_bootstrap_of_a_mean_is_brute_force():
    table = Truth(seed=0.3).draw(np.random.default_rng(13), 4, 6)
    rng, means = np.random.default_rng(14), []
    for _ in range(4000):
        chosen = table[np.ix_(rng.integers(0, 4, 4), rng.integers(0, 6, 6))]
        means.append(chosen.mean())
    found = bootstrap_means([table], 4000)
    assert found.both == pytest.approx(np.var(means), rel=0.1)
    assert found.estimate == pytest.approx(estimate([table]).estimate)
    low, high = found.interval(corrected=False)
    assert (high - low) / 2 == pytest.approx(1.959964 * found.both**0.5)
