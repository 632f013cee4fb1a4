"""Chapter 4 on results whose effects are known: with every section, and with tuning alone."""

import re

import pytest
from support.simulated_sections import write_sections
from support.stored_chapter import estimate, figures, run_stored_part, text

from geodistill.experiments.classification.grid import ClassificationGrid

pytestmark = pytest.mark.smoke
CHAPTER = "04_bert_classification"
FROM_SECTIONS = {
    "terms": ["primary"],
    "main-result": ["primary"],
    "levels": ["primary"],
    "controls": ["primary", "placebos"],
    "controls-table": ["primary", "placebos"],
    "short": ["short"],
    "short-table": ["short"],
    "pretrained": ["pretrained"],
    "pretrained-levels": ["pretrained"],
    "pretrained-table": ["pretrained"],
}
"""Figures and tables, with the sections that they show."""


def verdicts(html, baseline):
    """The verdicts of KD + Procrustes against a baseline in the tables of a page."""
    row = rf"<td>KD \+ Procrustes vs {re.escape(baseline)}</td>.*?<td>(\w+)</td>\s*</tr>"
    return set(re.findall(row, html, re.DOTALL))


def test_complete_sections_show_the_simulated_effects(tmp_path, monkeypatch):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    write_sections(tmp_path, "classification", n_items=200)
    outputs = run_stored_part(CHAPTER, tmp_path, monkeypatch)
    page, shown = text(outputs), figures(outputs)
    assert "incomplete" not in page
    assert set(shown) == {"weights", *FROM_SECTIONS}
    for name, sections in FROM_SECTIONS.items():
        assert shown[name]["source"] == "stored"
        assert all(f"--section {section}" in shown[name]["made_by"] for section in sections)
        assert len(shown[name]["run_ids"]) > 1
    assert verdicts(page, "KD") == {"better"}  # in the primary, short and pretrained sections
    assert verdicts(page, "KD + Procrustes, rows shuffled") == {"better"}
    for name in ("short", "pretrained", "controls"):
        assert abs(estimate(shown[name], "KD + Procrustes vs KD") - 6) < 2
        if name != "short":
            assert abs(estimate(shown[name], "KD + Procrustes, rows shuffled vs KD") + 10) < 2


def test_without_sections_the_chapter_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    write_sections(tmp_path, "classification", ["short"], n_items=40)
    outputs = run_stored_part(CHAPTER, tmp_path, monkeypatch)
    page = text(outputs)
    grid = ClassificationGrid()
    for name in ("primary", "pretrained"):
        assert f"section {name}: 0 of {len(grid.runs(name))} runs are stored" in page
    assert "C4a is not yet tested" in page
    assert set(figures(outputs)) == {"weights", "short", "short-table"}
