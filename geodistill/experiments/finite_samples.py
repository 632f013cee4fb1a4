"""What measures of unrelated features come to on n rows, and what that does to a batch loss.

Features are normal with variances k^-exponent (0 is flat): the power laws stand for the spectra
that networks have. Everything is in float64.
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
    spread = torch.arange(1, d + 1, dtype=torch.float64) ** (-exponent / 2)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) * spread


def unit(x: Tensor) -> Tensor:
    """Features (n, d) centred and of unit Frobenius norm; raises InputError as the measures do."""
    x = single(x, None, torch.float64, "x")
    return standardised(x, torch.tensor(len(x)), center=True, scale="frobenius")


def nuclear_rank(x: Tensor) -> float:
    """‖X‖_*² of centred, unit-norm features (n, d): an effective rank from 1 to rank X.

    It counts small directions more than the participation ratio does and is never below it.
    """
    return float(nuclear_norm(unit(x))) ** 2


def values(x: Tensor, y: Tensor) -> dict[str, float]:
    """Every measure of teacher x (n, d_t) and student y (n, d_s), centred and of unit norm."""
    found = {
        "cka": cka(x, y),
        "debiased": cka(x, y, debiased=True),
        "procrustes": procrustes_distance(x, y, **UNIT),
        "gram": feature_gram_distance(x, y, **UNIT),
        "projection": _residual(unit(x), unit(y)),
    }
    return {name: float(value) for name, value in found.items()}


def _residual(x: Tensor, y: Tensor) -> Tensor:
    """min_A ‖X − YA‖, also where y fits all (`projection_distance` refuses n ≤ d_student)."""
    u, s, _ = torch.linalg.svd(y, full_matrices=False)
    basis = u[:, s > 1e-9 * s[0]]
    rest: Tensor = torch.linalg.matrix_norm(x - basis @ (basis.mT @ x))
    return rest


def null_curves(
    rows: Iterable[int], d_teacher: int, d_student: int, exponent: float, seeds: Sequence[int]
) -> pd.DataFrame:
    """Values of independent features: a row for each n and seed, a column for each measure."""
    found = []
    for n in rows:
        for seed in seeds:
            x = power_law(n, d_teacher, exponent, 2 * seed)
            y = power_law(n, d_student, exponent, 2 * seed + 1)
            found.append({"n": n, "seed": seed, **values(x, y)})
    return pd.DataFrame(found)


def shuffled_means(x: Tensor, y: Tensor) -> dict[str, float]:
    """Means over all orders of y's rows, exact, for features (n, d_t), (n, d_s) of one teacher.

    CKA, the squared Gram and the squared projection distance (Kazi-Aoual et al., 1995, for the
    first), and for the squared Procrustes distance the bound that its mean is never below.
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


def rows_needed(rank: float, share: float) -> int:
    """Rows after which chance gives at most `share` of the fidelity: 1 + rank/share².

    rank is the lesser nuclear rank of the two sets of features. Raises InputError unless rank ≥ 1
    and 0 < share ≤ 1.
    """
    if not (rank >= 1 and 0 < share <= 1):
        raise InputError(f"rank = {rank}, share = {share}: expected rank ≥ 1 and 0 < share ≤ 1")
    return math.ceil(1 + rank / share**2)


def measured_rows_needed(
    d_teacher: int, d_student: int, exponent: float, share: float, rows: Sequence[int]
) -> float:
    """The n at which independent features have fidelity `share`, between the `rows` measured.

    NaN where the share is not passed within them.
    """
    before = None
    for n in rows:
        x, y = power_law(n, d_teacher, exponent, 0), power_law(n, d_student, exponent, 1)
        fidelity = float(procrustes_distance(x, y, form="similarity", center=True))
        if fidelity <= share:
            if before is None:
                return math.nan
            last, higher = before
            part = math.log(higher / share) / math.log(higher / fidelity)
            return float(last * (n / last) ** part)
        before = n, fidelity
    return math.nan


def batch_bias(
    teacher: Tensor,
    student: Tensor,
    rows: Iterable[int],
    *,
    memory: float | None = None,
    batches: int = 64,
    seed: int = 0,
) -> pd.DataFrame:
    """Procrustes loss and its gradient on batches of n rows against those on all rows.

    The gradient is with respect to a linear map of student (N, d_s), as a network's last layer
    feels it. Columns: n, loss and sd over batches, all (the loss on all rows), size (length of the
    mean gradient over the one on all rows) and cosine (of the two). With `memory` the same loss
    adds the decayed moments of past batches, and the first half of the batches warms it up.
    """
    everything, target = _loss_and_gradient(ProcrustesLoss(), teacher, student)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for n in rows:
        loss = ProcrustesLoss(memory=memory)
        pairs = []
        for _ in range(batches):
            chosen = torch.randint(len(teacher), (n,), generator=generator)
            pairs.append(_loss_and_gradient(loss, teacher[chosen], student[chosen]))
        pairs = pairs[batches // 2 if memory else 0 :]
        losses = torch.tensor([value for value, _ in pairs])
        mean = torch.stack([gradient for _, gradient in pairs]).mean(0)
        found.append(
            {
                "n": n,
                "loss": float(losses.mean()),
                "sd": float(losses.std()),
                "all": everything,
                "size": float(mean.norm() / target.norm()),
                "cosine": float((mean * target).sum() / mean.norm() / target.norm()),
            }
        )
    return pd.DataFrame(found)


def _loss_and_gradient(
    loss: ProcrustesLoss, teacher: Tensor, student: Tensor
) -> tuple[float, Tensor]:
    width = student.shape[1]
    weight = torch.eye(width, dtype=student.dtype, requires_grad=True)
    value = loss(student @ weight, teacher)
    (gradient,) = torch.autograd.grad(value, weight)
    return float(value.detach()), gradient
