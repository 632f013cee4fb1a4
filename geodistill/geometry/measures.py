"""Distances and similarities between two representations of the same examples.

Each is a function of the second moments (`moments.py`): the formulas below take them, the public
measures take features x (..., n, d_x) and y (..., n, d_y), or `SecondMoments` in their place, and
compute in float64. Following the paper's order x is the teacher, y the student.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry.moments import AnyMoments, Scale, SecondMoments, moments_of, safe_sqrt
from geodistill.geometry.nuclear import nuclear_norm

Form = Literal["distance", "squared", "half_squared", "angular", "similarity", "disparity"]
Direction = Literal["to_teacher", "to_student"]


# --- formulas over moments ---------------------------------------------------------------------


def procrustes_squared(m: AnyMoments) -> Tensor:
    """‖X‖² + ‖Y‖² − 2‖XᵀY‖_*: min over (semi-)orthogonal Q of ‖X − YQ‖²."""
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
    n = m.n.to(m.xy.dtype)
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
    error is about 1e-8 of the norm. Raises InputError on unusable features.
    """
    if direction not in ("to_teacher", "to_student"):
        raise InputError(f"direction is {direction!r}: expected 'to_teacher' or 'to_student'")
    m = moments_of(x, y, center=center, scale=scale, mask=mask)
    return safe_sqrt(residual_squared(m, direction))


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


# --- properties as data ------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """A measure and what is claimed of it at its defaults; tests check each claim both ways."""

    name: str
    function: Callable[..., Tensor]
    metric: bool  # on classes of equal geometry: symmetric, zero iff equal, triangle inequality
    symmetric: bool
    invariant_to: frozenset[str]  # maps of y: "rotation", "scale", "shift", "invertible"
    similarity: bool  # large means alike
    range: tuple[float, float]
    zero_set: str
    additive_over_examples: bool  # a function of sums over rows
    source: str


_ANY = float("inf")

MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure(
            "procrustes",
            procrustes_distance,
            metric=True,
            symmetric=True,
            invariant_to=frozenset({"rotation"}),
            similarity=False,
            range=(0, _ANY),
            zero_set="XXᵀ = YYᵀ",
            additive_over_examples=True,
            source="Schönemann (1966); Williams et al. (2021)",
        ),
        Measure(
            "gram",
            feature_gram_distance,
            metric=True,
            symmetric=True,
            invariant_to=frozenset({"rotation"}),
            similarity=False,
            range=(0, _ANY),
            zero_set="XXᵀ = YYᵀ",
            additive_over_examples=True,
            source="Bhattarai et al. (2025)",
        ),
        Measure(
            "cka",
            cka,
            metric=False,
            symmetric=True,
            invariant_to=frozenset({"rotation", "scale", "shift"}),
            similarity=True,
            range=(0, 1),
            zero_set="1 − CKA = 0 where centred XXᵀ = c YYᵀ, c > 0",
            additive_over_examples=True,
            source="Kornblith et al. (2019)",
        ),
        Measure(
            "projection",
            projection_distance,
            metric=False,
            symmetric=False,
            invariant_to=frozenset({"rotation", "scale", "invertible"}),
            similarity=False,
            range=(0, _ANY),
            zero_set="X = YA for some A",
            additive_over_examples=True,
            source="Romero et al. (2015)",
        ),
    )
}
