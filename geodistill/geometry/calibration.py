"""What a number means: the best a student of some width can reach, and what shuffled rows give.

Everything is for centred features of unit Frobenius norm. λ is the spectrum of the teacher's K,
τ its mass beyond the first d_s eigenvalues.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry.inputs import paired, single
from geodistill.geometry.measures import cka, feature_gram_distance, procrustes_distance
from geodistill.geometry.moments import standardised

MeasureFunction = Callable[..., Tensor]

_CALIBRATED: dict[Any, MeasureFunction] = {
    procrustes_distance: partial(procrustes_distance, center=True, scale="frobenius"),
    feature_gram_distance: partial(feature_gram_distance, center=True, scale="frobenius"),
    cka: cka,
}
_PERMUTATIONS = 16  # their mean has a sampling error far below null − best at any n worth a number


def best_student(measure: MeasureFunction, teacher: Tensor, d_student: int) -> Tensor:
    """Features (n, d_student) that reach the best value of `measure` against teacher (n, d_t).

    The teacher's top principal scores, with eigenvalues λ_i rescaled to sum 1 for Procrustes and
    CKA, and λ_i + τ/d_s for the Gram distance. Raises InputError for a measure without calibration.
    """
    _known(measure)
    if d_student < 1:
        raise InputError(f"d_student is {d_student}: expected at least 1")
    x = single(teacher, None, torch.float64, "teacher")
    x = standardised(x, torch.tensor(len(x), device=x.device), center=True, scale="frobenius")
    spectrum, axes = torch.linalg.eigh(x.mT @ x)
    spectrum, axes = spectrum.flip(0)[:d_student].clamp_min(0), axes.flip(1)[:, :d_student]
    scores: Tensor = x @ axes
    if measure is feature_gram_distance:
        lost = (1 - spectrum.sum()).clamp_min(0)  # τ is 0 wherever an eigenvalue is
        safe = torch.where(spectrum > 0, spectrum, 1)
        scores = scores * ((spectrum + lost / d_student) / safe).sqrt()
    return scores


@dataclass(frozen=True)
class Calibration:
    """A measure against one teacher: what students of one width can reach, what shuffling gives."""

    measure: MeasureFunction
    teacher: Tensor  # (n, d_t)
    best: float
    null: float

    def kept(self, student: Tensor) -> float:
        """Geometry kept of student (n, d_s): (null − D)/(null − best)."""
        value = float(_CALIBRATED[self.measure](self.teacher, student))
        return (self.null - value) / (self.null - self.best)


def calibrate(
    measure: MeasureFunction, teacher: Tensor, d_student: int, *, seed: int = 0
) -> Calibration:
    """Best and null of `measure` for teacher (n, d_t), once for any number of students.

    Raises InputError where the two can't be told apart.
    """
    shuffled = null(measure, teacher, d_student, seed=seed)
    reachable = best(measure, teacher, d_student)
    if abs(shuffled - reachable) < 1e-6:
        raise InputError(
            f"teacher of shape {tuple(teacher.shape)}: shuffled rows score {shuffled:.6g}, the "
            f"best student of width {d_student} {reachable:.6g}: expected rows enough to differ"
        )
    return Calibration(measure, teacher, reachable, shuffled)


def best(measure: MeasureFunction, teacher: Tensor, d_student: int) -> float:
    """The value of `measure` that no student of width d_student can better (CKA: exceed).

    Procrustes √(2 − 2√(1 − τ)); Gram √(τ²/d_s + Σ_{i>d_s} λ_i²); CKA √(Σ_{i≤d_s} λ_i²/Σ λ_i²).
    """
    student = best_student(measure, teacher, d_student)
    return float(_CALIBRATED[measure](teacher, student))


def null(measure: MeasureFunction, teacher: Tensor, d_student: int, *, seed: int = 0) -> float:
    """Mean value of `measure` for the best student with its rows shuffled.

    It depends on the teacher's rows, their number and d_student alone: a null made of the student's
    own spectrum would reward a collapsed one.
    """
    student = best_student(measure, teacher, d_student)
    generator = torch.Generator().manual_seed(seed)
    orders = (torch.randperm(len(student), generator=generator) for _ in range(_PERMUTATIONS))
    values = [float(_CALIBRATED[measure](teacher, student[order])) for order in orders]
    return sum(values) / len(values)


def geometry_kept(
    measure: MeasureFunction,
    teacher: Tensor,
    student: Tensor,
    *,
    mask: Tensor | None = None,
    seed: int = 0,
) -> float:
    """(null − D)/(null − best), the share of the reachable geometry that the student has.

    1 at the best any student of its width can do, 0 where that one has its rows shuffled (below 0
    for worse). `measure` is procrustes_distance, feature_gram_distance or cka; teacher (n, d_t),
    student (n, d_s). Raises InputError where null and best can't be told apart.
    """
    _known(measure)
    paired(teacher, student, mask, torch.float64, ("teacher", "student"))
    if mask is not None:
        teacher, student = teacher[mask.bool()], student[mask.bool()]
    return calibrate(measure, teacher, student.shape[-1], seed=seed).kept(student)


def _known(measure: MeasureFunction) -> None:
    if measure not in _CALIBRATED:
        names = ", ".join(f.__name__ for f in _CALIBRATED)
        given = getattr(measure, "__name__", repr(measure))
        raise InputError(f"measure is {given}: calibration is known for {names}")
