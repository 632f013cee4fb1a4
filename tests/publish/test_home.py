"""The home page and README answer with the numbers that the stored results give."""

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from support.simulated_sections import GAINS, copy_sections

from geodistill.publish.claims import home
from geodistill.publish.claims.judge import Judge
from geodistill.publish.project import find_project

ROOT = find_project().root


@pytest.fixture(scope="module")
def complete(simulated_results, tmp_path_factory):
    """Simulated results of the sections that the home page shows."""
    folder, shown = (
        tmp_path_factory.mktemp("results"),
        ["full", "references", "kd-length", "double", "sizes"],
    )
    copy_sections(simulated_results, folder, "classification", ["full", "baselines"])
    copy_sections(simulated_results, folder, "instruction", shown)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEODISTILL_RESULTS", str(folder))
        yield folder


@pytest.fixture(scope="module")
def settings(complete):
    return {setting.label: setting for setting in home.read_settings()}


def test_a_complete_section_is_a_setting_and_an_incomplete_one_is_none(settings):
    assert list(settings) == [
        "BERT, few labels", "OPT, computed instructions", "OPT, twice the steps",
        "OPT, one layer 64 wide", "OPT, three layers 192 wide",
        "earlier: pretrained BERT", "earlier: OPT, real instructions",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("label", "study"),
    [("BERT, few labels", "classification"), ("OPT, computed instructions", "instruction")],
)
def test_the_numbers_are_those_that_were_drawn(settings, label, study):
    setting, gains = settings[label], GAINS[study]
    assert setting.gain.estimate == pytest.approx(gains["procrustes"], abs=0.02)
    others = {c.method: c.estimate for c in setting.alternatives}
    assert set(others) == {"kd+spectrum", "kd+pca"}
    best = max(("spectrum", "pca"), key=lambda name: others[f"kd+{name}"])
    over = setting.gain.estimate - others[f"kd+{best}"]
    assert setting.over_best.estimate == pytest.approx(over, abs=1e-9)
    assert setting.levels["teacher"] == pytest.approx(0.9, abs=0.05)
    trivial = {"classification": "frozen", "instruction": "nearest"}[study]
    assert setting.best_trivial == trivial


def test_levels_and_gains_of_an_earlier_study_are_those_of_its_items(settings):
    """By pandas alone: a mean over runs of the mean over items, tasks with equal weight."""
    setting = settings["earlier: pretrained BERT"]
    items = pd.read_parquet(ROOT / "data/results/earlier/classification/pretrained/items.parquet")
    levels = items.groupby(["method", "task"])["score"].mean().groupby("method").mean()
    assert setting.levels == pytest.approx(levels.to_dict())
    assert setting.gain.estimate == pytest.approx(levels["kd+procrustes"] - levels["kd"], abs=1e-3)


def test_the_finding_counts_the_planned_tests_alone(settings):
    shown = list(settings.values())
    counted = [settings["BERT, few labels"], settings["OPT, computed instructions"]]
    better, ahead = (
        sum("**better**" in home._verdict(c) for c in of)
        for of in zip(*((s.gain, s.over_best) for s in counted), strict=True)
    )
    assert home.finding(shown) == (
        f"A Procrustes term is better than KD in {better} of 2 studies, and better than "
        f"the best alternative in {ahead}"
    )
    only = counted[0]
    assert f"{100 * only.gain.estimate:+.1f} points over KD" in home.finding([only, *shown[3:]])


def test_the_answer_has_the_main_number_its_qualifiers_and_every_test(complete, settings):
    judge = Judge(lambda line: None)
    words = home.answer(judge, list(settings.values()))
    assert "[points]" not in words
    assert "Still running" not in words
    setting = settings["OPT, computed instructions"]
    kd, ours = (100 * setting.levels[name] for name in ("kd", "kd+procrustes"))
    gain = setting.gain
    assert (
        f"takes exact match from {kd:.1f} to {ours:.1f} % ({100 * gain.estimate:+.1f} points, 95 % "
        f"interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f}; 10 seeds, 120 items)"
    ) in words
    best = setting.over_best.baseline
    assert f"reaches {100 * setting.levels[best]:.1f} %.**" in words
    items = pd.read_parquet(complete / "instruction/full/items.parquet")
    new = items[items["task"] == "computed-wordings"].groupby("method")["exact_match"].mean()
    difference = 100 * (new["kd+procrustes"] - new["kd"])
    assert f"On new wordings the difference is {difference:+.1f} (" in words
    assert words.startswith(f"{home.finding(list(settings.values()))}.\n\n**")
    alignment = 100 * (setting.levels["kd+alignment"] - setting.levels["kd"])
    said = words.rpartition("Of its two parts, alignment alone changes KD by ")[2]
    assert float(said.partition(" (")[0]) == pytest.approx(alignment, abs=0.0501)
    longer = settings["OPT, twice the steps"]
    assert (
        f"With twice the training KD reaches {100 * longer.levels['kd']:.1f} %, and the term adds "
        f"{100 * longer.gain.estimate:+.1f} ("
    ) in words
    items = pd.read_parquet(complete / "instruction/sizes/items.parquet")
    rows = pd.read_parquet(complete / "instruction/sizes/rows.parquet")
    configs = rows.drop_duplicates("run_id").set_index("run_id")["config"].map(json.loads)
    for width, size in ((64, "one layer 64 wide"), (192, "three layers 192 wide")):
        runs = [i for i, c in configs.items() if (c["width"], c["epochs"]) == (width, 15.0)]
        scores = items[items["run_id"].isin(runs)].groupby("method")["exact_match"].mean()
        change = re.search(rf"(\S+) \(\S+ to \S+\) points to {size} \(KD (\S+) %\)", words)
        assert float(change[1]) == pytest.approx(
            100 * (scores["kd+procrustes"] - scores["kd"]), abs=0.0501
        )
        assert float(change[2]) == pytest.approx(100 * scores["kd"], abs=0.0501)
    studies = [settings["BERT, few labels"], setting]
    grams = [100 * (s.levels["kd+gram"] - s.levels["kd"]) for s in studies]
    table = [line for line in words.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 4
    assert (
        table[0] == "| the other tests, in points | BERT, few labels | OPT, computed instructions |"
    )
    cells = table[2].split(" | ")
    assert cells[0] == "| A Gram term adds … to KD"
    assert [cell.partition(" (")[0] for cell in cells[1:]] == [f"{gram:+.1f}" for gram in grams]
    (of_spectrum,) = (line.rstrip(" |").split(" | ")[1:] for line in table if "spectrum" in line)
    alone = [100 * (s.levels["kd+spectrum"] - s.levels["kd"]) for s in studies]
    said = [cell.partition("; that alone changes KD by ")[2] for cell in of_spectrum]
    assert [float(number) for number in said] == pytest.approx(alone, abs=0.0501)


def test_the_answer_has_the_gains_at_a_quarter_of_the_training_and_without_labels(
    simulated_results, tmp_path, monkeypatch
):
    sections = ["full", "baselines", "quarter", "text"]
    copy_sections(simulated_results, tmp_path, "classification", sections)
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    judge = Judge(lambda line: None)
    shown = home.read_settings(judge)
    words = home.answer(judge, shown)
    items = pd.read_parquet(tmp_path / "classification/quarter/items.parquet")
    levels = 100 * items[items["task"] != "stsb"].groupby("method")["score"].mean()
    gain, over_best = (levels["kd+procrustes"] - levels[name] for name in ("kd", "kd+pca"))
    assert (
        f"With a quarter of the training (KD {levels['kd']:.1f} %) it adds {gain:+.1f} (" in words
    )
    assert f"points; against the best alternative, {over_best:+.1f} (" in words
    items = pd.read_parquet(tmp_path / "classification/text/items.parquet")
    levels = 100 * items[items["task"] != "stsb"].groupby("method")["score"].mean()
    gain = levels["kd+procrustes"] - levels["kd"]
    assert f"no label KD reaches {levels['kd']:.1f} %, and the term adds {gain:+.1f} (" in words
    weak = [replace(s, levels={**s.levels, "kd": 0.1, "frozen": 0.6}) for s in shown]
    assert "(KD 10.0 %, below frozen features, linear model at 60.0 %)" in home.answer(judge, weak)


def test_before_the_longer_runs_the_answer_says_how_far_kd_still_rises(complete, settings):
    without = [s for s in settings.values() if s.label != "OPT, twice the steps"]
    words = home.answer(Judge(lambda line: None), without)
    rows = pd.read_parquet(complete / "instruction/kd-length/rows.parquet")
    rows = rows[rows["metric"] == "exact_match"]
    epochs = rows["config"].map(lambda text: json.loads(text)["epochs"])
    full, double = (100 * rows.loc[epochs == n, "value"].mean() for n in (15.0, 30.0))
    assert f"KD alone goes from {full:.1f} to {double:.1f} % with twice the training" in words


def test_without_results_the_answer_says_which_studies_are_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    assert "the classification and the instruction study" in home.write_answer(
        tmp_path / "answer.svg"
    )
    assert len(home.read_settings()) == 2


def test_the_table_has_a_row_for_each_setting_and_every_number(settings):
    head, rule, *rows = home.settings_table(list(settings.values())).splitlines()
    assert len(rows) == len(settings)
    assert {line.count("|") for line in (head, rule, *rows)} == {7}
    first = settings["BERT, few labels"]
    assert f"| {100 * first.levels['kd']:.1f} | {100 * first.levels['frozen']:.1f} (" in rows[0]
    assert f"{home.POINTS.format_difference(first.gain)}: **" in rows[0]
    verdicts = {row.split(" | ")[0].strip("| "): "**" in row for row in rows}
    assert [label for label, has_verdict in verdicts.items() if has_verdict] == [
        "BERT, few labels", "OPT, computed instructions",
    ]  # fmt: skip
    assert "nan" not in "".join(rows)


def test_the_figure_is_the_same_file_for_the_same_scores(settings, tmp_path):
    shown = list(settings.values())
    for name in "ab":
        home.draw_answer(shown, tmp_path / name)
    svg = (tmp_path / "a").read_text()
    assert svg == (tmp_path / "b").read_text()
    home.draw_answer(shown[:1], tmp_path / "c")
    assert svg != (tmp_path / "c").read_text()
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert home.finding(shown) in svg


def test_readme_and_its_figure_say_what_the_committed_results_give(tmp_path, monkeypatch):
    monkeypatch.delenv("GEODISTILL_RESULTS", raising=False)
    stale = "stale: run `python -m geodistill.publish.claims.home`"
    assert home.write_answer(tmp_path / "answer.svg") in (ROOT / "README.md").read_text(), stale
    described = re.search(r"<dc:description>(.*?)</dc:description>", _figure(), re.DOTALL)
    assert described[1].replace("&lt;", "<") == home.settings_table(home.read_settings()), stale


def _figure():
    return (ROOT / home.FIGURE).read_text(encoding="utf-8")


def test_marks_are_at_the_intervals_of_the_comparisons(settings, monkeypatch):
    drawn = []
    monkeypatch.setattr(home, "_draw_interval", lambda ax, c, y, filled: drawn.append((c, y)))
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *args, **kwargs: None)
    home.draw_answer(list(settings.values()), "unused")
    shown = list(settings.values())
    assert [c for c, _ in drawn] == [c for s in shown for c in (s.gain, *s.alternatives)]
    rows = np.round([y for _, y in drawn]).astype(int)
    assert rows.tolist() == [i for i, s in enumerate(shown) for _ in (s.gain, *s.alternatives)]
