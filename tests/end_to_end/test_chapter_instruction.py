"""Chapter 5 on results whose effects are known: with every section, and with none."""

import pytest
from support.simulated_sections import GAINS
from support.stored_chapter import estimate, figures, run_stored_part, text

from geodistill.experiments.registry import GRIDS

pytestmark = pytest.mark.smoke
CHAPTER = "05_opt_instruction"
LEVELS = ["references", "full", "full-others"]
FROM_SECTIONS = {
    "instruction-gate": ["lookups-validation", "kd-tuning", "kd-tuning-slower"],
    "instruction-five-tests": ["full"],
    "instruction-verdicts": ["full"],
    "instruction-levels": LEVELS,
    "instruction-levels-figure": LEVELS,
    "instruction-full-others": ["full", "full-others"],
    "outcomes": ["full"],
    "instruction-two-by-two": ["full"],
    "instruction-metrics": ["full"],
    "rank": ["full", "full-others"],
    "instruction-length": ["kd-length"],
    "instruction-double": ["double"],
    "instruction-quarter": ["quarter"],
    "sizes": ["sizes"],
    "skew": ["skew"],
    "instruction-pretrained": ["pretrained"],
}
"""Figures and tables of the study, with the sections that they show."""
REAL_TEXT = {"t0-gains", "t0-rank"}


def test_complete_sections_show_the_simulated_effects(simulated_results, monkeypatch):
    outputs = run_stored_part(CHAPTER, simulated_results, monkeypatch)
    page, shown = text(outputs), figures(outputs)
    assert "not used" not in page
    assert set(shown) == {*FROM_SECTIONS, *REAL_TEXT}
    for name, names in FROM_SECTIONS.items():
        assert shown[name]["source"] == "stored"
        assert all(section in shown[name]["made_by"] for section in names)
        assert shown[name]["run_ids"], name
    gains = {name: 100 * gain for name, gain in GAINS["instruction"].items()}
    # Of five seeds the mean of the drawn gains is further off.
    for name, off in (("five-tests", 2), ("double", 4), ("quarter", 2)):
        gain = estimate(shown[f"instruction-{name}"], "kd+procrustes", "kd")
        assert abs(gain - gains["procrustes"]) < off
    ahead = estimate(shown["instruction-five-tests"], "kd+procrustes", "kd+spectrum")
    assert abs(ahead - gains["procrustes"] + gains["spectrum"]) < 2
    # Drawn ratios rise with the drawn gains, but for methods whose other base is lower.
    assert "Rank correlation (Spearman) +" in shown["rank"]["text"]
    assert "better" in page


def test_without_sections_the_chapter_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    outputs = run_stored_part(CHAPTER, tmp_path, monkeypatch)
    page, grid = text(outputs), GRIDS["instruction"]
    for name in ("lookups-validation", "references"):
        assert f"section {name}: 0 of {len(grid.runs(name))} runs are stored" in page
    assert f"section full: {grid.n_planned('full')} runs are planned" in page
    assert "not yet tested, their section is incomplete: C5, P1-opt" in page
    assert set(figures(outputs)) == REAL_TEXT
