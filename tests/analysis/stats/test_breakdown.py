"""Weight curves, gains by difficulty, geometry kept against score: on made data of known answer."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from geodistill.analysis.figures import common
from geodistill.analysis.stats.breakdown import (
    gain_by_difficulty,
    gain_by_factor,
    kept_and_score,
    teachers_share,
)
from geodistill.errors import InputError


def tuning():
    """KD at 0.7 + task + seed; a term adds 0.01 at factor 5 and 0.04 at 20, in every cell."""
    lines = []
    for task, metric, base in (("a", "accuracy", 0.7), ("b", "pearson", 0.5)):
        for seed in (1, 2):
            cell = {"task": task, "seed": seed, "metric": metric}
            own = base + seed / 100
            lines.append({**cell, "method": "kd", "factor": 1.0, "value": own})
            lines.append({**cell, "method": "ce", "factor": 1.0, "value": own - 0.1})
            lines.append({**cell, "metric": "nll", "method": "kd", "factor": 1.0, "value": 9.0})
            for factor, gain in ((5.0, 0.01), (20.0, 0.04)):
                noise = 0.01 if task == "a" else -0.01
                value = own + gain + noise
                lines.append({**cell, "method": "kd+gram", "factor": factor, "value": value})
    return pd.DataFrame(lines)


def test_gains_are_paired_by_task_and_seed():
    table = gain_by_factor(tuning())
    assert list(table["method"]) == ["kd+gram", "kd+gram"]
    assert table.set_index("factor")["gain"].to_dict() == pytest.approx({5.0: 0.01, 20.0: 0.04})
    assert (table["pairs"] == 4).all()
    # Four gains of +-0.01 about the mean: standard error 0.01/√3 , t(3) = 3.182.
    assert (table["high"] - table["gain"]).to_numpy() == pytest.approx(
        3.1824 * 0.01 / 3**0.5, rel=1e-3
    )
    with pytest.raises(InputError, match=r"baseline is 'sft'; the rows have \['ce', 'kd'"):
        gain_by_factor(tuning(), "sft")


def test_the_curve_rings_the_factor_in_use():
    _, ax = plt.subplots()
    common.weight_curves(ax, gain_by_factor(tuning()), {"kd+gram": 20.0}, "points")
    ring = ax.lines[-1]
    assert ring.get_ydata() == pytest.approx([0.04])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["5", "20"]
    plt.close()


def scored(gain_on, seeds=6, n=900):
    """A third of the items each: KD never, by a coin, always right; the method gains on one."""
    rng = np.random.default_rng(0)
    kind = np.arange(n) % 3
    lines = []
    for seed in range(seeds):
        coin = rng.random(n) < 0.5
        kd = np.where(kind == 1, coin, kind == 2)
        flip = rng.random(n) < 0.3
        ours = np.where((kind == gain_on) & flip, 1, kd)
        # The baseline's own luck: the method's coin is another one.
        ours = np.where((kind == 1) & (gain_on != 1), rng.random(n) < 0.5, ours)
        for method, right in (("kd", kd), ("kd+gram", ours)):
            frame = pd.DataFrame(
                {"item": [f"i{i}" for i in range(n)], "score": right.astype(float)}
            )
            frame["source"] = frame["item"]
            lines.append(
                frame.assign(task="t", method=method, seed=seed, run_id=f"{method}-{seed}")
            )
    return pd.concat(lines, ignore_index=True)


def test_a_gain_is_found_where_it_was_put():
    items = scored(gain_on=0)
    items.loc[
        (items["method"] == "kd") & (items["item"] == "i2") & (items["seed"] == 0), "score"
    ] = 0
    table = gain_by_difficulty(items, "kd+gram", "kd", ["t"]).set_index("items")
    # Coins fall on one side in three of three seeds a quarter of the time: 1/3 + 1/3 * 1/8.
    assert table.loc["never right", "share"] == pytest.approx(1 / 3 + 1 / 24, abs=0.03)
    # 0.3 of the truly never right, and among the coins of that bin no gain: luck is not a gain.
    assert table.loc["never right", "gain"] == pytest.approx(0.3 * 8 / 9, abs=0.04)
    assert table.loc["never right", "low"] > 0.15
    assert table.loc["sometimes right", "low"] < 0 < table.loc["sometimes right", "high"]
    assert table["share"].sum() == pytest.approx(1)


def test_luck_of_the_baseline_is_no_gain():
    items = scored(gain_on=None)
    items.loc[(items["item"] == "i0") & (items["seed"] < 2), "score"] = 1  # some variation anywhere
    items.loc[(items["item"] == "i2") & (items["seed"] == 0), "score"] = 0
    # Sorted and compared by the same seeds, the coins of "never right" would gain 0.5.
    table = gain_by_difficulty(items, "kd+gram", "kd", ["t"]).set_index("items")
    assert table["gain"].abs().max() < 0.04
    with pytest.raises(InputError, match="scores are not all 0 or 1"):
        gain_by_difficulty(items.assign(score=0.5), "kd+gram", "kd", ["t"])


def runs_with(between, within, seeds=8):
    """Runs in which methods' means and seeds' deviations have correlations of a chosen sign."""
    rng = np.random.default_rng(1)
    lines = []
    for task, level in (("a", 0.6), ("b", 0.8)):
        luck = rng.standard_normal(seeds)
        for place, method in enumerate(("kd", "kd+cka", "kd+gram", "kd+pca")):
            own = rng.standard_normal(seeds)
            for seed in range(seeds):
                kept = 0.1 * place + 0.01 * own[seed]
                score = level + between * 0.02 * place + within * 0.005 * own[seed]
                lines.append(
                    {
                        "task": task, "method": method, "seed": seed, "kept": kept,
                        "score": score + 0.001 * rng.standard_normal() + 0.05 * luck[seed],
                    }
                )  # fmt: skip
    return pd.DataFrame(lines)


@pytest.mark.parametrize(("between", "within"), [(1, -1), (-1, 1)])
def test_methods_and_seeds_are_two_questions(between, within):
    table = kept_and_score(runs_with(between, within), "kept", "score").set_index("between")
    assert np.sign(table["r"]).tolist() == [between, within]
    assert (table["r"].abs() > 0.9).all()
    assert table["n"].tolist() == [8, 64]
    assert ((table["low"] < table["r"]) & (table["r"] < table["high"])).all()


def test_the_interval_of_unrelated_seeds_holds_zero_as_often_as_it_says():
    """Tasks, methods and seeds move both columns; what is left of a run is unrelated."""
    rng = np.random.default_rng(0)
    cells = pd.MultiIndex.from_product(
        [range(3), range(6), range(10)], names=["task", "method", "seed"]
    )
    runs, held = cells.to_frame(index=False), 0
    for _ in range(300):
        for column in ("kept", "score"):
            by_method, by_seed = rng.normal(size=(3, 6)), rng.normal(size=(3, 10))
            shared = by_method[runs["task"], runs["method"]] + by_seed[runs["task"], runs["seed"]]
            runs[column] = shared + rng.normal(size=len(runs))
        table = kept_and_score(runs, "kept", "score").set_index("between")
        low, high = table.loc["seeds within a method", ["low", "high"]]
        held += low < 0 < high
    assert 0.925 < held / 300 < 0.98  # with n for the runs, 0.91
    few = kept_and_score(runs[(runs["task"] == 0) & (runs["method"] < 2)], "kept", "score")
    assert few.loc[0, ["low", "high"]].tolist() == [-1, 1]  # two methods always lie on a line


def test_the_teachers_share_runs_from_the_majority_to_the_teacher():
    runs = pd.DataFrame(
        {
            "majority_accuracy": [0.6, 0.6, 0.6],
            "teacher_accuracy": [0.8, 0.8, 0.6],
            "accuracy": [0.6, 0.7, 0.7],
        }
    )
    share = teachers_share(runs)
    assert share[:2].tolist() == pytest.approx([0.0, 0.5])
    assert share[2:].isna().all()  # a teacher that learned nothing has nothing to share
