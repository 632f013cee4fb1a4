"""Losses that compare coordinate with coordinate: the student may not rotate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geodistill.errors import InputError
from geodistill.geometry.moments import RowMoments, standardised
from geodistill.geometry.validation import kept_rows
from geodistill.losses.base import FeatureLoss, check_module, check_widths


class PCATargetLoss(FeatureLoss):
    """‖T − Y‖_F², T the teacher's top d_s principal scores, centred and of unit norm, in [0, 4].

    Inputs: student (..., d_s), teacher (..., d_t). Masking: rows are dropped exactly.
    Properties: no parameters and no freedom to rotate: the student's coordinates are the
    components. Its zero is the best that `ProcrustesLoss` allows a student of this width (on the
    data that was fitted). Unchanged when every row is repeated.
    `components` (d_t, d_s) and `mean` (d_t,) are buffers; the mean is taken off first so that a
    large offset costs no precision.
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
        """Components of teacher features (..., d_t), all leading dimensions rows."""
        name = "teacher_features"
        x, _ = kept_rows(teacher_features, teacher_features, mask, (name, name))
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

    Inputs: student and teacher (..., d) of one width; or `projection`, a module that maps the
    student's rows to the teacher's width in float32, such as `nn.Linear(d_s, d_t)`, whose
    parameters are learned along. Masking: rows are dropped exactly. A zero row counts as cosine 0.
    Properties: blind to the length of each row. Unchanged when every row is repeated.

    Source: Sanh et al. (2019), DistilBERT.
    """

    center = False
    scale = None

    def __init__(self, projection: nn.Module | None = None) -> None:
        super().__init__()
        if projection is not None:
            check_module(projection, "projection", "nn.Linear(d_student, d_teacher), or None")
        self.projection = projection

    def prepare(self, teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
        taken = getattr(self.projection, "in_features", student.shape[-1])
        if taken != student.shape[-1]:
            raise InputError(
                f"student has width {student.shape[-1]}: expected {taken}, which projection takes"
            )
        mapped = student if self.projection is None else _mapped(self.projection, student)
        if mapped.shape != teacher.shape:
            after = "" if self.projection is None else " after the projection"
            raise InputError(
                f"student has width {mapped.shape[-1]}{after} and teacher {teacher.shape[-1]}: "
                "expected one width (projection= maps the student's)"
            )
        return _unit_rows(teacher), _unit_rows(mapped)

    def compare(self, m: RowMoments) -> Tensor:
        return 1 - (m.x * m.y).sum(-1).mean()


class PatientLoss(CosineLoss):
    """Mean over rows of ‖x_i/‖x_i‖ − y_i/‖y_i‖‖², in [0, 4]: twice `CosineLoss`.

    Inputs, `projection`, masking, properties: as `CosineLoss`. The paper takes the first token of
    several layers: one feature term a layer with rows="first".

    Source: Sun et al. (2019), PKD, arXiv 1908.09355, the patient loss.
    """

    def compare(self, m: RowMoments) -> Tensor:
        return (m.x - m.y).square().sum(-1).mean()


class FlexLoss(FeatureLoss):
    """1 − the mean over student units of their correlation with a chosen teacher unit, in [0, 2].

    Inputs: student (..., d_s), teacher (..., d_t); `units` (d_s,), a buffer, names the teacher unit
    of each student unit. Masking: rows are dropped exactly. A unit that does not vary correlates 0.
    Properties: no parameters; blind to shift and scale of each unit, not to rotation. Unchanged
    when every row is repeated.

    Source: Saadi and Wang (2025), Flex-KD, arXiv 2507.10155: the teacher's units are chosen by
    gradient-based scores, as many as the student has, and matched by a correlation loss, with no
    projector. How the paper sums up scores, orders units and shapes the correlation we have not
    verified: here the score is the mean |gradient| over rows, units are in the teacher's order, and
    the loss is the plain mean of 1 − correlation.
    """

    center = False
    scale = None
    units: Tensor

    def __init__(self, units: Tensor) -> None:
        super().__init__()
        if units.ndim != 1 or units.dtype != torch.long or not len(units):
            raise InputError(
                f"units has shape {tuple(units.shape)} and dtype {units.dtype}: "
                "expected indices (d_student,) of torch.long"
            )
        self.register_buffer("units", units)

    @classmethod
    def fit(cls, gradients: Tensor, d_student: int, mask: Tensor | None = None) -> FlexLoss:
        """Units with the largest mean |gradient|.

        `gradients` (..., d_t) are those of the teacher's output or loss at its features.
        """
        rows, _ = kept_rows(gradients, gradients, mask, ("gradients", "gradients"))
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


def _mapped(projection: nn.Module, rows: Tensor) -> Tensor:
    """In the precision of the projection's parameters, if it has some."""
    own = next(projection.parameters(), rows)
    mapped: Tensor = projection(rows.to(own.dtype))
    return mapped.to(rows.dtype)


def _unit_rows(x: Tensor) -> Tensor:
    """Each row a matrix of its own, of norm 1; a zero row stays zero, with gradient zero."""
    return standardised(x[:, None], x.new_ones(len(x)), center=False, scale="frobenius")[:, 0]


def _standard_columns(x: Tensor) -> Tensor:
    """Each column centred and of norm 1, so that a product of two columns is a correlation."""
    n = x.new_full(x.shape[1:], len(x))
    return standardised(x.mT[..., None], n, center=True, scale="frobenius")[..., 0].mT
