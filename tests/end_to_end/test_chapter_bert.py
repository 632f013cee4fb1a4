"""Chapter 4 on results whose effects are known: with every section, with some, and with none."""

import re

import pytest
from support.simulated_sections import GAINS, copy_sections
from support.stored_chapter import estimate, figures, run_stored_part, text

from geodistill.experiments.registry import GRIDS

pytestmark = pytest.mark.smoke
CHAPTER = "04_bert_classification"
LEVELS = ["baselines", "full", "full-others"]
FROM_SECTIONS = {
    "classification-gate": [
        "baselines-validation",
        "kd-tuning",
        "kd-tuning-tweets",
        "kd-tuning-stsb",
    ],
    "classification-five-tests": ["full"],
    "classification-verdicts": ["full"],
    "classification-levels": LEVELS,
    "classification-levels-figure": LEVELS,
    "classification-full-others": ["full", "full-others"],
    "classification-two-by-two": ["full"],
    "classification-leave-one-task-out": ["full"],
    "classification-metrics": ["full"],
    "classification-length": ["kd-length"],
    "classification-quarter": ["quarter"],
    "classification-text": ["text"],
}
"""Figures and tables, with the sections that they show."""


def verdict(html, comparison):
    """The verdict of a comparison, such as "A vs B", in the tables of a page."""
    row = rf"<td>{re.escape(comparison)}</td>.*?<td>([^<]*)</td>\s*</tr>"
    return re.search(row, html, re.DOTALL)[1]


def test_complete_sections_show_the_simulated_effects(simulated_results, monkeypatch):
    outputs = run_stored_part(CHAPTER, simulated_results, monkeypatch)
    page, shown = text(outputs), figures(outputs)
    assert "incomplete" not in page
    assert set(shown) == set(FROM_SECTIONS)
    for name, sections in FROM_SECTIONS.items():
        assert shown[name]["source"] == "stored"
        assert all(section in shown[name]["made_by"] for section in sections)
        assert len(shown[name]["run_ids"]) > 1
    gains = {name: 100 * gain for name, gain in GAINS["classification"].items()}
    for name in ("classification-five-tests", "classification-quarter", "classification-text"):
        gain = estimate(shown[name], "kd+procrustes", "kd")
        assert abs(gain - gains["procrustes"]) < 2
    assert abs(estimate(shown["classification-quarter"], "kd+cka", "kd") - gains["cka"]) < 2
    isotropy = estimate(shown["classification-full-others"], "kd+isotropy", "kd")
    assert abs(isotropy - gains["isotropy"]) < 4  # of five seeds
    ahead_of_spectrum = estimate(shown["classification-five-tests"], "kd+procrustes", "kd+spectrum")
    assert abs(ahead_of_spectrum - gains["procrustes"] + gains["spectrum"]) < 2
    assert verdict(page, "KD + Procrustes vs KD") == "better"
    assert "stsb" in page


def test_without_sections_the_chapter_says_what_is_missing(
    simulated_results, tmp_path, monkeypatch
):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    copy_sections(simulated_results, tmp_path, "classification", ["quarter"])
    outputs = run_stored_part(CHAPTER, tmp_path, monkeypatch)
    page = text(outputs)
    grid = GRIDS["classification"]
    assert f"section full: {grid.n_planned('full')} runs are planned" in page
    for name in ("baselines", "full-others"):
        assert re.search(rf"section {name}: ", page)
    assert "not yet tested, their section is incomplete: C4a, C4b, P1-bert" in page
    assert set(figures(outputs)) == {"classification-gate", "classification-quarter"}


def test_before_the_first_run_the_chapter_shows_nothing_stored(tmp_path, monkeypatch):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    outputs = run_stored_part(CHAPTER, tmp_path, monkeypatch)
    assert figures(outputs) == {}
    assert "section baselines-validation: 0 of 24 runs are stored; not used" in text(outputs)
