"""README, CONTRIBUTING, CHANGELOG and the book name only what exists."""

import importlib
import pydoc
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml
from support.tiny_project import REPOSITORY

import geodistill

DOCUMENTS = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "CHANGELOG.md",
    REPOSITORY / "LICENSE-prose",
    *sorted((REPOSITORY / "book").glob("*.md")),
]
MADE = ("_build/", "book/_build/", ".venv/", "~/")  # by the commands, not committed
FILES = r"\.(?:py|md|yml|toml|txt|cff|bib)$"


def name(document: Path) -> str:
    return document.name


def text_of(document: Path) -> str:
    """What a document says about the present.

    Of the changelog that is the newest entry, without the first column of its tables of names
    before and now: older entries have the names of their time.
    """
    text = document.read_text()
    if document.name != "CHANGELOG.md":
        return text
    newest = text.partition("\n## ")[2].partition("\n## ")[0]
    return re.sub(r"^\| [^|]+ \|", "|", newest, flags=re.MULTILINE)


def test_history_is_the_only_text_that_is_left_out():
    text = text_of(REPOSITORY / "CHANGELOG.md")
    assert "`geodistill experiments STUDY`" in text
    assert "`grid STUDY`" not in text
    assert (REPOSITORY / "CHANGELOG.md").read_text().count("\n## ") > 1
    assert text_of(REPOSITORY / "README.md") == (REPOSITORY / "README.md").read_text()


def spans(document: Path) -> Iterator[str]:
    """Inline code, and the targets of links."""
    prose = re.sub(r"```.*?```", "", text_of(document), flags=re.DOTALL)
    yield from re.findall(r"`([^`\n]+)`", prose)
    yield from re.findall(r"\]\(([^)#\s]+)\)", prose)


def commands(document: Path) -> Iterator[list[str]]:
    """Command lines in code blocks and inline code, split, without their comments."""
    text = text_of(document)
    fenced = re.findall(r"^```([^\n]*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    blocks = [block for language, block in fenced if not language]
    inline = re.findall(r"`((?:make|geodistill|pip)\s[^`]+)`", text)
    for line in [*"\n".join(blocks).splitlines(), *inline]:
        words = shlex.split(line.replace("<", "'<").replace(">", ">'"), comments=True)
        if words:
            yield words


def is_path(text: str) -> bool:
    return bool(re.fullmatch(r"[\w~.-]+(/[\w.*-]*)+", text) or re.search(FILES, text))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_path_exists(document):
    for text in spans(document):
        if "://" in text or not is_path(text) or text.startswith(MADE) or "NN_" in text:
            continue
        near = [REPOSITORY / text, document.parent / text]
        chapters = [path.with_suffix(".py") for path in near]  # the book links pages, not files
        pages = [path.with_suffix(".md") for path in near]
        assert any(path.exists() for path in near + chapters + pages), text


def test_the_path_check_finds_paths():
    found = {text for document in DOCUMENTS for text in spans(document) if is_path(text)}
    assert {"constraints.txt", "data/cards/", "../notebooks/01_theory", "LICENSE"} - found == {
        "LICENSE"
    }
    assert len(found) > 25


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_command_exists(document):
    targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE)
    for words in commands(document):
        while "=" in words[0]:  # variables before the command
            words = words[1:]
        program, *rest = words
        if program == "make":
            named = [word for word in rest if "=" not in word]
            assert set(named) <= set(targets), words
        elif program == "geodistill":
            check_cli(rest)
        elif program == "pip":
            check_extras(rest)
        else:
            assert program.startswith(".venv/bin/"), words
            assert Path(sys.executable).with_name(Path(program).name).exists(), words


def check_cli(words: list[str]) -> None:
    from geodistill.cli.main import app

    group = typer.main.get_command(app)
    command = group.commands[words[0]]
    known = {option for parameter in command.params for option in parameter.opts}
    known |= {"-p"} if words[0] == "notebook" else set()  # that command parses it itself
    assert {word for word in words if word.startswith("-")} <= known, words
    if words[0] == "notebook" and words[1] != "NAME":
        from geodistill.publish.project import Project

        assert Project.at(REPOSITORY).find_notebook(words[1]).exists()


def check_extras(words: list[str]) -> None:
    pyproject = (REPOSITORY / "pyproject.toml").read_text()
    for extra in re.findall(r"\[(\w+)\]", " ".join(words)):
        assert re.search(rf"^{extra} = \[", pyproject, flags=re.MULTILINE), words


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_name_of_the_library_exists(document):
    for text in spans(document):
        if re.fullmatch(r"geodistill(\.\w+)+(\(.*\))?", text):
            assert pydoc.locate(text.partition("(")[0]) is not None, text
        elif re.fullmatch(r"[A-Z]\w*(Loss|Rows|Trainer|Distillation|Term)|\w+_distance", text):
            found = hasattr(geodistill, text) or any(
                hasattr(importlib.import_module(f"geodistill.{package}"), text)
                for package in ("losses", "geometry", "distill")
            )
            assert found, text


def test_every_citation_is_in_the_bibliography():
    keys = set(re.findall(r"^@\w+\{(\w+),", (REPOSITORY / "book/references.bib").read_text(), re.M))
    sources = [*DOCUMENTS, *(REPOSITORY / "notebooks").glob("*.py")]
    cited = {
        key.strip()
        for source in sources
        for group in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", source.read_text())
        for key in group.split(",")
    }
    assert cited <= keys
    assert len(cited) > 10


def test_citation_file_agrees_with_the_package():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["version"] == geodistill.__version__
    assert citation["license"] == "Apache-2.0"
    assert citation["references"][0]["url"].endswith("2509.25253")


def test_constraints_hold_the_installed_versions_without_local_suffix():
    from importlib.metadata import version

    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert "torch" in pins
    assert not any("+" in pin for pin in pins.values())
    for package in ("jupyter-book", "papermill", "sphinx", "myst-nb", "numpy", "transformers"):
        (pin,) = [pins[key] for key in pins if key.lower() == package]
        assert version(package) == pin


def test_binder_gets_the_cpu_build_of_torch():
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert any(package.startswith("pytorch-cpu") for package in conda)
    assert pip == {"pip": ["-e .[book]"]}  # torch is there already, so pip brings no other
