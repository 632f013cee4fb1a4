"""Variance components of starts, orders and decodings: a hand case, statsmodels, known truths."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from geodistill.analysis.stats.variance_components import decoded, luck, luck_table
from geodistill.errors import InputError


def table(a, b, n, start=0.0, order=0.0, rest=0.0, decoding=0.0, seed=0):
    """A balanced table with these standard deviations."""
    rng = np.random.default_rng(seed)
    y = (
        start * rng.standard_normal((a, 1, 1))
        + order * rng.standard_normal((1, b, 1))
        + rest * rng.standard_normal((a, b, 1))
        + decoding * rng.standard_normal((a, b, n))
    )
    cells = np.indices(y.shape).reshape(3, -1)
    return pd.DataFrame({"start": cells[0], "order": cells[1], "value": y.ravel()})


def test_the_hand_case():
    """Starts ±1, orders ±2, decodings ±½, nothing else: sample variances 2, 8 and, in cells, ½.

    MS_D = ½, MS_R = 0, so σ²_R = −¼ → 0; σ²_S = (8 − 0)/4 = 2, σ²_O = (32 − 0)/4 = 8.
    """
    lines = [
        {"start": s, "order": o, "value": s + 2 * o + d}
        for s in (-1, 1)
        for o in (-1, 1)
        for d in (-0.5, 0.5)
    ]
    found = luck(pd.DataFrame(lines), draws=10)
    assert (found.start, found.order, found.rest, found.decoding) == pytest.approx((2, 8, 0, 0.5))
    assert (found.starts, found.orders, found.decodings) == (2, 2, 2)
    assert found.deviation("start", "decoding", decodings=2)[0] == pytest.approx(2.25**0.5)


def test_mean_squares_agree_with_statsmodels():
    marks = table(3, 5, 4, start=1.0, order=2.0, rest=0.7, decoding=0.5, seed=3)
    squares = anova_lm(ols("value ~ C(start) * C(order)", marks).fit())["mean_sq"]
    s, o, so, d = (squares[k] for k in ("C(start)", "C(order)", "C(start):C(order)", "Residual"))
    found = luck(marks, draws=10)
    expected = ((s - so) / (4 * 5), (o - so) / (4 * 3), (so - d) / 4, d)
    assert min(expected) > 0
    assert (found.start, found.order, found.rest, found.decoding) == pytest.approx(expected)


def test_one_decoding_leaves_its_luck_in_the_rest():
    marks = table(3, 5, 1, order=1.0, rest=0.5, seed=1)
    squares = anova_lm(ols("value ~ C(start) + C(order)", marks).fit())["mean_sq"]
    found = luck(marks)
    assert found.rest == pytest.approx(squares["Residual"])
    assert found.decoding == 0
    assert found.deviation("decoding") == (0, 0, 0)


@pytest.mark.parametrize("part", ["start", "order", "rest", "decoding"])
def test_each_component_finds_its_own_effect_alone(part):
    found = luck(table(150, 150, 2, **{part: 2.0}, seed=5), draws=10)
    names = ("start", "order", "rest", "decoding")
    values = {name: getattr(found, name) for name in names}
    assert values.pop(part) == pytest.approx(4.0, rel=0.3)
    assert max(values.values()) < 0.05


def test_intervals_hold_the_truth_as_often_as_they_say():
    """At the study's own size, 3 × 5 × 5: what new trainings do, and what decodings do."""
    truth = {"start": 0.01, "order": 0.02, "rest": 0.01, "decoding": 0.02}
    new = (0.01**2 + 0.02**2 + 0.01**2 + 0.02**2 / 5) ** 0.5
    hits = {"new training": 0, "decoding": 0}
    for seed in range(200):
        found = luck(table(3, 5, 5, **truth, seed=seed), draws=1000, seed=seed)
        _, low, high = found.deviation("start", "order", "rest", "decoding", decodings=5)
        hits["new training"] += low <= new <= high
        _, low, high = found.deviation("decoding")
        hits["decoding"] += low <= 0.02 <= high
    assert hits["new training"] / 200 > 0.9
    assert 0.9 < hits["decoding"] / 200 < 0.99


def test_holes_and_single_starts_are_refused():
    marks = table(3, 2, 2, order=1.0)
    with pytest.raises(InputError, match=r"3 starts × 2 orders with 1 to 2 decodings each"):
        luck(marks[1:])
    with pytest.raises(InputError, match=r"1 starts × 2 orders"):
        luck(marks[marks["start"] == 0])
    with pytest.raises(InputError, match="as many in each cell"):
        luck(marks[(marks["start"] != 0) | (marks["order"] != 0)])


def test_runs_with_decodings_become_a_table():
    runs = pd.DataFrame(
        {"start_seed": [0, 1], "seed": [100, 101], "m/seed10": [1.0, 2.0], "m/seed20": [3.0, 4.0],
         "m": [9.0, 9.0]}
    )  # fmt: skip
    long = decoded(runs, "m/seed").sort_values(["start", "decoding"])
    assert long[["start", "order", "decoding", "value"]].to_numpy().tolist() == [
        [0, 100, 10, 1], [0, 100, 20, 3], [1, 101, 10, 2], [1, 101, 20, 4],
    ]  # fmt: skip


def test_the_table_tells_decoding_again_from_training_again():
    found = luck(table(3, 5, 5, order=1.0, decoding=0.5, seed=2), draws=100)
    lines = luck_table(found, factor=100).set_index("what")["deviation"]
    assert lines["one model, decoded again"] == pytest.approx(100 * found.decoding**0.5)
    same, new = lines["mean of 5 decodings, the same model"], lines.iloc[-1]
    assert same == pytest.approx(100 * (found.decoding / 5) ** 0.5)
    parts = found.start + found.order + found.rest + found.decoding / 5
    assert new == pytest.approx(100 * parts**0.5)
    assert new > same
