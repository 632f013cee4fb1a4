"""Representations with known geometry: pictures for the theorems, known answers for the tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from geodistill.errors import InputError


class Construction(NamedTuple):
    teacher: Tensor  # (n, d_teacher), float64
    student: Tensor  # (n, d_student), float64


def antiparallel(
    n: int, d_teacher: int, d_student: int, perturbed: int, size: float = 1.0
) -> Construction:
    """Theorem 1's picture (Bhattarai et al., 2025): n vectors in two antiparallel directions.

    The teacher's first `perturbed` vectors move by `size`, each along its own direction orthogonal
    to all others; the student keeps the unperturbed arrangement. As n grows with perturbed/n and
    size fixed, CKA → 1 while D_P of unit-norm features stays. An odd n puts one more vector in the
    first direction.

    Raises InputError unless 1 ≤ perturbed, 1 + perturbed ≤ min(d_teacher, n − 1) (the arrangement
    and each perturbed vector need a direction, centred rows have n − 1) and
    1 ≤ d_student < d_teacher.
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
    """Centred features whose Gram matrices share eigenvectors and have these eigenvalues.

    The i-th eigenvalue of each belongs to the same direction in example space, so that every
    measure has a closed form. Raises InputError unless both have 1 to n − 1 eigenvalues, none of
    them negative.
    """
    for name, values in (("teacher", teacher), ("student", student)):
        least = min(values, default=-1.0)
        _require(least >= 0, f"one or more eigenvalues ≥ 0 of the {name}", least=least)
    longest = max(len(teacher), len(student))
    _require(longest <= n - 1, "directions ≤ n − 1 (rows are centred)", directions=longest, n=n)
    basis = _centred_basis(n, longest)
    parts = (torch.tensor(s, dtype=torch.float64) for s in (teacher, student))
    return Construction(*(basis[:, : len(s)] * s.sqrt() for s in parts))


def spread_mass(n: int, directions: int, lost: float, d_teacher: int) -> Construction:
    """The teacher's share `lost` of variance is spread over directions that the student drops.

    CKA = (1 − τ)/√((1 − τ)² + τ²/m) → 1 as m = directions grows, D_P = √(2 − 2√(1 − τ)) whatever m.
    The student is one-dimensional. Raises InputError unless 1 + m ≤ min(d_teacher, n − 1).
    """
    _require(
        2 <= 1 + directions <= min(d_teacher, n - 1),
        "2 ≤ 1 + directions ≤ min(d_teacher, n − 1)",
        directions=directions,
        d_teacher=d_teacher,
        n=n,
    )
    _require(0 < lost < 1, "0 < lost < 1", lost=lost)
    pad = [0.0] * (d_teacher - 1 - directions)
    spectrum = [1 - lost, *[lost / directions] * directions, *pad]
    pair = from_spectra(n, spectrum[: 1 + directions], [1.0])
    return Construction(torch.nn.functional.pad(pair.teacher, (0, len(pad))), pair.student)


def flat_halves(n: int, half: int) -> Construction:
    """Teacher flat on 2·half directions, student flat on the first half of them.

    D_FG = 1/√(2·half) → 0 while D_P = √(2 − √2) and CKA = 1/√2 whatever half.
    Raises InputError unless 1 ≤ half and 2·half ≤ n − 1.
    """
    _require(half >= 1, "half ≥ 1", half=half)
    return from_spectra(n, [0.5 / half] * (2 * half), [1.0 / half] * half)


def controlled_teacher(
    n: int, d: int, orthogonal: int, *, spread: float = 0.1, seed: int = 0
) -> Tensor:
    """Unit vectors (n, d) in `orthogonal` groups whose axes are exactly orthogonal.

    The first `orthogonal` rows are the axes; every other row is ± an axis, mixed with a random unit
    vector of length `spread`, so that for eps well above `spread` a largest ε-orthogonal subset has
    `orthogonal` members. Raises InputError unless 1 ≤ orthogonal ≤ min(n, d) and 0 ≤ spread < 1.
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
    """Unit vectors (n, d), each pair ε-orthogonal: |cos| ≤ eps for all of them; n may exceed d.

    Starts at random, then by turns clips the Gram matrix to ±eps and takes its nearest of rank d
    (Tropp et al., 2005). For n > d no set of vectors goes below √((n − d)/(d (n − 1))) (Welch,
    1974); most sizes can't quite reach it. Raises InputError below that bound, and where the
    iteration ends above eps.
    """
    _require(n >= 2 and d >= 1, "n ≥ 2 and d ≥ 1", n=n, d=d)
    bound = welch_bound(n, d)
    _require(bound <= eps < 1, f"√((n − d)/(d (n − 1))) = {bound:.4f} ≤ eps < 1", eps=eps, n=n, d=d)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, d, generator=generator, dtype=torch.float64)
    if n <= d:
        rows = torch.linalg.qr(rows.T)[0].T
    for _ in range(_TURNS):
        rows = torch.nn.functional.normalize(rows, dim=-1)
        cosines = rows @ rows.T
        largest = float((cosines - torch.eye(n)).abs().max())
        if largest <= max(eps, 1e-12):
            return rows
        clipped = cosines.clamp(-0.98 * eps, 0.98 * eps).fill_diagonal_(1)
        values, vectors = torch.linalg.eigh(clipped)
        rows = vectors[:, -d:] * values[-d:].clamp_min(0).sqrt()
    raise InputError(
        f"eps = {eps}: expected a larger one, {n} vectors in {d} dimensions came down to "
        f"{largest:.4f} in {_TURNS} turns (no set goes below {bound:.4f})"
    )


_TURNS = 500


def welch_bound(n: int, d: int) -> float:
    """The least that the largest |cos| among n unit vectors in d dimensions can be."""
    return math.sqrt((n - d) / (d * (n - 1))) if n > d else 0.0


def _centred_basis(n: int, k: int) -> Tensor:
    """k orthonormal columns (n, k) that sum to zero: cosines, the DCT without its constant."""
    i = torch.arange(n, dtype=torch.float64)[:, None] + 0.5
    j = torch.arange(1, k + 1, dtype=torch.float64)
    return torch.cos(math.pi * i * j / n) * math.sqrt(2 / n)


def _require(holds: bool, inequality: str, **given: float) -> None:
    if not holds:
        values = ", ".join(f"{name} = {value}" for name, value in given.items())
        raise InputError(f"{values}: expected {inequality}")
