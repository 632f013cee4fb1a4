"""The collapse rule, against counts by hand and at its thresholds."""

import numpy as np
import pandas as pd
import pytest
from support.paired_items import classified_items

from geodistill.analysis.stats.collapse import collapsed_share, find_collapsed
from geodistill.analysis.stats.compare import compare
from geodistill.analysis.stats.single_level import compare_over_items
from geodistill.errors import InputError


def run(label, prediction, run_id="a", task="t", method="kd", seed=0):
    key = {"run_id": run_id, "task": task, "method": method, "seed": seed}
    return pd.DataFrame({**key, "label": label, "prediction": prediction})


def classes(n_right, n_wrong_minority=0):
    """100 items, 70 of class 0: right on `n_right` of class 1, wrong on some of class 0."""
    label = np.repeat([0, 1], [70, 30])
    prediction = np.zeros(100, dtype=int)
    prediction[70 : 70 + n_right] = 1
    prediction[:n_wrong_minority] = 1
    return label, prediction


@pytest.mark.parametrize(
    ("n_right", "n_wrong", "collapsed"),
    [
        (0, 0, True),  # the majority class alone
        (2, 0, True),  # 72 %, two points above: within, and 98 % of one class
        (10, 8, True),  # 72 %, and 82 % of one class
        (11, 8, False),  # 73 %
        (3, 40, True),  # 33 %, far below the majority
        (30, 0, False),  # all right
    ],
)
def test_accuracy_within_two_points_of_the_majority(n_right, n_wrong, collapsed):
    (row,) = find_collapsed(run(*classes(n_right, n_wrong))).to_dict("records")
    assert row["score"] == pytest.approx((70 - n_wrong + n_right) / 100)
    assert row["floor"] == 0.7
    assert row["one_answer"] == max(n_right + n_wrong, 100 - n_right - n_wrong) / 100
    assert row["collapsed"] is collapsed


def test_almost_one_class_has_collapsed_however_accurate():
    label = np.repeat([0, 1], [94, 6])
    prediction = np.repeat([0, 1], [97, 3])
    rule = {"within": 0.0}
    assert find_collapsed(run(label, prediction), **rule)["collapsed"].item()
    prediction = np.repeat([0, 1], [96, 4])
    assert not find_collapsed(run(label, prediction), **rule)["collapsed"].item()


def test_the_thresholds_can_be_set():
    items = run(*classes(10, 5))  # 75 %, 85 % of one class
    assert not find_collapsed(items)["collapsed"].item()
    assert find_collapsed(items, within=0.05)["collapsed"].item()
    assert not find_collapsed(items, within=0.049)["collapsed"].item()
    assert find_collapsed(items, one_answer=0.85)["collapsed"].item()
    assert find_collapsed(items, floors={"t": 0.74})["collapsed"].item()
    assert not find_collapsed(items, floors={"t": 0.72})["collapsed"].item()


@pytest.mark.parametrize(("noise", "collapsed"), [(0.1, False), (200.0, True)])
def test_on_a_scale_the_correlation_decides(noise, collapsed):
    rng = np.random.default_rng(0)
    label = rng.standard_normal(300)
    prediction = label + noise * rng.standard_normal(300)
    (row,) = find_collapsed(run(label, prediction)).to_dict("records")
    assert row["score"] == pytest.approx(np.corrcoef(label, prediction)[0, 1])
    assert row["collapsed"] is collapsed
    bound = row["score"]
    assert find_collapsed(run(label, prediction), pearson=bound)["collapsed"].item()
    assert not find_collapsed(run(label, prediction), pearson=bound - 1e-9)["collapsed"].item()


def test_a_constant_prediction_on_a_scale_has_collapsed():
    label = np.linspace(-1, 1, 50)
    assert find_collapsed(run(label, np.full(50, 0.25)))["collapsed"].item()


def test_texts_are_judged_by_equal_answers_and_by_a_floor_that_is_given():
    key = {"run_id": "a", "task": "t0", "method": "kd", "seed": 0}
    items = pd.DataFrame({**key, "answer": [" yes", "yes "] * 49 + ["no", "no"]})
    items["exact_match"] = 0.0
    assert find_collapsed(items)["collapsed"].item()  # 98 % say yes
    items["answer"] = [f"answer {i}" for i in range(100)]
    assert not find_collapsed(items)["collapsed"].item()
    items.loc[:5, "exact_match"] = 1.0  # 6 %
    assert find_collapsed(items, floors={"t0": 0.04})["collapsed"].item()
    assert not find_collapsed(items, floors={"t0": 0.03})["collapsed"].item()


@pytest.mark.parametrize(("labels", "collapsed"), [(2, True), (100, False)])
def test_labels_that_most_items_have_for_themselves_are_no_classes(labels, collapsed):
    """60 of 100 right are below the largest of two classes, and unlike 1 of 100 references."""
    label = pd.Series(np.arange(100) % labels).astype(str).where(np.arange(100) < 30, "reference 0")
    prediction = label.where(np.arange(100) % 5 < 3, "0")
    if labels == 100:
        label = "reference " + pd.Series(np.arange(100)).astype(str)
        prediction = label.where(np.arange(100) < 1, "other " + label)
    assert find_collapsed(run(label, prediction))["collapsed"].item() is collapsed


def test_each_run_and_task_is_judged_by_itself_whatever_the_index():
    good, dead = classes(30), classes(0)
    items = pd.concat(
        [
            run(*good, run_id="a"),
            run(*dead, run_id="b", method="kd+spectrum", seed=1),
            run(*dead, run_id="a", task="u"),
        ]
    )
    table = find_collapsed(items).set_index(["run_id", "task"])["collapsed"].to_dict()
    assert table == {("a", "t"): False, ("b", "t"): True, ("a", "u"): True}
    assert collapsed_share(items) == pytest.approx(2 / 3)
    shuffled = items.sample(frac=1, random_state=0)
    assert find_collapsed(shuffled).set_index(["run_id", "task"])["collapsed"].to_dict() == table


def test_items_that_do_not_tell_have_no_collapsed_run():
    items = run(*classes(0)).drop(columns="prediction").assign(score=1.0)
    assert find_collapsed(items).empty
    assert collapsed_share(items) == 0.0
    with pytest.raises(InputError, match="items lack run_id; the columns are task, method, seed"):
        find_collapsed(items.drop(columns="run_id"))


def with_dead_runs(items, method, seeds):
    """The runs of some seeds now predict class 0 alone."""
    dead = (items["method"] == method) & items["seed"].isin(seeds)
    items = items.assign(prediction=items["prediction"].mask(dead, 0))
    return items.assign(score=(items["label"] == items["prediction"]).astype(float))


@pytest.mark.parametrize("dead", [[], [0], [0, 1, 2]])
def test_a_comparison_knows_the_share_of_dead_runs_of_its_baseline(dead):
    items = classified_items(np.random.default_rng(0), n_seeds=5, skill=(0.9, 0.8))
    items = with_dead_runs(items, "kd", dead)
    assert compare(items, "m", "kd").baseline_collapsed == pytest.approx(len(dead) / 5)
    assert compare(items, "kd", "m").baseline_collapsed == 0.0


def test_so_does_a_comparison_of_one_seed():
    items = classified_items(np.random.default_rng(0), n_seeds=1, skill=(0.9, 0.8))
    assert compare_over_items(items, "m", "kd").baseline_collapsed == 0.0
    dead = with_dead_runs(items, "kd", [0])
    assert compare_over_items(dead, "m", "kd").baseline_collapsed == 1.0
