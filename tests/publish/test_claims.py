"""Figures and tables of a claim carry its numbers and say where they come from."""

import re

import pytest
from support.simulated_sections import copy_sections

from geodistill.analysis.figures.style import method_style
from geodistill.analysis.stats.verdict import verdict
from geodistill.publish import display
from geodistill.publish.claims.judge import Judge, all_claims, find_test
from geodistill.publish.study_figures import show_levels, show_tests


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """What is displayed: metadata of each figure and table."""
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    outputs = []
    monkeypatch.setattr(
        display, "_display", lambda html, facts: outputs.append({**facts, "html": html})
    )
    return outputs


def test_a_forest_and_a_table_say_numbers_runs_and_folders(simulated_results, tmp_path, shown):
    copy_sections(simulated_results, tmp_path, "instruction", ["full"])
    judge, test = Judge(), find_test("C5")
    comparisons = [*judge.comparisons("C5"), *judge.comparisons("P1-opt")]
    show_tests(judge, ("C5", "P1-opt"))
    forest, table = shown
    names = ["instruction-five-tests", "instruction-verdicts"]
    assert [facts["name"] for facts in shown] == names
    largest = max(comparison.estimate for comparison in comparisons)
    assert test.unit.format(largest) in forest["text"]
    above = sum(comparison.low > 0 for comparison in comparisons)
    assert f"{above} of {len(comparisons)} intervals lie above zero" in forest["text"]
    assert 5 < len(forest["text"].split()) < 60
    for comparison in comparisons:  # in points; the page prints four digits
        assert f"<td>{100 * comparison.low:.4g}</td>" in forest["html"]
    rows = re.findall("<tr>.*?</tr>", table["html"], re.DOTALL)
    assert len(rows) == len(comparisons) == 5
    for row, comparison in zip(rows, comparisons, strict=True):
        cells = re.findall("<td>(.*?)</td>", row)
        claim = "C5" if comparison.baseline == "kd" else "P1-opt"
        number = f"{100 * comparison.estimate:+.1f} ("
        assert (cells[0], cells[2][: len(number)]) == (claim, number)
        assert cells[-1] == verdict(comparison, test.margin).word
    for facts in shown:
        assert len(facts["run_ids"]) == 70
        assert facts["results"] == "data/results/instruction/full"
        assert facts["made_by"] == "geodistill experiments instruction --section full"


def test_a_claim_whose_section_is_incomplete_is_a_line_and_no_table(shown, capsys):
    show_tests(Judge(), ("C5", "P1-opt"))
    assert shown == []
    assert "not yet tested, their section is incomplete: C5, P1-opt" in capsys.readouterr().out


def test_levels_are_one_row_per_method_with_the_best_on_top(simulated_results, tmp_path, shown):
    copy_sections(simulated_results, tmp_path, "classification", ["full"])
    study = Judge().sections("classification")
    show_levels(study, ["full"], "accuracy")
    table, figure = shown
    rows = [
        re.findall("<td>(.*?)</td>", row)
        for row in re.findall("<tr>.*?</tr>", table["html"], re.DOTALL)
    ]
    runs = study["full"].runs
    means = 100 * runs.groupby(["method", "task"])["accuracy"].mean().unstack("task")
    order = means.mean(axis=1).sort_values(ascending=False).index
    assert [row[0] for row in rows] == [method_style(method).label for method in order]
    for row, method in zip(rows, order, strict=True):
        of_news = 100 * runs[(runs["method"] == method) & (runs["task"] == "news")]["accuracy"]
        assert row[1] == f"{of_news.mean():.1f} ({of_news.median():.1f})"
        assert row[3:] == [str(2 * len(of_news)), "0"]
    assert figure["text"].startswith("Test score of every run")


def test_the_claims_are_those_of_the_paper_and_our_own_with_unique_keys():
    claims = all_claims()
    assert len({claim.key for claim in claims}) == len(claims) == 10
    assert {claim.origin for claim in claims} == {"paper", "ours"}
    assert not [
        claim.key for claim in claims if "{" in claim.test_in_words or not claim.test_in_words
    ]
    for claim in claims:
        if claim.test:
            assert claim.test.margin > 0
            assert all(method != baseline for method, baseline in claim.test.pairs)
