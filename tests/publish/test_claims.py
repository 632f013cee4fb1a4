"""Figures and tables of a claim carry its numbers and say where they come from."""

import pytest
from support.simulated_sections import write_sections

from geodistill.publish import display
from geodistill.publish.claims.figures import show_claim, show_forest
from geodistill.publish.claims.judge import Judge, all_claims, find_test


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """What is displayed: metadata of each figure and table."""
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    outputs = []
    monkeypatch.setattr(
        display, "_display", lambda html, facts: outputs.append({**facts, "html": html})
    )
    return outputs


def test_a_forest_and_a_table_say_numbers_runs_and_folders(tmp_path, shown):
    write_sections(tmp_path, "instruction", ["full"])
    judge, test = Judge(), find_test("C5")
    comparisons = judge.comparisons("C5")
    show_forest(comparisons, test, "forest", judge.provenance("C5"))
    show_claim(judge, "C5", "table")
    forest, table = shown
    assert [facts["name"] for facts in shown] == ["forest", "table"]
    largest = max(comparison.estimate for comparison in comparisons)
    assert test.unit.format(largest) in forest["text"]
    above = sum(comparison.low > 0 for comparison in comparisons)
    assert f"{above} of {len(comparisons)} intervals lie above zero" in forest["text"]
    assert 5 < len(forest["text"].split()) < 60
    for comparison in comparisons:  # in points; the page prints four digits
        assert f"<td>{100 * comparison.low:.4g}</td>" in forest["html"]
    assert "A Procrustes or Gram term improves instruction following" in table["text"]
    for facts in shown:
        assert len(facts["run_ids"]) == 70
        assert facts["results"] == "data/results/instruction/full"
        assert facts["made_by"] == "geodistill experiments instruction --section full"


def test_a_claim_whose_section_is_incomplete_is_a_line_and_no_table(shown, capsys):
    show_claim(Judge(), "C5", "table")
    assert shown == []
    assert "C5 is not yet tested" in capsys.readouterr().out


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
