"""Students without a network: feature vectors that one loss alone moves.

A student is a matrix of n feature vectors, so that its final geometry is due to the loss. Every
loss has the same optimiser and number of steps. All seeds are optimised as one batch: Adam works
element by element, so the gradient of the summed loss moves each member as if it were alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from geodistill.errors import check_choice
from geodistill.experiments.finite_samples import power_law
from geodistill.experiments.synthetic.settings import (
    LEARNING_RATES,
    OBJECTIVES,
    TWO_DIRECTIONS,
    SyntheticSettings,
)
from geodistill.geometry import antiparallel, ceiling, controlled_teacher, nearly_orthogonal_teacher
from geodistill.geometry.formulas import (
    cka_value,
    gram_squared,
    procrustes_squared,
    spectra_overlap,
)
from geodistill.geometry.measures import cka, feature_gram_distance, procrustes_distance
from geodistill.geometry.moments import RowMoments, row_moments, standardised

START_SEED_OFFSET = 10_000
"""Added to a seed: its teacher and its student's start are drawn independently."""
NOISE = 0.5
"""Norm of the noise of a noisy PCA start; the solution has norm 1."""


# --- teachers ------------------------------------------------------------------------------------


def _unit_vectors(n: int, d: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=-1)


_BUILDERS: dict[str, Callable[[int, int, int], Tensor]] = {
    TWO_DIRECTIONS: lambda n, d, _: antiparallel(n, d, 1, d // 4 - 1, size=3.0).teacher,
    "8 orthogonal": lambda n, d, seed: controlled_teacher(n, d, 8, seed=seed),
    "24 orthogonal": lambda n, d, seed: controlled_teacher(n, d, 24, seed=seed),
    "random": _unit_vectors,
    "ε-orthogonal": lambda n, d, seed: nearly_orthogonal_teacher(n, d, 0.25, seed=seed),
    "nearly orthonormal": lambda n, d, seed: nearly_orthogonal_teacher(n, d, 0.2, seed=seed),
    "power law": lambda n, d, seed: power_law(n, d, 1.0, seed),
}


def make_teachers(settings: SyntheticSettings) -> Tensor:
    """One teacher per seed, (s, n, d_teacher), centred and with rows of mean square 1."""
    build = _BUILDERS[settings.teacher]
    teachers = [build(settings.n, settings.d_teacher, seed) for seed in settings.seeds]
    return _rms(torch.stack(teachers)).float()


def _rms(x: Tensor) -> Tensor:
    return standardised(x, torch.tensor(x.shape[-2]), center=True, scale="rms")


# --- starts --------------------------------------------------------------------------------------


def pca_scores(teachers: Tensor, d_student: int) -> Tensor:
    """Top principal scores of each teacher, rows of mean square 1.

    Args:
        teachers: features (s, n, d_teacher).
        d_student: number of components; those beyond the teacher's width are zero.

    Returns:
        Scores (s, n, d_student), float64.
    """
    _, axes = torch.linalg.eigh(teachers.double().mT @ teachers.double())
    scores = teachers.double() @ axes.flip(-1)[..., :d_student]
    return _rms(pad(scores, (0, d_student - scores.shape[-1])))


def make_students(settings: SyntheticSettings, teachers: Tensor) -> Tensor:
    """The students before the first step, (s, n, d_student), in a random orthogonal basis.

    Args:
        settings: name the start and the seeds.
        teachers: features (s, n, d_teacher).
    """
    d_student, noise, rotations = settings.d_student, [], []
    for seed in settings.seeds:
        generator = torch.Generator().manual_seed(START_SEED_OFFSET + seed)
        shape = (teachers.shape[-2], d_student)
        noise.append(normalize(torch.randn(shape, generator=generator).double(), dim=-1))
        square = torch.randn(d_student, d_student, generator=generator).double()
        rotations.append(torch.linalg.qr(square)[0])
    students = torch.stack(noise)
    if settings.start != "random":
        amount = NOISE if settings.start == "noisy_pca" else 0.0
        solution = pca_scores(teachers, d_student) @ torch.stack(rotations)
        students = _rms(solution + amount * students)
    return students.float()


# --- objectives ----------------------------------------------------------------------------------


def projection_residual(m: RowMoments, weight: Tensor) -> Tensor:
    """‖X − YW‖² of each member (s,), for maps W (s, d_student, d_teacher)."""
    value: Tensor = (m.x - m.y @ weight).square().sum((-2, -1))
    return value


def orthonormalize(weight: Tensor) -> Tensor:
    """The (semi-)orthogonal factor of each W (s, p, q), by QR with a positive diagonal."""
    tall = weight if weight.shape[-2] >= weight.shape[-1] else weight.mT
    q, r = torch.linalg.qr(tall)
    q = q * r.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]
    factor: Tensor = q if tall is weight else q.mT
    return factor


_LOSSES: dict[str, Callable[[RowMoments, Tensor], Tensor]] = {
    "procrustes": lambda m, _: procrustes_squared(m),
    "gram": lambda m, _: gram_squared(m),
    "cka": lambda m, _: 1 - cka_value(m),
    "projection": projection_residual,
    "orthogonal-projection": lambda m, weight: projection_residual(m, orthonormalize(weight)),
    "pca": lambda m, _: (m.x - m.y).square().sum((-2, -1)),
    "spectrum": lambda m, _: m.size_x + m.size_y - 2 * spectra_overlap(m),
}


@dataclass(frozen=True)
class Trajectory:
    """Students on their way, at c checkpoints.

    Attributes:
        steps: of the checkpoints, the first 0.
        loss: (c, s).
        students: (c, s, n, d_student).
    """

    steps: list[int]
    loss: Tensor
    students: Tensor


def optimize_students(
    objective: str, teachers: Tensor, students: Tensor, *, steps: int
) -> Trajectory:
    """Minimise one objective over the students by Adam.

    Args:
        objective: one of `OBJECTIVES`.
        teachers: features (s, n, d_teacher).
        students: features (s, n, d_student) before the first step.
        steps: updates.

    Raises:
        InputError: unknown objective.
    """
    check_choice("objective", objective, OBJECTIVES)
    if objective == "pca":
        teachers = pca_scores(teachers, students.shape[-1]).float()
    student, weight = students.clone().requires_grad_(), _projections(teachers, students)
    optimizer = torch.optim.Adam([student, weight], lr=LEARNING_RATES[objective], fused=True)
    recorded, losses, trajectory = checkpoints(steps), [], []
    for step in range(steps + 1):
        optimizer.zero_grad()
        m = row_moments(teachers, student, center=True, scale="frobenius")
        loss = _LOSSES[objective](m, weight)
        if step in recorded:
            losses.append(loss.detach().clone())
            trajectory.append(student.detach().clone())
        loss.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return Trajectory(recorded, torch.stack(losses), torch.stack(trajectory))


def initial_loss(objective: str, teachers: Tensor, students: Tensor) -> Tensor:
    """The objective (s,) of students (s, n, d_student) that have not moved."""
    return optimize_students(objective, teachers, students, steps=0).loss[0]


def _projections(teachers: Tensor, students: Tensor) -> Tensor:
    """Learned maps (s, d_student, d_teacher), (semi-)orthogonal at first."""
    generator = torch.Generator().manual_seed(START_SEED_OFFSET - 1)
    shape = (len(students), students.shape[-1], teachers.shape[-1])
    return orthonormalize(torch.randn(shape, generator=generator)).requires_grad_()


def min_loss(objective: str, teacher: Tensor, d_student: int) -> float:
    """The least value of an objective over all students of a width.

    Args:
        objective: one of `OBJECTIVES`.
        teacher: features (n, d_teacher).
        d_student: width of the students.
    """
    procrustes = ceiling(procrustes_distance, teacher, d_student) ** 2
    if objective == "gram":
        return ceiling(feature_gram_distance, teacher, d_student) ** 2
    if objective == "cka":
        return 1 - ceiling(cka, teacher, d_student)
    if objective == "projection":
        return 1 - (1 - procrustes / 2) ** 2  # τ: the variance beyond the first d_student
    return 0.0 if objective == "pca" else procrustes  # all others share their best student


def checkpoints(steps: int) -> list[int]:
    """About 30 steps from 0 to `steps`, evenly spaced in the logarithm."""
    return sorted({0, *(round(steps ** (i / 29)) for i in range(30)), steps})
