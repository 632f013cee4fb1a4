"""Metrics that are no item means: against other libraries, derivatives and resampling."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef
from support.paired_items import classified_items

from geodistill.analysis.stats.compare import compare
from geodistill.analysis.stats.metric_influence import METRICS, score_by_influence
from geodistill.errors import InputError

REFERENCES = {
    "matthews": matthews_corrcoef,
    "f1": f1_score,
    "pearson": lambda x, y: stats.pearsonr(x, y).statistic,
    "spearman": lambda x, y: stats.spearmanr(x, y).statistic,
}


def test_every_metric_has_a_reference():
    assert set(REFERENCES) == set(METRICS)


def pairs(name, rng, n=40):
    if name in ("matthews", "f1"):
        label = rng.integers(0, 2, n)
        return label, np.where(rng.random(n) < 0.7, label, 1 - label)
    x = rng.integers(1, 12, n)  # with ties
    return x, x + rng.integers(0, 9, n)


@pytest.mark.parametrize("name", REFERENCES)
def test_values_are_those_of_other_libraries(name):
    rng = np.random.default_rng(1)
    x, y = pairs(name, rng)
    counts = rng.multinomial(len(x), np.full(len(x), 1 / len(x)), size=5)
    values = METRICS[name].values(x, y, np.vstack([np.ones(len(x)), counts]))
    rows = [np.arange(len(x)), *(np.repeat(np.arange(len(x)), c) for c in counts)]
    assert values == pytest.approx([REFERENCES[name](x[r], y[r]) for r in rows])
    assert len(set(values.round(6))) > 3


@pytest.mark.parametrize("name", REFERENCES)
def test_influence_is_the_derivative_by_an_items_weight(name):
    x, y = pairs(name, np.random.default_rng(2))
    more = np.ones((len(x), len(x))) + 1e-5 * np.eye(len(x))
    less = np.ones((len(x), len(x))) - 1e-5 * np.eye(len(x))
    slope = METRICS[name].values(x, y, more) - METRICS[name].values(x, y, less)
    influence = METRICS[name].influence(x, y)
    assert influence == pytest.approx(slope / 2e-5 * len(x), abs=1e-4)
    assert influence.mean() == pytest.approx(0, abs=1e-8)
    assert influence.std() > 0.05


def test_matthews_of_three_classes():
    rng = np.random.default_rng(3)
    x = rng.integers(0, 3, 50)
    y = np.where(rng.random(50) < 0.6, x, rng.integers(0, 3, 50))
    assert METRICS["matthews"].values(x, y, np.ones((1, 50)))[0] == pytest.approx(
        matthews_corrcoef(x, y)
    )


@pytest.mark.parametrize("name", ["matthews", "pearson", "spearman"])
def test_a_constant_prediction_scores_nothing(name):
    x, y = np.array([0, 1, 1, 0]), np.ones(4, dtype=int)
    assert METRICS[name].values(x, y, np.ones((1, 4))).tolist() == [0.0]
    assert METRICS[name].influence(x, y).tolist() == [0.0] * 4


def test_a_large_shared_offset_does_not_change_pearson():
    x, y = pairs("pearson", np.random.default_rng(4))
    near, far = (METRICS["pearson"].influence(x + c, y + c) for c in (0.0, 1e6))
    assert far == pytest.approx(near, abs=1e-6)


def test_item_scores_average_to_the_metric_of_each_run():
    items = classified_items(np.random.default_rng(5))
    by_run = {
        key: matthews_corrcoef(run["label"], run["prediction"])
        for key, run in items.groupby(["method", "seed"])
    }
    shuffled = score_by_influence(items.sample(frac=1, random_state=0), "matthews")
    means = shuffled.groupby(["method", "seed"])["score"].mean()
    assert means.to_dict() == pytest.approx(by_run)
    expected = np.mean([by_run["m", s] - by_run["kd", s] for s in range(4)])
    assert compare(shuffled, "m", "kd").estimate == pytest.approx(expected)


@pytest.mark.parametrize("name", ["matthews", "f1"])
def test_the_standard_error_agrees_with_a_bootstrap_of_the_metric_itself(name):
    rng = np.random.default_rng(6)
    items = classified_items(rng, n_seeds=10, n_items=500)
    runs = {
        method: [
            (run["label"].to_numpy(), run["prediction"].to_numpy())
            for _, run in rows.groupby("seed")
        ]
        for method, rows in items.groupby("method")
    }

    def difference(weights):  # (R, items) -> (R, seeds)
        of = {m: [METRICS[name].values(*run, weights) for run in runs[m]] for m in runs}
        return np.array(of["m"]).T - np.array(of["kd"]).T

    weights = rng.multinomial(500, np.full(500, 1 / 500), size=1000)
    seeds = rng.multinomial(10, np.full(10, 1 / 10), size=1000) / 10
    resampled, original = difference(weights), difference(np.ones((1, 500)))[0]
    by_seed, by_item = (seeds @ original).var(), resampled.mean(1).var()
    both = (seeds * resampled).sum(1).var()
    se = max(2 * (by_seed + by_item) - both, by_seed, by_item) ** 0.5
    result = compare(score_by_influence(items, name), "m", "kd")
    assert result.se == pytest.approx(se, rel=0.2)
    assert result.estimate == pytest.approx(original.mean())


def test_copies_of_items_in_one_cluster_add_nothing():
    items = classified_items(np.random.default_rng(7), n_items=50)
    copies = [items.assign(item=items["item"] + str(k)) for k in range(6)]
    together = pd.concat(copies, ignore_index=True)
    clustered, single, naive = (
        compare(score_by_influence(frame, "f1"), "m", "kd")
        for frame in (together, items, together.assign(source=together["item"]))
    )
    assert clustered.se == pytest.approx(single.se)
    assert naive.components.residual < 0.4 * single.components.residual


def test_bad_input_is_named():
    items = classified_items(np.random.default_rng(12), n_items=10)
    with pytest.raises(InputError, match="unknown metric 'bleu'; known, higher better: matthews"):
        score_by_influence(items, "bleu")
    with pytest.raises(InputError, match="f1 needs label and prediction; the items lack label"):
        score_by_influence(items.drop(columns="label"), "f1")
    with pytest.raises(
        InputError, match=r"f1 needs labels and predictions of 0 and 1; got \[0, 1, 2"
    ):
        score_by_influence(items.assign(label=items["label"] + 1), "f1")
    texts = items.assign(label=items["label"].map({0: "bad", 1: "good"}))
    for metric in ("pearson", "spearman"):
        with pytest.raises(InputError, match=f"{metric} needs numbers as label; got '(good|bad)'"):
            score_by_influence(texts, metric)
    with pytest.raises(InputError, match="101 classes"):
        METRICS["matthews"].influence(np.arange(101), np.arange(101))
