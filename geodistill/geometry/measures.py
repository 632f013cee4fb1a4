"""Distances and similarities between two representations of the same examples.

Each is a function of the second moments (`moments.py`): the formulas below take them, the public
measures take features x (..., n, d_x) and y (..., n, d_y), or `SecondMoments` in their place, and
compute in float64. Following the paper's order x is the teacher, y the student.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry.moments import AnyMoments, Scale, moments_of, safe_sqrt
from geodistill.geometry.nuclear_norm import nuclear_norm
from geodistill.geometry.streaming import SecondMoments

Form = Literal["distance", "squared", "half_squared", "angular", "similarity", "disparity"]
Direction = Literal["to_teacher", "to_student"]


# --- formulas over moments ---------------------------------------------------------------------


def procrustes_squared(m: AnyMoments) -> Tensor:
    """‖X‖² + ‖Y‖² − 2‖XᵀY‖_*: min over orthogonal Q of ‖X − YQ‖², the narrower padded by zeros."""
    return m.size_x + m.size_y - 2 * nuclear_norm(m.xy)


def fidelity(m: AnyMoments) -> Tensor:
    """‖XᵀY‖_* / (‖X‖ ‖Y‖) in [0, 1]; 0 where either is zero."""
    return _ratio(nuclear_norm(m.xy), m.size_x * m.size_y)


def gram_squared(m: AnyMoments) -> Tensor:
    """‖XXᵀ − YYᵀ‖_F²."""
    return m.kk + m.ll - 2 * m.kl


def cka_value(m: AnyMoments) -> Tensor:
    """⟨K, L⟩ / (‖K‖ ‖L‖) of centred features; 0 where either is constant."""
    return _ratio(m.kl, m.kk * m.ll)


def debiased_cka_value(m: AnyMoments) -> Tensor:
    """CKA from the unbiased HSIC estimate (Song et al., 2012) of centred features."""
    if not bool((m.n > 3).all()):
        raise InputError(f"debiased CKA got {int(m.n.min())} rows: expected at least 4")
    n = m.n.to(m.kl.dtype)
    x4, y4, x2y2 = m.row_overlaps()

    def hsic(inner: Tensor, diagonals: Tensor, traces: Tensor) -> Tensor:
        return inner - n / (n - 2) * diagonals + traces / ((n - 1) * (n - 2))

    return _ratio(
        hsic(m.kl, x2y2, m.size_x * m.size_y),
        hsic(m.kk, x4, m.size_x**2) * hsic(m.ll, y4, m.size_y**2),
    )


def spectra_overlap(m: AnyMoments) -> Tensor:
    """Σ σ_i(X) σ_i(Y), the most that ‖XᵀY‖_* can be (von Neumann)."""
    sx, sy = (_singular_values(g) for g in (m.xx, m.yy))
    k = min(sx.shape[-1], sy.shape[-1])
    return (sx[..., :k] * sy[..., :k]).sum(-1)


def residual_squared(m: AnyMoments, direction: Direction) -> Tensor:
    """min_A ‖X − YA‖² ("to_teacher") or min_A ‖Y − XA‖²."""
    size, cross, gram = m.size_x, m.xy, m.yy
    if direction == "to_student":
        size, cross, gram = m.size_y, m.xy.mT, m.xx
    fitted: Tensor = cross @ torch.linalg.pinv(gram, hermitian=True) * cross
    return size - fitted.sum((-2, -1))


def explained_share(m: AnyMoments, direction: Direction) -> Tensor:
    """1 − min_A ‖X − YA‖²/‖X‖², or with X and Y exchanged; 0 where the target is zero."""
    size = m.size_x if direction == "to_teacher" else m.size_y
    varies = size > 0
    share = 1 - residual_squared(m, direction) / torch.where(varies, size, 1)
    return torch.where(varies, share, 0).clamp(0, 1)


def canonical_correlations(m: AnyMoments) -> Tensor:
    """Their mean over the smaller rank: ‖(XᵀX)^{-½} XᵀY (YᵀY)^{-½}‖_* / min(rank X, rank Y)."""
    (white_x, rank_x), (white_y, rank_y) = (_inverse_root(g) for g in (m.xx, m.yy))
    rank = torch.minimum(rank_x, rank_y).clamp_min(1)
    return (nuclear_norm(white_x @ m.xy @ white_y) / rank).clamp(0, 1)


def _inverse_root(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Gram^{-½} on its range, and the range's dimension."""
    values, vectors = torch.linalg.eigh(gram)
    floor = gram.shape[-1] * torch.finfo(gram.dtype).eps * values[..., -1:]
    kept = values > floor
    root = torch.where(kept, torch.where(kept, values, 1).rsqrt(), 0)
    return (vectors * root[..., None, :]) @ vectors.mT, kept.sum(-1)


def _singular_values(gram: Tensor) -> Tensor:
    """Square roots of the eigenvalues, largest first; differentiable (eigvalsh has no 1/gap)."""
    return safe_sqrt(torch.linalg.eigvalsh(gram.double()).flip(-1)).to(gram.dtype)


def _ratio(a: Tensor, squared: Tensor) -> Tensor:
    """a / √squared, and 0 where the denominator is not positive."""
    positive = squared > 0
    return torch.where(positive, a / torch.where(positive, squared, 1).sqrt(), 0)


# --- public measures ---------------------------------------------------------------------------


def procrustes_distance(
    x: Tensor | SecondMoments,
    y: Tensor | None = None,
    *,
    center: bool = False,
    scale: Scale = None,
    form: Form = "distance",
    mask: Tensor | None = None,
) -> Tensor:
    """Orthogonal Procrustes distance D_P, (...): √(‖X‖² + ‖Y‖² − 2‖XᵀY‖_*).

    Zero exactly where XXᵀ = YYᵀ. Forms and who uses them: "distance" (netrep), "squared"
    (sim_metric; with center and scale="frobenius" the Bures distance, in [0, 2]), "half_squared"
    (anatome), "angular" = arccos F (netrep), "similarity" F = ‖XᵀY‖_*/(‖X‖‖Y‖), "disparity" = 1 −
    F² (scipy). Schönemann (1966); Williams et al. (2021). Raises InputError on unusable features.
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
    """Feature Gram distance D_FG, (...): ‖XXᵀ − YYᵀ‖_F from d × d moments.

    Zero exactly where XXᵀ = YYᵀ; with center and scale="frobenius" in [0, √2].
    Bhattarai et al. (2025). Raises InputError on unusable features.
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
    """Linear CKA of centred features, (...), in [0, 1], 1 where XXᵀ is a multiple of YYᵀ.

    `debiased` removes the inflation of few examples in many dimensions (it may be negative; n ≥ 4);
    `root` is the √ form of Dasgupta and Cohn (2025), of the biased estimate. Kornblith et al.
    (2019). Raises InputError on unusable features.
    """
    if root and debiased:
        raise InputError("root=True with debiased=True: the root of a possibly negative estimate")
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
    """Least-squares distance, (...): min_A ‖X − YA‖_F; "to_student" is min_A ‖Y − XA‖_F.

    Zero where the columns of X lie in the span of Y's, whatever the distortion A. Its rounding
    error is about 1e-8 of the norm. Romero et al. (2015). Raises InputError on unusable features,
    and where n rows are fitted exactly whatever they hold (n ≤ d, or n ≤ d + 1 centred).
    """
    m = _fitted_moments(x, y, center, scale, direction, mask)
    return safe_sqrt(residual_squared(m, direction))


def linear_regression_r2(
    x: Tensor | SecondMoments,
    y: Tensor | None = None,
    *,
    center: bool = True,
    direction: Direction = "to_teacher",
    mask: Tensor | None = None,
) -> Tensor:
    """R² of a linear fit, (...), in [0, 1]: 1 − min_A ‖X − YA‖²/‖X‖²; "to_student" fits Y by X.

    1 where the columns of X lie in the span of Y's (and of a constant, with center); 0 for a
    constant target. Kornblith et al. (2019). Raises InputError as `projection_distance` does.
    """
    return explained_share(_fitted_moments(x, y, center, None, direction, mask), direction)


def mean_canonical_correlation(
    x: Tensor | SecondMoments,
    y: Tensor | None = None,
    *,
    center: bool = True,
    mask: Tensor | None = None,
) -> Tensor:
    """Mean canonical correlation, (...), in [0, 1], over the smaller of the two ranks.

    1 where one side's columns lie in the span of the other's. Hotelling (1936); Kornblith et al.
    (2019). Raises InputError on unusable features, and where correlations are 1 whatever the rows
    hold: two spaces of d_x and d_y dimensions meet in fewer than d_x + d_y (plus 1, centred) rows.
    """
    m = moments_of(x, y, center=center, scale=None, mask=mask)
    d_x, d_y = m.widths
    _require_rows(m, d_x + d_y + center, f"d_x + d_y = {d_x + d_y}", "canonical correlations of 1")
    return canonical_correlations(m)


def _fitted_moments(
    x: Tensor | SecondMoments,
    y: Tensor | None,
    center: bool,
    scale: Scale,
    direction: Direction,
    mask: Tensor | None,
) -> AnyMoments:
    if direction not in ("to_teacher", "to_student"):
        raise InputError(f"direction is {direction!r}: expected 'to_teacher' or 'to_student'")
    m = moments_of(x, y, center=center, scale=scale, mask=mask)
    side = 1 if direction == "to_teacher" else 0
    width = m.widths[side]
    name = f"{'xy'[side]}'s width {width}"
    _require_rows(m, width + center + 1, name, "a perfect fit (R² = 1 on noise)")
    return m


def _require_rows(m: AnyMoments, least: int, width: str, consequence: str) -> None:
    if bool((m.n < least).any()):
        raise InputError(
            f"{int(m.n.min())} rows at {width} give {consequence} whatever they hold: "
            f"expected at least {least} rows"
        )


def procrustes_parts(
    x: Tensor | SecondMoments, y: Tensor | None = None, *, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(spectrum, alignment), each (...), ≥ 0, summing to D_P² of centred, unit-norm features.

    The spectrum part 2 − 2Σσ_i(X)σ_i(Y) asks if the variances are the teacher's and knows nothing
    of which row is which; the alignment part asks if the same rows carry them.
    """
    m = moments_of(x, y, center=True, scale="frobenius", mask=mask)
    overlap = spectra_overlap(m)
    spectrum = m.size_x + m.size_y - 2 * overlap
    return spectrum.clamp_min(0), (2 * (overlap - nuclear_norm(m.xy))).clamp_min(0)
