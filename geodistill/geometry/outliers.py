"""Rows and directions that dominate features, so that measures and losses see little else.

Decoders give their first tokens, and few others, hidden states of a hundred times the usual norm.
Measures of inner products then compare those rows alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from geodistill.geometry.moments import noise, standardised
from geodistill.geometry.operators import safe_divide
from geodistill.geometry.validation import valid_rows

OUTLIER_RATIO = 5.0
"""An outlier row is farther than this many median distances from the centre of the bulk."""
_FEW_ROWS, _MOST_OF_ROWS, _MOST_OF_DIRECTION = 0.25, 0.5, 0.9
_MIN_ROWS, _MIN_DIRECTIONS = 10, 8  # of fewer, one often dominates
_RECENTRINGS = 2  # one is enough for outliers that lie together
_POWER_STEPS = 4  # from a share of 0.9 on, the error is below (1/9)^8
REFERENCE_ROWS = 512
"""The first rows, whose bulk gives the centre where rows come in parts."""


@dataclass(frozen=True)
class Diagnosis:
    """What dominates one set of features; `str` gives it in words, with advice.

    Attributes:
        n: number of rows that count.
        width: d.
        participation_ratio: effective number of directions, 0 if all rows are equal.
        first_share: share of the variance along the first principal direction, in [0, 1].
        outliers: rows (...) farther than `OUTLIER_RATIO` medians from the centre of the bulk.
        outlier_share: their share of the squared distances from that centre, in [0, 1].

    Example:
        >>> features = torch.eye(20).repeat(2, 1)
        >>> features[7] *= 100
        >>> diagnosis = diagnose(features)
        >>> diagnosis.outliers.nonzero().tolist(), f"{diagnosis.first_share:.3f}"
        ([[7]], '0.996')
    """

    n: int
    width: int
    participation_ratio: float
    first_share: float
    outliers: Tensor
    outlier_share: float

    @property
    def rows_dominate(self) -> bool:
        """Whether at most a quarter of the rows has at least half of the squared distances."""
        return rows_dominate(self.n, int(self.outliers.sum()), self.outlier_share)

    @property
    def direction_dominates(self) -> bool:
        """Whether one direction, of at least 8 possible ones, has 90 % of the variance."""
        return direction_dominates(self.n, self.width, self.first_share)

    def __str__(self) -> str:
        advice = "Neither a few rows nor one direction dominates."
        if self.rows_dominate:
            advice = f"A few rows dominate: {_ROWS_ADVICE}."
        elif self.direction_dominates:
            advice = f"One direction dominates: {_DIRECTION_ADVICE}."
        lines = (
            f"{self.n} rows, {self.width} wide, participation ratio {self.participation_ratio:.1f}",
            f"first direction: {self.first_share:.1%} of the variance",
            f"outlier rows: {int(self.outliers.sum())}, with {self.outlier_share:.1%} of the "
            "squared distances from the centre",
            advice,
        )
        return "\n".join(lines)


_ROWS_ADVICE = (
    "compare without them, by mask=inlier_mask(teacher, student, mask) or drop_outliers=True"
)
_DIRECTION_ADVICE = (
    "project it out of both sides, or report mean_canonical_correlation, which gives all "
    "directions the same weight"
)


def diagnose(features: Tensor, mask: Tensor | None = None) -> Diagnosis:
    """Find rows and directions that dominate a set of features.

    A row is an outlier if its distance from the centre exceeds 5 times the median distance. The
    centre is the mean of the half of the rows that lies nearest to it (two steps from the mean of
    all). The rule is invariant to rotation, shift and scale, and works as long as fewer than half
    of the rows are outliers. Leverage needs no rule of its own: where a few rows make a direction
    dominate, their distances are large.

    Args:
        features: (..., d); leading dimensions are flattened to rows.
        mask: rows that count (...), True = keep.

    Raises:
        InputError: unusable features, or a mask that keeps no row.

    Example:
        >>> print(diagnose(torch.eye(12)))
        12 rows, 12 wide, participation ratio 11.0
        first direction: 9.1% of the variance
        outlier rows: 0, with 0.0% of the squared distances from the centre
        Neither a few rows nor one direction dominates.
    """
    rows, _, index = valid_rows(features, features, mask, ("features", "features"))
    rows = rows.detach().double()
    unit = standardised(rows, rows.new_tensor(len(rows)), center=True, scale="frobenius")
    gram = unit @ unit.mT if len(rows) < rows.shape[1] else unit.mT @ unit
    squares = float(gram.square().sum())
    far, share = _far_rows(rows)
    return Diagnosis(
        n=len(rows),
        width=rows.shape[1],
        participation_ratio=1 / squares if squares else 0.0,
        first_share=float(torch.linalg.eigvalsh(gram)[-1]) if squares else 0.0,
        outliers=_scatter(far, index, features),
        outlier_share=float(share),
    )


def inlier_mask(teacher: Tensor, student: Tensor, mask: Tensor | None = None) -> Tensor:
    """The rows to keep: those of `mask` that are outliers neither of teacher nor of student.

    The rule is that of `diagnose`. Both sides lose the same rows, so that they still pair. Nothing
    is random, and no gradient flows through the choice.

    Args:
        teacher: features (..., d_t).
        student: features (..., d_s) of the same rows.
        mask: rows that count (...), True = keep.

    Returns:
        Booleans (...), for `mask=` of the measures and losses.

    Raises:
        InputError: features that do not pair, or a mask that keeps no row.

    Example:
        >>> teacher = torch.eye(4).repeat(3, 1)
        >>> student = teacher.clone()
        >>> student[0] *= 50
        >>> inlier_mask(teacher, student).nonzero()[0].item()
        1
    """
    x, y, index = valid_rows(teacher, student, mask, ("teacher", "student"))
    far = _far_rows(x.detach())[0] | _far_rows(y.detach())[0]
    return _scatter(~far, index, student)


def dominance(chunks: Iterable[tuple[Tensor, ...]]) -> str | None:
    """What dominates the rows of a batch, in one clause; None if nothing does.

    As `diagnose`, but in one pass without a product: the centre, the median and the share of the
    first direction are those of the first 512 rows.

    Args:
        chunks: validated rows (k, d_t) of the teacher and (k, d_s) of the student, in parts; of the
            student alone, only its rows are examined, not its directions.
    """
    sides: list[_Side] = []
    for chunk in chunks:
        sides = sides or [_Side(rows[:REFERENCE_ROWS]) for rows in chunk]
        for side, rows in zip(sides, chunk, strict=True):
            side.add(rows)
    for name, side in zip(("teacher", "student")[-len(sides) :], sides, strict=True):
        n, count, share, first = side.summary()
        if rows_dominate(n, count, share):
            return (
                f"{count} of {n} rows of the {name} have {share:.1%} of the squared distances "
                f"from the centre, so that little else is compared: {_ROWS_ADVICE}"
            )
        width = side.reference.shape[1]
        if len(sides) == 2 and direction_dominates(len(side.reference), width, first):
            return (
                f"one direction of the {name} has {first:.1%} of the variance of {n} rows, so "
                f"that little else is compared: {_DIRECTION_ADVICE}"
            )
    return None


class _Side:
    """Sums over the rows of teacher or student, and what the first of them give."""

    def __init__(self, reference: Tensor) -> None:
        self.reference = reference
        self._center = bulk_center(reference)
        squares = (reference - self._center).square().sum(1)
        self._threshold = _threshold(squares)
        self._n, self._sums = 0, squares.new_zeros(3)

    def add(self, rows: Tensor) -> None:
        squares = (rows - self._center).square().sum(1)
        far = squares > self._threshold
        self._n += len(rows)
        self._sums += torch.stack([far.sum(), torch.where(far, squares, 0).sum(), squares.sum()])

    def summary(self) -> tuple[int, int, float, float]:
        """Number of rows and of outliers, their share, and the share of the first direction."""
        count, outer, total, first = [*self._sums.tolist(), float(_first_share(self.reference))]
        return self._n, int(count), outer / total if total else 0.0, first


def squared_distance_outliers(squares: Tensor) -> Tensor:
    """Which rows are outliers, from squared distances (n, ...) from the centre of the bulk."""
    return squares > _threshold(squares)


def _threshold(squares: Tensor) -> Tensor:
    """The squared distance above which a row is an outlier."""
    median = squares.median(0).values
    # With at least half of the rows equal, their distances are rounding noise and no scale.
    resolved = median > noise(squares.amax(0))
    return torch.where(resolved, OUTLIER_RATIO**2 * median, torch.inf)


def bulk_center(rows: Tensor) -> Tensor:
    """The mean (d,) of the half of the rows (n, d) that lies nearest to it."""
    center = rows.mean(0)
    for _ in range(_RECENTRINGS):
        squares = (rows - center).square().sum(1)
        nearest = squares <= squares.median()
        center = torch.where(nearest[:, None], rows, 0).sum(0) / nearest.sum()
    return center


def _scatter(flags: Tensor, index: Tensor | None, features: Tensor) -> Tensor:
    """Booleans of the rows that count as booleans (...) of all rows."""
    shape = features.shape[:-1]
    if index is None:
        return flags.reshape(shape)
    flat = torch.zeros(shape.numel(), dtype=torch.bool, device=features.device)
    flat[index] = flags
    return flat.reshape(shape)


def _far_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Which rows (n, d) are outliers, and their share of the squared distances."""
    largest = rows.abs().amax()
    rows = rows / torch.where(largest > 0, largest, 1)  # squares of tiny values would underflow
    squares = (rows - bulk_center(rows)).square().sum(1)
    far = squared_distance_outliers(squares)
    return far, safe_divide(torch.where(far, squares, 0).sum(), squares.sum())


def _first_share(rows: Tensor) -> Tensor:
    """Share of the first principal direction, from below, by the power method."""
    unit = standardised(rows, rows.new_tensor(len(rows)), center=True, scale="frobenius")
    squares = unit.square().sum(1)
    direction = unit[squares.argmax()]
    for _ in range(_POWER_STEPS):
        direction = direction / torch.linalg.vector_norm(direction).clamp_min(1e-30)
        direction = unit.mT @ (unit @ direction)
    share: Tensor = torch.linalg.vector_norm(direction)
    return share


def rows_dominate(n: int, count: int, share: float) -> bool:
    """Whether `count` of n rows are few and have most of the squared distances (`share`)."""
    return n >= _MIN_ROWS and count <= _FEW_ROWS * n and share >= _MOST_OF_ROWS


def direction_dominates(n: int, width: int, first_share: float) -> bool:
    """Whether one direction of many has almost all variance (`first_share`)."""
    return min(n - 1, width) >= _MIN_DIRECTIONS and first_share >= _MOST_OF_DIRECTION
