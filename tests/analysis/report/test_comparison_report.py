"""Reports on methods that differ in what they have, over tasks, and with names of any letters."""

import json
import xml.dom.minidom

import numpy as np
import pandas as pd
import pytest
from support.command_line import run
from support.paired_items import crossed_rows

from geodistill.analysis import compare_all, read_scores
from geodistill.analysis.report.export import (
    html,
    latex,
    markdown,
    methods_paragraph,
    report_table,
    to_json,
    write_report,
)
from geodistill.errors import InputError


def table(methods=("kd", "a", "b"), tasks=("t",), n_seeds=5, n_items=40):
    frame = crossed_rows(task=tasks, method=methods, seed=range(n_seeds), item=range(n_items))
    draw = np.random.default_rng(0).random(len(frame))
    return frame.assign(accuracy=(draw < 0.6).astype(float))


def means(**options):
    keys = ["task", "method", "seed"]
    return table(**options).groupby(keys)["accuracy"].mean().reset_index()


def report(frame, tmp_path, **options):
    frame.to_parquet(tmp_path / "x.parquet")
    return compare_all(read_scores(tmp_path / "x.parquet", "kd"), "kd", **options)


SPOILT = {
    "one seed": lambda f: f[(f["method"] != "b") | (f["seed"] == 0)],
    "other seeds": lambda f: f.assign(seed=f["seed"] + 10 * (f["method"] == "b")),
    "equal": lambda f: f.assign(
        accuracy=f["accuracy"].where(
            f["method"] != "b", np.tile(f.loc[f["method"] == "kd", "accuracy"], 3)
        )
    ),
    "another task": lambda f: f.assign(task=f["task"].where(f["method"] != "b", "u")),
}
REASONS = {
    "one seed": "b is left out: .*shares? (?:one|1) seed",
    "other seeds": r"b is left out: b and kd share no seed \(b has 10, 11.*--column seed=NAME",
    "equal": "b is left out: the differences are all 0",
    "another task": "b is left out: b and kd share no task",
}


@pytest.mark.parametrize("items", [True, False])
@pytest.mark.parametrize("kind", SPOILT)
def test_a_method_that_cannot_be_compared_is_named_and_the_others_are_answered(
    tmp_path, kind, items
):
    frame = table() if items else means()
    result = report(SPOILT[kind](frame), tmp_path)
    alone = report(frame[frame["method"] != "b"], tmp_path)
    assert [row.comparison for row in result.rows] == [row.comparison for row in alone.rows]
    assert result.rows[0].p_adjusted == alone.rows[0].p_adjusted  # a family of one
    assert pd.Series(result.notes).str.contains(REASONS[kind]).any()
    only_b = SPOILT[kind](frame)
    only_b = only_b[only_b["method"] != "a"]
    if kind == "one seed" and items:  # alone, it is judged by its items
        assert report(only_b, tmp_path).rows[0].comparison.n_seeds == 1
        return
    with pytest.raises(InputError, match=REASONS[kind].partition(": ")[2]):
        report(only_b, tmp_path)


def test_each_pair_is_described_by_its_own_numbers(tmp_path):
    frame = table()
    frame = frame[(frame["method"] != "b") | ((frame["seed"] < 3) & (frame["item"] < 25))]
    result = report(frame, tmp_path)
    text = " ".join(methods_paragraph(result))
    assert "a and kd ran the same 5 seeds on the same 40 items." in text
    assert "b and kd ran the same 3 seeds on the same 25 items." in text
    assert report_table(result)["n"].tolist() == ["5 × 40", "3 × 25"]
    left_out = "b: compared on 3 seeds × 25 items; left out: 80 of a seed that some run lacks; "
    assert any(note.startswith(left_out + "45 of an item") for note in result.notes)
    seeds_alone = means()
    seeds_alone = seeds_alone[(seeds_alone["method"] != "b") | (seeds_alone["seed"] < 3)]
    text = " ".join(methods_paragraph(report(seeds_alone, tmp_path)))
    assert "b and kd ran the same 3 seeds." in text


def test_a_family_names_each_method_once(tmp_path):
    twice = report(table(), tmp_path, primary=["a", "a"])
    once = report(table(), tmp_path, primary=["a"])
    assert twice.rows == once.rows
    assert twice.rows[0].p_adjusted == twice.rows[0].comparison.p


def test_one_run_of_each_method_is_compared_over_tasks(tmp_path):
    """Twelve data sets; the numbers of such a test are checked in test_peers."""
    frame = means(tasks=tuple("abcdefghijkl"), n_seeds=1)
    with pytest.raises(InputError, match=r"share 1 seeds and no items.* by --over tasks"):
        report(frame, tmp_path)  # these tasks, of one run each: no noise is known
    frame.to_csv(tmp_path / "x.csv", index=False)
    text = run("compare", tmp_path / "x.csv", "--baseline", "kd", "--over", "tasks")
    assert "generalises to other tasks like these 12" in text


def test_several_seeds_are_crossed_with_the_tasks(tmp_path):
    frame = means(tasks=tuple("abcdef"), methods=("kd", "new"))
    (row,) = report(frame, tmp_path, over_tasks=True).rows
    by_item = frame.rename(columns={"task": "item"})
    (expected,) = report(by_item, tmp_path).rows
    assert row.comparison.se == pytest.approx(expected.comparison.se)
    assert (row.comparison.n_seeds, row.comparison.n_items) == (5, 6)


def test_two_seeds_are_warned_of_and_every_answer_says_to_what_it_generalises(tmp_path):
    notes = " ".join(report(means(n_seeds=2), tmp_path).notes)
    assert "two seeds: " in notes
    assert "generalises to new seeds; the test items are held fixed" in notes
    notes = " ".join(report(table(), tmp_path).notes)
    assert "two seeds" not in notes
    assert "generalises to new seeds and new test items of these tasks" in notes
    folds = means().rename(columns={"seed": "fold"})
    result = report(folds, tmp_path)
    assert "generalises to new training sets of this size" in " ".join(result.notes)
    assert "Nadeau and Bengio" in methods_paragraph(result)[2]


def test_what_cannot_be_compared_is_named_with_the_way_out(tmp_path):
    alone = report(means(), tmp_path, primary="a")  # one name as a text
    assert [row.comparison.method for row in alone.rows] == ["a", "b"]
    assert alone.rows[0].comparison.family == 1
    with pytest.raises(InputError, match=r"over tasks needs two or more; the rows hold t alone"):
        report(table(), tmp_path, over_tasks=True)
    nameless = means().assign(method=lambda rows: rows["method"].where(rows["method"] == "kd"))
    with pytest.raises(InputError, match=r"hold kd alone.*rows left out: 10 without a method"):
        report(nameless, tmp_path)


NAMES = ("opt[base]", "opt[instruct]", "new[/red]", "a_b*c|d", "$x$ & <i>", ":smile: 100%")


def test_names_are_shown_as_they_are_in_every_output(tmp_path):
    frame = table(methods=NAMES, n_items=12)
    frame.to_csv(tmp_path / "x.csv", index=False)
    text = run("compare", tmp_path / "x.csv", "--baseline", "opt[base]", "--out", tmp_path / "out")
    for name in NAMES[1:]:
        assert f" {name} " in text
    assert "[/red]" in html(compare_all(read_scores(tmp_path / "x.csv", NAMES[0]), NAMES[0]))
    xml.dom.minidom.parse(str(tmp_path / "out" / "forest.svg"))
    result = compare_all(read_scores(tmp_path / "x.csv", NAMES[0]), NAMES[0])
    assert "&lt;i&gt;" in html(result)
    assert "<i>" not in html(result)
    assert r"a\_b\*c\|d" in markdown(result)
    assert r"\$x\$ \& $<$i$>$" in latex(result)


def test_json_holds_the_unrounded_numbers(tmp_path):
    result = report(table(tasks=("t", "u")), tmp_path)
    content = json.loads(to_json(result))
    assert [row["task"] for row in content["rows"]] == ["pooled", "t", "u"] * 2
    for row, line in zip(content["rows"], result.rows, strict=True):
        assert row["p"] == line.comparison.p
        assert (row["verdict"], row["margin"]) == (line.verdict.word, line.margin)
    assert content["taken"]["method"] == "column method: kd, a, b"
    single = json.loads(to_json(report(table(n_seeds=1), tmp_path)))
    assert single["rows"][0]["p_better"] is None
    printed = run("compare", tmp_path / "x.parquet", "--baseline", "kd", "--json")
    assert json.loads(printed) == single


def test_several_baselines_have_a_report_each(tmp_path):
    table().to_csv(tmp_path / "x.csv", index=False)
    out = tmp_path / "out"
    text = run("compare", tmp_path / "x.csv", "--baseline", "kd", "--baseline", "a", "--out", out)
    assert "accuracy against kd" in text
    assert "accuracy against a (" in text
    assert text.count("method: column method") == 1
    assert sorted(path.name for path in out.iterdir()) == ["a", "kd"]


def test_methods_choose_the_family(tmp_path):
    table(methods=("kd", "a", "b", "c")).to_csv(tmp_path / "x.csv", index=False)
    scores = read_scores(tmp_path / "x.csv", "kd", methods=["a", "c"])
    result = compare_all(scores, "kd")
    assert [row.comparison.method for row in result.rows] == ["a", "c"]
    assert result.scores.left_out["of a method that was not chosen"] == 200
    assert (
        "b"
        not in run("compare", tmp_path / "x.csv", "--baseline", "kd", "--methods", "a,c").split()
    )


def test_the_figure_draws_the_margin_of_each_line(tmp_path):
    frame = table(tasks=("t", "u"), methods=("kd", "a")).rename(columns={"accuracy": "loss"})
    frame["loss"] += frame["task"].map({"t": 1.0, "u": 3.0})
    result = report(frame, tmp_path)
    assert len({row.margin for row in result.rows}) == 3
    assert (write_report(result, tmp_path / "o")[4]).stat().st_size > 1000
