"""Chapter 4 on rows of which we know the truth: with every section, and with none but tuning."""

import re
import shutil

import nbformat
import pytest
from support import simulated_results
from support.tiny_project import REPOSITORY

from geodistill.experiments.classification import grid as classification_grid
from geodistill.experiments.run_store import data_dir
from geodistill.publish.execute import run_notebook
from geodistill.publish.paths import Project

pytestmark = pytest.mark.smoke
FROM_SECTIONS = {
    "efficiency", "worth", "controls-by-factor", "shares", "weight-decades", "size", "changed",
    "batch", "length", "controls-elsewhere", "pretrained", "pretrained-level", "first-token",
    "others", "all-sentences", "device", "luck", "glue-dev-primary", "glue-dev-all",
    "secondary-pairs", "short", "levels-elsewhere",
}  # fmt: skip


def run(folder, make, build):
    """The executed chapter on the rows that `make` writes beside the exploratory ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEODISTILL_RESULTS", str(folder))
        shutil.copytree(data_dir() / "results" / "exploratory", folder / "exploratory")
        make(folder)
        project = Project.at(REPOSITORY, build)
        path = run_notebook("04_bert_classification", {"profile": "smoke"}, project)
    return nbformat.read(path, as_version=4)


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def printed(notebook):
    return "".join(out.get("text", "") for out in outputs(notebook))


def verdict(notebook):
    texts = [out.get("data", {}).get("text/markdown", "") for out in outputs(notebook)]
    (found,) = [text for text in texts if text.startswith("- *Does a term help")]
    return dict(re.findall(r"^- \*(.+?)\?\* (.+)\.$", found, re.MULTILINE))


def shown(notebook):
    facts = [out.get("metadata", {}).get("geodistill") for out in outputs(notebook)]
    return {fact["name"]: fact for fact in facts if fact}


def test_every_section_is_shown_and_the_verdict_is_what_was_put_in(tmp_path):
    def make(folder):
        simulated_results.write_sections(folder, n_items=200)

    chapter = run(tmp_path / "rows", make, tmp_path / "build")
    assert "not shown" not in printed(chapter)
    figures = shown(chapter)
    assert set(figures) >= FROM_SECTIONS
    for name in FROM_SECTIONS:
        assert figures[name]["source"] == "stored"
        assert "--section" in figures[name]["made_by"]
        assert len(figures[name]["run_ids"]) > 1
    both = figures["controls"]  # of two sections, and both are named
    assert all(f"--section {name}" in both["made_by"] for name in ("primary", "placebos"))
    assert "/placebos/items" in both["rows"]
    assert "--section gpu" in figures["size"]["made_by"]  # rows of a GPU beside their like
    assert "--section primary" in figures["shares"]["made_by"]  # and those of CPUs
    says = verdict(chapter)
    assert len(says) == 12
    assert "Not made yet" not in " ".join(says.values())
    assert says["Does a term help, over distilling logits alone"].startswith(
        "KD + Procrustes: **better**, +"
    )
    assert "**larger**" in says["How many labelled sentences is it worth"]  # it fades with n
    assert "**better**" in says["Does it help a student that was pretrained"]
    for asked in ("length of the training", "batch"):  # neither moves a simulated gain
        assert "; over KD + Procrustes, rows shuffled **" in says[f"Does the {asked} matter"]
        assert "**larger**" not in says[f"Does the {asked} matter"]
        assert (
            "a control that does harm of its own, KD + Procrustes, rows shuffled with"
            in (says[f"Does the {asked} matter"])
        )
    assert "it does harm of its own" in says["Does it help a student that was pretrained"]
    assert "of 5 gains over KD none changes clearly" in says["Does the machine matter"]


def test_without_its_sections_the_chapter_says_what_is_not_made(tmp_path):
    def make(folder):
        simulated_results.write_sections(folder, ["size"], n_items=6)

    chapter = run(tmp_path / "rows", make, tmp_path / "build")
    lines = printed(chapter)
    planned = classification_grid.progress().set_index("section")["planned"]
    for name in ("efficiency", "gpu", "variance", "others"):
        assert f"section {name}: 0 of {planned[name]} runs are stored; not shown" in lines
    figures = shown(chapter)
    assert set(figures) & FROM_SECTIONS == {"size"}  # it has a KD of its own
    says = verdict(chapter)
    assert says.pop("Does a wider student gain more") != "Not made yet"
    assert set(says.values()) == {"Not made yet"}
    texts = "".join(out.get("data", {}).get("text/markdown", "") for out in outputs(chapter))
    assert "**there is no verdict yet**: 0 of the 300 primary runs" in texts
