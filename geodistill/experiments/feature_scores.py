"""The geometry scores that every study reports: 0 at chance level, 1 at a student's best."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from geodistill.geometry import cka, feature_gram_distance, procrustes_distance
from geodistill.geometry.normalized_score import ScoreRange, score_range

SCORED_MEASURES: dict[str, Callable[..., Tensor]] = {
    "procrustes": procrustes_distance,
    "gram": feature_gram_distance,
    "cka": cka,
}


def score_ranges(teacher: Tensor, d_student: int) -> dict[str, ScoreRange]:
    """Chance level and ceiling of each measure, the same for all students of a width.

    Args:
        teacher: features (n, d_teacher).
        d_student: width of the students.
    """
    return {name: score_range(f, teacher, d_student) for name, f in SCORED_MEASURES.items()}


def normalized_scores(ranges: dict[str, ScoreRange], student: Tensor) -> dict[str, float]:
    """`geometry_kept/<name>` by each range, but for a student whose rows are all equal.

    Args:
        ranges: by name.
        student: features (n, d_student) of the rows that the ranges were measured on.
    """
    scores = {f"geometry_kept/{name}": range_.normalize(student) for name, range_ in ranges.items()}
    return {name: value for name, value in scores.items() if not math.isnan(value)}
