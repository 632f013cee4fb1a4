"""Every exercise has a hidden solution, and the code in the solutions runs."""

import re
from pathlib import Path

import pytest
import torch
from support.tiny_project import REPOSITORY

CHAPTERS = ("01_theory", "02_finite_samples")
BLOCK = r":::\{{{kind}\}}{argument}\n(.*?)\n:::(?=\n|$)"


def prose(chapter: str) -> str:
    """The chapter's markdown, comment marks taken off."""
    source = Path(REPOSITORY / "notebooks" / f"{chapter}.py").read_text()
    lines = [line.removeprefix("#").removeprefix(" ") for line in source.splitlines()]
    return "\n".join(lines)


def exercises(chapter: str) -> list[str]:
    blocks = re.findall(BLOCK.format(kind="exercise", argument=""), prose(chapter), re.DOTALL)
    return [re.search(r":label: (\S+)", block)[1] for block in blocks]


def solutions(chapter: str) -> dict[str, str]:
    pattern = BLOCK.format(kind="solution", argument=r" (\S+)")
    return dict(re.findall(pattern, prose(chapter), re.DOTALL))


def code(solution: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)\n```", solution, re.DOTALL))


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_exercise_has_a_hidden_solution(chapter: str) -> None:
    assert len(exercises(chapter)) == 3
    assert list(solutions(chapter)) == exercises(chapter)
    assert all(":class: dropdown" in solution for solution in solutions(chapter).values())


@pytest.mark.parametrize(
    ("chapter", "label"), [(c, label) for c in CHAPTERS for label in solutions(c)]
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
