"""Distances and similarities between two representations of the same examples.

They take features x (..., n, d_x) and y (..., n, d_y), or a `SecondMoments` in place of both, and
return float64 values of shape (...). As in the paper, x is the teacher and y the student.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry.formulas import (
    Direction,
    canonical_correlations,
    cka_value,
    debiased_cka_value,
    explained_share,
    fidelity,
    fitted_moments,
    gram_squared,
    moments_for_fits,
    nuclear_overlap,
    procrustes_squared,
    require_rows,
    residual_squared,
    spectra_overlap,
)
from geodistill.geometry.moments import AnyMoments, Scale, moments_of
from geodistill.geometry.operators import safe_sqrt
from geodistill.geometry.streaming import SecondMoments

Form = Literal["distance", "squared", "half_squared", "angular", "similarity", "disparity"]


def procrustes_distance(
    x: Tensor | SecondMoments,
    y: Tensor | None = None,
    *,
    center: bool = False,
    scale: Scale = None,
    form: Form = "distance",
    mask: Tensor | None = None,
) -> Tensor:
    """Orthogonal Procrustes distance D_P = √(‖X‖² + ‖Y‖² − 2‖XᵀY‖_*), zero exactly at XXᵀ = YYᵀ.

    Centred and of unit norm it is the Bures distance. Source: Schönemann (1966); Williams et al.
    (2021).

    Args:
        x: features (..., n, d_x), or `SecondMoments` of both.
        y: features (..., n, d_y).
        center: subtract the column means.
        scale: "frobenius" gives unit norm, "rms" a mean squared row norm of 1.
        form: "distance" (netrep), "squared" (sim_metric), "half_squared" (anatome), "angular" =
            arccos F (netrep), "similarity" F = ‖XᵀY‖_*/(‖X‖‖Y‖), "disparity" = 1 − F² (scipy).
        mask: rows that count (..., n), True = keep.

    Raises:
        InputError: unusable features, unknown form or scale.

    Example:
        >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> rotated = x @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
        >>> f"{procrustes_distance(x, rotated, form='similarity'):.3f}"
        '1.000'
    """
    m = moments_of(x, y, center=center, scale=scale, mask=mask)
    if form not in _FORMS:
        raise InputError(f"form is {form!r}: expected one of {tuple(_FORMS)}")
    return _FORMS[form](m)


def _angle(m: AnyMoments) -> Tensor:
    f = fidelity(m)
    return torch.where(f < 1, torch.arccos(torch.where(f < 1, f, 0)), 0)


_FORMS: dict[str, Callable[[AnyMoments], Tensor]] = {
    "distance": lambda m: safe_sqrt(procrustes_squared(m)),
    "squared": lambda m: procrustes_squared(m).clamp_min(0),
    "half_squared": lambda m: procrustes_squared(m).clamp_min(0) / 2,
    "angular": _angle,
    "similarity": fidelity,
    "disparity": lambda m: 1 - fidelity(m) ** 2,
}


def feature_gram_distance(
    x: Tensor | SecondMoments,
    y: Tensor | None = None,
    *,
    center: bool = False,
    scale: Scale = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Feature Gram distance D_FG = ‖XXᵀ − YYᵀ‖_F, zero exactly at XXᵀ = YYᵀ.

    With center and scale="frobenius" in [0, √2]. Source: Bhattarai et al. (2025).

    Args:
        x: features (..., n, d_x), or `SecondMoments` of both.
        y: features (..., n, d_y).
        center: subtract the column means.
        scale: "frobenius" gives unit norm, "rms" a mean squared row norm of 1.
        mask: rows that count (..., n), True = keep.

    Raises:
        InputError: unusable features or unknown scale.

    Example:
        >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> feature_gram_distance(x, -x)
        tensor(0., dtype=torch.float64)
    """
    return safe_sqrt(gram_squared(moments_of(x, y, center=center, scale=scale, mask=mask)))


def cka(
    x: Tensor | SecondMoments,
    y: Tensor | None = None,
    *,
    debiased: bool = False,
    root: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """Linear CKA of centred features, in [0, 1]; 1 where XXᵀ is a multiple of YYᵀ.

    Source: Kornblith et al. (2019); debiased: Song et al. (2012); root: Dasgupta and Cohn (2025).

    Args:
        x: features (..., n, d_x), or `SecondMoments` of both.
        y: features (..., n, d_y).
        mask: rows that count (..., n), True = keep.
        debiased: remove the bias of few examples in many dimensions; needs n ≥ 4, and the value is
            in [−1, 1].
        root: the square root of the biased estimate.

    Raises:
        InputError: unusable features, or root with debiased.

    Example:
        >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> f"{cka(x, 3 * x + 1):.3f}"
        '1.000'
    """
    if root and debiased:
        raise InputError("root=True with debiased=True: the debiased estimate may be negative")
    m = moments_of(x, y, center=True, scale="frobenius", mask=mask)
    if debiased:
        return debiased_cka_value(m)
    value = cka_value(m)
    return safe_sqrt(value) if root else value


def projection_distance(
    x: Tensor | SecondMoments,
    y: Tensor | None = None,
    *,
    center: bool = False,
    scale: Scale = None,
    direction: Direction = "to_teacher",
    mask: Tensor | None = None,
) -> Tensor:
    """Least-squares distance min_A ‖X − YA‖_F; "to_student" is min_A ‖Y − XA‖_F.

    Zero where the columns of X lie in the span of Y's, however A distorts. Rounding error is about
    1e-8 of the norm. Source: Romero et al. (2015).

    Args:
        x: features (..., n, d_x), or `SecondMoments` of both.
        y: features (..., n, d_y).
        center: subtract the column means.
        scale: "frobenius" gives unit norm, "rms" a mean squared row norm of 1.
        mask: rows that count (..., n), True = keep.
        direction: "to_teacher" fits X by Y, "to_student" Y by X.

    Raises:
        InputError: unusable features, unknown direction, or so few rows that any are fitted exactly
            (n ≤ d, or n ≤ d + 1 centred).

    Example:
        >>> x = torch.tensor([[1.0], [2.0], [2.0]])
        >>> f"{projection_distance(x, 5 * x):.4f}"
        '0.0000'
    """
    m = fitted_moments(x, y, center, scale, direction, mask)
    return safe_sqrt(residual_squared(m, direction))


def linear_regression_r2(
    x: Tensor | SecondMoments,
    y: Tensor | None = None,
    *,
    center: bool = True,
    direction: Direction = "to_teacher",
    mask: Tensor | None = None,
) -> Tensor:
    """R² of a linear fit in [0, 1]: 1 − min_A ‖X − YA‖²/‖X‖²; "to_student" fits Y by X.

    1 where the columns of X lie in the span of Y's (and of a constant, with center); 0 for a
    constant target. Source: Kornblith et al. (2019).

    Args:
        x: features (..., n, d_x), or `SecondMoments` of both.
        y: features (..., n, d_y).
        center: subtract the column means.
        direction: "to_teacher" fits X by Y, "to_student" Y by X.
        mask: rows that count (..., n), True = keep.

    Raises:
        InputError: unusable features, unknown direction, or so few rows that R² is 1 on noise.

    Example:
        >>> x = torch.tensor([[1.0], [2.0], [4.0]])
        >>> f"{linear_regression_r2(x, 5 * x + 1):.4f}"
        '1.0000'
    """
    return explained_share(fitted_moments(x, y, center, None, direction, mask), direction)


def mean_canonical_correlation(
    x: Tensor | SecondMoments,
    y: Tensor | None = None,
    *,
    center: bool = True,
    mask: Tensor | None = None,
) -> Tensor:
    """Mean canonical correlation in [0, 1], over the smaller of the two ranks.

    1 where one side's columns lie in the span of the other's. Source: Hotelling (1936); Kornblith
    et al. (2019).

    Args:
        x: features (..., n, d_x), or `SecondMoments` of both.
        y: features (..., n, d_y).
        center: subtract the column means.
        mask: rows that count (..., n), True = keep.

    Raises:
        InputError: unusable features, or fewer than d_x + d_y rows (plus 1, centred): then the
            spans meet, and a correlation is 1 for any rows.

    Example:
        >>> x = torch.tensor([[1.0], [2.0], [4.0]])
        >>> f"{mean_canonical_correlation(x, 1 - x):.4f}"
        '1.0000'
    """
    m = moments_for_fits(x, y, center, None, mask)
    d_x, d_y = m.widths
    require_rows(m, d_x + d_y + center, f"d_x + d_y = {d_x + d_y}", "canonical correlations of 1")
    return canonical_correlations(m)


def procrustes_parts(
    x: Tensor | SecondMoments, y: Tensor | None = None, *, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The spectrum part and the alignment part of D_P² of centred, unit-norm features.

    The spectrum part 2 − 2Σσ_i(X)σ_i(Y) compares variances and is invariant to row permutation; the
    alignment part asks if the same rows carry them. Both are ≥ 0, their sum is D_P².

    Args:
        x: features (..., n, d_x), or `SecondMoments` of both.
        y: features (..., n, d_y).
        mask: rows that count (..., n), True = keep.

    Returns:
        (spectrum, alignment), each (...), float64.

    Raises:
        InputError: unusable features.

    Example:
        >>> x = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
        >>> spectrum, alignment = procrustes_parts(x, x.flip(0))
        >>> f"{spectrum:.3f} {alignment > 0.1}"
        '0.000 True'
    """
    m = moments_of(x, y, center=True, scale="frobenius", mask=mask)
    overlap = spectra_overlap(m)
    spectrum = m.size_x + m.size_y - 2 * overlap
    return spectrum.clamp_min(0), (2 * (overlap - nuclear_overlap(m))).clamp_min(0)
