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
FORMER_NAMES = """
    InstructionRoom open_instruction_room OF_ROOM Pupils own_words shots few_shot select_rows
    NotedLosses TeachersTokens why_other_tokens not_finite comparable_logits bucketed
    with_tail marked worded SpreadOnTheWay descend Bench null_curves rows_needed
    link_sources beside_its_like of_same_runs compared_with at_edges Luck luck_table
    sentences_worth say_factor worth_table share_of_gain teachers_share change_of_gain
    beyond_baseline kept_and_score rerun_noise Settle settles second_opinions Opinion SecondOpinion
    over_seeds sign_flips over_items fold_sources say say_each look Look versus on_the_way
    in_own_metrics answers_beside Calibration against_chance read_out StoredTest decided_by YET
    in_short Indented refuse_unfinished Truth false_alarms kept_rows head_on_rows principal_start
    same_depth WatchWindows ClearGradients MATCHES in_words in_order
"""
"""No identifier: names of functions and classes that the field has other terms for."""
FORBIDDEN = {*GRAMMAR.split(), *FORMER_NAMES.split()}

PHRASES = [
    r"harm of its own",
    r"does harm",
    r"knows no (?:rows|teacher)",
    r"where the teacher's rows lie",
    r"in no confirmatory family",
    r"committed rows",
    r"(?:is|are|was|were) (?:not )?whole\b",
    r"\bpupils?\b",
    r"\bclassroom\b",
    r"\bluck\b",
    r"\bwhence\b",
    r"the words go by",
    r"taste of an item",
    r"term worth\?",
    r"figure on its side",
    r"had too cheaply",
    r"no share is said",
    r"rows that meet their own",
    r"which flatters it",
    r"more seeds alone would not do",
    r"is an anecdote",
    r"throw of the dice",
    r"the hint, asked again",
    r"teacher of another kind",
    r"on how many directions",
    r"what does the cache hide",
    r"what the habits",
    r"a p-value to a word",
    r"holds them from below",
    r"best turn\b",
    r"turned copy",
    r"pulled back at the rate",
    r"leaves at full speed",
    r"tellable",
    r"what memory mends",
    r"told or mended",
    r"(?:is|are|was|were|be) told\b(?! apart)",
    r"less procrustes",
    r"student of above",
    r"the very (?:teachers|rows)",
    r"beside (?:its|their) (?:like|kin)",
    r"score as KD alone does when",
    r"\bowed to\b",
    r"\bnot said\b",
    r"can already read\b",
    r"that asks again",
    r"what procrustes has over",
    r"from what it has at",
    r"the teacher is one\b",
    r"in other readings",
    r"what a control lacks",
    r"and in no interval",
    r"does not fit together",
    r"changes? a word\b",
    r"the dial runs",
    r"formulas as advice",
    r"always say which way",
    r"\bsee there\b",
    r"arguments as there",
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
    text = "# It holds one row a\n# text, and does harm\n# of its own.\n"
    assert len(forbidden_phrases(text)) == 3
    assert forbidden_phrases("One row per text; call a method; run a notebook.") == []
    rewritten = """
        harm of its own|where the teacher's rows lie|knows no rows|in no confirmatory family|
        rows are whole|the words go by tests|nats a token|luck|
        how many sentences is a term worth?|turn the figure on its side|
        a term score as KD alone does when given|is not owed to which|can be had too cheaply|
        no share is said|rows that meet their own|which flatters it|more seeds alone would not do|
        is an anecdote|throw of the dice|a student that can already read|
        a section that asks again|what Procrustes has over its controls|a teacher of another kind|
        On how many directions|What does the cache hide|The hint, asked again|in other readings|
        what a control lacks|What the habits|From a p-value to a word|and in no interval|
        holds them from below|the best turn|is pulled back at the rate|be tellable|
        What memory mends|What does not fit together is told|none of them changes a word
    """
    for phrase in " ".join(rewritten.split()).split("|"):
        assert forbidden_phrases(phrase), phrase
    assert len(SOURCES) > 100
    assert len(PAGES) > 20
