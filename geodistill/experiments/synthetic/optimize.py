"""Free students: teachers of controlled orthogonality, one loss at a time, seeds as one batch.

A student is a matrix of n feature vectors moved by one loss alone, with no network between, so that
what it ends with is the doing of the loss. Every loss has the same optimiser and number of steps.
All seeds of a cell are trained together: Adam acts element by element, so the gradient of the
summed loss moves each member as if it were alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from geodistill.errors import InputError
from geodistill.geometry import antiparallel, best, controlled_teacher, welch_bound
from geodistill.geometry.measures import (
    cka,
    cka_value,
    feature_gram_distance,
    gram_squared,
    procrustes_distance,
    procrustes_squared,
    spectra_overlap,
)
from geodistill.geometry.moments import RowMoments, row_moments, standardised

TEACHER_SEED, START_SEED = 0, 10_000
"""Added to a seed: its teacher and its student's start are drawn independently."""
NEAR = 0.5  # a start "near" has the solution plus noise of half its norm


@dataclass(frozen=True)
class Setting:
    """Sizes, the optimiser's budget, and the ε of ε-orthogonality.

    Attributes:
        n, d_teacher, d_student: feature vectors and the two widths.
        steps: updates by Adam, at the rate of each objective (`LEARNING_RATES`).
        eps: cosine up to which two vectors count as orthogonal.
    """

    n: int = 128
    d_teacher: int = 32
    d_student: int = 8
    steps: int = 600
    eps: float = 0.25


# --- teachers ------------------------------------------------------------------------------------


def incoherent(n: int, d: int, eps: float, seed: int, sweeps: int = 300) -> Tensor:
    """Unit vectors (n, d), n > d, with pairwise |cos| near eps or below.

    Alternating projections (Tropp et al., 2005): clip the cosines at eps, return to rank d. Near
    the Welch bound eps is only approached. Raises InputError for eps below that bound.
    """
    bound = welch_bound(n, d)
    if not bound <= eps < 1:
        raise InputError(
            f"eps = {eps}, n = {n}, d = {d}: expected √((n − d)/(d(n − 1))) = {bound:.4f} ≤ eps < 1"
        )
    vectors = _unit(n, d, seed)
    for _ in range(sweeps):
        cosines = (vectors @ vectors.mT).clamp(-eps, eps).fill_diagonal_(1)
        values, axes = torch.linalg.eigh(cosines)
        vectors = normalize(axes[:, -d:] * values[-d:].clamp_min(0).sqrt(), dim=-1)
    return vectors


def power_law(n: int, d: int, seed: int) -> Tensor:
    """Gaussian rows (n, d) whose k-th variance is 1/k, as those of trained networks nearly are."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return rows / torch.arange(1, d + 1, dtype=torch.float64).sqrt()


def _unit(n: int, d: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=-1)


TWO = "two directions, perturbed"
TEACHERS: dict[str, Callable[[int, int, int], Tensor]] = {
    TWO: lambda n, d, _: antiparallel(n, d, 1, d // 4 - 1, size=3.0).teacher,
    "8 orthogonal": lambda n, d, seed: controlled_teacher(n, d, 8, seed=seed),
    "24 orthogonal": lambda n, d, seed: controlled_teacher(n, d, 24, seed=seed),
    "random": _unit,
    "ε-orthogonal": lambda n, d, seed: incoherent(n, d, 0.25, seed),
    "nearly orthonormal": lambda n, d, seed: incoherent(n, d, 0.2, seed),
    "power law": power_law,
}


def make_teachers(name: str, setting: Setting, seeds: Sequence[int]) -> Tensor:
    """Teachers (s, n, d_teacher), centred and with rows of mean square 1, one a seed.

    Raises InputError for an unknown name.
    """
    make = _known("teacher", name, TEACHERS)
    rows = [make(setting.n, setting.d_teacher, TEACHER_SEED + seed) for seed in seeds]
    return _rms(torch.stack(rows)).float()


def _rms(x: Tensor) -> Tensor:
    return standardised(x, torch.tensor(x.shape[-2]), center=True, scale="rms")


# --- starts --------------------------------------------------------------------------------------


def principal_scores(teachers: Tensor, d_student: int) -> Tensor:
    """The teachers' top principal scores (s, n, d_student), zeros past the teacher's width."""
    _, axes = torch.linalg.eigh(teachers.double().mT @ teachers.double())
    scores = teachers.double() @ axes.flip(-1)[..., :d_student]
    return _rms(pad(scores, (0, d_student - scores.shape[-1])))


def _pca_start(teachers: Tensor, noise: Tensor, axes: Tensor, amount: float = 0.0) -> Tensor:
    return _rms(principal_scores(teachers, noise.shape[-1]) @ axes + amount * noise)


STARTS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "random": lambda _teachers, noise, _axes: noise,
    "pca": _pca_start,
    "near": partial(_pca_start, amount=NEAR),
}


def make_start(name: str, teachers: Tensor, d_student: int, seeds: Sequence[int]) -> Tensor:
    """Students (s, n, d_student) before the first step, in coordinates turned at random.

    Raises InputError for an unknown name.
    """
    start = _known("start", name, STARTS)
    noise, axes = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(START_SEED + seed)
        shape = (teachers.shape[-2], d_student)
        noise.append(normalize(torch.randn(shape, generator=generator).double(), dim=-1))
        square = torch.randn(d_student, d_student, generator=generator).double()
        axes.append(torch.linalg.qr(square)[0])
    students: Tensor = start(teachers, torch.stack(noise), torch.stack(axes))
    return students.float()


# --- objectives ----------------------------------------------------------------------------------


def residual(m: RowMoments, weight: Tensor) -> Tensor:
    """‖X − YW‖² of each member, W (s, d_student, d_teacher)."""
    value: Tensor = (m.x - m.y @ weight).square().sum((-2, -1))
    return value


def orthonormal(weight: Tensor) -> Tensor:
    """The (semi-)orthogonal factor of each W (s, p, q), by QR with a positive diagonal."""
    tall = weight if weight.shape[-2] >= weight.shape[-1] else weight.mT
    q, r = torch.linalg.qr(tall)
    q = q * r.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]
    factor: Tensor = q if tall is weight else q.mT
    return factor


OBJECTIVES: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "procrustes": lambda m, _: procrustes_squared(m),
    "gram": lambda m, _: gram_squared(m),
    "cka": lambda m, _: 1 - cka_value(m),
    "projection": residual,
    "orthogonal-projection": lambda m, weight: residual(m, orthonormal(weight)),
    "pca": lambda m, _: (m.x - m.y).square().sum((-2, -1)),
    "spectrum": lambda m, _: m.size_x + m.size_y - 2 * spectra_overlap(m),
}
LEARNING_RATES: dict[str, float] = {  # by the rule in data/protocol/synthetic.yaml
    "procrustes": 0.05,
    "gram": 0.1,
    "cka": 0.1,
    "projection": 0.05,
    "orthogonal-projection": 0.1,
    "pca": 0.05,
    "spectrum": 0.005,
}


@dataclass(frozen=True)
class Path:
    """What one objective did to a batch of students.

    Attributes:
        steps: c checkpoints, the first 0.
        loss: (c, s).
        students: (c, s, n, d_student).
    """

    steps: list[int]
    loss: Tensor
    students: Tensor


def descend(
    objective: str,
    teachers: Tensor,
    start: Tensor,
    *,
    steps: int,
    learning_rate: float | None = None,
    seed: int = 0,
) -> Path:
    """Move the students `start` (s, n, d_s) downhill for teachers (s, n, d_t), by Adam.

    `learning_rate` is the objective's own unless given; `seed` is of the learned maps. Raises
    InputError for an unknown objective.
    """
    loss = _known("objective", objective, OBJECTIVES)
    target = _target(objective, teachers, start.shape[-1])
    student, weight = start.clone().requires_grad_(), _weights(teachers, start, seed)
    rate = LEARNING_RATES[objective] if learning_rate is None else learning_rate
    optimiser = torch.optim.Adam([student, weight], lr=rate, fused=True)
    kept, losses, students = checkpoints(steps), [], []
    for step in range(steps + 1):
        optimiser.zero_grad()
        value = loss(row_moments(target, student, center=True, scale="frobenius"), weight)
        if step in kept:
            losses.append(value.detach().clone())
            students.append(student.detach().clone())
        value.sum().backward()
        optimiser.step()
    return Path(kept, torch.stack(losses), torch.stack(students))


def evaluate(objective: str, teachers: Tensor, students: Tensor, seed: int = 0) -> Tensor:
    """The objective (s,) of students that have not moved."""
    return descend(objective, teachers, students, steps=0, seed=seed).loss[0]


def _target(objective: str, teachers: Tensor, d_student: int) -> Tensor:
    return principal_scores(teachers, d_student).float() if objective == "pca" else teachers


def _weights(teachers: Tensor, start: Tensor, seed: int) -> Tensor:
    """Learned maps (s, d_s, d_t), (semi-)orthogonal at first."""
    generator = torch.Generator().manual_seed(START_SEED - 1 - seed)
    shape = (len(start), start.shape[-1], teachers.shape[-1])
    return orthonormal(torch.randn(shape, generator=generator)).requires_grad_()


def floor(objective: str, teacher: Tensor, d_student: int) -> float:
    """The least value of the objective that any student of this width can reach."""
    procrustes = best(procrustes_distance, teacher, d_student) ** 2
    if objective == "gram":
        return best(feature_gram_distance, teacher, d_student) ** 2
    if objective == "cka":
        return 1 - best(cka, teacher, d_student)
    if objective == "projection":
        return 1 - (1 - procrustes / 2) ** 2  # τ: the variance beyond the first d_student
    return 0.0 if objective == "pca" else procrustes  # all others share their best student


def checkpoints(steps: int, count: int = 30) -> list[int]:
    """About `count` steps from 0 to `steps`, evenly spaced in the logarithm."""
    return sorted({0, *(round(steps ** (i / (count - 1))) for i in range(count)), steps})


def _known(kind: str, name: str, known: dict[str, Any]) -> Any:
    if name not in known:
        raise InputError(f"{kind} is {name!r}: expected one of {', '.join(known)}")
    return known[name]
