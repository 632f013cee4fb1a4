"""The geometry losses: Procrustes, feature Gram, CKA. No parameters, any widths."""

from __future__ import annotations

from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry.measures import (
    cka_value,
    debiased_cka_value,
    gram_squared,
    procrustes_squared,
)
from geodistill.geometry.moments import AnyMoments, safe_sqrt
from geodistill.losses.moment_loss import Group, MomentLoss


class ProcrustesLoss(MomentLoss):
    """D_P² = 2 − 2‖XᵀY‖_*, in [0, 2]; 0 exactly where XXᵀ = YYᵀ.

    Formula: min over (semi-)orthogonal Q of ‖X − YQ‖_F², the best Q in closed form; for d_s > d_t
    the teacher counts as padded with zeros to d_s.
    Inputs: student (..., d_s), teacher (..., d_t); `center`, `scale` as the measures have them,
    `memory`, `group` as in `MomentLoss`.
    Masking: rows are dropped exactly.
    Properties: unchanged when every row is repeated, and under rotations, scalings and shifts of
    either side.
    Finite samples: few rows fit by chance, so the loss of a batch lies below that of the data:
    independent features score 2 in the limit, but about 0.4 at n = 32, widths 384 and 128. The
    gradient of a small batch points, in part, at that chance. Chapter 2 draws the curve; use more
    rows, or `memory`.

    >>> ProcrustesLoss()(student, teacher, attention_mask)

    Source: Bhattarai et al. (2025), arXiv 2509.25253; Schönemann (1966).
    """

    products = ("xy",)

    def compare(self, m: AnyMoments) -> Tensor:
        return procrustes_squared(m)


class FeatureGramLoss(MomentLoss):
    """D_FG² = ‖XXᵀ − YYᵀ‖_F² = 1/PR_X + 1/PR_Y − 2 CKA/√(PR_X PR_Y), in [0, 2].

    Inputs, masking: as `ProcrustesLoss`.
    Properties: CKA plus a match of effective rank. 0 exactly where XXᵀ = YYᵀ, but small wherever
    both ranks are large. Unchanged when every row is repeated.
    Finite samples: n rows have at most rank n − 1, so 1/PR, and with it the loss and its gradient,
    is larger in a small batch than in the data.

    Source: Bhattarai et al. (2025), arXiv 2509.25253.
    """

    def compare(self, m: AnyMoments) -> Tensor:
        return gram_squared(m)


class CKALoss(MomentLoss):
    """1 − CKA, in [0, 1]; root=True takes √CKA, debiased=True the unbiased estimate (n ≥ 4).

    Inputs, masking: as `ProcrustesLoss`; the debiased form needs the rows and takes neither
    `memory` nor `group`.
    Properties: 0 where XXᵀ is a multiple of YYᵀ. Unchanged when every row is repeated, except the
    debiased form, which counts the rows.
    Finite samples: CKA of few rows is too high (independent features of widths 384 and 128 score
    0.4 at n = 32); the debiased form removes that.

    Source: Kornblith et al. (2019); root: Dasgupta and Cohn (2025); debiased: Song et al. (2012).
    """

    def __init__(
        self,
        *,
        root: bool = False,
        debiased: bool = False,
        memory: float | None = None,
        group: Group = None,
    ) -> None:
        super().__init__(memory=memory, group=group)
        if root and debiased:
            raise InputError("root=True with debiased=True: the debiased estimate may be negative")
        if debiased and (memory is not None or group is not None):
            raise InputError(
                "debiased=True with memory or group: it needs each row, expected neither"
            )
        self.root, self.debiased = root, debiased
        self.needs_rows = debiased

    def compare(self, m: AnyMoments) -> Tensor:
        value = debiased_cka_value(m) if self.debiased else cka_value(m)
        return 1 - (safe_sqrt(value) if self.root else value)
