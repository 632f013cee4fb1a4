"""Measures against closed forms, second formulas, and their declared properties both ways."""

import dataclasses
import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.random_rows import normal
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from geodistill.errors import InputError
from geodistill.geometry import (
    MEASURES,
    cka,
    feature_gram_distance,
    from_spectra,
    participation_ratio,
    procrustes_distance,
    procrustes_parts,
    projection_distance,
    spread_mass,
)
from geodistill.geometry.formulas import (
    canonical_correlations,
    cka_value,
    explained_share,
    gram_squared,
    procrustes_squared,
    residual_squared,
)
from geodistill.geometry.moments import Moments, moments_of

UNIT = {"center": True, "scale": "frobenius"}


def features(*shape: int, seed: int = 0) -> Tensor:
    return normal(*shape, seed=seed) + 0.5


def rotation(d: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(features(d, d, seed=seed))[0]


def centred_unit(x: Tensor) -> Tensor:
    x = x - x.mean(0)
    return x / x.norm()


def psd_root(k: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(k)
    return vectors @ values.clamp_min(0).sqrt().diag() @ vectors.T


X, Y = features(30, 7), features(30, 4, seed=1)

# --- two formulas ------------------------------------------------------------------------------


def test_procrustes_is_the_residual_of_the_explicit_rotation() -> None:
    u, _, vh = torch.linalg.svd(Y.T @ X, full_matrices=False)
    explicit = (X - Y @ (u @ vh)).norm() ** 2
    # a semi-orthogonal map into more dimensions keeps ‖Y‖
    assert torch.allclose(procrustes_distance(X, Y, form="squared"), explicit, rtol=1e-12)


def test_procrustes_is_the_bures_distance_of_the_grams() -> None:
    k, el = (f @ f.T for f in (centred_unit(X), centred_unit(Y)))
    root = psd_root(k)
    bures = 2 - 2 * psd_root(root @ el @ root).trace()
    assert torch.allclose(procrustes_distance(X, Y, form="squared", **UNIT), bures, atol=1e-7)


@pytest.mark.parametrize("n", [3, 30], ids=["n below d", "n above d"])
def test_gram_distance_and_cka_are_those_of_the_n_by_n_grams(n: int) -> None:
    x, y = X[:n], Y[:n]
    assert torch.allclose(feature_gram_distance(x, y), (x @ x.T - y @ y.T).norm(), rtol=1e-12)
    k, el = (f @ f.T for f in (x - x.mean(0), y - y.mean(0)))
    expected = (k * el).sum() / (k.norm() * el.norm())
    assert torch.allclose(cka(x, y), expected, rtol=1e-12)
    assert torch.allclose(cka(x, y, root=True), expected.sqrt(), rtol=1e-12)


def test_projection_distance_is_least_squares_either_way() -> None:
    forth = X - Y @ torch.linalg.lstsq(Y, X).solution
    back = Y - X @ torch.linalg.lstsq(X, Y).solution
    assert torch.allclose(projection_distance(X, Y), forth.norm(), rtol=1e-9)
    assert torch.allclose(projection_distance(X, Y, direction="to_student"), back.norm(), rtol=1e-9)


def test_forms_are_the_peers_definitions() -> None:
    x, y = X, Y
    nuclear = torch.linalg.svdvals(x.T @ y).sum()
    squared = x.norm() ** 2 + y.norm() ** 2 - 2 * nuclear
    cosine = nuclear / (x.norm() * y.norm())
    expected = {
        "distance": squared.sqrt(),
        "squared": squared,
        "half_squared": squared / 2,
        "angular": torch.arccos(cosine),
        "similarity": cosine,
        "disparity": 1 - cosine**2,
    }
    for form, value in expected.items():
        assert torch.allclose(procrustes_distance(x, y, form=form), value, rtol=1e-10), form


def test_parts_sum_to_the_squared_distance_and_separate() -> None:
    spectrum, alignment = procrustes_parts(X, Y)
    full = procrustes_distance(X, Y, form="squared", **UNIT)
    assert torch.allclose(spectrum + alignment, full, rtol=1e-12)
    assert spectrum > 0.01
    assert alignment > 0.01
    spectrum, alignment = procrustes_parts(X, X.flip(0))  # same variances, other rows
    assert spectrum < 1e-9
    assert alignment > 0.1
    same_rows = from_spectra(12, [0.7, 0.2, 0.1], [0.4, 0.3, 0.3])
    spectrum, alignment = procrustes_parts(*same_rows)  # same directions, other variances
    assert spectrum > 0.05
    assert alignment < 1e-7


# --- closed forms ------------------------------------------------------------------------------


def test_spread_mass_has_the_closed_forms() -> None:
    for m in (1, 5, 40):
        x, y = spread_mass(64, m, lost=0.3, d_teacher=50)
        assert x.shape == (64, 50)
        assert float(procrustes_distance(x, y, **UNIT)) == pytest.approx(
            math.sqrt(2 - 2 * math.sqrt(0.7)), abs=1e-9
        )
        assert float(cka(x, y)) == pytest.approx(0.7 / math.sqrt(0.49 + 0.09 / m), abs=1e-9)


def test_participation_ratio_of_flat_and_one_dimensional_features() -> None:
    x, y = from_spectra(20, [1.0] * 7, [1.0])
    assert float(participation_ratio(x)) == pytest.approx(7)
    assert float(participation_ratio(y)) == pytest.approx(1)
    assert float(participation_ratio(torch.ones(5, 3))) == 0
    assert float(participation_ratio(torch.ones(5, 3), center=False)) == pytest.approx(1)


# --- declared properties, both ways ------------------------------------------------------------

MAPS = {
    "rotation": lambda y: y @ rotation(y.shape[-1], seed=5),
    "scale": lambda y: 3 * y,
    "shift": lambda y: y + 2,
    "invertible": lambda y: y @ (rotation(y.shape[-1]) * torch.arange(1, y.shape[-1] + 1)),
}
PAIRS = [(X, Y), (Y, X), (X, features(30, 7, seed=4))]


def as_distance(name: str, x: Tensor, y: Tensor) -> Tensor:
    value = MEASURES[name].function(x, y)
    return 1 - value if MEASURES[name].similarity else value


@pytest.mark.parametrize("change", MAPS)
@pytest.mark.parametrize("name", MEASURES)
def test_invariances_hold_where_claimed_and_fail_where_not(name: str, change: str) -> None:
    function, claimed = MEASURES[name].function, change in MEASURES[name].invariant_to
    moved = [abs(function(x, MAPS[change](y)) - function(x, y)) for x, y in PAIRS]
    if claimed:
        assert max(moved) < 1e-6
    else:
        assert max(moved) > 1e-3


@pytest.mark.parametrize("name", MEASURES)
def test_symmetry_as_claimed(name: str) -> None:
    function = MEASURES[name].function
    gaps = [abs(function(x, y) - function(y, x)) for x, y in PAIRS]
    assert (max(gaps) < 1e-9) == MEASURES[name].symmetric


def rank_one(angle: float) -> Tensor:
    basis = from_spectra(8, [1.0, 1.0], [1.0]).teacher
    return (basis @ torch.tensor([math.cos(angle), math.sin(angle)]).double())[:, None]


@pytest.mark.parametrize("name", MEASURES)
def test_metric_as_claimed(name: str) -> None:
    """A metric on geometries: triangle inequality, symmetry, zero only where the Grams agree."""
    lines = [tuple(rank_one(a * math.pi / 6) for a in (0, 1, 2))]
    clouds = [
        tuple(features(9, d, seed=s + i) for i, d in enumerate((2, 5, 3))) for s in range(200)
    ]
    slack = [
        as_distance(name, a, b) + as_distance(name, b, c) - as_distance(name, a, c)
        for a, b, c in lines + clouds
    ]
    other_geometry = MAPS["invertible"](X), MAPS["scale"](X)
    separates = min(as_distance(name, X, y) for y in other_geometry) > 1e-3
    axioms = min(slack) > -1e-9 and MEASURES[name].symmetric and separates
    assert axioms == MEASURES[name].metric


def test_one_minus_cka_breaks_the_triangle_inequality() -> None:
    a, b, c = (rank_one(i * math.pi / 6) for i in (0, 1, 2))
    assert as_distance("cka", a, b) + as_distance("cka", b, c) < as_distance("cka", a, c) - 0.1


@pytest.mark.parametrize("name", MEASURES)
def test_range_and_zero_at_equal_geometry(name: str) -> None:
    low, high = MEASURES[name].range
    values = [MEASURES[name].function(x, y) for x, y in PAIRS]
    assert all(low <= v <= high for v in values)
    assert as_distance(name, X, Y) > 0.01
    wide = torch.nn.functional.pad(X, (0, 3)) @ rotation(10)
    assert as_distance(name, X, wide) < 1e-6


FORMULAS = {
    "procrustes": procrustes_squared,
    "gram": gram_squared,
    "cka": cka_value,
    "projection": lambda m: residual_squared(m, "to_teacher"),
    "r2": lambda m: explained_share(m, "to_teacher"),
    "cca": canonical_correlations,
}


@pytest.mark.parametrize("name", MEASURES)
def test_measures_are_functions_of_sums_over_rows(name: str) -> None:
    parts = [(X[:11], Y[:11]), (X[11:], Y[11:])]
    xx = sum(x.T @ x for x, _ in parts)
    yy = sum(y.T @ y for _, y in parts)
    xy = sum(x.T @ y for x, y in parts)
    added = Moments(torch.tensor(30), xx, yy, xy)
    full = moments_of(X, Y, center=False, scale=None)
    value = FORMULAS[name](added)
    assert value > 0.1
    assert torch.allclose(value, FORMULAS[name](full), rtol=1e-10)


# --- bounds of the theory, on random pairs -----------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 12), st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6))
def test_two_sided_bounds(n: int, d_t: int, d_s: int, seed: int) -> None:
    x, y = features(n, d_t, seed=seed), features(n, d_s, seed=seed + 1)
    procrustes = procrustes_distance(x, y, form="squared", **UNIT)
    gram = feature_gram_distance(x, y, **UNIT)
    k, el = (f @ f.T for f in (centred_unit(x), centred_unit(y)))
    trace = torch.linalg.matrix_norm(k - el, ord="nuc")
    rank = min(n - 1, d_t + d_s)
    assert procrustes <= trace + 1e-9
    assert trace <= math.sqrt(rank) * gram + 1e-7
    assert gram <= (procrustes * (2 - procrustes / 2)).clamp_min(0).sqrt() + 1e-7
    ranks = participation_ratio(x), participation_ratio(y)
    identity = 1 / ranks[0] + 1 / ranks[1] - 2 * cka(x, y) / (ranks[0] * ranks[1]).sqrt()
    assert torch.allclose(gram**2, identity, atol=1e-9)


# --- batches, masks, dtypes, gradients ---------------------------------------------------------


@pytest.mark.parametrize("name", MEASURES)
def test_a_batch_is_its_members_and_masks_drop_rows_exactly(name: str) -> None:
    function = MEASURES[name].function
    x, y = features(2, 3, 12, 5), features(2, 3, 12, 4, seed=1)
    mask = torch.ones(2, 3, 12, dtype=torch.bool)
    mask[0, 1, :2] = mask[1, 2, 3] = False
    x[0, 1, :2] = float("nan")
    y[0, 1, :2] = 1e30
    values = function(x, y, mask=mask)
    assert values.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            keep = mask[i, j]
            assert torch.allclose(values[i, j], function(x[i, j][keep], y[i, j][keep]), rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MEASURES)
def test_measures_compute_in_float64_whatever_comes_in(name: str, dtype: torch.dtype) -> None:
    x, y = X.to(dtype), Y.to(dtype)
    value = MEASURES[name].function(x, y)
    assert value.dtype == torch.float64
    assert torch.equal(value, MEASURES[name].function(x.double(), y.double()))


@pytest.mark.parametrize("form", ["distance", "squared", "angular", "similarity", "disparity"])
def test_forms_have_finite_gradients_at_equal_inputs(form: str) -> None:
    for x, y in ((X, X.clone()), (X, X @ rotation(7))):
        y.requires_grad_()
        procrustes_distance(x, y, form=form, **UNIT).backward()
        assert torch.isfinite(y.grad).all()


def test_measures_pass_gradcheck() -> None:
    x, y = (f[:8].clone().requires_grad_() for f in (X[:, :3], Y[:, :2]))
    for function in (
        lambda a, b: procrustes_distance(a, b, **UNIT),
        lambda a, b: feature_gram_distance(a, b),
        lambda a, b: cka(a, b, debiased=True),
        lambda a, b: projection_distance(a, b),
        lambda a, b: procrustes_parts(a, b)[0],
    ):
        assert torch.autograd.gradcheck(function, (x, y))


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: procrustes_distance(X, Y, form="euclid"), r"form is 'euclid': expected one of"),
        (lambda: procrustes_distance(X, Y, scale="unit"), r"scale is 'unit': expected one of"),
        (lambda: projection_distance(X, Y, direction="both"), r"direction is 'both'"),
        (lambda: cka(X[:3], Y[:3], debiased=True), r"got 3 rows: expected at least 4"),
        (lambda: cka(X, Y, root=True, debiased=True), r"root=True with debiased=True"),
        (lambda: feature_gram_distance(1e80 * X, Y), r"squared norms up to .*e\+162: expected"),
    ],
)
def test_refusals_say_what_was_given(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("name", ["projection", "r2", "cca"])
def test_fits_of_too_few_rows_are_refused_with_the_reason(name: str) -> None:
    function = MEASURES[name].function
    least = {"projection": 5, "r2": 6, "cca": 12}[name]  # d_x = 7, d_y = 4
    function(X[:least], Y[:least])
    with pytest.raises(InputError, match=rf"{least - 1} rows at .* (noise|of 1).*at least {least}"):
        function(X[: least - 1], Y[: least - 1])


def test_r2_and_cca_are_the_textbook_formulas() -> None:
    x, y = X - X.mean(0), Y - Y.mean(0)
    qx, qy = (torch.linalg.qr(f)[0] for f in (x, y))
    r2, cca_mean = MEASURES["r2"].function, MEASURES["cca"].function
    assert torch.allclose(r2(X, Y), (qy.T @ x).square().sum() / x.square().sum(), rtol=1e-9)
    back = r2(X, Y, direction="to_student")
    assert torch.allclose(back, (qx.T @ y).square().sum() / y.square().sum(), rtol=1e-9)
    assert torch.allclose(cca_mean(X, Y), torch.linalg.svdvals(qx.T @ qy).mean(), rtol=1e-9)
    with pytest.raises(InputError, match="direction is 'both'"):
        r2(X, Y, direction="both")


def test_a_constant_target_has_r2_zero() -> None:
    constant = torch.full_like(X, 3.0)
    r2 = MEASURES["r2"].function
    assert r2(constant, Y) == 0
    assert r2(X, torch.full_like(Y, 3.0), direction="to_student") == 0
    assert r2(X, Y) > 0.1


def multiplications(name: str, n: int, d_x: int, d_y: int) -> int:
    basis = {torch.ops.aten._linalg_svd: lambda rows, *_, **__: 4 * rows[0] * rows[1] ** 2}
    with FlopCounterMode(display=False, custom_mapping=basis) as counter:
        MEASURES[name].function(features(n, d_x), features(n, d_y, seed=1))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", MEASURES)
def test_cost_grows_with_n_as_declared(name: str) -> None:
    formula = MEASURES[name].cost.replace("²", "**2").replace("³", "**3")
    formula = re.sub(r"(?<=[\w)]) (?=[\w(])", "*", formula)

    def declared(n: int) -> int:
        return int(eval(formula, {"n": n, "d": 12, "d_x": 12, "d_y": 5}))

    measured = multiplications(name, 400, 12, 5) - multiplications(name, 200, 12, 5)
    assert measured == declared(400) - declared(200) > 0


ZERO_SETS = {
    "XXᵀ = YYᵀ": lambda x, y: torch.allclose(x @ x.T, y @ y.T),
    "centred XXᵀ = c YYᵀ, c > 0": lambda x, y: bool(cka_by_grams(x, y) > 1 - 1e-9),
    "X = YA for some A": lambda x, y: within(x, y),
    "centred X = YA for some A": lambda x, y: within(x - x.mean(0), y - y.mean(0)),
    "centred X = YA or Y = XA for some A": lambda x, y: (
        within(x - x.mean(0), y - y.mean(0)) or within(y - y.mean(0), x - x.mean(0))
    ),
}


def cka_by_grams(x: Tensor, y: Tensor) -> Tensor:
    k, el = (f @ f.T for f in (x - x.mean(0), y - y.mean(0)))
    return (k * el).sum() / (k.norm() * el.norm())


def within(x: Tensor, y: Tensor) -> bool:
    rank = torch.linalg.matrix_rank
    return bool(rank(torch.cat([x, y], 1)) == rank(y))


@pytest.mark.parametrize("name", MEASURES)
def test_the_zero_set_is_as_claimed(name: str) -> None:
    inside = ZERO_SETS[MEASURES[name].zero_set]
    examples = [change(X) for change in MAPS.values()] + [X[:, :3], X[:, :1] * 2, Y]
    examples.append(torch.cat([X, Y], 1))
    claimed = [inside(X, y) for y in examples]
    zero = [bool(as_distance(name, X, y) < 1e-6) for y in examples]
    assert zero == claimed
    assert True in claimed
    assert False in claimed


WRONG = [
    ("procrustes", {"metric": False}, "test_metric_as_claimed"),
    ("cka", {"metric": True}, "test_metric_as_claimed"),
    ("projection", {"symmetric": True}, "test_symmetry_as_claimed"),
    ("gram", {"invariant_to": frozenset()}, "test_invariances"),
    ("gram", {"invariant_to": frozenset({"rotation", "scale"})}, "test_invariances"),
    ("cka", {"similarity": False}, "test_range"),
    ("procrustes", {"range": (0, 1)}, "test_range"),
    ("r2", {"zero_set": "XXᵀ = YYᵀ"}, "test_the_zero_set"),
    ("cca", {"cost": "n d_x d_y"}, "test_cost"),
]


@pytest.mark.parametrize(("name", "change", "test"), WRONG)
def test_a_wrong_claim_fails_its_test(
    name: str, change: dict[str, object], test: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MEASURES, name, dataclasses.replace(MEASURES[name], **change))
    (check,) = [f for key, f in globals().items() if key.startswith(test)]
    calls = [(name, change) for change in MAPS] if "invariances" in test else [(name,)]

    def run_all() -> None:
        for arguments in calls:
            check(*arguments)

    with pytest.raises(AssertionError):
        run_all()
