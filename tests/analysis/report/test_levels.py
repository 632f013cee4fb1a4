"""Means, medians and collapsed runs of each method."""

import numpy as np
import pandas as pd
import pytest
from support.paired_items import classified_items

from geodistill.analysis import compare_all, read_scores
from geodistill.analysis.report.export import levels_table, markdown, report_table
from geodistill.analysis.report.format import POINTS
from geodistill.analysis.report.levels import format_levels, level_table, score_levels
from geodistill.errors import InputError


def runs():
    return pd.DataFrame(
        {
            "run_id": list("abcdefg"),
            "task": ["t"] * 5 + ["u", "u"],
            "method": ["kd"] * 3 + ["new"] * 2 + ["kd", "kd"],
            "accuracy": [0.9, 0.8, 0.1, 0.7, 0.5, 0.6, np.nan],
        }
    )


def test_mean_and_median_and_count_by_task_and_method():
    collapsed = pd.DataFrame(
        {"run_id": list("abcd"), "task": "t", "collapsed": [False, False, True, False]}
    )
    table = level_table(runs(), "accuracy", collapsed)
    assert table[["task", "method", "runs"]].values.tolist() == [
        ["t", "kd", 3], ["t", "new", 2], ["u", "kd", 1],
    ]  # fmt: skip
    assert table["mean"].tolist() == pytest.approx([0.6, 0.6, 0.6])
    assert table["median"].tolist() == pytest.approx([0.8, 0.6, 0.6])
    assert table["collapsed"].tolist()[:2] == [1, 0]
    assert pd.isna(table["collapsed"].iloc[2])  # not known, which is not none
    text = format_levels(table, POINTS)
    assert text["collapsed"].tolist() == ["1 of 3", "0 of 2", "–"]
    assert text["median (points)"].tolist() == ["80.0", "60.0", "60.0"]


def test_where_nothing_is_known_of_collapse_there_is_no_column():
    table = level_table(runs(), "accuracy")
    assert table["collapsed"].isna().all()
    assert "collapsed" not in format_levels(table, POINTS)


def test_runs_without_a_column_are_refused():
    with pytest.raises(InputError, match="runs lack f1; the columns are run_id, task, method, acc"):
        level_table(runs(), "f1")


@pytest.fixture
def scores(tmp_path):
    """A table in which three of five baseline runs predict one class."""

    def write(metric="accuracy", **options):
        items = classified_items(np.random.default_rng(0), n_seeds=5, skill=(0.9, 0.8))
        dead = (items["method"] == "kd") & (items["seed"] < 3)
        items["prediction"] = items["prediction"].mask(dead, 0)
        items.drop(columns=["score", "run_id"]).to_csv(tmp_path / "scores.csv", index=False)
        return items, read_scores(tmp_path / "scores.csv", "kd", metric=metric, **options)

    return write


def test_the_report_shows_them_and_makes_no_test_against_a_dead_baseline(scores):
    items, table = scores()
    report = compare_all(table, "kd")
    assert report_table(report)["verdict"].tolist() == ["no test: the control collapsed"]
    levels = levels_table(report).set_index("method")
    assert levels.loc["kd", "collapsed"] == "3 of 5"
    assert levels.loc["m", "collapsed"] == "0 of 5"
    correct = items["label"] == items["prediction"]
    by_run = correct.groupby([items["method"], items["seed"]]).mean()["kd"]
    assert levels.loc["kd", "mean (points)"] == f"{100 * by_run.mean():.1f}"
    assert levels.loc["kd", "median (points)"] == f"{100 * by_run.median():.1f}"
    assert levels.loc["kd", "mean (points)"] != levels.loc["kd", "median (points)"]
    text = markdown(report)
    assert "| kd | cola | 5 |" in text
    assert (
        "No test where more than one in ten runs of kd collapsed (accuracy at most 2 points" in text
    )
    alive = compare_all(table, "m")
    assert report_table(alive)["verdict"].tolist() == ["inconclusive"]
    assert "collapsed:" not in markdown(alive)


def test_a_metric_of_labels_is_shown_as_itself(scores):
    from sklearn.metrics import f1_score

    items, table = scores("f1")
    levels = score_levels(table).set_index("method")
    by_run = [
        f1_score(run["label"], run["prediction"])
        for _, run in items[items["method"] == "m"].groupby("seed")
    ]
    assert levels.loc["m", "mean"] == pytest.approx(np.mean(by_run))
    assert levels.loc["m", "median"] == pytest.approx(np.median(by_run))


def test_a_metric_where_lower_is_better_keeps_its_sign(tmp_path):
    rows = pd.DataFrame({"method": ["kd", "kd", "new"], "seed": [0, 1, 0], "nll": [3.0, 2.0, 1.0]})
    rows.to_csv(tmp_path / "scores.csv", index=False)
    levels = score_levels(read_scores(tmp_path / "scores.csv", "kd"))
    assert dict(zip(levels["method"], levels["mean"], strict=True)) == {"kd": 2.5, "new": 1.0}


def test_the_score_of_a_collapsed_run_can_be_chosen(tmp_path):
    """Also without labels, and where lower is better; by hand."""
    rows = [
        {"task": task, "method": method, "seed": seed, "nll": nll + 0.01 * seed}
        for task in ("a", "b")
        for method, values in (("kd", [1.0, 1.2, 3.0, 1.1]), ("m", [0.9, 1.0, 1.1, 1.3]))
        for seed, nll in enumerate(values)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "x.csv", index=False)
    table = read_scores(tmp_path / "x.csv", "kd")
    unknown = compare_all(table, "kd")
    assert unknown.scores.taken["collapsed"].startswith("unknown without labels")
    assert "collapsed" not in levels_table(unknown)
    report = compare_all(table, "kd", collapsed_at=[3.02])
    assert report.scores.taken["collapsed"] == "nll of 3.02 or more"
    assert levels_table(report)["collapsed"].tolist() == ["1 of 4", "0 of 4"] * 2
    assert {row.verdict.word for row in report.rows} == {"no test: the control collapsed"}
    assert report.rows[0].comparison.baseline_collapsed == 0.25
    report = compare_all(table, "kd", collapsed_at=["a=1.3"])
    assert levels_table(report)["collapsed"].tolist() == ["1 of 4", "1 of 4", "–", "–"]
    for option, message in (("c=1", "no task 'c'; the tasks are a, b"), ("x", "expected a score")):
        with pytest.raises(InputError, match=f"--collapsed-at.*{message}"):
            compare_all(table, "kd", collapsed_at=[option])
