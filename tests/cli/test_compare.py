"""`geodistill compare`: one report for any score table, the same in every format, without torch."""

import re
import time
from html import unescape

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from support.command_line import run, run_in_fresh_interpreter
from support.paired_items import crossed_rows

from geodistill.analysis.figures import comparison_plots
from geodistill.analysis.report.comparison_report import compare_all
from geodistill.analysis.report.export import (
    html,
    latex,
    markdown,
    methods_paragraph,
    report_table,
    write_report,
)
from geodistill.analysis.score_tables import read_scores
from geodistill.analysis.stats.compare import compare, compare_family
from geodistill.analysis.stats.metric_influence import score_by_influence
from geodistill.errors import InputError

METHODS = {"kd": 0.0, "cka_1": 0.0, "proc": 0.1, "gram": 0.01}


def table(n_items=60, seeds=range(4), tasks=("a", "b"), methods=METHODS):
    frame = crossed_rows(task=tasks, method=methods, seed=seeds, item=range(n_items))
    difficulty = np.random.default_rng(0).random((len(tasks), n_items))
    base = difficulty[frame["task"].map(list(tasks).index), frame["item"]]
    noise = 0.15 * np.random.default_rng(1).standard_normal(len(frame))
    right = base + noise < 0.6 + frame["method"].map(methods)
    return frame.assign(accuracy=right.astype(float))


@pytest.fixture
def path(tmp_path):
    table().to_csv(tmp_path / "x.csv", index=False)
    return tmp_path / "x.csv"


def compared(frame, tmp_path, baseline="kd", metric="accuracy", **options):
    path = tmp_path / "scores.parquet"
    frame.to_parquet(path)
    return compare_all(read_scores(path, baseline, metric=metric), baseline, **options)


def run_compare(*words):
    return " ".join(run("compare", *words).split())


# ---- the numbers ----


def test_the_report_is_the_primary_analysis(path, tmp_path):
    report = compare_all(read_scores(path, "kd"), "kd")
    items = table().rename(columns={"accuracy": "score"})
    items = items.assign(run_id="r", source=items["item"])
    expected = compare_family(items, [(m, "kd") for m in ("cka_1", "proc", "gram")])
    pooled = [row for row in report.rows if row.correction == "Holm"]
    assert len(pooled) == 3
    for row, one in zip(pooled, expected, strict=True):
        assert row.comparison.estimate == pytest.approx(one.estimate)
        assert (row.comparison.low, row.comparison.p) == pytest.approx((one.low, one.p))
        assert row.p_adjusted == pytest.approx(one.p_holm)
    rest = [row for row in report.rows if row.correction == "BH"]
    bh = multipletests([row.comparison.p for row in rest], method="fdr_bh")[1]
    assert [row.p_adjusted for row in rest] == pytest.approx(list(bh))
    assert [row.comparison.task for row in report.rows] == ["pooled", "a", "b"] * 3
    assert pooled[1].verdict.word == "better"
    assert (report.n_used, report.scores.n_rows) == (len(items), len(items))


def test_a_primary_family_that_is_chosen(path):
    report = compare_all(read_scores(path, "kd"), "kd", primary=["gram"])
    first = report.rows[0]
    assert (first.comparison.method, first.correction) == ("gram", "Holm")
    assert first.p_adjusted == first.comparison.p
    assert sum(row.correction == "BH" for row in report.rows) == 8


def test_lower_is_better_reverses_the_signs(tmp_path):
    frame = table(tasks=("a",))
    right = compared(frame, tmp_path)
    wrong = compared(
        frame.assign(error=1 - frame["accuracy"]), tmp_path, metric="error", margin=0.01
    )
    assert len(right.rows) == 3
    for one, other in zip(right.rows, wrong.rows, strict=True):
        assert other.comparison.estimate == pytest.approx(one.comparison.estimate)
        assert other.verdict.word == one.verdict.word


def test_percent_and_fractions_print_alike(tmp_path):
    frame = table(tasks=("a",))
    fractions = compared(frame, tmp_path)
    percent = compared(frame.assign(accuracy=100 * frame["accuracy"]), tmp_path)
    assert report_table(fractions).equals(report_table(percent))
    assert (fractions.margin, percent.margin) == (0.01, 1.0)


def labelled(frame):
    label = (frame["item"] % 3 == 0).astype(int)
    prediction = np.where(frame["accuracy"] == 1, label, 1 - label)
    return frame.drop(columns="accuracy").assign(label=label, prediction=prediction)


def test_tasks_on_different_scales_are_not_pooled_but_chosen(tmp_path):
    """Squared errors beside right and wrong: the mean over both would be that of the errors."""
    mixed = table().rename(columns={"accuracy": "score"})
    errors = mixed["task"] == "b"
    mixed.loc[errors, "score"] = -11 * (1 - mixed.loc[errors, "score"])
    mixed.to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(InputError, match=r"b from -11 to 0; a from 0 to 1.*choose tasks by --task"):
        run_compare(tmp_path / "x.csv", "--baseline", "kd")
    alone = run_compare(tmp_path / "x.csv", "--baseline", "kd", "--task", "a")
    assert "points" in alone
    assert "tasks: a of 2, as chosen" in alone
    assert f"{len(mixed) // 2:,} of a task that was not chosen" in alone
    assert "points" not in run_compare(
        tmp_path / "x.csv", "--baseline", "kd", "--task", "b"
    )  # negative
    expected = compare_all(read_scores(tmp_path / "x.csv", "kd", tasks=["a"]), "kd").comparisons
    only = mixed[~errors].rename(columns={"score": "accuracy"})
    assert [a.estimate for a in expected] == [
        a.estimate for a in compared(only, tmp_path).comparisons
    ]
    with pytest.raises(InputError, match="task 'c' is none of the rows'; they hold a, b"):
        run_compare(tmp_path / "x.csv", "--baseline", "kd", "--task", "c")


def test_scores_that_are_no_means_are_recomputed(tmp_path):
    frame = labelled(table())
    report = compared(frame, tmp_path, metric="MCC")
    scored = score_by_influence(frame.assign(run_id="r", source=frame["item"]), "matthews")
    for row in report.rows[::3]:
        expected = compare(scored, row.comparison.method, "kd")
        assert row.comparison.estimate == pytest.approx(expected.estimate)
        assert row.comparison.p == pytest.approx(expected.p)
        assert row.comparison.test == f"matthews by the items' influence; {expected.test}"
    right = compared(frame, tmp_path, metric="accuracy").rows[3].comparison
    assert report.rows[3].comparison.estimate != pytest.approx(right.estimate)
    with pytest.raises(InputError, match="has no metric 'bleu'"):
        compared(frame, tmp_path, metric="bleu")


# ---- what is missing ----


def test_unshared_tasks_seeds_and_items_are_left_out_and_counted(tmp_path):
    frame = table()
    whole = compared(frame, tmp_path)
    seed = (frame["method"] == "proc") & (frame["seed"] == 3)
    item = (frame["method"] == "proc") & (frame["task"] == "a") & (frame["item"] == 7)
    report = compared(frame[~(seed | item)], tmp_path)
    pooled = {a.method: a for a in report.comparisons if a.task == "pooled"}
    assert (pooled["proc"].n_seeds, pooled["proc"].n_items) == (3, 119)
    # the others are compared as before
    assert pooled["gram"] == next(a for a in whole.comparisons if a.method == "gram")
    kept = frame[~(seed | item)]
    alone = compared(kept[kept["method"].isin(["kd", "proc"])], tmp_path)
    assert alone.left_out["of a seed that some run lacks"] == 120  # kd's seed 3, in both tasks
    assert alone.left_out["of an item that some run lacks"] == 3
    assert alone.n_used + 123 == alone.scores.n_rows
    only = frame[~((frame["method"] == "proc") & (frame["task"] == "b"))]
    lost = compared(only[only["method"].isin(["kd", "proc"])], tmp_path)
    assert lost.left_out["of a task that one side lacks"] == 240
    assert [row.comparison.task for row in lost.rows] == ["a"]


def test_metrics_without_items_fall_back_to_seeds(tmp_path):
    frame = table().groupby(["task", "method", "seed"])["accuracy"].mean().reset_index()
    report = compared(frame, tmp_path)
    mean = frame.groupby(["method", "seed"])["accuracy"].mean().unstack()
    for row in report.rows[::3]:
        test = stats.ttest_rel(mean.loc[row.comparison.method], mean.loc["kd"])
        assert row.comparison.p == pytest.approx(test.pvalue)
    assert report.rows[0].required.endswith(" seeds")
    assert "items are held fixed" in " ".join(methods_paragraph(report))


def test_one_seed_is_about_the_trained_models(tmp_path):
    report = compared(table(seeds=[0], tasks=("a",)), tmp_path)
    assert any(
        note.startswith("one seed: the result is about these trained models")
        for note in report.notes
    )
    open_ones = [row.required for row in report.rows if row.verdict.word == "inconclusive"]
    assert open_ones
    assert all("for these two models" in required for required in open_ones)


def test_a_task_where_nothing_varies_is_noted(tmp_path):
    frame = table()
    frame.loc[(frame["task"] == "b"), "accuracy"] = 1.0
    report = compared(frame, tmp_path)
    assert {row.comparison.task for row in report.rows} == {"pooled", "a"}
    assert any(
        note.startswith("proc, b: not compared, the differences are all 0") for note in report.notes
    )


def test_rows_that_allow_no_comparison(tmp_path):
    frame = table(tasks=("a",))
    for options, message in (
        ({"baseline": "base"}, "baseline 'base' is no method of the rows; they hold kd, cka_1"),
        ({"primary": ["x"]}, "primary 'x' is no method of the rows"),
        ({"primary": ["kd"]}, "primary 'kd' is the baseline itself"),
    ):
        with pytest.raises(InputError, match=message):
            compared(frame, tmp_path, **options)
    odd = frame[(frame["method"] == "kd") == (frame["item"] < 30)]
    with pytest.raises(
        InputError, match=r"share no item of a that every run has; a/.* has the fewest"
    ):
        compared(odd, tmp_path)


# ---- what is written ----


def numbers(text):
    return re.findall(r"[+-]\d+\.\d+", text)


def test_all_formats_show_the_same_numbers(path, tmp_path):
    report = compare_all(read_scores(path, "kd"), "kd")
    forms = [markdown(report), latex(report), re.sub("<[^>]*>", " ", unescape(html(report)))]
    seen = [numbers(form) for form in forms]
    assert len(seen[0]) >= 3 * len(report.rows)
    assert seen[0] == seen[1] == seen[2]
    shown = numbers(" ".join(report_table(report).iloc[:, 2]))
    assert seen[0][: len(shown)] == shown
    for row, cell in zip(report.rows, report_table(report).iloc[:, 2], strict=True):
        one = row.comparison
        assert float(cell.split()[0]) == pytest.approx(100 * one.estimate, abs=0.051)
    words = report_table(report)["verdict"].tolist()
    assert set(words) >= {"better"}
    text = " ".join(methods_paragraph(report))
    for part in (
        "4 seeds on the same 120 items",
        "Holm",
        "two one-sided tests",
        "Margin: 1 point.",
    ):
        assert part in text


def test_latex_escapes(path):
    text = latex(compare_all(read_scores(path, "kd"), "kd"))
    assert r"cka\_1" in text
    assert r"95 \% interval" in text
    assert not re.search(r"(?<!\\)%", text)
    assert text.isascii()


def test_the_folder_holds_figure_and_text(path, tmp_path):
    report = compare_all(read_scores(path, "kd"), "kd")
    written = write_report(report, tmp_path / "new" / "out")
    assert [p.name for p in written] == [
        "comparison.md", "comparison.tex", "comparison.html", "comparison.json",
        "forest.svg", "forest.png",
    ]  # fmt: skip
    assert written[5].read_bytes().startswith(b"\x89PNG")
    assert "<svg" in written[4].read_text()
    assert written[0].read_text() == markdown(report)


def test_the_figure_has_the_unit_and_margin_of_the_table(path, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(comparison_plots, "forest", lambda ax, *arguments: drawn.append(arguments))
    report = compare_all(read_scores(path, "kd"), "kd")
    write_report(report, tmp_path)
    ((estimates, unit, margin),) = drawn
    assert unit == "accuracy, points, right: better"
    assert margin == [1.0] * len(report.rows)
    expected = [100 * c.estimate for c in report.comparisons]
    assert estimates["estimate"].tolist() == pytest.approx(expected)


# ---- the command ----


def test_the_command_prints_the_report_and_what_it_used(path, tmp_path):
    text = run_compare(
        path, "--baseline", "kd", "--out", tmp_path / "o", "--column", "value=accuracy"
    )
    report = compare_all(read_scores(path, "kd"), "kd")
    for cell in report_table(report).iloc[:, 2]:
        assert cell in text
    assert "1,920 of 1,920 rows used; left out: none" in text
    assert "accuracy against kd (higher is better)" in text
    assert (tmp_path / "o" / "comparison.tex").is_file()
    assert re.search(r"needs .* seeds.* for a verdict", text)


def test_sensitivity_analyses_are_an_option_and_use_what_both_sides_have(tmp_path):
    frame = table(20, tasks=("a",), methods={"kd": 0.0, "proc": 0.1})
    frame = frame[~((frame["method"] == "proc") & (frame["item"] == 7))]
    frame.to_csv(tmp_path / "x.csv", index=False)
    plain = run_compare(tmp_path / "x.csv", "--baseline", "kd")
    text = run_compare(tmp_path / "x.csv", "--baseline", "kd", "--sensitivity")
    assert "sensitivity analyses" not in plain
    assert "sensitivity analyses: proc vs kd" in text
    assert "sign-flip test" in text
    means = frame.groupby(["method", "seed"])["accuracy"].mean().reset_index()
    means.to_csv(tmp_path / "m.csv", index=False)
    assert "need items, rank tests 5 or more tasks; these scores have none" in run_compare(
        tmp_path / "m.csv", "--baseline", "kd", "--sensitivity"
    )


def test_rank_tests_say_whether_they_agree_with_the_verdict(tmp_path):
    """A gain in every task, and one that a single task makes while seven lose a little."""
    gains = {"kd": [0.0] * 8, "every": [0.05] * 8, "single": [0.8] + [-0.01] * 7}
    noise = np.random.default_rng(0)
    rows = [
        (method, task, seed, 0.1 + gain + 0.001 * noise.standard_normal())
        for method, by_task in gains.items()
        for task, gain in enumerate(by_task)
        for seed in range(4)
    ]
    columns = ["method", "task", "seed", "accuracy"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "x.csv", index=False)
    text = run_compare(tmp_path / "x.csv", "--baseline", "kd", "--sensitivity")
    assert "every: the signed-rank test over tasks agrees with the verdict, better" in text
    assert "single: the signed-rank test over tasks disagrees with the verdict, better" in text


def test_the_command_refuses_a_column_without_a_name(path):
    with pytest.raises(InputError, match="--column 'method': expected OURS=THEIRS"):
        run_compare(path, "--baseline", "kd", "--column", "method")


def test_the_command_loads_no_torch_and_draws_only_on_demand(path):
    done = run_in_fresh_interpreter("compare", str(path), "--baseline", "kd")
    assert "verdict" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded: pandas"


def test_work_grows_with_the_rows_and_no_faster(tmp_path):
    def spent(n_items):
        frame, before = table(n_items, range(5)), time.process_time()
        compared(frame, tmp_path)
        return time.process_time() - before

    spent(10)
    assert spent(1600) < 8 * spent(400) + 0.2


def test_clusters_are_the_item_factor(tmp_path):
    frame = table(tasks=("a",)).assign(cluster=lambda f: f["item"] // 3)
    report = compared(frame, tmp_path)
    items = frame.rename(columns={"accuracy": "score", "cluster": "source"}).assign(run_id="r")
    expected = compare(items, "proc", "kd")
    result = next(a for a in report.comparisons if a.method == "proc")
    assert result.n_clusters == 20
    assert (result.se, result.df) == pytest.approx((expected.se, expected.df))
    assert "60 items from 20 sources" in " ".join(methods_paragraph(report))


def test_the_folders_of_several_baselines_are_inside_the_one_that_is_asked_for(tmp_path):
    names = {"cka_1": "../cka", "kd": "org/kd"}
    table(n_items=20).replace({"method": names}).to_csv(tmp_path / "x.csv", index=False)
    baselines = ["--baseline", "../cka", "--baseline", "org/kd"]
    run_compare(tmp_path / "x.csv", *baselines, "--out", tmp_path / "a" / "b")
    reports = {path.parent.relative_to(tmp_path) for path in tmp_path.rglob("comparison.md")}
    assert {folder.parent.as_posix() for folder in reports} == {"a/b"}
    assert len(reports) == 2
