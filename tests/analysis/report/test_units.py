"""Units and margins: by task, printed with their number, refused where no scale is common."""

import numpy as np
import pandas as pd
import pytest
from support.paired_items import crossed_rows

from geodistill.analysis import compare_all, read_scores
from geodistill.analysis.report.export import methods_paragraph, report_table
from geodistill.errors import InputError

LEVELS = {"small": 0.43, "tiny": 0.14, "huge": 31736.0}
WORSE = {"small": 1.07, "tiny": 1.03, "huge": 0.999}


def errors(levels=LEVELS, worse=WORSE, n_seeds=6):
    """RMSE of three tasks, in which the new method is 7 and 3 % worse and 0.1 % better."""
    rng = np.random.default_rng(0)
    rows = [
        {"task": task, "seed": seed, "method": method, "rmse": level * factor * noise}
        for task, level in levels.items()
        for seed in range(n_seeds)
        for method, factor in (("kd", 1.0), ("new", worse[task]))
        for noise in [1 + 1e-4 * rng.standard_normal()]
    ]
    return pd.DataFrame(rows)


def report(frame, tmp_path, margin=None, metric=None, higher=None, **options):
    frame.to_parquet(tmp_path / "x.parquet")
    scores = read_scores(tmp_path / "x.parquet", "kd", None, metric, higher)
    return compare_all(scores, "kd", margin=margin, **options)


def test_tasks_of_different_scales_are_compared_by_per_cent_of_their_mean(tmp_path):
    frame = errors()
    result = report(frame, tmp_path)
    means = frame.pivot_table(index=["task", "seed"], columns="method", values="rmse")
    relative = (means["kd"] - means["new"]) / means.groupby("task")["kd"].transform("mean")
    by_task = relative.groupby("task").mean()
    rows = {row.comparison.task: row for row in result.rows}
    assert rows["pooled"].comparison.estimate == pytest.approx(by_task.mean())
    for task in LEVELS:
        assert rows[task].comparison.estimate == pytest.approx(by_task[task])
        assert rows[task].margin == 0.01
    assert by_task["small"] == pytest.approx(-0.07, abs=1e-3)
    words = {task: row.verdict.word for task, row in rows.items()}
    assert words["pooled"] == words["small"] == words["tiny"] == "worse"
    assert words["huge"] == "better by less than the margin"
    assert "huge 317" in result.scale.words
    assert "small 0.0043" in result.scale.words
    assert any("scales of tasks differ" in note for note in result.notes)
    assert "% of kd's rmse" in report_table(result).columns[2]
    assert result.scale.level_unit.name == "rmse"  # levels stay in the unit of the table


def test_the_unit_can_be_chosen(tmp_path):
    raw = report(errors(), tmp_path, unit="raw")
    assert raw.rows[0].comparison.estimate == pytest.approx(10.6, rel=0.3)  # the huge task's
    near = errors({"a": 1.0, "b": 2.0}, {"a": 1.02, "b": 1.02})
    assert report(near, tmp_path).unit.name == "rmse"
    assert report(near, tmp_path, unit="relative").unit.name == "% of kd's rmse"
    with pytest.raises(InputError, match="unit is 'nats'; expected one of fraction, percent, raw"):
        report(near, tmp_path, unit="nats")


def test_each_task_has_its_own_margin(tmp_path):
    frame = errors({"a": 1.0, "b": 2.0}, {"a": 1.015, "b": 1.015})
    rows = {row.comparison.task: row for row in report(frame, tmp_path).rows}
    margins = {task: row.margin for task, row in rows.items()}
    assert margins == pytest.approx({"pooled": 0.015, "a": 0.01, "b": 0.02}, rel=1e-3)
    result = report(frame, tmp_path, margin=["2%", "b=0.5"])
    assert {row.comparison.task: row.margin for row in result.rows} == pytest.approx(
        {"pooled": 0.26, "a": 0.02, "b": 0.5}, rel=1e-3
    )
    assert "a 0.02, b 0.5" in result.scale.words
    assert "Margin: a 0.02, b 0.5" in " ".join(methods_paragraph(result))


def test_rewards_around_zero_have_a_scale(tmp_path):
    rng = np.random.default_rng(0)
    frame = crossed_rows(task="abcd", method=["kd", "new"], seed=range(9))
    frame["reward"] = rng.standard_normal(len(frame))
    result = report(frame, tmp_path)
    assert result.unit.name == "reward"
    size = frame.loc[frame["method"] == "kd", "reward"].abs().groupby(frame["task"]).mean()
    assert result.margin == pytest.approx(0.01 * size.mean())


@pytest.mark.parametrize("margin", ["inf", "nan", "0", "-1", "much", "2%%", float("inf"), 0.0])
def test_a_margin_is_a_finite_number_above_zero(tmp_path, margin):
    with pytest.raises(InputError, match="it must be above 0 and finite"):
        report(errors(), tmp_path, margin=margin, unit="raw")


def test_margins_that_do_not_fit_the_tasks_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"is one number for tasks of different.*--margin 1%"):
        report(errors(), tmp_path, margin=0.5)
    with pytest.raises(InputError, match="no task 'smal'; the tasks are small, tiny, huge"):
        report(errors(), tmp_path, margin="smal=0.5")
    zero = errors({**LEVELS, "none": 0.0}, {**WORSE, "none": 1.0})
    with pytest.raises(InputError, match=r"mean in none is 0.*choose tasks by --task"):
        report(zero, tmp_path, unit="relative")


def test_methods_on_two_scales_are_refused_or_suspected(tmp_path):
    frame = pd.DataFrame({"method": ["kd"] * 4 + ["new"] * 4, "seed": [0, 1, 2, 3] * 2})
    frame["accuracy"] = [0.7, 0.8, 0.75, 0.7, 71.0, 80.0, 76.0, 70.5]
    with pytest.raises(InputError, match=r"kd lies in 0.7 to 0.8 and new in 70.5 to 80"):
        report(frame, tmp_path)
    chosen = report(frame, tmp_path, unit="percent")
    assert chosen.rows[0].comparison.estimate == pytest.approx(73.6375)
    unknown = report(frame.rename(columns={"accuracy": "zeal"}), tmp_path, higher=True)
    assert any("new's mean is 101 times kd's" in note for note in unknown.notes)


def test_a_unit_that_the_scores_cannot_have_is_refused(tmp_path):
    frame = errors({"t": 0.5}, {"t": 1.1}).rename(columns={"rmse": "accuracy"})
    with pytest.raises(InputError, match=r"unit is 'percent', but accuracy .* or raw$"):
        report(frame, tmp_path, unit="percent")
    with pytest.raises(InputError, match="--collapsed-at is 50, but accuracy lies in 0 to 1"):
        report(frame, tmp_path, collapsed_at=50)
    assert report(frame, tmp_path, collapsed_at=0.1).scores.taken["collapsed"].startswith("accur")
    percent = frame.assign(accuracy=100 * frame["accuracy"])
    with pytest.raises(
        InputError, match=r"unit is 'fraction', but .* choose --unit percent or raw"
    ):
        report(percent, tmp_path, unit="fraction")
    small = errors({"t": 0.5}, {"t": 1.1}).rename(columns={"rmse": "wer"})  # in per cent
    assert report(small, tmp_path, unit="percent").unit.name == "points"


def test_seeds_of_one_method_on_two_scales_are_refused(tmp_path):
    frame = errors({"t": 0.5}, {"t": 1.1}).rename(columns={"rmse": "accuracy"})
    frame.loc[3, "accuracy"] *= 100
    with pytest.raises(InputError, match=r"new has 0\.55 with seed 0 and 55 with seed 1: expected"):
        report(frame, tmp_path)
    percent = frame.assign(accuracy=[60.0, 70.0] * 6)
    percent.loc[3, "accuracy"] = 0.0  # a run that got nothing right
    assert report(percent, tmp_path).unit.name == "points"


def test_a_margin_of_the_whole_range_is_refused(tmp_path):
    frame = errors({"t": 0.5}, {"t": 1.1}).rename(columns={"rmse": "accuracy"})
    for margin in (1, "t=2"):
        with pytest.raises(InputError, match=r"all of the metric's range.*0\.01 for 1 point"):
            report(frame, tmp_path, margin=margin)
    percent = frame.assign(accuracy=100 * frame["accuracy"])
    assert report(percent, tmp_path, margin=2).margin == 2


def test_a_score_of_one_to_ten_is_not_in_points(tmp_path):
    frame = errors({"t": 7.0}, {"t": 1.01}).rename(columns={"rmse": "score"})
    result = report(frame, tmp_path)
    assert result.unit.name == "score"
    assert result.margin == pytest.approx(0.01 * frame.loc[frame["method"] == "kd", "score"].mean())


def test_small_errors_are_printed_with_their_digits(tmp_path):
    result = report(errors({"t": 2e-5}, {"t": 1.07}), tmp_path)  # 7 % of 2e-5 is 1.4e-6
    assert result.unit.format(result.comparisons[0].estimate) == "-0.0000014"
