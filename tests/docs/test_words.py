"""Names and prose use the terms of the field: words of the project's own that must not come back.

Identifiers are read from the syntax tree of library, notebooks and benchmarks; phrases from the
text of the library (docstrings, comments, messages), the notebooks and the pages, line breaks and
comment signs taken out. CHANGELOG and the protocols are history and stay as they were written.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.tiny_project import REPOSITORY

SOURCES = sorted(
    path
    for folder in ("geodistill", "notebooks", "benchmarks")
    for path in (REPOSITORY / folder).rglob("*.py")
)
PAGES = sorted(
    [
        *(REPOSITORY / "book").glob("*.md"),
        *(REPOSITORY / "data").glob("*.md"),
        *(REPOSITORY / "data/cards").glob("*.md"),
        REPOSITORY / "README.md",
        REPOSITORY / "CONTRIBUTING.md",
        REPOSITORY / "benchmarks/README.md",
    ]
)

METAPHORS = {"classroom", "pupil", "pupils", "luck", "worth", "anatomy", "killers", "whence"}
"""No part of an identifier or a module's name."""
GRAMMAR = """
    alike apart asked beside chosen door found given kept one ours own place room said says told
    theirs whole whose
"""
"""No identifier: these words do not say what a variable holds."""
FORBIDDEN = set(GRAMMAR.split())

PHRASES = [
    r"(?:is|are|was|were) (?:not )?whole\b",
    r"\bpupils?\b",
    r"\bclassroom\b",
    r"\bluck\b",
    r"\bwhence\b",
    r"(?:is|are|was|were|be) told\b(?! apart)",
    r"beside (?:its|their) (?:like|kin)",
    r"\bowed to\b",
    r"\bnot said\b",
    r"\bsee there\b",
    r"\bunlike scale",
    r"has no like\b",
    # "one row a text" for "one row per text"
    r"\b(?:a|one|two|three|\d+) (?:row|line|run|file|column|dot|point|mark|page|chapter|number|"
    r"table|figure|vector|thread|process|pair|label|folder)s? an? "
    r"(?:row|line|run|file|column|text|token|method|metric|item|seed|task|study|section|chapter|"
    r"claim|comparison|example|sentence|prompt|batch|step|layer|mark|page|cell|answer|training|group|"
    r"worker|notebook|setting|stage|measure|teacher|student|process)\b",
    r"\b(?:nats|minutes|seconds|points|bytes|hours) an? "
    r"(?:token|second|minute|step|run|notebook|text|batch|worker|seed|row|sentence|item)\b",
]  # fmt: skip


def identifiers(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of each function, class, parameter and variable of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname


def forbidden_names(source: str) -> list[str]:
    """`line: name` of each identifier that must not come back."""
    return [
        f"{line}: {name}"
        for line, name in sorted(set(identifiers(source)))
        if name.lstrip("_") in FORBIDDEN
        or METAPHORS & set(re.findall(r"[a-z]+", re.sub(r"([A-Z])", r"_\1", name).lower()))
    ]


def forbidden_phrases(text: str) -> list[str]:
    """Each phrase of the text that must not come back, with its surroundings."""
    prose = " ".join(line.strip().removeprefix("#").strip() for line in text.splitlines())
    return [
        f"...{prose[max(0, match.start() - 30) : match.end() + 30]}..."
        for phrase in PHRASES
        for match in re.finditer(phrase, prose, flags=re.IGNORECASE)
    ]


def relative(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_identifiers_are_terms_of_the_field(path: Path) -> None:
    assert forbidden_names(path.read_text()) == []
    assert not METAPHORS & set(path.stem.split("_"))


@pytest.mark.parametrize("path", [*SOURCES, *PAGES], ids=relative)
def test_prose_has_no_idiom_of_the_project(path: Path) -> None:
    assert forbidden_phrases(path.read_text()) == []


def test_the_checks_see_names_and_phrases() -> None:
    source = "def open_classroom(told, rows):\n    found, x = rows\n    class Luck: ...\n"
    assert forbidden_names(source) == ["1: open_classroom", "1: told", "2: found", "3: Luck"]
    assert forbidden_names("def founded(fellow, rooms): ...") == []
    text = "# It holds one row a\n# text, by luck,\n# and the rest is not\n# said.\n"
    assert len(forbidden_phrases(text)) == 3
    assert forbidden_phrases("One row per text; call a method; run a notebook.") == []
    assert len(SOURCES) > 100
    assert len(PAGES) > 20
