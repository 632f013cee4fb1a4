"""Sensitivity analyses: each against its own library or brute force, each with a purpose."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from support.paired_items import crossed_rows

from geodistill.analysis.stats import sensitivity
from geodistill.analysis.stats.compare import compare
from geodistill.analysis.stats.coverage import SimulationTruth
from geodistill.analysis.stats.sensitivity import sensitivity_table
from geodistill.errors import InputError


def classifiers(n_seeds=4, n_items=80, gain=0.15, tasks=("a", "b", "c"), seed=0):
    rng = np.random.default_rng(seed)
    items = [f"i{i}" for i in range(n_items)]
    frame = crossed_rows(task=tasks, method=["kd", "m"], seed=range(n_seeds), item=items)
    draw = rng.random(len(frame))
    frame["score"] = (draw < 0.6 + gain * (frame["method"] == "m")).astype(float)
    run_id = frame["method"] + frame["seed"].astype(str)
    return frame.assign(source=frame["task"] + frame["item"], run_id=run_id)


def line(table, name):
    return table[table["test"] == name].iloc[0]


def test_every_test_has_a_purpose_and_none_is_missing():
    table = sensitivity_table(classifiers(), "m", "kd")
    assert table.columns.tolist() == ["test", "purpose", "estimate", "low", "high", "p", "note"]
    assert table["test"].is_unique
    assert (table["purpose"].str.len() > 20).all()
    kinds = {name.split(":")[0] for name in table["test"]}
    assert kinds == {
        "paired t over seeds", "sign-flip test over seeds", "two-way bootstrap, corrected",
        "McNemar by item", "Bayesian interval by item", "mixed model", "tasks better",
        "without a", "without b", "without c",
    }  # fmt: skip


def test_the_rows_are_what_their_names_say():
    items = classifiers()
    table = sensitivity_table(items, "m", "kd")
    answer = compare(items, "m", "kd")
    wide = items.pivot_table(index="seed", columns="method", values="score")
    t = line(table, "paired t over seeds")
    assert t["p"] == pytest.approx(stats.ttest_rel(wide["m"], wide["kd"]).pvalue)
    assert t["estimate"] == pytest.approx(answer.estimate)
    boot = line(table, "two-way bootstrap, corrected")
    assert (boot["high"] - boot["low"]) / 2 / 1.96 == pytest.approx(answer.se, rel=0.5)
    rest = compare(items, "m", "kd", ["b", "c"])
    assert line(table, "without a")["high"] == pytest.approx(rest.high)
    assert line(table, "tasks better")["low"] <= line(table, "tasks better")["estimate"] <= 3


def test_mcnemar_is_that_of_statsmodels():
    for gains, losses in [(9, 2), (3, 3), (0, 6), (0, 0)]:
        expected = reference_mcnemar([[50, losses], [gains, 20]], exact=True).pvalue
        assert sensitivity.mcnemar(gains, losses) == pytest.approx(min(1.0, expected))
    one = classifiers(n_seeds=1, tasks=("a",))
    scores = one.pivot(index="item", columns="method", values="score")
    cells = pd.crosstab(scores["m"], scores["kd"]).to_numpy()
    table = sensitivity_table(one, "m", "kd")
    found = line(table, "McNemar by item: a")["p"]
    assert found == pytest.approx(reference_mcnemar(cells, exact=True).pvalue)
    assert len(table) == 2  # with one seed the items speak alone


def test_seeds_that_gain_as_much_as_they_lose_have_p_one():
    items = classifiers(n_items=8, tasks=("a",))
    number = items["item"].str[1:].astype(int)
    items["score"] = ((number < 4) == (items["method"] == "m")).astype(float)
    mcnemar = line(sensitivity_table(items, "m", "kd"), "McNemar by item: a")
    assert mcnemar["p"] == 1.0
    assert mcnemar["note"].startswith("0 of 4 seeds alone have p ≤ 0.05; p is twice their median")


def test_the_bayesian_interval_is_the_dirichlets():
    draws = np.random.default_rng(2).dirichlet([12.5, 3.5, 20.5, 30.5], 200_000)
    expected = np.quantile(draws[:, 0] - draws[:, 1], [0.025, 0.975])
    assert sensitivity.paired_posterior(12, 3, 65) == pytest.approx(expected, abs=0.004)


def test_partial_conjunction_by_hand():
    count, p = sensitivity.count_improved_tasks([0.03, 0.001, 0.2])
    assert p == pytest.approx([0.003, 0.06, 0.2])
    assert count == 1
    assert sensitivity.count_improved_tasks([0.001, 0.002, 0.003])[0] == 3
    assert sensitivity.count_improved_tasks([0.04, 0.04, 0.04])[0] == 0  # Bonferroni: 3 × 0.04
    assert sensitivity.count_improved_tasks([0.001, 0.9, 0.001])[1] == pytest.approx(
        [0.003, 0.003 * 2 / 3 + 0.001, 0.9]
    )


def test_the_mixed_model_agrees_with_the_closed_form():
    rng = np.random.default_rng(4)
    items = classifiers(n_seeds=5, tasks=("a",))
    number = items["item"].str[1:].astype(int)
    moved = items["seed"] + np.sin(number) * 2  # seeds and items both matter: no part is at 0
    items["score"] = rng.standard_normal(len(items)) / 2 + moved * (items["method"] == "m")
    note = line(sensitivity_table(items, "m", "kd"), "mixed model: a")["note"]
    closed, reml = (float(part.split("se ")[1]) for part in note.split("there")[1].split(","))
    assert closed == pytest.approx(reml, rel=0.02)
    assert note.startswith("60 items × 5 seeds")
    assert not sensitivity_table(items, "m", "kd")["test"].str.contains("McNemar").any()


def test_tests_over_seeds_agree_with_scipy():
    table = SimulationTruth(effect=0.02, seed=0.05).draw(np.random.default_rng(7), 6, 50)
    for result, values in (
        (sensitivity.paired_t_seeds(table), table.mean(1)),
        (sensitivity.paired_t_items(table), table.mean(0)),
    ):
        reference = stats.ttest_1samp(values, 0)
        assert result.p == pytest.approx(reference.pvalue)
        assert (result.low, result.high) == pytest.approx(tuple(reference.confidence_interval()))
    flips = stats.permutation_test(
        (table.mean(1),), lambda x, axis: x.mean(axis), permutation_type="samples"
    )
    assert sensitivity.sign_flip_test(table) == pytest.approx(flips.pvalue)
    assert sensitivity.sign_flip_test(np.ones((5, 3))) == pytest.approx(2 / 32)


def test_many_seeds_are_not_flipped():
    tests = {
        n: sensitivity_table(classifiers(n_seeds=n, n_items=6, tasks=("a",)), "m", "kd")["test"]
        for n in (15, 16)
    }
    assert {n: t.str.contains("sign-flip").any() for n, t in tests.items()} == {15: True, 16: False}


def test_one_cluster_has_no_mixed_model():
    items = classifiers(n_items=6, tasks=("a",)).assign(source="the only one")
    table = sensitivity_table(items, "m", "kd")
    assert not table["test"].str.contains("mixed model").any()
    assert table["note"].str.contains("shared sources ignored").any()


def test_a_task_without_any_difference_has_no_mixed_model():
    items = classifiers(n_items=6, tasks=("a", "b"))
    items.loc[items["task"] == "a", "score"] = 1.0
    both = sensitivity_table(items, "m", "kd")
    assert line(both, "tasks better")["note"].startswith("not available: the differences are all 0")
    assert both["test"].tolist()[-2:] == ["mixed model: b", "tasks better"]
    rows = items[items["task"] == "a"]
    table = sensitivity_table(rows, "m", "kd")
    assert table["test"].tolist()[:2] == [
        "sign-flip test over seeds",
        "two-way bootstrap, corrected",
    ]
    assert not table["test"].str.contains("paired t|mixed model").any()


def test_two_seeds_have_a_mixed_model():
    table = sensitivity_table(classifiers(n_seeds=2, n_items=9, tasks=("a",)), "m", "kd")
    assert line(table, "mixed model: a")["note"].startswith("9 items × 2 seeds")


def test_the_dense_model_is_not_fitted_to_a_large_table():
    for shape, message in (((5, 61), "60 items × 8 seeds, got 61 × 5"), ((9, 60), "got 60 × 9")):
        with pytest.raises(InputError, match=message):
            sensitivity.mixed_model(np.zeros(shape))


def test_what_rows_do_not_allow_is_refused_or_left_out():
    one = classifiers(n_seeds=1, tasks=("a",))
    with pytest.raises(InputError, match="share one seed and their scores are not 0 or 1"):
        sensitivity_table(one.assign(score=one["score"] / 3), "m", "kd")
    many = sensitivity_table(classifiers(n_items=300, tasks=("a",)), "m", "kd")
    assert not many["test"].str.contains("Bayesian|without|tasks better").any()
