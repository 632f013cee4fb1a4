"""What every feature loss shares: one signature, one door for rows, masks and dtypes.

Every loss is `loss(student, teacher, mask=None) -> scalar`: student (..., d_s), teacher (..., d_t),
all leading dimensions are rows, mask (...) is True (or 1) where a row counts; the others are
dropped exactly, whatever they hold. The computation is in at least float32, under autocast too.
There the geometry losses are within 1e-5 of float64's value, and within 1e-4 of its gradient's norm
(2e-3 for `SpectrumLoss`, and for `IsotropyLoss` of rows ten deviations off the origin).
Every loss raises InputError for features that do not pair, are not finite, have squares that
overflow, or of which the mask keeps no row. None adds up over micro-batches: each is a property of
the rows it sees. A side whose rows are all equal, as one row alone is, has no geometry: they count
as zeros and get no gradient. There `CKALoss` is 1, and `ProcrustesLoss` 1, or 0 if both sides are
such. None has a second derivative (RuntimeError) where it rests on a nuclear norm or on sums.

In the formulas X (n, d_t) is the teacher and Y (n, d_s) the student, centred over the rows that
count and divided by their Frobenius norm, unless a loss says otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from geodistill.errors import InputError
from geodistill.geometry.moments import SCALES, RowMoments, Scale, row_moments
from geodistill.geometry.validation import kept_rows

NAMES = ("teacher", "student")


class FeatureLoss(nn.Module, ABC):
    """A scalar of the two sets of rows; subclasses say which in `compare`."""

    requires_hidden_states = True
    center: bool = True
    scale: Scale = "frobenius"

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        x, y = kept_rows(teacher, student, mask, NAMES)
        with torch.autocast(y.device.type, enabled=False):
            x, y = self.prepare(x, y)
            return self.compare(row_moments(x, y, center=self.center, scale=self.scale))

    def prepare(self, teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
        """What is done to the rows (n, d_t), (n, d_s) before they are centred and scaled."""
        return teacher, student

    @abstractmethod
    def compare(self, m: RowMoments) -> Tensor:
        """The scalar, from features centred and scaled."""


def known_scale(scale: Scale) -> Scale:
    """The scale; raises InputError for any other than None, "frobenius" and "rms"."""
    if scale not in SCALES:
        raise InputError(f"scale is {scale!r}: expected one of {SCALES}")
    return scale


def check_widths(student: Tensor, teacher: Tensor, expected: tuple[int, int]) -> None:
    """Raise InputError unless the widths (student, teacher) are those the loss was made for."""
    given = (student.shape[-1], teacher.shape[-1])
    if given != expected:
        raise InputError(f"widths (student, teacher) are {given}: expected {expected}")


def check_module(given: object, name: str, example: str) -> None:
    """Raise InputError unless the argument `name` is a module; a class or a number is none."""
    if not isinstance(given, nn.Module):
        said = repr(given).partition("\n")[0][:80]
        raise InputError(f"{name} is {said}: expected a module, such as {example}")
