"""Second opinions: each against its own library or brute force, each with a use."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar

from geodistill.analysis.report.sensitivity_table import second_opinions
from geodistill.analysis.stats import sensitivity
from geodistill.analysis.stats.compare import compare
from geodistill.errors import InputError


def classifiers(n_seeds=4, n_items=80, gain=0.15, tasks=("a", "b", "c"), seed=0):
    rng = np.random.default_rng(seed)
    index = pd.MultiIndex.from_product(
        [tasks, ["kd", "m"], range(n_seeds), [f"i{i}" for i in range(n_items)]],
        names=["task", "method", "seed", "item"],
    )
    frame = index.to_frame(index=False)
    luck = rng.random(len(frame))
    frame["score"] = (luck < 0.6 + gain * (frame["method"] == "m")).astype(float)
    return frame.assign(source=frame["item"], run_id=frame["method"] + frame["seed"].astype(str))


def line(table, name):
    return table[table["opinion"] == name].iloc[0]


def test_every_opinion_has_a_use_and_none_is_missing():
    table = second_opinions(classifiers(), "m", "kd")
    assert table.columns.tolist() == ["opinion", "use", "estimate", "low", "high", "p", "note"]
    assert table["opinion"].is_unique
    assert (table["use"].str.len() > 20).all()
    kinds = {name.split(":")[0] for name in table["opinion"]}
    assert kinds == {
        "paired t over seeds", "sign flips over seeds", "two-way bootstrap, corrected",
        "McNemar by item", "Bayesian interval by item", "mixed model", "tasks better",
        "without a", "without b", "without c",
    }  # fmt: skip


def test_opinions_are_what_they_say():
    items = classifiers()
    table = second_opinions(items, "m", "kd")
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
        theirs = their_mcnemar([[50, losses], [gains, 20]], exact=True).pvalue
        assert sensitivity.mcnemar(gains, losses) == pytest.approx(min(1.0, theirs))
    one = classifiers(n_seeds=1, tasks=("a",))
    scores = one.pivot(index="item", columns="method", values="score")
    cells = pd.crosstab(scores["m"], scores["kd"]).to_numpy()
    table = second_opinions(one, "m", "kd")
    found = line(table, "McNemar by item: a")["p"]
    assert found == pytest.approx(their_mcnemar(cells, exact=True).pvalue)
    assert len(table) == 2  # with one seed the items speak alone


def test_the_bayesian_interval_covers_with_few_items():
    rng = np.random.default_rng(1)
    n, cells = 60, [0.12, 0.06, 0.82]
    draws = rng.multinomial(n, cells, size=400)
    hits = [
        low <= 0.06 <= high
        for low, high in (sensitivity.paired_posterior(g, b, n) for g, b, _ in draws)
    ]
    assert 0.92 < np.mean(hits) < 0.985


def test_the_bayesian_interval_is_the_dirichlets():
    draws = np.random.default_rng(2).dirichlet([12.5, 3.5, 20.5, 30.5], 200_000)
    expected = np.quantile(draws[:, 0] - draws[:, 1], [0.025, 0.975])
    assert sensitivity.paired_posterior(12, 3, 65) == pytest.approx(expected, abs=0.004)


def test_partial_conjunction_by_hand():
    count, p = sensitivity.tasks_better([0.03, 0.001, 0.2])
    assert p == pytest.approx([0.003, 0.06, 0.2])
    assert count == 1
    assert sensitivity.tasks_better([0.001, 0.002, 0.003])[0] == 3
    assert sensitivity.tasks_better([0.04, 0.04, 0.04])[0] == 0  # Bonferroni: 3 × 0.04
    assert sensitivity.tasks_better([0.001, 0.9, 0.001])[1] == pytest.approx(
        [0.003, 0.003 * 2 / 3 + 0.001, 0.9]
    )


def test_partial_conjunction_rarely_counts_too_many():
    rng = np.random.default_rng(3)
    null = [sensitivity.tasks_better([1e-9, *rng.random(4)])[0] > 1 for _ in range(2000)]
    assert np.mean(null) < 0.06


def test_the_mixed_model_agrees_with_the_closed_form():
    rng = np.random.default_rng(4)
    items = classifiers(n_seeds=5, tasks=("a",))
    number = items["item"].str[1:].astype(int)
    moved = items["seed"] + np.sin(number) * 2  # seeds and items both matter: no part is at 0
    items["score"] = rng.standard_normal(len(items)) / 2 + moved * (items["method"] == "m")
    note = line(second_opinions(items, "m", "kd"), "mixed model: a")["note"]
    closed, reml = (float(part.split("se ")[1]) for part in note.split("there")[1].split(","))
    assert closed == pytest.approx(reml, rel=0.02)
    assert note.startswith("60 items × 5 seeds")
    assert not second_opinions(items, "m", "kd")["opinion"].str.contains("McNemar").any()


def test_what_rows_do_not_allow_is_refused_or_left_out():
    one = classifiers(n_seeds=1, tasks=("a",))
    with pytest.raises(InputError, match="share one seed and their scores are not 0 or 1"):
        second_opinions(one.assign(score=one["score"] / 3), "m", "kd")
    many = second_opinions(classifiers(n_items=300, tasks=("a",)), "m", "kd")
    assert not many["opinion"].str.contains("Bayesian|without|tasks better").any()
    with pytest.raises(InputError, match="unknown method 'mm'"):
        second_opinions(one, "mm", "kd")
