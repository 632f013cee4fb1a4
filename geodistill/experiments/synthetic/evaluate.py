"""Measurements of synthetic students on their way from start to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from geodistill.experiments.synthetic.optimize import (
    initial_loss,
    make_students,
    make_teachers,
    min_loss,
    optimize_students,
)
from geodistill.experiments.synthetic.settings import OBJECTIVES, SyntheticSettings
from geodistill.geometry import (
    ScoreRange,
    cka,
    epsilon_orthogonal_subset,
    feature_gram_distance,
    orthogonality,
    participation_ratio,
    procrustes_distance,
    procrustes_parts,
    projection_distance,
    score_range,
)

COMPONENTS = (1, 2, 4, 8, 16, 32)
"""Principal components of the teacher along which the student's variance is measured."""


@dataclass(frozen=True)
class SyntheticBatch:
    """The teachers of one block, one per seed, and all that is measured of their students.

    Attributes:
        teachers: features (s, n, d_teacher).
        eps: cosine up to which two vectors count as orthogonal.
        procrustes_ranges: chance level and ceiling of the Procrustes distance, by seed.
        gram_ranges: the same of the Gram distance.
    """

    teachers: Tensor
    eps: float
    procrustes_ranges: tuple[ScoreRange, ...]
    gram_ranges: tuple[ScoreRange, ...]

    def measure(self, students: Tensor) -> dict[str, Tensor]:
        """Every diagnostic, (c, s), of students (c, s, n, d_student) at c checkpoints.

        Returns:
            `procrustes`, `gram`, `cka`; `geometry_kept` and `geometry_kept_gram`, normalised from
            chance level to ceiling; `spectrum` and `alignment`, the parts of D_P²; `participation`,
            the participation ratio; `r2`, the teacher's variance explained by a linear map;
            `pairs`, the share of ε-orthogonal pairs; `vectors`, the number of ε-orthogonal vectors;
            `pc<k>`, the variance along the teacher's k-th component as a multiple of the teacher's.
        """
        x, y = self.teachers.expand(len(students), -1, -1, -1).double(), students.double()
        unit: dict[str, Any] = {"center": True, "scale": "frobenius"}
        distance, gram = procrustes_distance(x, y, **unit), feature_gram_distance(x, y, **unit)
        spectrum, alignment = procrustes_parts(x, y)
        return {
            "procrustes": distance,
            "gram": gram,
            "cka": cka(x, y),
            "geometry_kept": _normalize(self.procrustes_ranges, distance),
            "geometry_kept_gram": _normalize(self.gram_ranges, gram),
            "spectrum": spectrum,
            "alignment": alignment,
            "participation": participation_ratio(y),
            "r2": 1 - projection_distance(x, y, **unit) ** 2,
            "pairs": orthogonality(y, self.eps),
            "vectors": epsilon_orthogonal_subset(y, self.eps).sum(-1).double(),
            **_component_variances(x, y),
        }


@cache
def _batch_of(settings: SyntheticSettings) -> SyntheticBatch:
    teachers = make_teachers(settings)
    procrustes, gram = (
        tuple(score_range(measure, x, settings.d_student) for x in teachers)
        for measure in (procrustes_distance, feature_gram_distance)
    )
    return SyntheticBatch(teachers, settings.eps, procrustes, gram)


def make_batch(settings: SyntheticSettings) -> SyntheticBatch:
    """The teachers of a block with their score ranges, the same for every start."""
    return _batch_of(replace(settings, start="random"))


def _normalize(ranges: Sequence[ScoreRange], value: Tensor) -> Tensor:
    chance = torch.tensor([r.chance_level for r in ranges]).to(value)
    ceiling = torch.tensor([r.ceiling for r in ranges]).to(value)
    return (chance - value) / (chance - ceiling)


def _component_variances(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """‖Yᵀu_k‖²/λ_k of the teacher's components u_k, both sides centred and of unit norm."""
    x, y = (f - f.mean(-2, keepdim=True) for f in (x, y))
    x, y = (f / torch.linalg.matrix_norm(f)[..., None, None] for f in (x, y))
    u, s, _ = torch.linalg.svd(x[0], full_matrices=False)
    ratios = (u.mT @ y).square().sum(-1) / s.square().clamp_min(1e-12)
    rank = s.square().gt(1e-9).sum(-1)
    in_rank = torch.arange(s.shape[-1]) < rank[:, None]
    ratios = torch.where(in_rank, ratios, torch.nan)
    return {f"pc{k}": ratios[..., k - 1] for k in COMPONENTS if k <= s.shape[-1]}


def train_block(settings: SyntheticSettings, objective: str) -> pd.DataFrame:
    """Optimise the students of all seeds under one objective.

    Args:
        settings: of the block.
        objective: one of `OBJECTIVES`.

    Returns:
        One row per seed and checkpoint: step, seed, loss, loss_remaining and the measurements of
        `SyntheticBatch`. `loss_remaining` is the share of the reducible loss: 1 for the random
        student of that seed, 0 at the minimum.

    Raises:
        InputError: unknown objective.
    """
    batch = make_batch(settings)
    teachers = batch.teachers
    students = make_students(settings, teachers)
    trajectory = optimize_students(objective, teachers, students, steps=settings.steps)
    random = make_students(replace(settings, start="random"), teachers)
    lowest = torch.tensor([min_loss(objective, x, settings.d_student) for x in teachers])
    reducible = initial_loss(objective, teachers, random) - lowest
    values = {
        "loss": trajectory.loss,
        "loss_remaining": (trajectory.loss - lowest) / reducible,
        **batch.measure(trajectory.students),
    }
    shape = trajectory.loss.shape
    columns = {
        "step": torch.tensor(trajectory.steps)[:, None].expand(shape).flatten().numpy(),
        "seed": torch.tensor(settings.seeds).expand(shape).flatten().numpy(),
    }
    return pd.DataFrame(columns | {k: v.flatten().float().numpy() for k, v in values.items()})


def train_blocks(
    settings: SyntheticSettings, teachers: Sequence[str], objectives: Sequence[str] = OBJECTIVES
) -> pd.DataFrame:
    """The rows of `train_block` for every teacher and objective, with columns of these names.

    Args:
        settings: of the blocks, but for the teacher.
        teachers: from `TEACHERS`.
        objectives: from `OBJECTIVES`.

    Raises:
        InputError: unknown teacher or objective.
    """
    blocks = [
        train_block(replace(settings, teacher=teacher), objective).assign(
            teacher=teacher, objective=objective
        )
        for teacher in teachers
        for objective in objectives
    ]
    return pd.concat(blocks, ignore_index=True)
