"""The geometry losses: Procrustes, feature Gram, CKA. No parameters, any widths."""

from __future__ import annotations

from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry.formulas import (
    cka_value,
    debiased_cka_value,
    gram_squared,
    procrustes_squared,
)
from geodistill.geometry.moments import AnyMoments
from geodistill.geometry.operators import safe_sqrt
from geodistill.losses.moment_loss import Group, MomentLoss


class ProcrustesLoss(MomentLoss):
    """D_P² = 2 − 2‖XᵀY‖_*, in [0, 2]; 0 exactly where XXᵀ = YYᵀ.

    The minimum over (semi-)orthogonal Q of ‖X − YQ‖_F² in closed form; for d_s > d_t the teacher is
    zero-padded to d_s. Unchanged when every row is repeated, and under rotation, scaling and shift
    of either side. Few rows fit by chance: independent features score 2 in the limit, but about 0.4
    at n = 32 and widths 384 and 128, and the gradient of a small batch follows that chance fit in
    part (chapter 2). Use more rows, or `decay=0.9`.

    Source: Bhattarai et al. (2025), arXiv 2509.25253; Schönemann (1966).

    Args:
        center: subtract the column means.
        scale: "frobenius" for unit norm, "rms" for a mean squared row norm of 1, or None.
        decay: of the moments of past batches, in (0, 1]; None for the batch alone.
        group: process group whose batches are joined.

    Raises:
        InputError: an unknown scale, or decay is out of its range.

    Example:
        >>> import torch
        >>> teacher = torch.eye(6)[:, :4]
        >>> f"{abs(ProcrustesLoss()(5 * teacher + 1, teacher)):.4f}"
        '0.0000'
    """

    products = ("xy",)

    def compare(self, m: AnyMoments) -> Tensor:
        return procrustes_squared(m)


class FeatureGramLoss(MomentLoss):
    """D_FG² = ‖XXᵀ − YYᵀ‖_F² = 1/PR_X + 1/PR_Y − 2 CKA/√(PR_X PR_Y), in [0, 2].

    CKA plus a match of effective rank: 0 exactly where XXᵀ = YYᵀ, but small if both ranks are
    large. Unchanged when every row is repeated. n rows have rank n − 1 at most, so 1/PR, and with
    it the loss and its gradient, is larger in a small batch than in the data.

    Source: Bhattarai et al. (2025), arXiv 2509.25253.

    Args:
        center: subtract the column means.
        scale: "frobenius" for unit norm, "rms" for a mean squared row norm of 1, or None.
        decay: of the moments of past batches, in (0, 1]; None for the batch alone.
        group: process group whose batches are joined.

    Raises:
        InputError: an unknown scale, or decay is out of its range.

    Example:
        >>> import torch
        >>> teacher = torch.eye(6)[:, :4]
        >>> f"{abs(FeatureGramLoss()(5 * teacher + 1, teacher)):.4f}"
        '0.0000'
    """

    def compare(self, m: AnyMoments) -> Tensor:
        return gram_squared(m)


class CKALoss(MomentLoss):
    """1 − CKA, in [0, 1], if debiased in [0, 2]; 0 where XXᵀ is a multiple of YYᵀ.

    Unchanged when every row is repeated, except in the debiased form, which counts rows. CKA of few
    rows is too high (independent features of widths 384 and 128 score 0.4 at n = 32); the debiased
    form corrects that, and so does `decay=0.9`, with less noise.

    Source: Kornblith et al. (2019); root: Dasgupta and Cohn (2025); debiased: Song et al. (2012).

    Args:
        root: use √CKA.
        debiased: use the unbiased estimate, for n ≥ 4; it takes neither `decay` nor `group`.
        decay: of the moments of past batches, in (0, 1]; None for the batch alone.
        group: process group whose batches are joined.

    Raises:
        InputError: options that exclude each other, or decay is out of its range.

    Example:
        >>> import torch
        >>> teacher = torch.eye(6)[:, :4]
        >>> f"{abs(CKALoss()(5 * teacher + 1, teacher)):.4f}"
        '0.0000'
    """

    def __init__(
        self,
        *,
        root: bool = False,
        debiased: bool = False,
        decay: float | None = None,
        group: Group = None,
    ) -> None:
        super().__init__(decay=decay, group=group)
        if root and debiased:
            raise InputError("root=True with debiased=True: the debiased estimate may be negative")
        if debiased and (decay is not None or group is not None):
            raise InputError(
                "debiased=True with decay or group: it needs each row, expected neither"
            )
        self.root, self.debiased = root, debiased
        self.needs_rows = debiased

    def compare(self, m: AnyMoments) -> Tensor:
        value = debiased_cka_value(m) if self.debiased else cka_value(m)
        return 1 - (safe_sqrt(value) if self.root else value)
