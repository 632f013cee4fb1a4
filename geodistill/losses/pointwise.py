"""Losses that compare coordinate by coordinate, so that the student cannot rotate freely."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geodistill.errors import InputError
from geodistill.geometry.moments import RowMoments, standardised
from geodistill.geometry.validation import valid_rows
from geodistill.losses.base import FeatureLoss, check_module, check_widths


class PCATargetLoss(FeatureLoss):
    """‖T − Y‖_F², in [0, 4]; T are the teacher's top d_s principal scores, of unit norm.

    No parameters, and no freedom to rotate: the student's coordinates are the components. Its zero
    is the minimum of `ProcrustesLoss` for a student of this width, on the fitted data. Unchanged
    when every row is repeated. The mean is subtracted first, so a large offset costs no precision.

    Args:
        components: principal axes (d_t, d_s), a buffer.
        mean: of the teacher (d_t,), a buffer.

    Raises:
        InputError: shapes that do not fit.

    Example:
        >>> teacher = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
        >>> loss = PCATargetLoss.fit(teacher, d_student=2)
        >>> f"{loss((teacher - loss.mean) @ loss.components, teacher):.4f}"
        '0.0000'
    """

    components: Tensor
    mean: Tensor

    def __init__(self, components: Tensor, mean: Tensor) -> None:
        super().__init__()
        if components.ndim != 2 or mean.shape != components.shape[:1]:
            raise InputError(
                f"components {tuple(components.shape)}, mean {tuple(mean.shape)}: "
                "expected (d_teacher, d_student) and (d_teacher,)"
            )
        self.register_buffer("components", components)
        self.register_buffer("mean", mean)

    @classmethod
    def fit(
        cls, teacher_features: Tensor, d_student: int, mask: Tensor | None = None
    ) -> PCATargetLoss:
        """Principal components of the teacher.

        Args:
            teacher_features: (..., d_t); leading dimensions are flattened to rows.
            d_student: number of components, 1 to d_t.
            mask: rows that count (...), True = keep.

        Raises:
            InputError: unusable features or width.
        """
        name = "teacher_features"
        x, *_ = valid_rows(teacher_features, teacher_features, mask, (name, name))
        x = x.double()
        _check_student_width(d_student, x)
        mean = x.mean(0)
        _, axes = torch.linalg.eigh((x - mean).mT @ (x - mean))
        return cls(axes.flip(1)[:, :d_student].float(), mean.float())

    def prepare(self, teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
        d_teacher, d_student = self.components.shape
        check_widths(student, teacher, (d_student, d_teacher))
        dtype = teacher.dtype
        return (teacher - self.mean.to(dtype)) @ self.components.to(dtype), student

    def compare(self, m: RowMoments) -> Tensor:
        return (m.x - m.y).square().sum()


class CosineLoss(FeatureLoss):
    """Mean over rows of 1 − cos(x_i, y_i), in [0, 2], of raw rows: neither centred nor scaled.

    Invariant to the length of each row; a zero row counts as cosine 0. Unchanged when every row is
    repeated. Source: Sanh et al. (2019), DistilBERT.

    Args:
        projection: module that maps the student's rows to the teacher's width, in the precision of
            its parameters, which are learned with the student; None for features of one width.

    Raises:
        InputError: projection is not a module.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> CosineLoss()(3 * x, x), CosineLoss()(x.flip(0), x)
        (tensor(0.), tensor(1.))
    """

    center = False
    scale = None

    def __init__(self, projection: nn.Module | None = None) -> None:
        super().__init__()
        if projection is not None:
            check_module(projection, "projection", "nn.Linear(d_student, d_teacher), or None")
        self.projection = projection

    def prepare(self, teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
        expected = getattr(self.projection, "in_features", student.shape[-1])
        if expected != student.shape[-1]:
            raise InputError(
                f"student has width {student.shape[-1]}: expected {expected}, as projection does"
            )
        projected = student if self.projection is None else _project(self.projection, student)
        if projected.shape != teacher.shape:
            after = "" if self.projection is None else " after the projection"
            raise InputError(
                f"student has width {projected.shape[-1]}{after} and teacher {teacher.shape[-1]}: "
                "expected one width (projection= maps the student's)"
            )
        return _unit_rows(teacher), _unit_rows(projected)

    def compare(self, m: RowMoments) -> Tensor:
        return 1 - (m.x * m.y).sum(-1).mean()


class PatientLoss(CosineLoss):
    """Mean over rows of ‖x_i/‖x_i‖ − y_i/‖y_i‖‖², in [0, 4]: twice `CosineLoss`.

    The paper takes the first token of several layers: one feature term per layer, of first tokens.
    Source: Sun et al. (2019), PKD, arXiv 1908.09355, the patient loss.

    Args:
        projection: module that maps the student's rows to the teacher's width, in the precision of
            its parameters, which are learned with the student; None for features of one width.

    Raises:
        InputError: projection is not a module.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> PatientLoss()(x.flip(0), x)
        tensor(2.)
    """

    def compare(self, m: RowMoments) -> Tensor:
        return (m.x - m.y).square().sum(-1).mean()


class FlexLoss(FeatureLoss):
    """1 − mean correlation of student units with selected teacher units, in [0, 2].

    No parameters; invariant to shift and scale of each unit, not to rotation. A constant unit has
    correlation 0. Unchanged when every row is repeated.

    Source: Saadi and Wang (2025), Flex-KD, arXiv 2507.10155: as many teacher units as the student
    has are selected by gradient scores and matched by a correlation loss without a projector. We
    have not verified how the paper aggregates scores, orders units and shapes the correlation: here
    the score is the mean `|gradient|` over rows, units are in the teacher's order, and the loss is
    the mean of 1 − correlation.

    Args:
        units: index of the teacher unit for each student unit (d_s,), torch.long, a buffer.

    Raises:
        InputError: units is not a vector of indices.

    Example:
        >>> x = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
        >>> f"{abs(FlexLoss(torch.tensor([4, 1]))(2 * x[:, [4, 1]] + 1, x)):.4f}"
        '0.0000'
    """

    center = False
    scale = None
    _relates_rows = True
    units: Tensor

    def __init__(self, units: Tensor) -> None:
        super().__init__()
        if not isinstance(units, Tensor):
            raise InputError(
                f"units is {units!r}: expected a torch.Tensor of indices (d_student,), as by "
                "FlexLoss.fit(gradients, d_student)"
            )
        if units.ndim != 1 or units.dtype != torch.long or not len(units):
            raise InputError(
                f"units has shape {tuple(units.shape)} and dtype {units.dtype}: "
                "expected indices (d_student,) of torch.long"
            )
        if units.min() < 0:
            raise InputError(f"units holds {int(units.min())}: expected indices from 0 on")
        self.register_buffer("units", units)

    @classmethod
    def fit(cls, gradients: Tensor, d_student: int, mask: Tensor | None = None) -> FlexLoss:
        """Select the units with the largest mean `|gradient|`.

        Args:
            gradients: of the teacher's output or loss at its features (..., d_t).
            d_student: number of units, 1 to d_t.
            mask: rows that count (...), True = keep.

        Raises:
            InputError: unusable gradients or width.
        """
        rows, *_ = valid_rows(gradients, gradients, mask, ("gradients", "gradients"))
        _check_student_width(d_student, rows)
        return cls(rows.abs().mean(0).topk(d_student).indices.sort().values)

    def prepare(self, teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
        if student.shape[-1] != len(self.units) or teacher.shape[-1] <= int(self.units.max()):
            raise InputError(
                f"widths (student, teacher) are {(student.shape[-1], teacher.shape[-1])}: expected "
                f"{len(self.units)} and more than {int(self.units.max())}"
            )
        return _standard_columns(teacher[:, self.units]), _standard_columns(student)

    def compare(self, m: RowMoments) -> Tensor:
        return 1 - (m.x * m.y).sum(-2).mean()


def _check_student_width(d_student: int, teacher: Tensor) -> None:
    if not 1 <= d_student <= teacher.shape[-1]:
        raise InputError(
            f"d_student is {d_student}: expected 1 to the teacher's width {teacher.shape[-1]}"
        )


def _project(projection: nn.Module, rows: Tensor) -> Tensor:
    """Apply the projection in the precision of its parameters, if it has any."""
    parameter = next(projection.parameters(), rows)
    try:
        projected: Tensor = projection(rows.to(parameter.dtype))
    except RuntimeError as error:
        raise InputError(
            f"projection cannot map the student's rows of width {rows.shape[-1]} ({error}): "
            "expected a module for this width"
        ) from error
    return projected.to(rows.dtype)


def _unit_rows(x: Tensor) -> Tensor:
    """Rows of norm 1; a zero row stays zero, with gradient zero."""
    return standardised(x[:, None], x.new_ones(len(x)), center=False, scale="frobenius")[:, 0]


def _standard_columns(x: Tensor) -> Tensor:
    """Columns centred and of norm 1: the product of two of them is their correlation."""
    n = x.new_full(x.shape[1:], len(x))
    return standardised(x.mT[..., None], n, center=True, scale="frobenius")[..., 0].mT
