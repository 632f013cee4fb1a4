"""Normalised scores: where a value lies between chance and the best that a width allows.

Features are centred and scaled as `center` and `scale` say (CKA always to mean 0 and unit norm). λ
are the eigenvalues of the teacher's K = XXᵀ, τ their sum beyond the first d_s.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry.column_space import narrow
from geodistill.geometry.dimensionality import participation_ratio
from geodistill.geometry.measures import cka, feature_gram_distance, procrustes_distance
from geodistill.geometry.moments import Scale, standardised
from geodistill.geometry.validation import paired, single

MeasureFunction = Callable[..., Tensor]

_SCORED = (procrustes_distance, feature_gram_distance, cka)
_PERMUTATIONS = 16  # the sampling error of their mean is far below chance level − ceiling


def best_student(
    measure: MeasureFunction,
    teacher: Tensor,
    d_student: int,
    *,
    center: bool = True,
    scale: Scale = "frobenius",
) -> Tensor:
    """Features that reach the ceiling of `measure`: principal scores of the scaled teacher.

    Their eigenvalues are λ_i, so a teacher of norm 1 gives them the squared norm 1 − τ; a measure
    with `scale` brings it to 1. The Gram distance with `scale` needs λ_i + τ/d_s instead.

    Args:
        measure: procrustes_distance, feature_gram_distance or cka.
        teacher: features (n, d_t).
        d_student: width of the student, at least 1.
        center: whether features are centred.
        scale: how features are scaled.

    Returns:
        Student features (n, min(d_s, d_t, n)), float64.

    Raises:
        InputError: another measure, unusable features or width.

    Example:
        >>> teacher = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
        >>> best_student(cka, teacher, 3).shape
        torch.Size([50, 3])
    """
    _with_options(measure, center, scale)
    if d_student < 1:
        raise InputError(f"d_student is {d_student}: expected at least 1")
    x = single(teacher, "teacher")
    x = narrow(standardised(x, torch.tensor(len(x), device=x.device), center=center, scale=scale))
    spectrum, axes = torch.linalg.eigh(x.mT @ x)
    spectrum, axes = spectrum.flip(0)[:d_student].clamp_min(0), axes.flip(1)[:, :d_student]
    scores: Tensor = x @ axes
    if measure is feature_gram_distance and scale is not None:
        tau = (x.square().sum() - spectrum.sum()).clamp_min(0)  # 0 wherever an eigenvalue is
        scores *= ((spectrum + tau / d_student) / torch.where(spectrum > 0, spectrum, 1)).sqrt()
    return scores


@dataclass(frozen=True)
class ScoreRange:
    """Ceiling and chance level of a measure for one teacher and one width of student.

    Attributes:
        measure: with `center` and `scale` bound.
        teacher: features (n, d_t).
        ceiling: the best value that a student of the width can reach.
        chance_level: mean value of that student with its rows shuffled.
        center: whether features are centred.
        scale: how features are scaled.

    Example:
        >>> teacher = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
        >>> scores = score_range(cka, teacher, 3)
        >>> f"{scores.normalize(best_student(cka, teacher, 3)):.3f}"
        '1.000'
    """

    measure: MeasureFunction
    teacher: Tensor
    ceiling: float
    chance_level: float
    center: bool
    scale: Scale

    def normalize(self, student: Tensor) -> float:
        """Geometry kept by student (n, d_s): (chance level − D)/(chance level − ceiling).

        NaN for a student whose rows are all equal, unless `scale` is None: it has no geometry, and
        D, then the distance to zero, is less than the distance to shuffled rows.
        """
        y = single(student, "student")
        if self.scale is not None and participation_ratio(y, center=self.center) == 0:
            return math.nan
        value = float(self.measure(self.teacher, student))
        return (self.chance_level - value) / (self.chance_level - self.ceiling)


def score_range(
    measure: MeasureFunction,
    teacher: Tensor,
    d_student: int,
    *,
    center: bool = True,
    scale: Scale = "frobenius",
    seed: int = 0,
) -> ScoreRange:
    """Ceiling and chance level of `measure`, computed once for any number of students.

    Args:
        measure: procrustes_distance, feature_gram_distance or cka.
        teacher: features (n, d_t).
        d_student: width of the students.
        center: whether features are centred.
        scale: how features are scaled.
        seed: of the shuffled row orders.

    Raises:
        InputError: as `best_student`, or the mean over shuffled rows is within three of their
            standard deviations of the ceiling (too few rows).

    Example:
        >>> teacher = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
        >>> scores = score_range(procrustes_distance, teacher, 3)
        >>> 0 < scores.ceiling < scores.chance_level
        True
    """
    best = best_student(measure, teacher, d_student, center=center, scale=scale)
    bound = _with_options(measure, center, scale)
    shuffled, reachable = _shuffled(bound, teacher, best, seed), float(bound(teacher, best))
    mean, sd = float(shuffled.mean()), float(shuffled.std())
    if abs(mean - reachable) <= max(3 * sd, 1e-6 * max(abs(mean), abs(reachable))):
        raise InputError(
            f"teacher of shape {tuple(teacher.shape)}: shuffled rows score {mean:.6g} ± "
            f"{sd:.2g}, the best student of width {d_student} {reachable:.6g}: "
            "expected more rows, so that the two differ"
        )
    return ScoreRange(bound, teacher, reachable, mean, center, scale)


def ceiling(
    measure: MeasureFunction,
    teacher: Tensor,
    d_student: int,
    *,
    center: bool = True,
    scale: Scale = "frobenius",
) -> float:
    """The best value of `measure` that a student of width d_student can reach.

    With unit norm: Procrustes √(2 − 2√(1 − τ)); Gram √(τ²/d_s + Σ_{i>d_s} λ_i²); CKA
    √(Σ_{i≤d_s} λ_i²/Σ λ_i²). With scale=None: Procrustes √τ; Gram √(Σ_{i>d_s} λ_i²).

    Args:
        measure: procrustes_distance, feature_gram_distance or cka.
        teacher: features (n, d_t).
        d_student: width of the student.
        center: whether features are centred.
        scale: how features are scaled.

    Raises:
        InputError: as `best_student`.

    Example:
        >>> f"{ceiling(procrustes_distance, torch.eye(9), 8):.6f}"  # rank 8 once centred
        '0.000000'
    """
    student = best_student(measure, teacher, d_student, center=center, scale=scale)
    return float(_with_options(measure, center, scale)(teacher, student))


def chance_level(
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

    It depends on the teacher's rows and d_student alone: a chance level from the student's own
    spectrum would reward a collapsed student.

    Args:
        measure: procrustes_distance, feature_gram_distance or cka.
        teacher: features (N, d_t).
        d_student: width of the student.
        n: number of rows, drawn from the teacher's without replacement; None for all.
        center: whether features are centred.
        scale: how features are scaled.
        seed: of the drawn rows and of the shuffled row orders.

    Raises:
        InputError: as `best_student`, or n is outside 1 to N.

    Example:
        >>> teacher = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
        >>> chance_level(cka, teacher, 3, n=20) > chance_level(cka, teacher, 3)
        True
    """
    teacher = single(teacher, "teacher")
    if n is not None:
        if not 1 <= n <= len(teacher):
            raise InputError(f"n is {n}: expected 1 to the teacher's {len(teacher)} rows")
        order = torch.randperm(len(teacher), generator=torch.Generator().manual_seed(seed))
        teacher = teacher[order[:n].to(teacher.device)]
    student = best_student(measure, teacher, d_student, center=center, scale=scale)
    return float(_shuffled(_with_options(measure, center, scale), teacher, student, seed).mean())


def geometry_kept(
    measure: MeasureFunction,
    teacher: Tensor,
    student: Tensor,
    *,
    center: bool = True,
    scale: Scale = "frobenius",
    mask: Tensor | None = None,
    shuffled: Literal["best_student", "student"] = "best_student",
    seed: int = 0,
) -> float:
    """The share of the reachable geometry that a student has.

    (chance level − D)/(chance level − ceiling): 1 for the best student of its width, 0 for that
    student with its rows shuffled, below 0 for worse.

    By the Gram distance a flat spectrum counts too: unrelated features are at D² = 1/PR_X + 1/PR_Y
    − 2/(n − 1), so noise of equal variances scores up to 0.3 at any n, more for steeper teachers.
    With shuffled="student" unrelated features score 0, but each spectrum then has its own zero.

    Args:
        measure: procrustes_distance, feature_gram_distance or cka.
        teacher: features (n, d_t).
        student: features (n, d_s).
        center: whether features are centred.
        scale: how features are scaled.
        mask: rows that count (n,), True = keep.
        shuffled: whose shuffled rows score 0, "best_student" of this width or "student" itself.
        seed: of the shuffled row orders.

    Raises:
        InputError: as `score_range`, unknown shuffled, or the student's rows are all equal.

    Example:
        >>> teacher = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
        >>> f"{geometry_kept(procrustes_distance, teacher, 2 * teacher):.3f}"
        '1.000'
    """
    if shuffled not in ("best_student", "student"):
        raise InputError(f"shuffled is {shuffled!r}: expected 'best_student' or 'student'")
    paired(teacher, student, mask, torch.float64, ("teacher", "student"))
    if mask is not None:
        teacher, student = (features[mask.bool()] for features in (teacher, student))
    d_student = student.shape[-1]
    scores = score_range(measure, teacher, d_student, center=center, scale=scale, seed=seed)
    if shuffled == "student":
        values = _shuffled(scores.measure, teacher, student, seed)
        scores = replace(scores, chance_level=float(values.mean()))
    share = scores.normalize(student)
    if math.isnan(share):
        raise InputError(f"student's {len(student)} rows are all equal: expected rows that vary")
    return share


def _shuffled(bound: MeasureFunction, teacher: Tensor, student: Tensor, seed: int) -> Tensor:
    """Values (permutations,) of the student with its rows in random orders."""
    generator = torch.Generator().manual_seed(seed)
    orders = (torch.randperm(len(student), generator=generator) for _ in range(_PERMUTATIONS))
    return torch.stack([bound(teacher, student[order.to(student.device)]) for order in orders])


def _with_options(measure: MeasureFunction, center: bool, scale: Scale) -> MeasureFunction:
    if measure not in _SCORED:
        names = ", ".join(f.__name__ for f in _SCORED)
        name = getattr(measure, "__name__", repr(measure))
        raise InputError(f"measure is {name}: a ceiling is known for {names}")
    if measure is not cka:
        return partial(measure, center=center, scale=scale)
    if not center:
        raise InputError("center=False with cka: it centres by definition")
    return cka
