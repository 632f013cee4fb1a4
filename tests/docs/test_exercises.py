"""Every exercise has a hidden solution, and the code in self-contained solutions runs."""

import re
from pathlib import Path

import pytest
import torch
from support.tiny_project import REPOSITORY

CHAPTERS = (
    "01_theory",
    "02_finite_samples",
    "03_synthetic",
    "04_bert_classification",
    "05_opt_instruction",
    "06_significance",
    "08_your_model",
)
SELF_CONTAINED = (*CHAPTERS[:3], "06_significance")
"""Chapters whose solutions run without the cells of the page."""
EXERCISE = r"\{exercise\}\n:label: (\S+)"
SOLUTION = r"\{solution(?:-start)?\} (\S+)\n:class: dropdown\n"
BLOCK = r":::\{{{kind}\}}{argument}\n(.*?)\n:::(?=\n|$)"


def prose(chapter: str) -> str:
    """The chapter's markdown, comment marks taken off."""
    source = Path(REPOSITORY / "notebooks" / f"{chapter}.py").read_text()
    lines = [line.removeprefix("#").removeprefix(" ") for line in source.splitlines()]
    return "\n".join(lines)


def solutions(chapter: str) -> dict[str, str]:
    pattern = BLOCK.format(kind="solution", argument=r" (\S+)")
    return dict(re.findall(pattern, prose(chapter), re.DOTALL))


def code(solution: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)\n```", solution, re.DOTALL))


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_exercise_has_a_hidden_solution(chapter: str) -> None:
    text = prose(chapter)
    assert len(re.findall(EXERCISE, text)) == text.count("{exercise}") == 3
    assert re.findall(SOLUTION, text) == re.findall(EXERCISE, text)


def test_labels_are_unique_in_the_book() -> None:
    labels = [label for chapter in CHAPTERS for label in re.findall(EXERCISE, prose(chapter))]
    assert len(labels) == len(set(labels))


@pytest.mark.parametrize(
    ("chapter", "label"), [(c, label) for c in SELF_CONTAINED for label in solutions(c)]
)
def test_the_code_of_a_solution_runs_by_itself(chapter: str, label: str) -> None:
    source = code(solutions(chapter)[label])
    assert source.count("assert") >= 1
    torch.manual_seed(0)
    exec(compile(source, label, "exec"), {})


def test_a_wrong_solution_would_fail() -> None:
    source = code(solutions("02_finite_samples")["ex-rows-cka"])
    with pytest.raises(AssertionError):
        exec(source.replace("n == 348", "n == 349"), {})
