"""Gains by outcome, weight and group; means with intervals: against numpy and scipy."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from geodistill.analysis.report import gain_tables, mean_tables
from geodistill.analysis.report.format import NATS, POINTS
from geodistill.analysis.stats.compare import compare
from geodistill.errors import InputError

PLAN = {
    ("kd", 1.0): 0.0,
    ("kd+procrustes", 0.1): 0.1,
    ("kd+procrustes", 1.0): 0.5,
    ("kd+isotropy", 0.1): 0.3,
    ("kd+isotropy", 1.0): 0.2,
}
N_SEEDS, N_ITEMS = 4, 30


def items(plan=PLAN, noise=0.05, task_seed=0):
    """The score of an item is the method's gain, the item's own level and noise."""
    rng = np.random.default_rng(task_seed)
    levels = rng.standard_normal(N_ITEMS)
    lines = []
    for (method, factor), gain in plan.items():
        for seed in range(N_SEEDS):
            score = gain + levels + noise * rng.standard_normal(N_ITEMS)
            frame = pd.DataFrame({"item": [f"i{i}" for i in range(N_ITEMS)], "score": score})
            lines.append(
                frame.assign(
                    source=frame["item"], task="t0", method=method, factor=factor, seed=seed,
                    run_id=f"{method}-{factor}-{seed}",
                )
            )  # fmt: skip
    return pd.concat(lines, ignore_index=True)


def means_of(frame):
    return frame.groupby(["method", "factor"])["score"].mean()


def test_a_weight_at_an_edge_of_the_trials_is_said():
    chosen = {"kd+gram": 5, "kd+cka": 80.0, "kd+procrustes": 20}
    told = gain_tables.at_edges(chosen, [20, 5, 80])
    assert told.endswith("KD + Gram (least), KD + CKA (largest).")
    assert "Procrustes" not in told
    assert gain_tables.at_edges({"kd+procrustes": 20}, [5, 20, 80]).startswith(
        "No chosen weight is at"
    )


def test_a_mark_becomes_the_score_and_items_without_it_are_left_out():
    frame = items().assign(rougeL=0.25, sparse=np.nan)
    assert (gain_tables.as_score(frame, "rougeL")["score"] == 0.25).all()
    frame.loc[frame["item"] == "i3", "sparse"] = 7
    kept = gain_tables.as_score(frame, "sparse")
    assert set(kept["item"]) == {"i3"}
    assert (kept["score"] == 7.0).all()
    with pytest.raises(InputError, match=r"items have no mark 'bleu'; they have item, score"):
        gain_tables.as_score(frame, "bleu")


def test_the_sampled_score_is_the_mean_of_the_decodings():
    frame = items()
    first = frame["item"].isin(["i0", "i1"])
    frame.loc[first, "rougeL/seed10"] = 0.2
    frame.loc[first, "rougeL/seed20"] = 0.6
    found = gain_tables.sampled(frame)
    assert len(found) == first.sum()
    assert found["score"].to_numpy() == pytest.approx(0.4)
    with pytest.raises(InputError, match="no sampled decodings"):
        gain_tables.sampled(items())


def test_gains_by_weight_are_paired_with_the_base_that_has_none():
    frame = items()
    table = gain_tables.gains_by_weight(frame[frame["method"] != "kd"], frame, "kd", POINTS)
    cells = list(zip(table["method"], table["factor"], strict=True))
    assert cells == [cell for cell in PLAN if cell[0] != "kd"]
    expected = means_of(frame) - means_of(frame)["kd", 1.0]
    for row in table.itertuples():
        assert row.gain == pytest.approx(100 * expected[row.method, row.factor])
        assert row.low < row.gain < row.high


def test_a_control_is_met_at_its_weight_and_at_its_best():
    frame = items()
    found = gain_tables.at_matched_weights(frame, "kd+procrustes", "kd+isotropy")
    mean = means_of(frame)
    for weight, answer in found.items():
        expected = mean["kd+procrustes", weight] - mean["kd+isotropy", weight]
        assert answer.estimate == pytest.approx(expected)
    assert list(found) == [0.1, 1.0]
    assert found[0.1].estimate < 0 < found[1.0].estimate
    best, weights = gain_tables.at_best_weights(frame, "kd+procrustes", "kd+isotropy")
    assert weights == {"kd+procrustes": 1.0, "kd+isotropy": 0.1}
    assert best.estimate == pytest.approx(mean["kd+procrustes", 1.0] - mean["kd+isotropy", 0.1])
    table = gain_tables.control_table(frame, "kd+procrustes", ["kd+isotropy"], NATS)
    assert list(table["weight"]) == ["0.1", "1", "best of each: 1, 0.1"]
    assert table.iloc[2, 2] == gain_tables.said(best, NATS)


def test_items_at_weights_keep_methods_that_are_not_named():
    kept = gain_tables.at_weights(items(), {"kd+procrustes": 1.0})
    assert set(zip(kept["method"], kept["factor"], strict=True)) == set(PLAN) - {
        ("kd+procrustes", 0.1)
    }
    assert set(gain_tables.renamed(items(), {"kd": "kd, two stages"})["method"]) == {
        "kd, two stages"
    }


def test_groups_keep_their_names():
    frame = items()
    answer = compare(frame[frame["factor"] == 1.0], "kd+procrustes", "kd")
    table = gain_tables.grouped({"a": [answer], "b": [answer, answer]}, POINTS)
    assert list(table["group"]) == ["a", "b", "b"]
    assert table["estimate"].to_numpy() == pytest.approx(100 * answer.estimate)


def test_a_table_of_outcomes_says_where_nothing_differs():
    frame = items()[lambda f: f["factor"] == 1.0].assign(exact_match=1.0)
    outcomes = {"score": lambda f: f, "exact": lambda f: gain_tables.as_score(f, "exact_match")}
    table = gain_tables.gain_table(frame, [("kd+procrustes", "kd")], outcomes, POINTS)
    answer = compare(frame, "kd+procrustes", "kd")
    assert table["score"][0] == gain_tables.said(answer, POINTS)
    assert table["exact"][0] == "equal on every item"
    assert table["difference, points"][0] == "KD + Procrustes vs KD"


def test_metrics_of_runs_are_compared_over_seeds():
    rng = np.random.default_rng(0)
    runs = pd.DataFrame(
        {"seed": [*range(5)] * 2, "method": ["kd"] * 5 + ["sft"] * 5, "m": rng.random(10)}
    )
    table = gain_tables.seed_gain_table(runs, [("kd", "sft")], {"m": "a mark"}, POINTS)
    kd, sft = (runs.loc[runs["method"] == m, "m"].to_numpy() for m in ("kd", "sft"))
    interval = stats.ttest_rel(kd, sft).confidence_interval()
    expected = [100 * v for v in ((kd - sft).mean(), interval.low, interval.high)]
    assert table["a mark"][0] == f"{expected[0]:+.1f} ({expected[1]:+.1f} to {expected[2]:+.1f})"


# ---- means ----


def test_means_have_the_t_interval_of_their_runs():
    values = [0.1, 0.2, 0.4]
    runs = pd.DataFrame(
        {"method": ["kd"] * 3 + ["teacher"], "seed": [0, 1, 2, 0], "nll": [*values, 0.5]}
    ).assign(rougeL=np.nan)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    table = mean_tables.mean_table(runs, {"nll": "NLL", "rougeL": "Rouge-L"})
    assert table["student"].tolist() == ["KD", "teacher"]
    assert table["NLL"].tolist() == [f"{np.mean(values):.3f} ({low:.3f} to {high:.3f})", "0.500"]
    assert table["Rouge-L"].tolist() == ["–", "–"]


def test_a_metric_on_the_way_is_read_by_its_share():
    runs = pd.DataFrame(
        {"method": ["kd", "kd"], "seed": [0, 1], "pr/at000": [1.0, 3], "pr/at100": [5.0, 5],
         "pr/teacher": [9.0, 9]}
    )  # fmt: skip
    table = mean_tables.on_the_way(runs, "pr/at")
    assert table[["share", "mean", "n"]].to_numpy().tolist() == [[0, 2, 2], [100, 5, 2]]
    assert table["high"][0] == pytest.approx(2 + stats.t.ppf(0.975, 1))
    alone = mean_tables.on_the_way(runs[:1], "pr/at")
    assert alone["low"].isna().all()


def test_the_rule_of_sanity_can_fail():
    runs = pd.DataFrame({"method": ["start", "unigram", "sft", "sft"], "nll": [9.0, 6.0, 5.4, 5.5]})
    table, learned = mean_tables.sanity(runs, 0.5)
    assert learned
    assert table["lead of SFT"].tolist() == pytest.approx([3.55, 0.55])
    assert not mean_tables.sanity(runs, 0.6)[1]


def test_shares_become_percent_and_nothing_else():
    runs = pd.DataFrame({"nll": [1.0], "rougeL/seed10": [0.5], "vicuna/exact_match": [0.1]})
    assert mean_tables.in_percent(runs).iloc[0].tolist() == pytest.approx([1.0, 50.0, 10.0])
    named = pd.DataFrame({"method": ["a", "b"]})
    assert mean_tables.in_order(named, ["b", "a"])["method"].tolist() == ["b", "a"]


def test_tasks_stand_side_by_side_above_what_they_are_held_against():
    runs = pd.DataFrame(
        [
            ("pairs", "kd", 1, 0.7, 0.80, np.nan, 0.6, 0.9),
            ("pairs", "kd", 2, 0.8, 0.84, np.nan, 0.6, 0.9),
            ("alike", "kd", 1, np.nan, np.nan, 0.5, np.nan, np.nan),
            ("alike", "kd", 2, np.nan, np.nan, 0.3, np.nan, np.nan),
        ],
        columns=["task", "method", "seed", "accuracy", "f1", "pearson", "majority_accuracy",
                 "teacher_accuracy"],
    )  # fmt: skip
    found = mean_tables.in_own_metrics(
        runs, {"pairs": {"accuracy": "A", "f1": "F"}, "alike": {"pearson": "P", "spearman": "S"}}
    ).set_index("method")
    teacher, majority = found.loc["teacher"], found.loc["majority class"]
    assert (teacher["A"], majority["A"]) == pytest.approx((90, 60))
    # Of 10 pairs 6 are positive: precision 0.6, recall 1.
    assert majority["F"] == pytest.approx(100 * 2 * 0.6 / 1.6)
    assert found.loc["kd", "A"].tolist() == pytest.approx([70, 80])
    assert found.loc["kd", "P"].tolist() == pytest.approx([50, 30])
    assert found["S"].isna().all()
    assert majority[["P", "S"]].isna().all()
