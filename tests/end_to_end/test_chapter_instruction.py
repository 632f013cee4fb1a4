"""Chapter 5 on results whose effects are known: with every section, and with tuning alone."""

import pytest
from support.simulated_sections import write_sections
from support.stored_chapter import estimate, figures, run_stored_part, text

from geodistill.experiments.instruction.grid import InstructionGrid

pytestmark = pytest.mark.smoke
CHAPTER = "05_opt_instruction"
FROM_SECTIONS = {
    "opt-levels": ["references", "primary"],
    "opt-weights": ["tuning"],
    "opt-gain": ["primary"],
    "opt-gain-table": ["primary"],
    "opt-answers": ["primary"],
    "opt-controls": ["primary", "controls"],
    "opt-controls-table": ["primary", "controls"],
    "opt-controls-answers": ["primary", "controls"],
    "opt-large-batch": ["large-batch"],
    "opt-large-batch-table": ["large-batch"],
    "opt-large-batch-answers": ["large-batch"],
}
"""Figures and tables, with the sections that they show."""


def test_complete_sections_show_the_simulated_effects(tmp_path, monkeypatch):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    write_sections(tmp_path, "instruction")
    outputs = run_stored_part(CHAPTER, tmp_path, monkeypatch)
    page, shown = text(outputs), figures(outputs)
    assert "not used" not in page
    assert set(shown) == set(FROM_SECTIONS)
    for name, sections in FROM_SECTIONS.items():
        assert shown[name]["source"] == "stored"
        assert all(f"--section {section}" in shown[name]["made_by"] for section in sections)
        assert shown[name]["run_ids"], name
    # Procrustes gains 0.12, on shuffled rows 0.11, whose difference is below the margin of 0.05.
    assert abs(estimate(shown["opt-gain"], "KD + Procrustes vs KD") - 0.12) < 0.03
    shuffled = "KD + Procrustes, rows shuffled vs KD"
    assert abs(estimate(shown["opt-controls"], shuffled) - 0.11) < 0.03
    assert "equivalent" in page


def test_without_sections_the_chapter_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    write_sections(tmp_path, "instruction", ["large-batch"])
    outputs = run_stored_part(CHAPTER, tmp_path, monkeypatch)
    page = text(outputs)
    grid = InstructionGrid()
    for name in ("references", "primary", "controls"):
        assert f"section {name}: 0 of {len(grid.runs(name))} runs are stored" in page
    assert "C5 is not yet tested" in page
    large_batch = {name for name in FROM_SECTIONS if name.startswith("opt-large-batch")}
    assert set(figures(outputs)) == {"opt-weights", *large_batch}
