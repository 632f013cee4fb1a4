"""Binder, workflows, citation and the paper's front matter fit the project."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml
from support.tiny_project import REPOSITORY

WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
CITATION = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_targets_that_exist(path):
    workflow = yaml.safe_load(path.read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all(("run" in step) != ("uses" in step) for step in steps)
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in re.findall(r"\bmake ([\w-]+)", path.read_text()):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    assert "permissions" in workflow
    assert True in workflow  # YAML reads the key `on` so


def test_there_are_workflows_for_tests_book_links_and_releases():
    assert [path.stem for path in WORKFLOWS] == ["book", "links", "release", "test"]


def test_binder_installs_the_tested_versions_without_jupyter_book():
    folder = REPOSITORY / "binder"
    environment = yaml.safe_load((folder / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    options = dict(line.split(" ", 1) for line in pip)
    assert (folder / options["-c"]).resolve() == REPOSITORY / "constraints.txt"
    path, extras = re.fullmatch(r"(.*)\[(.*)\]", options["-e"]).groups()
    assert (folder / path).resolve() == REPOSITORY
    assert set(extras.split(",")) == {"train", "analysis"}
    assert os.access(folder / "postBuild", os.X_OK)


def test_citation_archive_and_package_name_the_same_work():
    archive = json.loads((REPOSITORY / ".zenodo.json").read_text())
    assert archive["title"] == CITATION["title"]
    assert archive["keywords"] == CITATION["keywords"]
    assert archive["license"] == CITATION["license"]
    version = re.search(r'^version = "(.*)"', (REPOSITORY / "pyproject.toml").read_text(), re.M)
    assert CITATION["version"] == version[1]


def test_the_papers_citations_are_in_the_bibliography():
    text = (REPOSITORY / "paper" / "paper.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    bibliography = (REPOSITORY / "paper" / Path(front["bibliography"])).read_text()
    keys = set(re.findall(r"@([a-z]+\d{4}[a-z]*)", text))
    assert len(keys) >= 3
    assert all(f"{{{key}," in bibliography for key in keys)
