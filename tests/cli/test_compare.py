"""`geodistill compare`: one answer for anyone's table, the same in every form, without torch."""

import re
import subprocess
import sys
import time
from html import unescape

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from typer.testing import CliRunner

from geodistill.analysis.report.comparison_report import compare_all
from geodistill.analysis.report.export import report_table, html, latex, markdown, methods_paragraph, write_report
from geodistill.analysis.score_tables import read_scores
from geodistill.analysis.stats.bootstrap import compare_metric
from geodistill.analysis.stats.compare import compare, compare_family
from geodistill.cli import main
from geodistill.errors import InputError

METHODS = {"kd": 0.0, "cka_1": 0.0, "proc": 0.1, "gram": 0.01}


def table(n_items=60, seeds=range(4), tasks=("a", "b"), methods=METHODS):
    names = ["task", "method", "seed", "item"]
    index = pd.MultiIndex.from_product([tasks, methods, seeds, range(n_items)], names=names)
    frame = index.to_frame(index=False)
    luck = np.random.default_rng(0).random((len(tasks), n_items))
    base = luck[frame["task"].map(list(tasks).index), frame["item"]]
    noise = 0.15 * np.random.default_rng(1).standard_normal(len(frame))
    right = base + noise < 0.6 + frame["method"].map(methods)
    return frame.assign(accuracy=right.astype(float))


@pytest.fixture
def path(tmp_path):
    table().to_csv(tmp_path / "x.csv", index=False)
    return tmp_path / "x.csv"


def asked(frame, tmp_path, baseline="kd", metric="accuracy", **options):
    path = tmp_path / "asked.parquet"
    frame.to_parquet(path)
    return compare_all(read_scores(path, baseline, metric=metric), baseline, **options)


def run(*words):
    result = CliRunner().invoke(main.app, ["compare", *map(str, words)])
    if isinstance(result.exception, InputError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


# ---- the numbers ----


def test_the_answer_is_the_primary_analysis(path, tmp_path):
    found = compare_all(read_scores(path, "kd"), "kd")
    items = table().rename(columns={"accuracy": "score"})
    items = items.assign(run_id="r", source=items["item"])
    expected = compare_family(items, [(m, "kd") for m in ("cka_1", "proc", "gram")])
    pooled = [line for line in found.lines if line.correction == "Holm"]
    assert len(pooled) == 3
    for line, one in zip(pooled, expected, strict=True):
        assert line.comparison.estimate == pytest.approx(one.estimate)
        assert (line.comparison.low, line.comparison.p) == pytest.approx((one.low, one.p))
        assert line.p_adjusted == pytest.approx(one.p_holm)
    rest = [line for line in found.lines if line.correction == "BH"]
    bh = multipletests([line.comparison.p for line in rest], method="fdr_bh")[1]
    assert [line.p_adjusted for line in rest] == pytest.approx(list(bh))
    assert [line.comparison.task for line in found.lines] == ["pooled", "a", "b"] * 3
    assert pooled[1].verdict.word == "better"
    assert (found.used, found.scores.rows) == (len(items), len(items))


def test_a_primary_family_of_ones_own(path):
    found = compare_all(read_scores(path, "kd"), "kd", primary=["gram"])
    first = found.lines[0]
    assert (first.comparison.method, first.correction) == ("gram", "Holm")
    assert first.p_adjusted == first.comparison.p
    assert sum(line.correction == "BH" for line in found.lines) == 8


def test_lower_is_better_turns_the_signs(tmp_path):
    frame = table(tasks=("a",))
    right = asked(frame, tmp_path)
    wrong = asked(frame.assign(error=1 - frame["accuracy"]), tmp_path, metric="error", margin=0.01)
    assert len(right.lines) == 3
    for one, other in zip(right.lines, wrong.lines, strict=True):
        assert other.comparison.estimate == pytest.approx(one.comparison.estimate)
        assert other.verdict.word == one.verdict.word


def test_percent_and_fractions_print_alike(tmp_path):
    frame = table(tasks=("a",))
    fractions, percent = (
        asked(frame, tmp_path),
        asked(frame.assign(accuracy=100 * frame["accuracy"]), tmp_path),
    )
    assert report_table(fractions).equals(report_table(percent))
    assert (fractions.margin, percent.margin) == (0.01, 1.0)


def judged(frame):
    label = (frame["item"] % 3 == 0).astype(int)
    prediction = np.where(frame["accuracy"] == 1, label, 1 - label)
    return frame.drop(columns="accuracy").assign(label=label, prediction=prediction)


def test_tasks_of_unlike_scales_are_not_pooled_but_chosen(tmp_path):
    """Squared errors beside right and wrong: the mean over both would be that of the errors."""
    mixed = table().rename(columns={"accuracy": "score"})
    errors = mixed["task"] == "b"
    mixed.loc[errors, "score"] = -11 * (1 - mixed.loc[errors, "score"])
    mixed.to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(InputError, match=r"b from -11 to 0; a from 0 to 1.*choose tasks by --task"):
        run(tmp_path / "x.csv", "--baseline", "kd")
    alone = run(tmp_path / "x.csv", "--baseline", "kd", "--task", "a")
    assert "points" in alone
    assert "tasks: a, as asked, of 2" in alone
    assert f"{len(mixed) // 2:,} of another task than asked" in alone
    assert "points" not in run(tmp_path / "x.csv", "--baseline", "kd", "--task", "b")  # negative
    expected = compare_all(read_scores(tmp_path / "x.csv", "kd", tasks=["a"]), "kd").comparisons
    only = mixed[~errors].rename(columns={"score": "accuracy"})
    assert [a.estimate for a in expected] == [a.estimate for a in asked(only, tmp_path).comparisons]
    with pytest.raises(InputError, match="task 'c' is none of the rows'; they hold a, b"):
        run(tmp_path / "x.csv", "--baseline", "kd", "--task", "c")


def test_scores_that_are_no_means_are_recomputed(tmp_path):
    frame = judged(table())
    found = asked(frame, tmp_path, metric="MCC")
    items = frame.assign(run_id="r", source=frame["item"])
    for line in found.lines[::3]:
        expected = compare_metric(items, line.comparison.method, "kd", "matthews")
        assert line.comparison.estimate == pytest.approx(expected.estimate)
        assert line.comparison.p == pytest.approx(expected.p)
        assert line.comparison.test == expected.test
    right = asked(frame, tmp_path, metric="accuracy").lines[3].comparison
    assert found.lines[3].comparison.estimate != pytest.approx(right.estimate)
    with pytest.raises(InputError, match="has no metric 'bleu'"):
        asked(frame, tmp_path, metric="bleu")


# ---- what is missing ----


def test_unshared_tasks_seeds_and_items_are_left_out_and_counted(tmp_path):
    frame = table()
    whole = asked(frame, tmp_path)
    seed = (frame["method"] == "proc") & (frame["seed"] == 3)
    item = (frame["method"] == "proc") & (frame["task"] == "a") & (frame["item"] == 7)
    found = asked(frame[~(seed | item)], tmp_path)
    pooled = {a.method: a for a in found.comparisons if a.task == "pooled"}
    assert (pooled["proc"].n_seeds, pooled["proc"].n_items) == (3, 119)
    # the others are compared as before
    assert pooled["gram"] == next(a for a in whole.comparisons if a.method == "gram")
    kept = frame[~(seed | item)]
    alone = asked(kept[kept["method"].isin(["kd", "proc"])], tmp_path)
    assert alone.left_out["of a seed that some run lacks"] == 120  # kd's seed 3, in both tasks
    assert alone.left_out["of an item that some run lacks"] == 3
    assert alone.used + 123 == alone.scores.rows
    only = frame[~((frame["method"] == "proc") & (frame["task"] == "b"))]
    lost = asked(only[only["method"].isin(["kd", "proc"])], tmp_path)
    assert lost.left_out["of a task that one side lacks"] == 240
    assert [line.comparison.task for line in lost.lines] == ["a"]


def test_metrics_without_items_fall_back_to_seeds(tmp_path):
    frame = table().groupby(["task", "method", "seed"])["accuracy"].mean().reset_index()
    found = asked(frame, tmp_path)
    mean = frame.groupby(["method", "seed"])["accuracy"].mean().unstack()
    for line in found.lines[::3]:
        test = stats.ttest_rel(mean.loc[line.comparison.method], mean.loc["kd"])
        assert line.comparison.p == pytest.approx(test.pvalue)
        assert (line.comparison.low, line.comparison.high) == pytest.approx(
            tuple(test.confidence_interval())
        )
    assert any("the test items are held fixed" in note for note in found.notes)
    assert found.lines[0].settles.endswith(" seeds")
    assert "items are held fixed" in " ".join(methods_paragraph(found))


def test_one_seed_speaks_of_the_trained_models(tmp_path):
    frame = table(seeds=[0], tasks=("a",))
    found = asked(frame, tmp_path)
    values = frame.pivot(index="item", columns="method", values="accuracy")
    expected = stats.ttest_rel(values["proc"], values["kd"])
    line = next(line for line in found.lines if line.comparison.method == "proc")
    assert line.comparison.p == pytest.approx(expected.pvalue)
    assert any(
        note.startswith("one seed: this speaks of these trained models") for note in found.notes
    )
    open_ones = [line.settles for line in found.lines if line.verdict.word == "inconclusive"]
    assert open_ones
    assert all("for these two models" in settles for settles in open_ones)


def test_a_task_where_nothing_varies_has_no_line_and_says_so(tmp_path):
    frame = table()
    frame.loc[(frame["task"] == "b"), "accuracy"] = 1.0
    found = asked(frame, tmp_path)
    assert {line.comparison.task for line in found.lines} == {"pooled", "a"}
    assert any(
        note.startswith("proc, b: no line of its own, the differences are all 0")
        for note in found.notes
    )


def test_rows_that_allow_no_answer(tmp_path):
    frame = table(tasks=("a",))
    same = frame[frame["method"] == "kd"]
    with pytest.raises(InputError, match="the differences are all 0"):
        asked(pd.concat([same, same.assign(method="copy")]), tmp_path)
    with pytest.raises(InputError, match="the rows hold kd alone"):
        asked(same, tmp_path)
    for options, message in (
        ({"baseline": "base"}, "baseline 'base' is no method of the rows; they hold kd, cka_1"),
        ({"primary": ["x"]}, "primary 'x' is no method of the rows"),
        ({"primary": ["kd"]}, "primary 'kd' is the baseline itself"),
        ({"margin": -1.0}, "margin is -1.0; it must be above 0"),
    ):
        with pytest.raises(InputError, match=message):
            asked(frame, tmp_path, **options)
    one = frame.groupby("method")["accuracy"].mean().reset_index()
    with pytest.raises(InputError, match="share 1 seeds and no items: one number a method"):
        asked(one, tmp_path)
    apart = frame.assign(task=frame["method"])
    with pytest.raises(InputError, match="cka_1 and kd share no task"):
        asked(apart, tmp_path)
    odd = frame[(frame["method"] == "kd") == (frame["item"] < 30)]
    with pytest.raises(
        InputError, match=r"share no item of a that every run has; a/.* has the fewest"
    ):
        asked(odd, tmp_path)


# ---- what is written ----


def numbers(text):
    return re.findall(r"[+-]\d+\.\d+", text)


def test_all_forms_show_the_same_numbers(path, tmp_path):
    found = compare_all(read_scores(path, "kd"), "kd")
    forms = [markdown(found), latex(found), re.sub("<[^>]*>", " ", unescape(html(found)))]
    seen = [numbers(form) for form in forms]
    assert len(seen[0]) >= 3 * len(found.lines)
    assert seen[0] == seen[1] == seen[2]
    shown = numbers(" ".join(report_table(found).iloc[:, 2]))
    assert seen[0][: len(shown)] == shown
    for line, cell in zip(found.lines, report_table(found).iloc[:, 2], strict=True):
        one = line.comparison
        assert float(cell.split()[0]) == pytest.approx(100 * one.estimate, abs=0.051)
    words = report_table(found)["verdict"].tolist()
    assert set(words) >= {"better"}
    text = " ".join(methods_paragraph(found))
    for part in ("4 seeds on the same 120 items", "Holm", "two one-sided tests", "±1 points"):
        assert part in text


def test_latex_escapes(path):
    text = latex(compare_all(read_scores(path, "kd"), "kd"))
    assert r"cka\_1" in text
    assert r"95\% interval" in text
    assert not re.search(r"(?<!\\)%", text)
    assert text.isascii()


def test_the_folder_holds_figure_and_text(path, tmp_path):
    found = compare_all(read_scores(path, "kd"), "kd")
    written = write_report(found, tmp_path / "out")
    assert [p.name for p in written] == [
        "answer.md", "answer.tex", "answer.html", "forest.svg", "forest.png",
    ]  # fmt: skip
    assert written[4].read_bytes().startswith(b"\x89PNG")
    assert "<svg" in written[3].read_text()
    assert written[0].read_text() == markdown(found)


# ---- the command ----


def test_the_command_prints_the_answer_and_what_it_used(path, tmp_path):
    text = run(path, "--baseline", "kd", "--out", tmp_path / "o", "--column", "value=accuracy")
    found = compare_all(read_scores(path, "kd"), "kd")
    for cell in report_table(found).iloc[:, 2]:
        assert cell in text
    assert "1,920 of 1,920 rows used; left out: none" in text
    assert "accuracy against kd (higher is better)" in text
    assert (tmp_path / "o" / "answer.tex").is_file()
    assert "would be settled by" in text


def test_sensitivity_table_are_asked_for_and_take_what_both_sides_have(tmp_path):
    frame = table(20, tasks=("a",), methods={"kd": 0.0, "proc": 0.1})
    frame = frame[~((frame["method"] == "proc") & (frame["item"] == 7))]
    frame.to_csv(tmp_path / "x.csv", index=False)
    plain = run(tmp_path / "x.csv", "--baseline", "kd")
    text = run(tmp_path / "x.csv", "--baseline", "kd", "--all")
    assert "second opinions" not in plain
    assert "second opinions: proc vs kd" in text
    assert "sign flips over seeds" in text
    means = frame.groupby(["method", "seed"])["accuracy"].mean().reset_index()
    means.to_csv(tmp_path / "m.csv", index=False)
    assert "need items; these rows have none" in run(
        tmp_path / "m.csv", "--baseline", "kd", "--all"
    )


def test_the_command_refuses_a_column_without_a_name(path):
    with pytest.raises(InputError, match="--column 'method': expected OURS=THEIRS"):
        run(path, "--baseline", "kd", "--column", "method")


def test_the_command_loads_no_torch_and_draws_only_when_asked(path):
    heavy = ("torch", "transformers", "matplotlib")
    code = f"""
import sys
from geodistill.cli.main import app
try:
    app(["compare", {str(path)!r}, "--baseline", "kd"])
except SystemExit:
    pass
print("loaded:", *(name for name in {heavy} if name in sys.modules))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "verdict" in run.stdout, run.stderr
    assert run.stdout.splitlines()[-1] == "loaded:"


def test_work_grows_with_the_rows_and_no_faster(tmp_path):
    def spent(n_items):
        frame, before = table(n_items, range(5)), time.process_time()
        asked(frame, tmp_path)
        return time.process_time() - before

    spent(10)
    assert spent(1600) < 8 * spent(400) + 0.2


def test_sources_are_the_item_factor(tmp_path):
    frame = table(tasks=("a",)).assign(cluster=lambda f: f["item"] // 3)
    found = asked(frame, tmp_path)
    items = frame.rename(columns={"accuracy": "score", "cluster": "source"}).assign(run_id="r")
    expected = compare(items, "proc", "kd")
    mine = next(a for a in found.comparisons if a.method == "proc")
    assert mine.n_clusters == 20
    assert (mine.se, mine.df) == pytest.approx((expected.se, expected.df))
    assert "60 items from 20 sources" in " ".join(methods_paragraph(found))


def test_whole_runs_that_differ_in_nothing_are_told(tmp_path):
    lines = [{"method": m, "seed": s, "rougeL": 0.0} for m in ("kd", "proc") for s in range(3)]
    pd.DataFrame(lines).to_csv(tmp_path / "runs.csv", index=False)
    with pytest.raises(InputError, match="differences of proc and kd are all 0: no variance to"):
        run(tmp_path / "runs.csv", "--baseline", "kd", "--metric", "rougeL")
