"""Controls: what a geometry loss does besides the teacher's geometry."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from geodistill.geometry.measures import spectra_overlap
from geodistill.geometry.moments import AnyMoments, RowMoments
from geodistill.geometry.nuclear_norm import nuclear_norm
from geodistill.geometry.validation import kept_rows
from geodistill.losses.base import NAMES, FeatureLoss, check_module
from geodistill.losses.moment_loss import Group, MomentLoss


class SpectrumLoss(MomentLoss):
    """2 − 2Σσ_i(X)σ_i(Y), in [0, 2]: the part of D_P² that is blind to which row is which.

    Inputs, masking: as `ProcrustesLoss`. Unchanged when every row is repeated, and when the
    teacher's rows are shuffled. Source: von Neumann's trace inequality; see the theory chapter.
    """

    products = ("xx", "yy")

    def __init__(self, *, memory: float | None = None, group: Group = None) -> None:
        super().__init__(memory=memory, group=group)

    def compare(self, m: AnyMoments) -> Tensor:
        return m.size_x + m.size_y - 2 * spectra_overlap(m)


class IsotropyLoss(FeatureLoss):
    """2 − 2‖Y‖_*/√min(n, d_s), the student's distance from a flat spectrum; no teacher.

    In [0, 2]; masked rows are dropped exactly. Unchanged when every row is repeated as long as
    n ≥ d_s.
    """

    def compare(self, m: RowMoments) -> Tensor:
        return 2 - 2 * nuclear_norm(m.y) / math.sqrt(min(m.y.shape))


class ShuffledRows(nn.Module):
    """Placebo: `loss` with the teacher's rows in a random order, a new one each call.

    Only rows that count are shuffled, so the teacher's mean and spectrum stay. Over a Procrustes
    loss it is on average at least 2 − 2‖Y‖_*/√(n − 1), where the teacher does not occur: a pull
    towards a flat spectrum, as `IsotropyLoss` is (theory chapter). The order follows from `seed`
    and the number of calls, which is in the state dict: a resumed run goes on alike.
    """

    requires_hidden_states = True
    calls: Tensor

    def __init__(self, loss: nn.Module, seed: int = 0) -> None:
        super().__init__()
        check_module(loss, "loss", "ProcrustesLoss()")
        self.loss, self.seed = loss, seed
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        x, y = kept_rows(teacher, student, mask, NAMES)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + int(self.calls))
        self.calls += 1
        order = torch.randperm(len(x), generator=generator).to(x.device)
        value: Tensor = self.loss(y, x[order])
        return value
