"""Properties of the measures and the conventions of other packages, as data that tests check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from geodistill.geometry.measures import (
    cka,
    feature_gram_distance,
    linear_regression_r2,
    mean_canonical_correlation,
    procrustes_distance,
    projection_distance,
)

_ANY = float("inf")


@dataclass(frozen=True)
class Measure:
    """A measure and its properties at its defaults.

    Attributes:
        name: key in `MEASURES`.
        function: the measure.
        metric: whether it is a metric on classes of equal geometry.
        symmetric: whether teacher and student may be exchanged.
        invariant_to: maps of y that leave it unchanged: "rotation", "scale", "shift", "invertible".
        similarity: whether large values mean similar.
        range: its smallest and largest value.
        zero_set: where a distance is 0, a similarity 1.
        cost: multiplications for n ≥ d, where d is the larger width.
        source: papers.

    Example:
        >>> MEASURES["cka"].symmetric, "rotation" in MEASURES["cka"].invariant_to
        (True, True)
    """

    name: str
    function: Callable[..., Tensor]
    metric: bool
    symmetric: bool
    invariant_to: frozenset[str]
    similarity: bool
    range: tuple[float, float]
    zero_set: str
    cost: str
    source: str


@dataclass(frozen=True)
class Convention:
    """The quantity that a package or paper calls by some name, and the options that give it.

    Attributes:
        name: "Procrustes" or "CKA".
        used_by: package or paper.
        function: the measure.
        formula: TeX; X and Y are centred where center is set.
        options: of the measure.

    Example:
        >>> [c.options for c in CONVENTIONS if c.used_by == "netrep, euclidean"]
        [{'center': True}]
    """

    name: str
    used_by: str
    function: Callable[..., Tensor]
    formula: str
    options: Mapping[str, Any] = field(default_factory=dict)


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
            cost="n d_x d_y + d³",
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
            cost="n (d_x² + d_x d_y + d_y²)",
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
            zero_set="centred XXᵀ = c YYᵀ, c > 0",
            cost="n (d_x² + d_x d_y + d_y²)",
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
            cost="2 n (d_x d_y + d_y²) + d³",
            source="Romero et al. (2015)",
        ),
        Measure(
            "r2",
            linear_regression_r2,
            metric=False,
            symmetric=False,
            invariant_to=frozenset({"rotation", "scale", "shift", "invertible"}),
            similarity=True,
            range=(0, 1),
            zero_set="centred X = YA for some A",
            cost="2 n (d_x d_y + d_y²) + d³",
            source="Kornblith et al. (2019)",
        ),
        Measure(
            "cca",
            mean_canonical_correlation,
            metric=False,
            symmetric=True,
            invariant_to=frozenset({"rotation", "scale", "shift", "invertible"}),
            similarity=True,
            range=(0, 1),
            zero_set="centred X = YA or Y = XA for some A",
            cost="n (2 d_x² + d_x d_y + 2 d_y²) + d³",
            source="Hotelling (1936); Kornblith et al. (2019)",
        ),
    )
}

_UNIT = {"center": True, "scale": "frobenius"}
_HATS = r"\hat X, \hat Y \text{ of unit norm: } "

CONVENTIONS: tuple[Convention, ...] = (
    Convention(
        "Procrustes",
        "netrep, euclidean",
        procrustes_distance,
        r"\sqrt{\lVert X\rVert^2 + \lVert Y\rVert^2 - 2\lVert X^\top Y\rVert_*}",
        {"center": True},
    ),
    Convention(
        "Procrustes",
        "netrep, angular",
        procrustes_distance,
        r"\arccos\left(\lVert X^\top Y\rVert_* / \lVert X\rVert\,\lVert Y\rVert\right)",
        {"center": True, "form": "angular"},
    ),
    Convention(
        "Procrustes",
        "sim_metric",
        procrustes_distance,
        _HATS + r"2 - 2\lVert \hat X^\top \hat Y\rVert_*",
        {**_UNIT, "form": "squared"},
    ),
    Convention(
        "Procrustes",
        "anatome",
        procrustes_distance,
        _HATS + r"1 - \lVert \hat X^\top \hat Y\rVert_*",
        {**_UNIT, "form": "half_squared"},
    ),
    Convention(
        "Procrustes",
        "scipy, disparity",
        procrustes_distance,
        _HATS + r"1 - \lVert \hat X^\top \hat Y\rVert_*^2",
        {"center": True, "form": "disparity"},
    ),
    Convention(
        "Procrustes",
        "quantum information: Bures",
        procrustes_distance,
        _HATS + r"\sqrt{2 - 2\,\mathrm{tr}\,(K^{1/2} L K^{1/2})^{1/2}}",
        dict(_UNIT),
    ),
    Convention(
        "CKA",
        "Kornblith et al. (2019): biased",
        cka,
        r"\lVert X^\top Y\rVert_F^2 / \lVert X^\top X\rVert_F\,\lVert Y^\top Y\rVert_F",
    ),
    Convention(
        "CKA",
        "Song et al. (2012): debiased",
        cka,
        r"\mathrm{HSIC}_1(K, L) / \sqrt{\mathrm{HSIC}_1(K, K)\,\mathrm{HSIC}_1(L, L)}",
        {"debiased": True},
    ),
    Convention(
        "CKA",
        "Dasgupta and Cohn (2025): root",
        cka,
        r"\lVert X^\top Y\rVert_F / \sqrt{\lVert X^\top X\rVert_F\,\lVert Y^\top Y\rVert_F}",
        {"root": True},
    ),
)
