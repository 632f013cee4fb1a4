"""Control losses: effects of a geometry loss other than matching the teacher's geometry."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from geodistill.geometry.formulas import nuclear_overlap, spectra_overlap
from geodistill.geometry.moments import AnyMoments, RowMoments
from geodistill.geometry.nuclear import nuclear_norm
from geodistill.geometry.validation import valid_rows, widest_dtype
from geodistill.losses.base import NAMES, FeatureLoss, check_module
from geodistill.losses.compiled import Opaque, opaque
from geodistill.losses.moment_loss import Group, MomentLoss


class SpectrumLoss(MomentLoss):
    """2 − 2Σσ_i(X)σ_i(Y), in [0, 2]: the part of D_P² that is invariant to row permutation.

    Unchanged when every row is repeated. Source: von Neumann's trace inequality; chapter 1,
    "Procrustes has two parts".

    Args:
        decay: of the moments of past batches, in (0, 1]; None for the batch alone.
        group: process group whose batches are joined.

    Raises:
        InputError: decay is out of its range.

    Example:
        >>> x = torch.eye(5)[:, :3]
        >>> f"{abs(SpectrumLoss()(x.flip(0), x)):.4f}"
        '0.0000'
    """

    products = ("xx", "yy")

    def __init__(self, *, decay: float | None = None, group: Group = None) -> None:
        super().__init__(decay=decay, group=group)

    def compare(self, m: AnyMoments) -> Tensor:
        return m.size_x + m.size_y - 2 * spectra_overlap(m)


class AlignmentLoss(MomentLoss):
    """2(Σσ_i(X)σ_i(Y) − ‖XᵀY‖_*), in [0, 2]: the part of D_P² that depends on which row is which.

    The rest of D_P² is `SpectrumLoss`. 0 where the principal directions of both sides agree on all
    rows, whatever their variances; unchanged when every row is repeated. Source: von Neumann's
    trace inequality; chapter 1, "Procrustes has two parts".

    Args:
        decay: of the moments of past batches, in (0, 1]; None for the batch alone.
        group: process group whose batches are joined.

    Raises:
        InputError: decay is out of its range.

    Example:
        >>> x = torch.eye(5)[:, :3]
        >>> stretched = x * torch.tensor([3.0, 2.0, 1.0])
        >>> loss = AlignmentLoss()(x.flip(0), stretched)
        >>> f"{abs(AlignmentLoss()(x @ torch.eye(3).flip(0), x)):.4f} {float(loss) > 0.1}"
        '0.0000 True'
    """

    def __init__(self, *, decay: float | None = None, group: Group = None) -> None:
        super().__init__(decay=decay, group=group)

    def compare(self, m: AnyMoments) -> Tensor:
        return 2 * (spectra_overlap(m) - nuclear_overlap(m))


class IsotropyLoss(FeatureLoss):
    """2 − 2‖Y‖_*/√min(n, d_s), in [0, 2]: distance from a flat spectrum, without a teacher.

    Unchanged when every row is repeated, as long as n ≥ d_s.

    Example:
        >>> student = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> f"{abs(IsotropyLoss()(student, student)):.4f}"
        '0.0000'
    """

    _has_teacher = False

    def prepare(self, teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
        dtype = widest_dtype(student.device)
        return teacher.to(dtype), student.to(dtype)

    def compare(self, m: RowMoments) -> Tensor:
        return 2 - 2 * nuclear_norm(m.y) / math.sqrt(min(m.y.shape))


class ShuffledRows(Opaque):
    """Placebo: a loss with the teacher's valid rows in a new random order at each call.

    Mean and spectrum of the teacher stay. The expected Procrustes loss is at least
    2 − 2‖Y‖_*/√(n − 1), which does not depend on the teacher: a pull towards a flat spectrum, as in
    `IsotropyLoss` (chapter 1). Orders depend on `seed` and the number of calls, which is part of
    the state dict, so a resumed run continues the sequence.

    Args:
        loss: called as `loss(student, teacher)`.
        seed: of the orders.

    Raises:
        InputError: loss is not a module.

    Example:
        >>> loss = ShuffledRows(SpectrumLoss(), seed=0)
        >>> f"{abs(loss(torch.eye(4), torch.eye(4))):.4f}"
        '0.0000'
    """

    requires_hidden_states = True
    calls: Tensor

    def __init__(self, loss: nn.Module, seed: int = 0) -> None:
        super().__init__()
        check_module(loss, "loss", "ProcrustesLoss()")
        self.loss, self.seed = loss, seed
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    @opaque
    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of student (..., d_s) and shuffled teacher (..., d_t) rows, mask (...)."""
        x, y, _ = valid_rows(teacher, student, mask, NAMES)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + int(self.calls))
        self.calls += 1
        order = torch.randperm(len(x), generator=generator).to(x.device)
        value: Tensor = self.loss(y, x[order])
        return value
