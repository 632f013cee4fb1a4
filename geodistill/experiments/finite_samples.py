"""Values of measures on n rows of unrelated features, and the bias of a loss on small batches.

Random features are normal with variances k^-exponent (0 is flat), as the spectra of trained
networks roughly are. Everything is in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
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
    x = single(x, None, torch.float64, "x")
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
        "projection": _residual(unit(x), unit(y)),
    }
    return {name: float(value) for name, value in values.items()}


def _residual(x: Tensor, y: Tensor) -> Tensor:
    """min_A ‖X − YA‖, also for n ≤ d_student, which `projection_distance` refuses."""
    u, s, _ = torch.linalg.svd(y, full_matrices=False)
    basis = u[:, s > 1e-9 * s[0]]
    residual: Tensor = torch.linalg.matrix_norm(x - basis @ (basis.mT @ x))
    return residual


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
    """Rows at which unrelated features have at most this fidelity: 1 + rank/fidelity².

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


def batch_bias(
    teacher: Tensor,
    student: Tensor,
    rows: Iterable[int],
    *,
    decay: float | None = None,
    batches: int = 64,
    seed: int = 0,
) -> pd.DataFrame:
    """Procrustes loss and gradient on batches of n rows, compared with those on all rows.

    The gradient is with respect to a linear map of the student, as of a network's last layer.

    Args:
        teacher: features (N, d_t).
        student: features (N, d_s).
        rows: batch sizes n.
        decay: of the moments of past batches; the first half of the batches is then a warm-up.
        batches: number of batches per size.
        seed: of the batches.

    Returns:
        One row per size: n; loss and sd over batches; full_loss on all rows; gradient_ratio, the
        length of the mean gradient over that on all rows; cosine of the two gradients.
    """
    full_loss, full_gradient = _loss_and_gradient(ProcrustesLoss(), teacher, student)
    generator = torch.Generator().manual_seed(seed)
    results = []
    for n in rows:
        loss = ProcrustesLoss(decay=decay)
        pairs = []
        for _ in range(batches):
            batch = torch.randint(len(teacher), (n,), generator=generator)
            pairs.append(_loss_and_gradient(loss, teacher[batch], student[batch]))
        pairs = pairs[batches // 2 if decay else 0 :]
        losses = torch.tensor([value for value, _ in pairs])
        mean = torch.stack([gradient for _, gradient in pairs]).mean(0)
        norms = mean.norm(), full_gradient.norm()
        results.append(
            {
                "n": n,
                "loss": float(losses.mean()),
                "sd": float(losses.std()),
                "full_loss": full_loss,
                "gradient_ratio": float(norms[0] / norms[1]),
                "cosine": float((mean * full_gradient).sum() / norms[0] / norms[1]),
            }
        )
    return pd.DataFrame(results)


def _loss_and_gradient(
    loss: ProcrustesLoss, teacher: Tensor, student: Tensor
) -> tuple[float, Tensor]:
    weight = torch.eye(student.shape[1], dtype=student.dtype, requires_grad=True)
    value = loss(student @ weight, teacher)
    (gradient,) = torch.autograd.grad(value, weight)
    return float(value.detach()), gradient
