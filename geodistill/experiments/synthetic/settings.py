"""The settings of a synthetic run. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from geodistill.errors import check_choice
from geodistill.experiments.settings import run_config

TWO_DIRECTIONS = "two directions, perturbed"
TEACHERS = (
    TWO_DIRECTIONS,
    "8 orthogonal",
    "24 orthogonal",
    "random",
    "ε-orthogonal",
    "nearly orthonormal",
    "power law",
)
STARTS = {"random": "random", "pca": "pca", "noisy_pca": "near"}
"""The initialisations of students, and the names under which runs store them."""
WIDTHS = (8, 32, 48)
LEARNING_RATES = {  # by the rule in data/protocol/synthetic.yaml
    "procrustes": 0.05,
    "gram": 0.1,
    "cka": 0.1,
    "projection": 0.05,
    "orthogonal-projection": 0.1,
    "pca": 0.05,
    "spectrum": 0.005,
}
OBJECTIVES = tuple(LEARNING_RATES)


@dataclass(frozen=True)
class SyntheticSettings:
    """A block of runs: teachers of one kind and their students, one pair per seed.

    Attributes:
        teacher: one of `TEACHERS`.
        start: initialisation of the students, one of `STARTS`.
        n: number of feature vectors.
        d_teacher: width of the teachers.
        d_student: width of the students.
        steps: updates by Adam, at the learning rate of the objective.
        eps: cosine up to which two vectors count as orthogonal.
        seeds: of the pairs.
    """

    teacher: str = "power law"
    start: str = "random"
    n: int = 128
    d_teacher: int = 32
    d_student: int = 8
    steps: int = 600
    eps: float = 0.25
    seeds: tuple[int, ...] = tuple(range(6))

    def __post_init__(self) -> None:
        check_choice("teacher", self.teacher, TEACHERS)
        check_choice("start", self.start, STARTS)

    @property
    def task(self) -> str:
        """Teacher, width and start, as the task of the stored runs."""
        return f"{self.teacher}, d {self.d_student}, {STARTS[self.start]}"


def synthetic_config(settings: SyntheticSettings, objective: str) -> dict[str, Any]:
    """Everything that a block of runs depends on, under the stored names."""
    return {
        **run_config(settings, objective),
        "start": STARTS[settings.start],
        "width": settings.d_student,
        "n_train": settings.n,
        "learning_rate": LEARNING_RATES[objective],
    }
