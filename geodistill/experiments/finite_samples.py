"""Values of measures on n rows of unrelated features, and the bias of a loss on small batches.

Random features are normal with variances k^-exponent (0 is flat), as the spectra of trained
networks roughly are. Everything is in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry import (
    cka,
    feature_gram_distance,
    nuclear_norm,
    participation_ratio,
    procrustes_distance,
)
from geodistill.geometry.formulas import moments_for_fits, residual_squared
from geodistill.geometry.moments import standardised
from geodistill.geometry.validation import single
from geodistill.losses import ProcrustesLoss

UNIT: dict[str, Any] = {"center": True, "scale": "frobenius"}


def power_law(n: int, d: int, exponent: float, seed: int) -> Tensor:
    """Normal features (n, d) whose k-th column has variance k^-exponent."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return rows / torch.arange(1, d + 1, dtype=torch.float64) ** (exponent / 2)


def unit(x: Tensor) -> Tensor:
    """Features (n, d) centred and of unit Frobenius norm; raises InputError if unusable."""
    x = single(x, "x")
    return standardised(x, torch.tensor(len(x)), center=True, scale="frobenius")


def nuclear_rank(x: Tensor) -> float:
    """‖X‖_*² of centred, unit-norm features (n, d): an effective rank from 1 to rank X.

    It counts small directions more than the participation ratio does and is never below it.
    """
    return float(nuclear_norm(unit(x))) ** 2


def all_measures(x: Tensor, y: Tensor) -> dict[str, float]:
    """Five measures of teacher x (n, d_t) and student y (n, d_s), centred and of unit norm."""
    values = {
        "cka": cka(x, y),
        "debiased": cka(x, y, debiased=True),
        "procrustes": procrustes_distance(x, y, **UNIT),
        "gram": feature_gram_distance(x, y, **UNIT),
        # `projection_distance` refuses n ≤ d_student
        "projection": residual_squared(
            moments_for_fits(x, y, mask=None, **UNIT), "to_teacher"
        ).sqrt(),
    }
    return {name: float(value) for name, value in values.items()}


def chance_curves(
    rows: Iterable[int], d_teacher: int, d_student: int, exponent: float, seeds: Sequence[int]
) -> pd.DataFrame:
    """Values of independent features: one row per n and seed, one column per measure."""
    results = []
    for n in rows:
        for seed in seeds:
            x = power_law(n, d_teacher, exponent, 2 * seed)
            y = power_law(n, d_student, exponent, 2 * seed + 1)
            results.append({"n": n, "seed": seed, **all_measures(x, y)})
    return pd.DataFrame(results)


def permutation_means(x: Tensor, y: Tensor) -> dict[str, float]:
    """Exact means over all orders of y's rows, for features (n, d_t) and (n, d_s).

    Of CKA (Kazi-Aoual et al., 1995), the squared Gram and the squared projection distance; for the
    squared Procrustes distance a lower bound of its mean.
    """
    x, y = unit(x), unit(y)
    n = len(x)
    pr_x, pr_y = float(participation_ratio(x)), float(participation_ratio(y))
    rank = min(nuclear_rank(x), nuclear_rank(y))
    return {
        "cka": math.sqrt(pr_x * pr_y) / (n - 1),
        "gram squared": 1 / pr_x + 1 / pr_y - 2 / (n - 1),
        "projection squared": 1 - int(torch.linalg.matrix_rank(y)) / (n - 1),
        "procrustes squared at least": max(0.0, 2 - 2 * math.sqrt(rank / (n - 1))),
    }


def sample_size_for(rank: float, fidelity: float) -> int:
    """Rows that make the mean fidelity of unrelated features at most this: 1 + rank/fidelity².

    An upper bound, and no test against chance: shuffled rows vary little around their mean, so
    `geometry.permutation_test` detects a fidelity with several times fewer rows (chapter 2).

    Args:
        rank: the smaller nuclear rank of the two sets of features, at least 1.
        fidelity: in (0, 1].

    Raises:
        InputError: an argument is out of its range.
    """
    if not (rank >= 1 and 0 < fidelity <= 1):
        raise InputError(
            f"rank = {rank}, fidelity = {fidelity}: expected rank ≥ 1 and 0 < fidelity ≤ 1"
        )
    return math.ceil(1 + rank / fidelity**2)


def measured_sample_size(
    d_teacher: int, d_student: int, exponent: float, fidelity: float, rows: Sequence[int]
) -> float:
    """The n at which independent features have this fidelity, interpolated between `rows`.

    NaN if the fidelity is not passed within them.
    """
    previous = None
    for n in rows:
        x, y = power_law(n, d_teacher, exponent, 0), power_law(n, d_student, exponent, 1)
        value = float(procrustes_distance(x, y, form="similarity", center=True))
        if value <= fidelity:
            if previous is None:
                return math.nan
            n_before, value_before = previous
            position = math.log(value_before / fidelity) / math.log(value_before / value)
            return float(n_before * (n / n_before) ** position)
        previous = n, value
    return math.nan


def cross_fitted(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of each half of the rows under the other half's best rotation, averaged.

    Too high on average, as the distance of a batch is too low. For many rows n its bias is twice as
    large, 2b/n for −b/n, since the rotation is fitted to half of them. It has no gradient.
    """
    halves = [(unit(teacher[k::2]), unit(student[k::2])) for k in (0, 1)]
    values = []
    for (x, y), (x_other, y_other) in zip(halves, reversed(halves), strict=True):
        u, s, vh = torch.linalg.svd((x_other.mT @ y_other).detach(), full_matrices=False)
        rotation = (u * (s > 1e-9 * s[0])) @ vh
        values.append(2 - 2 * ((x.mT @ y) * rotation).sum())
    return torch.stack(values).mean()


def jackknife(student: Tensor, teacher: Tensor) -> Tensor:
    """2 D_P²(all rows) − the mean D_P² of two halves: a bias of b/n cancels (Quenouille, 1956)."""
    loss = ProcrustesLoss()
    halves = torch.stack([loss(student[k::2], teacher[k::2]) for k in (0, 1)])
    value: Tensor = 2 * loss(student, teacher) - halves.mean()
    return value


Estimator = Callable[[Tensor, Tensor], Tensor]  # (student, teacher) rows to a scalar
ESTIMATORS: dict[str, Callable[[], Estimator]] = {
    "batch alone": ProcrustesLoss,
    "decay 0.9": partial(ProcrustesLoss, decay=0.9),
    "decay 0.97": partial(ProcrustesLoss, decay=0.97),
    "cross-fitted halves": lambda: cross_fitted,
    "jackknife": lambda: jackknife,
}


def batch_bias(
    teacher: Tensor,
    student: Tensor,
    rows: Iterable[int],
    estimator: Callable[[], Estimator] = ProcrustesLoss,
    *,
    batches: int = 64,
) -> pd.DataFrame:
    """An estimate of D_P² and its gradient on batches of n rows, compared with all rows.

    The gradient is with respect to a linear map of the student, as of a network's last layer. The
    share of the drawn rows in the gradient on all rows, whose mean is known, serves as a control
    variate: without it the mean over batches is mostly noise near an optimum.

    Args:
        teacher: features (N, d_t).
        student: features (N, d_s).
        rows: batch sizes n.
        estimator: makes the estimate, once per size. With a `decay` the first half of the batches
            is a warm-up.
        batches: number of batches per size.

    Returns:
        One row per size: n; loss and sd over batches; full_loss on all rows; gradient_ratio, the
        length of the mean gradient over that on all rows; cosine of the two gradients; noise, the
        sd of one batch's gradient over the length on all rows.
    """
    every_row = student.detach().requires_grad_()
    full_loss = ProcrustesLoss()(every_row, teacher)
    (per_row,) = torch.autograd.grad(full_loss, every_row)
    full = student.mT @ per_row
    generator = torch.Generator().manual_seed(0)
    results = []
    for n in rows:
        estimate = estimator()
        losses, gradients, expected = [], [], []
        for _ in range(batches):
            batch = torch.randint(len(teacher), (n,), generator=generator)
            weight = torch.eye(student.shape[1], dtype=student.dtype, requires_grad=True)
            value = estimate(student[batch] @ weight, teacher[batch])
            losses.append(value.detach())
            gradients.append(torch.autograd.grad(value, weight)[0])
            expected.append(len(teacher) / n * student[batch].mT @ per_row[batch])
        used = slice(batches // 2 if getattr(estimate, "decay", None) else 0, None)
        loss, gradient = torch.stack(losses[used]), torch.stack(gradients[used])
        mean = full + (gradient - torch.stack(expected[used])).mean(0)
        results.append(
            {
                "n": n,
                "loss": float(loss.mean()),
                "sd": float(loss.std()),
                "full_loss": float(full_loss.detach()),
                "gradient_ratio": float(mean.norm() / full.norm()),
                "cosine": float((mean * full).sum() / mean.norm() / full.norm()),
                "noise": float(gradient.var(0).sum().sqrt() / full.norm()),
            }
        )
    return pd.DataFrame(results)


def loss_after_training(
    teacher: Tensor,
    student: Tensor,
    n: int,
    estimator: Callable[[], Estimator] = ProcrustesLoss,
    *,
    steps: int = 100,
    learning_rate: float = 0.01,
) -> float:
    """D_P² on all rows after a linear map of the student was trained on batches of n rows.

    Adam from the identity, with a learning rate that falls linearly to 0.

    Args:
        teacher: features (N, d_t).
        student: features (N, d_s).
        n: rows in a batch.
        estimator: makes the loss of a batch.
        steps: number of batches.
        learning_rate: of the first step.
    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.eye(student.shape[1], dtype=student.dtype, requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    estimate = estimator()
    for _ in range(steps):
        batch = torch.randint(len(teacher), (n,), generator=generator)
        optimizer.zero_grad()
        estimate(student[batch] @ weight, teacher[batch]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return float(ProcrustesLoss()(student @ weight.detach(), teacher))
