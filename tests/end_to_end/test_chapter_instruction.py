"""The stored part of the instruction chapter, on rows whose effects are known, and on none."""

from pathlib import Path

import nbclient
import nbformat
import pytest
from support import simulated_instruction as simulated

from geodistill.experiments.instruction import grid as instruction_grid
from geodistill.publish.notebook_source import read_source

ROOT = Path(__file__).parents[2]
CHAPTER = ROOT / "notebooks" / "05_opt_instruction.py"
NEEDS = {"ON_THE_WAY": "participation_ratio/at"}
"""Names that the live part gives to the stored one."""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEODISTILL_RESULTS", str(folder))
        simulated.write(folder)
    return folder


def stored_part():
    """The chapter's imports, then all from its study on: no cell that needs the live runs."""
    cells = read_source(CHAPTER).cells
    (start,) = [i for i, cell in enumerate(cells) if cell.source.startswith("## The study\n")]
    imports = next(c for c in cells if "import matplotlib" in c.source).source.partition(
        "setting ="
    )
    given = "\n".join(f"{name} = {value!r}" for name, value in NEEDS.items())
    head = nbformat.v4.new_code_cell(f"{imports[0]}\n{given}\nseed = 0")
    return nbformat.v4.new_notebook(cells=[head, *cells[start:]])


def ran(folder, monkeypatch):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(folder))
    notebook = stored_part()
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute(
        cwd=str(ROOT / "notebooks")
    )
    return [out for cell in notebook.cells for out in cell.get("outputs", [])]


def facts(outputs, source="stored"):
    found = [out.get("metadata", {}).get("geodistill", {}) for out in outputs]
    return {one["name"]: one for one in found if one.get("source") == source}


def text(outputs):
    said = [out.get("text", "") for out in outputs]
    said += [out.get("data", {}).get("text/markdown", "") for out in outputs]
    return "\n".join(said)


@pytest.mark.smoke
def test_the_chapter_says_of_whole_sections_what_their_rows_hold(results, monkeypatch):
    outputs = ran(results, monkeypatch)
    shown = facts(outputs)
    assert len(shown) >= 20
    for name, one in shown.items():
        assert one["run_ids"], name
        assert one["made_by"].startswith("geodistill grid instruction --section "), name
    told = text(outputs)
    assert "not shown" not in told
    # Procrustes gains 0.12, its shuffled twin 0.11: a gain, and not the geometry.
    assert "Yes: KD + Procrustes is better than KD." in told
    assert "Not by itself: *Procrustes, rows shuffled* brings as much" in told
    assert "*Procrustes, rows shuffled*: equivalent" in told
    # The simulated gains do not depend on the length of a training.
    assert {"opt-again", "opt-again-differences", "opt-again-answers"} <= set(shown)
    for steps, size in ((125, 32), (250, 32), (125, 64), (250, 64)):
        assert f"- {steps} × {size}: better than " in told
    assert told.count("has **does not move alike against all controls**") == 2
    assert {"opt-kinds", "opt-kinds-differences", "opt-kinds-pages"} <= set(shown)
    assert "than one by KD alone on **3**, a lower one on **0**, by intervals" in told
    assert "less likely than KD's: **none**" in told
    ids = shown["opt-controls"]["run_ids"]
    planned = instruction_grid.progress().set_index("section")["planned"]
    assert len(ids) == planned[["primary", "curve", "controls"]].sum()


@pytest.mark.smoke
def test_without_rows_each_section_says_how_far_it_is(tmp_path, monkeypatch):
    outputs = ran(tmp_path, monkeypatch)
    assert facts(outputs) == {}
    assert "instruction-sections" in facts(outputs, "live")
    told = text(outputs)
    for name in instruction_grid.protocol()["grid"]:
        assert f"section {name}: 0 of " in told, name
    assert "this page decides nothing by itself" in told


@pytest.mark.smoke
def test_a_part_of_the_sections_shows_a_part_of_the_chapter(tmp_path, monkeypatch):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    simulated.write(tmp_path, ("tuning", "primary", "larger"))
    outputs = ran(tmp_path, monkeypatch)
    shown = set(facts(outputs))
    assert {"opt-gain", "opt-family", "opt-heads", "opt-readings"} <= shown
    assert not {"opt-controls", "opt-spread", "opt-rows", "opt-luck", "opt-pages"} & shown
    told = text(outputs)
    assert "Not asked: the runs of the controls are not all made." in told
    planned = instruction_grid.progress().set_index("section")["planned"]
    assert f"section curve: 0 of {planned['curve']} runs are stored; not shown" in told
