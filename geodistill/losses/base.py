"""The base class of feature losses.

Every loss is `loss(student, teacher, mask=None) -> scalar`. Leading dimensions are flattened to
rows, masked rows are dropped exactly. The losses of second moments (Procrustes, Gram, CKA,
spectrum, alignment) and `IsotropyLoss` are computed in float64, under autocast too, and returned in
at least float32: whatever the spectrum, they are within 1e-5 of the exact value and 1e-4 of the
norm of its gradient, as long as no singular value that counts is below 1e-8 of the largest. The
others are computed in at least float32, and in float64 where rows are tiny, huge or far from zero.
`torch.compile` sees each loss as one operator that runs this code.

A loss is a property of the rows it sees, so none is additive over micro-batches. Features whose
rows are all equal, such as one row, have no geometry: they count as zeros and get no gradient. Then
`CKALoss` is 1, and `ProcrustesLoss` 1, or 0 if both sides are constant. Losses of a nuclear norm or
of moment sums have no second derivative (RuntimeError).

In the formulas X (n, d_t) is the teacher and Y (n, d_s) the student, centred over the valid rows
and divided by their Frobenius norm, unless a loss says otherwise.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from geodistill.errors import InputError
from geodistill.geometry.moments import RowMoments, Scale, row_moments
from geodistill.geometry.outliers import dominance
from geodistill.geometry.validation import valid_rows
from geodistill.losses.compiled import Opaque, opaque

NAMES = ("teacher", "student")
_ONE_ROW = (
    "a batch of one row has no geometry, so that nothing is learned from it: expected more rows, "
    "by a larger batch (per_device_train_batch_size) or pooling='all', or decay=0.9 where the loss "
    "has it"
)


class FeatureLoss(Opaque, ABC):
    """Base class: a scalar of student and teacher rows, defined by `compare`.

    Attributes:
        requires_hidden_states: True, for trainers that supply features on demand.
        center: whether columns are centred.
        scale: how features are scaled.

    Example:
        >>> class MeanSquare(FeatureLoss):
        ...     def compare(self, m):
        ...         return (m.x - m.y).square().sum()
        >>> float(MeanSquare()(torch.eye(3), torch.eye(3)))
        0.0
    """

    requires_hidden_states = True
    center: bool = True
    scale: Scale = "frobenius"
    _calls, _next_check, _has_warned = 0, 1, False
    _has_teacher = True
    _relates_rows = False  # though without `center`

    @opaque
    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of a batch.

        Args:
            student: features (..., d_s).
            teacher: features (..., d_t) of the same rows.
            mask: rows that count (...), True or 1 = keep.

        Raises:
            InputError: features that do not pair, are not finite or have squares that overflow, or
                a mask that keeps no row.
        """
        x, y, _ = valid_rows(teacher, student, mask, NAMES)
        with torch.autocast(y.device.type, enabled=False):
            dtype = y.dtype
            x, y = self.prepare(x, y)
            one_row = len(y) == 1 and (self.center or self._relates_rows)
            self.warn_of_rows(lambda: [(x, y) if self._has_teacher else (y,)], one_row=one_row)
            value = self.compare(row_moments(x, y, center=self.center, scale=self.scale))
            return value.to(dtype)

    def warn_of_rows(
        self, chunks: Callable[[], Iterable[tuple[Tensor, ...]]], *, one_row: bool
    ) -> None:
        """Warn once of one row, or if few rows or one direction have almost all of the variance.

        Calls 1, 100, 10,000 and so on are examined, each at less than the cost of a call.

        Args:
            chunks: gives the rows (k, d_t) of the teacher and (k, d_s) of the student, in parts.
            one_row: whether the loss is of one row, though it compares rows with one another.
        """
        if self._has_warned:
            return
        self._calls += 1
        if self._calls < self._next_check:
            return
        self._next_check *= 100
        with torch.no_grad():
            message = _ONE_ROW if one_row else dominance(chunks())
        if message:
            self._has_warned = True
            warnings.warn(f"{type(self).__name__}: {message}", stacklevel=6)

    def prepare(self, teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
        """Transform the rows (n, d_t) and (n, d_s) before they are centred and scaled."""
        return teacher, student

    @abstractmethod
    def compare(self, m: RowMoments) -> Tensor:
        """The scalar, from features centred and scaled."""


def check_widths(student: Tensor, teacher: Tensor, expected: tuple[int, int]) -> None:
    """Raise InputError unless the widths (student, teacher) are the expected ones."""
    widths = (student.shape[-1], teacher.shape[-1])
    if widths != expected:
        raise InputError(f"widths (student, teacher) are {widths}: expected {expected}")


def check_module(value: object, name: str, example: str) -> None:
    """Raise InputError unless the argument `name` is a module (not a class or a number)."""
    if not isinstance(value, nn.Module):
        shown = repr(value).partition("\n")[0][:80]
        raise InputError(f"{name} is {shown}: expected a module, such as {example}")
