"""What a number means: the best a student of some width can reach, and what shuffled rows give.

For features centred and scaled as `center` and `scale` say, by default to mean 0 and unit Frobenius
norm; CKA does that by itself. λ is the spectrum of the teacher's K, τ its mass beyond the first d_s
eigenvalues.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry.measures import cka, feature_gram_distance, procrustes_distance
from geodistill.geometry.moments import Scale, standardised
from geodistill.geometry.validation import paired, single

MeasureFunction = Callable[..., Tensor]

_CALIBRATED = (procrustes_distance, feature_gram_distance, cka)
_PERMUTATIONS = 16  # their mean has a sampling error far below null − best at any n worth a number


def best_student(
    measure: MeasureFunction,
    teacher: Tensor,
    d_student: int,
    *,
    center: bool = True,
    scale: Scale = "frobenius",
) -> Tensor:
    """Features (n, d_student) that reach the best value of `measure` against teacher (n, d_t).

    The teacher's top principal scores: as they are without `scale`; with it, eigenvalues λ_i
    rescaled to the whole for Procrustes and CKA, and λ_i + τ/d_s for the Gram distance. Raises
    InputError for a measure without calibration.
    """
    _bound(measure, center, scale)
    if d_student < 1:
        raise InputError(f"d_student is {d_student}: expected at least 1")
    x = single(teacher, None, torch.float64, "teacher")
    x = standardised(x, torch.tensor(len(x), device=x.device), center=center, scale=scale)
    whole = x.square().sum()
    spectrum, axes = torch.linalg.eigh(x.mT @ x)
    spectrum, axes = spectrum.flip(0)[:d_student].clamp_min(0), axes.flip(1)[:, :d_student]
    scores: Tensor = x @ axes
    if measure is feature_gram_distance and scale is not None:
        lost = (whole - spectrum.sum()).clamp_min(0)  # τ is 0 wherever an eigenvalue is
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
    center: bool
    scale: Scale

    def kept(self, student: Tensor) -> float:
        """Geometry kept of student (n, d_s): (null − D)/(null − best).

        NaN for a student whose rows are all equal, unless scale is None: it has no geometry to
        compare, and D, then the distance to nothing, is less than that to shuffled rows.
        """
        if self.scale is not None:
            y = single(student, None, torch.float64, "student")
            n = torch.tensor(len(y), device=y.device)
            if not standardised(y, n, center=self.center, scale=self.scale).any():
                return math.nan
        return (self.null - float(self.measure(self.teacher, student))) / (self.null - self.best)


def calibrate(
    measure: MeasureFunction,
    teacher: Tensor,
    d_student: int,
    *,
    center: bool = True,
    scale: Scale = "frobenius",
    seed: int = 0,
) -> Calibration:
    """Best and null of `measure` for teacher (n, d_t), once for any number of students.

    Raises InputError where the two can't be told apart: where shuffled rows come within three of
    their standard deviations of the best.
    """
    shuffled = _shuffled(measure, teacher, d_student, center, scale, seed)
    reachable = best(measure, teacher, d_student, center=center, scale=scale)
    middle, spread = float(shuffled.mean()), float(shuffled.std())
    if abs(middle - reachable) <= max(3 * spread, 1e-6 * max(abs(middle), abs(reachable))):
        raise InputError(
            f"teacher of shape {tuple(teacher.shape)}: shuffled rows score {middle:.6g} ± "
            f"{spread:.2g}, the best student of width {d_student} {reachable:.6g}: "
            "expected rows enough to differ"
        )
    bound = _bound(measure, center, scale)
    return Calibration(bound, teacher, reachable, middle, center, scale)


def best(
    measure: MeasureFunction,
    teacher: Tensor,
    d_student: int,
    *,
    center: bool = True,
    scale: Scale = "frobenius",
) -> float:
    """The value of `measure` that no student of width d_student can better (CKA: exceed).

    With unit norm: Procrustes √(2 − 2√(1 − τ)); Gram √(τ²/d_s + Σ_{i>d_s} λ_i²); CKA
    √(Σ_{i≤d_s} λ_i²/Σ λ_i²). With scale=None: Procrustes √τ; Gram √(Σ_{i>d_s} λ_i²).
    """
    student = best_student(measure, teacher, d_student, center=center, scale=scale)
    return float(_bound(measure, center, scale)(teacher, student))


def null(
    measure: MeasureFunction,
    teacher: Tensor,
    d_student: int,
    n: int | None = None,
    *,
    center: bool = True,
    scale: Scale = "frobenius",
    seed: int = 0,
) -> float:
    """Mean value of `measure` for the best student with its rows shuffled.

    It depends on the teacher's rows, their number and d_student alone: a null made of the student's
    own spectrum would reward a collapsed one. With `n`, of that many rows drawn from the teacher.
    Raises InputError unless 1 ≤ n ≤ the teacher's rows.
    """
    teacher = single(teacher, None, torch.float64, "teacher")
    if n is not None:
        if not 1 <= n <= len(teacher):
            raise InputError(f"n is {n}: expected 1 to the teacher's {len(teacher)} rows")
        drawn = torch.randperm(len(teacher), generator=torch.Generator().manual_seed(seed))
        teacher = teacher[drawn[:n].to(teacher.device)]
    return float(_shuffled(measure, teacher, d_student, center, scale, seed).mean())


def geometry_kept(
    measure: MeasureFunction,
    teacher: Tensor,
    student: Tensor,
    *,
    center: bool = True,
    scale: Scale = "frobenius",
    mask: Tensor | None = None,
    seed: int = 0,
) -> float:
    """(null − D)/(null − best), the share of the reachable geometry that the student has.

    1 at the best any student of its width can do, 0 where that one has its rows shuffled (below 0
    for worse). `measure` is procrustes_distance, feature_gram_distance or cka; teacher (n, d_t),
    student (n, d_s). Raises InputError where null and best can't be told apart, and for a student
    whose rows are all equal (after scaling it has no geometry).
    """
    _bound(measure, center, scale)
    paired(teacher, student, mask, torch.float64, ("teacher", "student"))
    if mask is not None:
        teacher, student = teacher[mask.bool()], student[mask.bool()]
    width = student.shape[-1]
    kept = calibrate(measure, teacher, width, center=center, scale=scale, seed=seed).kept(student)
    if math.isnan(kept):
        raise InputError(f"student's {len(student)} rows are all equal: expected rows that vary")
    return kept


def _shuffled(
    measure: MeasureFunction,
    teacher: Tensor,
    d_student: int,
    center: bool,
    scale: Scale,
    seed: int,
) -> Tensor:
    """Values (permutations,) of the best student with its rows in random orders."""
    student = best_student(measure, teacher, d_student, center=center, scale=scale)
    generator = torch.Generator().manual_seed(seed)
    orders = (torch.randperm(len(student), generator=generator) for _ in range(_PERMUTATIONS))
    bound = _bound(measure, center, scale)
    return torch.stack([bound(teacher, student[order.to(student.device)]) for order in orders])


def _bound(measure: MeasureFunction, center: bool, scale: Scale) -> MeasureFunction:
    """The measure with these options."""
    if measure not in _CALIBRATED:
        names = ", ".join(f.__name__ for f in _CALIBRATED)
        given = getattr(measure, "__name__", repr(measure))
        raise InputError(f"measure is {given}: calibration is known for {names}")
    if measure is not cka:
        return partial(measure, center=center, scale=scale)
    if not center:
        raise InputError("center=False with cka: it centres by definition")
    return cka
