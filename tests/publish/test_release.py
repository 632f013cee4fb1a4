"""The notebooks of the release branch and their first cell, which prepares Google Colab."""

import importlib.util
import subprocess
import sys
from types import ModuleType

import nbformat
import pytest
import yaml
from support.tiny_project import REPOSITORY, notebook, tiny_project

from geodistill.errors import InputError
from geodistill.publish.book import with_launch_links
from geodistill.publish.release import release_notebooks

URL = "https://github.com/someone/geodistill"


@pytest.fixture
def released(tmp_path):
    project = tiny_project(tmp_path, _01_one=notebook("One", 'print("one")'))
    config = yaml.safe_load((tmp_path / "_config.yml").read_text())
    config["repository"]["url"] = URL + "/"
    (tmp_path / "_config.yml").write_text(yaml.safe_dump(config))
    assert release_notebooks(project) == ["notebooks/01_one.ipynb"]
    return nbformat.read(project.build / "release" / "notebooks" / "01_one.ipynb", as_version=4)


def test_no_address_no_release(tmp_path):
    with pytest.raises(InputError, match=r"repository is not known.*set repository\.url"):
        release_notebooks(tiny_project(tmp_path, _01_one=notebook("One")))


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://github.com/someone/geodistill.git", URL),
        ("https://someone:ghp_secret@github.com/someone/geodistill", URL),
        ("git@github.com:someone/geodistill.git", URL),
        ("ssh://git@gitlab.com/group/sub/project.git", "https://gitlab.com/group/sub/project"),
        ("https://example.org/someone/geodistill.git", ""),
        ("/somewhere/else", ""),
        ("", ""),
    ],
)
def test_a_fork_links_to_itself_if_its_remote_is_a_forge(tmp_path, remote, address):
    project = tiny_project(tmp_path, _01_one=notebook("One"))
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    if remote:
        subprocess.run(["git", "-C", tmp_path, "remote", "add", "origin", remote], check=True)
    assert project.repository_url() == address
    links = with_launch_links(yaml.safe_load((tmp_path / "_config.yml").read_text()), address)
    assert links.get("repository", {}).get("url", "") == address


def test_notebooks_are_without_outputs_and_can_be_opened(released):
    nbformat.validate(released)
    assert released.metadata.kernelspec.name == "python3"
    code = [cell for cell in released.cells if cell.cell_type == "code"]
    assert len(code) == 3
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert "parameters" in code[1].metadata.tags


def calls(cell: str, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    made: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: made.append(command))
    exec(cell, {})
    return made


def test_first_cell_does_nothing_elsewhere(released, monkeypatch):
    with pytest.raises(ModuleNotFoundError):  # the contrast: the usual test fails off Colab
        importlib.util.find_spec("google.colab")
    assert calls(released.cells[0].source, monkeypatch) == []


def test_first_cell_fetches_the_library_in_colab(released, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setenv("GEODISTILL_RESULTS", "")
    clone, install = calls(released.cells[0].source, monkeypatch)
    assert clone[:2] == ["git", "clone"]
    assert URL in clone
    assert install[1:3] == ["-m", "pip"]
    assert install[-1] == "./geodistill-repo[train,analysis]"
    source = released.cells[0].source
    for pin in ("constraints", "torch==", "numpy=="):
        assert pin not in source


def test_no_outputs_are_committed():
    """The py:percent files are the one source; a committed .ipynb would be a second."""
    tracked = subprocess.run(
        ["git", "ls-files", "*.ipynb", "*.html", "_build", "book/_build", ":!book/_*"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert tracked.stdout == ""
