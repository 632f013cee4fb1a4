"""Losses between a student's and a teacher's hidden features, and their controls.

Every loss is `loss(student, teacher, mask=None) -> scalar`: student (..., d_s), teacher (..., d_t),
all leading dimensions are rows, mask (...) is True (or 1) where a row counts. Features are centred
over the rows that count and divided by their Frobenius norm (center=True, scale="frobenius"), the
computation is in at least float32, under autocast too. Below X is the teacher and Y the student
after that. Every loss raises InputError for features that do not pair, are not finite, or of which
the mask keeps no row. None adds up over micro-batches: each is a property of the rows it sees.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from geodistill.errors import InputError
from geodistill.geometry.inputs import kept_rows
from geodistill.geometry.measures import (
    cka_value,
    debiased_cka_value,
    gram_squared,
    procrustes_squared,
    spectra_overlap,
)
from geodistill.geometry.moments import SCALES, RowMoments, Scale, row_moments, safe_sqrt
from geodistill.geometry.nuclear import nuclear_norm

NAMES = ("teacher", "student")


class FeatureLoss(nn.Module):
    """A scalar of the two sets of rows; subclasses say which in `compare`."""

    requires_hidden_states = True
    center: bool = True
    scale: Scale = "frobenius"

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        with torch.autocast(student.device.type, enabled=False):
            x, y = self.prepare(*kept_rows(teacher, student, mask, NAMES))
            return self.compare(row_moments(x, y, center=self.center, scale=self.scale))

    def prepare(self, teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
        """What is done to the rows (n, d_t), (n, d_s) before they are centred and scaled."""
        return teacher, student

    def compare(self, m: RowMoments) -> Tensor:
        raise NotImplementedError


class ProcrustesLoss(FeatureLoss):
    """D_P² = 2 − 2‖XᵀY‖_*, in [0, 2]; 0 exactly where XXᵀ = YYᵀ.

    Masked rows are dropped exactly. Unchanged when every row is repeated, or under rotations,
    scalings and shifts of either side. No parameters: the best orthogonal map is in closed form.
    Few rows fit by chance: independent features score about 0.4, not 2, at n = 32, widths 384, 128.

    >>> ProcrustesLoss()(student, teacher, attention_mask)

    Source: Bhattarai et al. (2025), arXiv 2509.25253; Schönemann (1966).
    """

    def __init__(self, *, center: bool = True, scale: Scale = "frobenius") -> None:
        super().__init__()
        self.center, self.scale = center, _known(scale)

    def compare(self, m: RowMoments) -> Tensor:
        return procrustes_squared(m)


class FeatureGramLoss(FeatureLoss):
    """D_FG² = ‖XXᵀ − YYᵀ‖_F² = 1/PR_X + 1/PR_Y − 2 CKA/√(PR_X PR_Y), in [0, 2].

    CKA plus a match of effective rank. 0 exactly where XXᵀ = YYᵀ, but small wherever both ranks are
    large. Unchanged when every row is repeated. Source: Bhattarai et al. (2025), arXiv 2509.25253.
    """

    def __init__(self, *, center: bool = True, scale: Scale = "frobenius") -> None:
        super().__init__()
        self.center, self.scale = center, _known(scale)

    def compare(self, m: RowMoments) -> Tensor:
        return gram_squared(m)


class CKALoss(FeatureLoss):
    """1 − CKA, in [0, 1]; root=True takes √CKA, debiased=True the unbiased estimate (n ≥ 4).

    0 where XXᵀ is a multiple of YYᵀ. Unchanged when every row is repeated, except the debiased
    form, which counts the rows. Source: Kornblith et al. (2019); root: Dasgupta and Cohn (2025).
    """

    def __init__(self, *, root: bool = False, debiased: bool = False) -> None:
        super().__init__()
        if root and debiased:
            raise InputError("root=True with debiased=True: the debiased estimate may be negative")
        self.root, self.debiased = root, debiased

    def compare(self, m: RowMoments) -> Tensor:
        value = debiased_cka_value(m) if self.debiased else cka_value(m)
        return 1 - (safe_sqrt(value) if self.root else value)


class ProjectionLoss(FeatureLoss):
    """‖X − YW‖_F² with a learned W (d_s, d_t), student → teacher; the module's one parameter.

    Since X and Y have unit norm it is on the scale of `ProcrustesLoss`: W starts (semi-)orthogonal,
    where the loss is the ‖X − YW‖² that D_P² minimises over such W; at W = 0 it is 1, at the free
    optimum 1 − R². Any injective linear distortion of the teacher reaches 0.
    Source: Romero et al. (2015), FitNets; Sun et al. (2019).
    """

    def __init__(self, d_student: int, d_teacher: int) -> None:
        super().__init__()
        if min(d_student, d_teacher) < 1:
            raise InputError(
                f"d_student = {d_student}, d_teacher = {d_teacher}: expected widths of at least 1"
            )
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(d_student, d_teacher)))

    def prepare(self, teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
        given, expected = (student.shape[-1], teacher.shape[-1]), tuple(self.weight.shape)
        if given != expected:
            raise InputError(f"widths (student, teacher) are {given}: expected {expected}")
        return teacher, student

    def compare(self, m: RowMoments) -> Tensor:
        return (m.x - m.y @ self.weight.to(m.y.dtype)).square().sum()


class PCATargetLoss(FeatureLoss):
    """‖T − Y‖_F², T the teacher's top d_s principal scores, centred and of unit norm, in [0, 4].

    No parameters and no freedom to rotate: the student's coordinates are the components. Its zero
    is the best that `ProcrustesLoss` allows a student of this width (on the data that was fitted).
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
        if not 1 <= d_student <= x.shape[-1]:
            raise InputError(
                f"d_student is {d_student}: expected 1 to the teacher's width {x.shape[-1]}"
            )
        mean = x.mean(0)
        _, axes = torch.linalg.eigh((x - mean).mT @ (x - mean))
        return cls(axes.flip(1)[:, :d_student].float(), mean.float())

    def prepare(self, teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
        given, expected = (teacher.shape[-1], student.shape[-1]), tuple(self.components.shape)
        if given != expected:
            raise InputError(f"widths (teacher, student) are {given}: expected {expected}")
        dtype = teacher.dtype
        return (teacher - self.mean.to(dtype)) @ self.components.to(dtype), student

    def compare(self, m: RowMoments) -> Tensor:
        return (m.x - m.y).square().sum()


class SpectrumLoss(FeatureLoss):
    """Control: 2 − 2Σσ_i(X)σ_i(Y), the part of D_P² that knows nothing of which row is which."""

    def compare(self, m: RowMoments) -> Tensor:
        return m.size_x + m.size_y - 2 * spectra_overlap(m)


class IsotropyLoss(FeatureLoss):
    """Control: 2 − 2‖Y‖_*/√min(n, d_s), the student's distance from a flat spectrum; no teacher.

    Unchanged when every row is repeated as long as n ≥ d_s.
    """

    def compare(self, m: RowMoments) -> Tensor:
        return 2 - 2 * nuclear_norm(m.y) / math.sqrt(min(m.y.shape))


def _known(scale: Scale) -> Scale:
    if scale not in SCALES:
        raise InputError(f"scale is {scale!r}: expected one of {SCALES}")
    return scale


class ShuffledRows(nn.Module):
    """Placebo: `loss` with the teacher's rows in a random order, a new one each call.

    Only rows that count are shuffled, so the teacher's mean and spectrum stay. The order follows
    from `seed` and the number of calls, which is in the state dict: a resumed run goes on alike.
    """

    requires_hidden_states = True
    calls: Tensor

    def __init__(self, loss: nn.Module, seed: int = 0) -> None:
        super().__init__()
        self.loss, self.seed = loss, seed
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        x, y = kept_rows(teacher, student, mask, NAMES)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + int(self.calls))
        self.calls += 1
        order = torch.randperm(len(x), generator=generator).to(x.device)
        value: Tensor = self.loss(y, x[order])
        return value
