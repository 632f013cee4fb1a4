"""Representations of known geometry, for theorems, tests and the synthetic study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from geodistill.errors import InputError

_SWEEPS = 300  # of alternating projections


class Construction(NamedTuple):
    """A teacher and a student.

    Attributes:
        teacher: features (n, d_teacher), float64.
        student: features (n, d_student), float64.

    Example:
        >>> teacher, student = flat_halves(9, half=2)
        >>> teacher.shape, student.shape
        (torch.Size([9, 4]), torch.Size([9, 2]))
    """

    teacher: Tensor
    student: Tensor


def antiparallel(
    n: int, d_teacher: int, d_student: int, perturbed: int, size: float = 1.0
) -> Construction:
    """n vectors in two antiparallel directions, some of the teacher's perturbed.

    The example of Theorem 1 in Bhattarai et al. (2025). Each perturbed vector moves along a
    direction orthogonal to all others; the student keeps the unperturbed arrangement. As n grows at
    fixed perturbed/n and size, CKA → 1 while D_P of unit-norm features stays.

    Args:
        n: number of vectors; an odd n puts one more in the first direction.
        d_teacher: width of the teacher.
        d_student: width of the student, at least 1 and less than d_teacher.
        perturbed: number of perturbed vectors, from 1 to min(d_teacher, n − 1) − 1.
        size: length of the perturbation.

    Raises:
        InputError: an argument out of its range.

    Example:
        >>> teacher, student = antiparallel(n=6, d_teacher=4, d_student=2, perturbed=3)
        >>> teacher[0].tolist(), student[0].tolist()
        ([1.0, 1.0, 0.0, 0.0], [1.0, 0.0])
    """
    _require(perturbed >= 1, "perturbed ≥ 1", perturbed=perturbed)
    _require(
        1 + perturbed <= min(d_teacher, n - 1),
        "1 + perturbed ≤ min(d_teacher, n − 1)",
        perturbed=perturbed,
        d_teacher=d_teacher,
        n=n,
    )
    _require(
        1 <= d_student < d_teacher,
        "1 ≤ d_student < d_teacher",
        d_student=d_student,
        d_teacher=d_teacher,
    )
    signs = 1 - 2 * (torch.arange(n, dtype=torch.float64) % 2)
    teacher = torch.zeros(n, d_teacher, dtype=torch.float64)
    student = torch.zeros(n, d_student, dtype=torch.float64)
    teacher[:, 0] = student[:, 0] = signs
    rows = torch.arange(perturbed)
    teacher[rows, 1 + rows] = size
    return Construction(teacher, student)


def from_spectra(n: int, teacher: Sequence[float], student: Sequence[float]) -> Construction:
    """Centred features whose Gram matrices share eigenvectors and have the given eigenvalues.

    The i-th eigenvalues of both belong to one direction in example space, so every measure has a
    closed form.

    Args:
        n: number of rows.
        teacher: 1 to n − 1 eigenvalues ≥ 0.
        student: 1 to n − 1 eigenvalues ≥ 0.

    Raises:
        InputError: no eigenvalue, too many, or a negative one.

    Example:
        >>> x = from_spectra(5, [0.7, 0.3], [1.0]).teacher
        >>> torch.linalg.svdvals(x).square().round(decimals=6).tolist()
        [0.7, 0.3]
    """
    for name, values in (("teacher", teacher), ("student", student)):
        smallest = min(values, default=-1.0)
        _require(smallest >= 0, f"one or more eigenvalues ≥ 0 of the {name}", smallest=smallest)
    longest = max(len(teacher), len(student))
    _require(longest <= n - 1, "directions ≤ n − 1 (rows are centred)", directions=longest, n=n)
    basis = _centred_basis(n, longest)
    parts = (torch.tensor(s, dtype=torch.float64) for s in (teacher, student))
    return Construction(*(basis[:, : len(s)] * s.sqrt() for s in parts))


def spread_mass(n: int, directions: int, lost: float, d_teacher: int) -> Construction:
    """A teacher with the share τ of its variance spread over directions that the student drops.

    CKA = (1 − τ)/√((1 − τ)² + τ²/m) → 1 as m = directions grows, but D_P = √(2 − 2√(1 − τ)) for
    every m. The student has one dimension.

    Args:
        n: number of rows.
        directions: m, with 1 ≤ m and 1 + m ≤ min(d_teacher, n − 1).
        lost: τ in (0, 1).
        d_teacher: width of the teacher.

    Raises:
        InputError: an argument out of its range.

    Example:
        >>> spread_mass(n=10, directions=4, lost=0.3, d_teacher=6).teacher.shape
        torch.Size([10, 6])
    """
    _require(
        2 <= 1 + directions <= min(d_teacher, n - 1),
        "2 ≤ 1 + directions ≤ min(d_teacher, n − 1)",
        directions=directions,
        d_teacher=d_teacher,
        n=n,
    )
    _require(0 < lost < 1, "0 < lost < 1", lost=lost)
    teacher, student = from_spectra(n, [1 - lost, *[lost / directions] * directions], [1.0])
    empty_columns = d_teacher - 1 - directions
    return Construction(torch.nn.functional.pad(teacher, (0, empty_columns)), student)


def flat_halves(n: int, half: int) -> Construction:
    """A teacher flat on 2·half directions and a student flat on the first half of them.

    D_FG = 1/√(2·half) → 0, but D_P = √(2 − √2) and CKA = 1/√2 for every half.

    Args:
        n: number of rows.
        half: at least 1, with 2·half ≤ n − 1.

    Raises:
        InputError: an argument out of its range.

    Example:
        >>> from geodistill.geometry import cka
        >>> f"{cka(*flat_halves(20, half=4)):.4f}"
        '0.7071'
    """
    _require(half >= 1, "half ≥ 1", half=half)
    return from_spectra(n, [0.5 / half] * (2 * half), [1.0 / half] * half)


def controlled_teacher(
    n: int, d: int, orthogonal: int, *, spread: float = 0.1, seed: int = 0
) -> Tensor:
    """Unit vectors (n, d) in groups whose axes are exactly orthogonal.

    The first `orthogonal` rows are the axes; every other row is ± an axis mixed with a random unit
    vector. For eps well above `spread` a largest ε-orthogonal subset has `orthogonal` members.

    Args:
        n: number of vectors.
        d: their dimension.
        orthogonal: number of axes, from 1 to min(n, d).
        spread: length of the random part, in [0, 1).
        seed: of the axes, signs and random parts.

    Raises:
        InputError: an argument out of its range.

    Example:
        >>> from geodistill.geometry import epsilon_orthogonal_subset
        >>> int(epsilon_orthogonal_subset(controlled_teacher(40, 8, 5), eps=0.4).sum())
        5
    """
    _require(
        1 <= orthogonal <= min(n, d), "1 ≤ orthogonal ≤ min(n, d)", orthogonal=orthogonal, n=n, d=d
    )
    _require(0 <= spread < 1, "0 ≤ spread < 1", spread=spread)
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    axes = torch.linalg.qr(normal(d, orthogonal))[0].T
    rows = axes[torch.arange(n) % orthogonal]
    signs = normal(n - orthogonal, 1).sign()
    noise = torch.nn.functional.normalize(normal(n - orthogonal, d), dim=-1)
    rows[orthogonal:] = signs * (math.sqrt(1 - spread**2) * rows[orthogonal:] + spread * noise)
    return torch.nn.functional.normalize(rows, dim=-1)


def nearly_orthogonal_teacher(n: int, d: int, eps: float, *, seed: int = 0) -> Tensor:
    """Unit vectors (n, d) with pairwise `|cos|` near eps or below, by alternating projections.

    Clips the Gram matrix to ±eps, returns to rank d, and repeats (Tropp et al., 2005). Near the
    Welch bound, below which no set of n vectors goes, eps is only approached. For n ≤ d the vectors
    are orthonormal.

    Args:
        n: number of vectors, at least 2.
        d: their dimension, at least 1.
        eps: largest `|cos|`, from `welch_bound(n, d)` to below 1.
        seed: of the random start.

    Raises:
        InputError: an argument out of its range.

    Example:
        >>> x = nearly_orthogonal_teacher(40, 20, eps=0.3)
        >>> f"{(x @ x.T).fill_diagonal_(0).abs().max():.2f}"
        '0.30'
    """
    _require(n >= 2 and d >= 1, "n ≥ 2 and d ≥ 1", n=n, d=d)
    bound = welch_bound(n, d)
    _require(bound <= eps < 1, f"√((n − d)/(d (n − 1))) = {bound:.4f} ≤ eps < 1", eps=eps, n=n, d=d)
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(n, d, generator=generator, dtype=torch.float64)
    if n <= d:
        orthonormal: Tensor = torch.linalg.qr(vectors.T)[0].T
        return orthonormal
    vectors = torch.nn.functional.normalize(vectors, dim=-1)
    for _ in range(_SWEEPS):
        cosines = (vectors @ vectors.mT).clamp(-eps, eps).fill_diagonal_(1)
        values, axes = torch.linalg.eigh(cosines)
        vectors = axes[:, -d:] * values[-d:].clamp_min(0).sqrt()
        vectors = torch.nn.functional.normalize(vectors, dim=-1)
    return vectors


def welch_bound(n: int, d: int) -> float:
    """The smallest possible value of the largest `|cos|` among n unit vectors in d dimensions.

    √((n − d)/(d (n − 1))) for n > d, else 0. Source: Welch (1974).

    Example:
        >>> f"{welch_bound(3, 2):.3f}"
        '0.500'
    """
    return math.sqrt((n - d) / (d * (n - 1))) if n > d else 0.0


def _centred_basis(n: int, k: int) -> Tensor:
    """k orthonormal columns (n, k) that sum to zero: the DCT without its constant."""
    i = torch.arange(n, dtype=torch.float64)[:, None] + 0.5
    j = torch.arange(1, k + 1, dtype=torch.float64)
    return torch.cos(math.pi * i * j / n) * math.sqrt(2 / n)


def _require(holds: bool, inequality: str, **values: float) -> None:
    if not holds:
        listed = ", ".join(f"{name} = {value}" for name, value in values.items())
        raise InputError(f"{listed}: expected {inequality}")
