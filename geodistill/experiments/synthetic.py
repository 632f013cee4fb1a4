"""The synthetic study: teachers of controlled orthogonality, free students, one loss at a time.

A student is a matrix of n feature vectors that start at random and are moved by one loss alone,
with no network between, so that what it ends with is the doing of the loss. Every loss gets the
same optimiser, learning rate and number of steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from scipy import stats
from torch import Tensor
from torch.nn.functional import normalize

from geodistill.errors import InputError
from geodistill.geometry import (
    Calibration,
    antiparallel,
    best,
    calibrate,
    cka,
    controlled_teacher,
    epsilon_orthogonal_subset,
    feature_gram_distance,
    orthogonality,
    procrustes_distance,
)
from geodistill.losses import (
    CKALoss,
    FeatureGramLoss,
    FeatureLoss,
    ProcrustesLoss,
    ProjectionLoss,
    SpectrumLoss,
)

OBJECTIVES: dict[str, Callable[[int, int], FeatureLoss]] = {
    "procrustes": lambda _s, _t: ProcrustesLoss(),
    "gram": lambda _s, _t: FeatureGramLoss(),
    "cka": lambda _s, _t: CKALoss(),
    "projection": ProjectionLoss,
    "spectrum": lambda _s, _t: SpectrumLoss(),
}
TEACHERS: dict[str, Callable[[Setting, int], Tensor]] = {
    "two directions, perturbed": lambda s, _: (
        antiparallel(s.n, s.d_teacher, s.d_student, s.d_student - 1, size=2.0).teacher
    ),
    "4 orthogonal": lambda s, seed: controlled_teacher(s.n, s.d_teacher, 4, seed=seed),
    "16 orthogonal": lambda s, seed: controlled_teacher(s.n, s.d_teacher, 16, seed=seed),
    "48 orthogonal": lambda s, seed: controlled_teacher(s.n, s.d_teacher, 48, seed=seed),
}
START, PATH, LOW, END = "start", "path", "low loss", "end"
LOW_LOSS = 0.01  # "low": a hundredth of the reducible loss is left


@dataclass(frozen=True)
class Setting:
    """Sizes, budget of the optimiser, and the ε of ε-orthogonality."""

    n: int = 128
    d_teacher: int = 64
    d_student: int = 16
    steps: int = 250
    learning_rate: float = 0.02
    eps: float = 0.3


def study(
    setting: Setting,
    teachers: Sequence[str],
    seeds: Sequence[int],
    objectives: Sequence[str] = tuple(OBJECTIVES),
) -> pd.DataFrame:
    """One row a measurement (see `measurements`) of every teacher × objective × seed.

    Raises InputError for an unknown teacher or objective.
    """
    _known("teacher", teachers, TEACHERS)
    _known("objective", objectives, OBJECTIVES)
    rows: list[dict[str, Any]] = []
    for name in teachers:
        for seed in seeds:
            probe = Probe.of(TEACHERS[name](setting, seed), setting)
            for objective in objectives:
                keys = {"teacher": name, "objective": objective, "seed": seed}
                rows += [keys | row for row in measurements(objective, probe, setting, seed)]
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Probe:
    """A teacher and all that is measured of a student of it."""

    teacher: Tensor  # (n, d_teacher), float32
    eps: float
    of_teacher: dict[str, float]
    procrustes: Calibration
    gram: Calibration

    @classmethod
    def of(cls, teacher: Tensor, setting: Setting) -> Probe:
        calibrations = (
            calibrate(measure, teacher, setting.d_student)
            for measure in (procrustes_distance, feature_gram_distance)
        )
        of_teacher = {
            "teacher_pairs": orthogonality(teacher, setting.eps),
            "teacher_vectors": len(epsilon_orthogonal_subset(teacher, setting.eps)),
        }
        return cls(teacher.float(), setting.eps, of_teacher, *calibrations)

    def __call__(self, student: Tensor) -> dict[str, float]:
        return {
            "kept": self.procrustes.kept(student),
            "kept_gram": self.gram.kept(student),
            "cka": float(cka(self.teacher, student)),
            "pairs": orthogonality(student, self.eps),
            "vectors": len(epsilon_orthogonal_subset(student, self.eps)),
            **self.of_teacher,
        }


def measurements(
    objective: str, probe: Probe, setting: Setting, seed: int
) -> Iterator[dict[str, Any]]:
    """Train one student; measure it at the start, on the way, at low loss (once) and at the end.

    `loss` is the objective, `left` the share of its reducible part that is left, `kept` the
    geometry kept by Procrustes distance, `pairs` and `vectors` the ε-orthogonal ones.
    """
    low = False
    lowest = floor(objective, probe.teacher, setting.d_student)
    for step, loss, student in descend(objective, probe.teacher, setting, seed):
        if step == 0:
            start = loss
        left = (loss - lowest) / (start - lowest)
        moments = [PATH] if step in checkpoints(setting.steps) else []
        if step == 0:
            moments.append(START)
        if left <= LOW_LOSS and not low:
            low = True
            moments.append(LOW)
        if step == setting.steps:
            moments.append(END)
        found = probe(student) if moments else {}
        for moment in moments:
            yield {"moment": moment, "step": step, "loss": loss, "left": left, **found}


def descend(
    objective: str, teacher: Tensor, setting: Setting, seed: int
) -> Iterator[tuple[int, float, Tensor]]:
    """(step, loss, student) before each of `steps` updates by Adam and after the last."""
    torch.manual_seed(seed)
    student = normalize(torch.randn(setting.n, setting.d_student), dim=-1).requires_grad_()
    loss = OBJECTIVES[objective](setting.d_student, setting.d_teacher)
    parameters = [student, *loss.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=setting.learning_rate, fused=True)
    for step in range(setting.steps + 1):
        optimiser.zero_grad()
        value = loss(student, teacher)
        yield step, float(value.detach()), student.detach()
        value.backward()
        optimiser.step()


def floor(objective: str, teacher: Tensor, d_student: int) -> float:
    """The least value of the objective that any student of this width can reach."""
    procrustes = best(procrustes_distance, teacher, d_student) ** 2
    if objective == "gram":
        return best(feature_gram_distance, teacher, d_student) ** 2
    if objective == "cka":
        return 1 - best(cka, teacher, d_student)
    if objective == "projection":
        return 1 - (1 - procrustes / 2) ** 2  # τ: the variance beyond the first d_student
    return procrustes  # spectrum too: the two share their best student


def checkpoints(steps: int) -> list[int]:
    """About ten steps from 0 to `steps`, evenly spaced in the logarithm."""
    return sorted({0, *(round(steps ** (i / 9)) for i in range(10))})


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean and Student's t interval of independent values; raises InputError for fewer than two."""
    n = len(values)
    if n < 2:
        raise InputError(f"values has {n}: expected at least two for an interval")
    mean = math.fsum(values) / n
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * spread
    return mean, mean - half, mean + half


def by_seed(frame: pd.DataFrame, column: str, by: Sequence[str]) -> pd.DataFrame:
    """Mean and interval of `column` over seeds: columns by…, mean, low, high, n."""
    rows = []
    for key, group in frame.groupby(list(by), sort=False):
        mean, low, high = mean_interval(group.groupby("seed")[column].mean().tolist())
        n = group["seed"].nunique()
        rows.append(
            dict(zip(by, key, strict=True)) | {"mean": mean, "low": low, "high": high, "n": n}
        )
    return pd.DataFrame(rows)


def _known(kind: str, names: Sequence[str], known: dict[str, Any]) -> None:
    for name in names:
        if name not in known:
            raise InputError(f"{kind} {name!r} is unknown: expected one of {', '.join(known)}")
