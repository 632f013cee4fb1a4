"""Statements of the chapter on theory and of the page of proofs, by formulas written here."""

import math

import pytest
import torch
from torch import Tensor

from geodistill.geometry import (
    antiparallel,
    cka,
    feature_gram_distance,
    flat_halves,
    from_spectra,
    participation_ratio,
    procrustes_distance,
    projection_distance,
    spread_mass,
)
from geodistill.losses import CKALoss, FeatureGramLoss, ProcrustesLoss

UNIT = {"center": True, "scale": "frobenius"}


def unit(n: int, d: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    x = x * torch.rand(d, generator=generator, dtype=torch.float64)
    x = x - x.mean(0)
    return x / x.norm()


@pytest.mark.parametrize("seed", range(20))
def test_cka_bounds_procrustes_and_sharper_than_through_gram(seed: int) -> None:
    x, y = unit(16, 9, seed), unit(16, 5, seed + 100)
    k, el = x @ x.T, y @ y.T
    r, kappa, ell = 14, float(k.norm()), float(el.norm())
    gap = 1 - float((k * el).sum()) / (kappa * ell)
    d2 = float(procrustes_distance(x, y, form="squared", **UNIT))
    bound = math.sqrt(2 * r * kappa * ell * gap)
    through_gram = math.sqrt(r * 2 * gap) * (1 + math.sqrt(r) * ell) * kappa
    assert 0.1 < d2 <= bound < through_gram
    gram = float((k - el).square().sum())
    assert gram == pytest.approx((kappa - ell) ** 2 + 2 * kappa * ell * gap)
    assert gram <= 2 * kappa * ell * (1 + r * kappa * ell) * gap
    assert gap == pytest.approx(1 - float(cka(x, y)))


def test_super_fidelity_is_reached_in_a_plane_and_not_in_three_dimensions() -> None:
    def gap(spectrum: list[float], seed: int) -> float:
        d = len(spectrum)
        basis = from_spectra(9, [1.0] * d, [1.0]).teacher
        rotation = torch.linalg.qr(unit(d + 1, d, seed)[:d])[0]
        x = basis @ torch.tensor(spectrum, dtype=torch.float64).sqrt().diag()
        y = basis @ rotation @ torch.tensor(spectrum, dtype=torch.float64).sqrt().diag()
        d2 = float(procrustes_distance(x, y, form="squared"))
        gram = float((x @ x.T - y @ y.T).square().sum())
        assert d2 > 1e-4
        return d2 * (2 - d2 / 2) - gram

    assert all(abs(gap([0.8, 0.2], seed)) < 1e-9 for seed in range(5))
    assert all(gap([0.5, 0.3, 0.2], seed) > 1e-5 for seed in range(5))


@pytest.mark.parametrize("seed", range(10))
def test_procrustes_is_below_the_nuclear_norm_of_the_difference(seed: int) -> None:
    x, y = unit(16, 9, seed), unit(16, 5, seed + 100)
    difference = x @ x.T - y @ y.T
    nuclear = float(torch.linalg.svdvals(difference).sum())
    d2 = float(procrustes_distance(x, y, form="squared"))
    assert 0.1 < d2 <= nuclear <= math.sqrt(14) * float(difference.norm())


def test_a_collapsed_student_is_a_perfect_projection_of_the_teacher() -> None:
    x = unit(20, 5, 0)
    assert float(projection_distance(x, 0 * x, direction="to_student")) == 0
    assert float(projection_distance(x, 0 * x)) == pytest.approx(1)


@pytest.mark.parametrize("c", [1.0, 4.0, 100.0])
def test_some_teacher_attains_the_bound_of_a_map(c: float) -> None:
    x = from_spectra(9, [c / (1 + c), 1 / (1 + c)], [1.0]).teacher
    stretched = x * torch.tensor([1.0, c], dtype=torch.float64)
    d2 = float(procrustes_distance(x, stretched, form="squared", **UNIT))
    assert d2 == pytest.approx(2 * (math.sqrt(c) - 1) ** 2 / (c + 1), abs=1e-9)


@pytest.mark.parametrize("h", [1, 4, 32, 120])
def test_flat_halves_in_closed_form(h: int) -> None:
    x, y = flat_halves(256, h)
    assert float(feature_gram_distance(x, y)) == pytest.approx((2 * h) ** -0.5, abs=1e-9)
    assert float(procrustes_distance(x, y)) == pytest.approx(math.sqrt(2 - math.sqrt(2)), abs=1e-9)
    assert float(cka(x, y)) == pytest.approx(math.sqrt(0.5), abs=1e-9)
    ranks = 1 / participation_ratio(x) + 1 / participation_ratio(y)
    assert float(feature_gram_distance(x, y)) ** 2 <= ranks + 1e-9


def gradient(loss: torch.nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    student = student.clone().requires_grad_()
    return torch.autograd.grad(loss(student, teacher), student)[0]


LOSSES = (ProcrustesLoss(), FeatureGramLoss(), CKALoss())
SINGULAR = torch.tensor([0.6, 0.3, 0.09, 0.01], dtype=torch.float64).sqrt()
BASIS = from_spectra(12, [1.0] * 4, [1.0]).teacher
"""Orthonormal columns, centred: the teacher of the next tests is BASIS * SINGULAR."""


def test_the_gradients_are_their_formulas() -> None:
    x, y = unit(20, 5, 0), unit(20, 3, 1)
    k, el = x @ x.T, y @ y.T
    u, s, vh = torch.linalg.svd(x.T @ y, full_matrices=False)
    overlap = (k * el).sum()
    formulas = (
        -2 * (x @ u @ vh - s.sum() * y),
        -4 * ((k - el) @ y - ((k - el) * el).sum() * y),
        -2 / (k.norm() * el.norm()) * (k - overlap / el.norm() ** 2 * el) @ y,
    )
    for loss, formula in zip(LOSSES, formulas, strict=True):
        torch.testing.assert_close(gradient(loss, y, x), formula, rtol=0, atol=1e-8)


@pytest.mark.parametrize("width", [4, 3])
def test_the_rates_near_the_best_student(width: int) -> None:
    lam, tau = SINGULAR[:width] ** 2, float(SINGULAR[width:].square().sum())
    best, flatter = lam / (1 - tau), lam + tau / width
    ratio = ((SINGULAR**4).sum() * best.square().sum()).rsqrt()  # √(PR_X PR_Y)
    rates = (2 * math.sqrt(1 - tau) * lam**0, 8 * flatter, 4 * lam * ratio)
    for loss, mu, rate in zip(LOSSES, (best, flatter, best), rates, strict=True):
        s = mu.sqrt()
        delta = 1e-6 * torch.linalg.qr(torch.stack([s, s**3, s**0], 1))[0][:, 2]  # no common term
        student = BASIS[:, :width] * (s + delta)
        pull = (BASIS.T @ gradient(loss, student, BASIS * SINGULAR)).diagonal()
        torch.testing.assert_close(pull / delta, rate, rtol=1e-3, atol=0)


def test_a_dropped_direction_is_pulled_out_of_the_last_one() -> None:
    t = SINGULAR
    student = BASIS[:, :3] * (t[:3] ** 2 / (1 - t[3] ** 2)).sqrt()
    student[:, 2] += 1e-6 * BASIS[:, 3]
    pull = float((BASIS.T @ gradient(LOSSES[0], student, BASIS * t))[3, 2]) / 1e-6
    assert pull == pytest.approx(2 * math.sqrt(0.99) * (1 - 0.01 / 0.09), abs=1e-3)


@pytest.mark.parametrize("size", [0.0, 1e-6])
def test_only_procrustes_brings_a_missing_direction_back(size: float) -> None:
    noise = size * unit(12, 4, 0)
    for loss in LOSSES:
        student = torch.nn.functional.pad(BASIS[:, :3] * SINGULAR[:3], (0, 1)) + noise
        for _ in range(50):
            student = student - 0.1 * gradient(loss, student, BASIS * SINGULAR)
        assert (float(student[:, 3].norm()) > 0.05) == isinstance(loss, ProcrustesLoss)


@pytest.mark.parametrize("width", [5, 8, 11])
def test_the_procrustes_distance_bounds_random_readouts(width: int) -> None:
    x = unit(200, 8, 0)
    spare = torch.linalg.qr(torch.cat([x, unit(200, 3, 1)], 1))[0][:, 8:] / math.sqrt(3)
    y = torch.cat([x, spare], 1) if width == 11 else (x * torch.logspace(0, 3, 8))[:, :width]
    y = y / y.norm()
    padded = torch.nn.functional.pad(x, (0, max(0, width - 8)))
    u, _, vh = torch.linalg.svd(y.T @ padded)
    q = (u @ vh[:width])[:, :8]
    d2 = float(procrustes_distance(x, y, form="squared"))
    w = torch.randn(8, 100, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    norm = w.norm(dim=0)
    assert ((x @ w - y @ q @ w).norm(dim=0) <= math.sqrt(d2) * norm + 1e-12).all()
    assert ((q @ w).norm(dim=0) <= norm + 1e-12).all()
    lost = float((x - y @ q).square().sum())  # the mean over all directions
    if width == 11:  # half of the student's variance is on directions that the teacher lacks
        assert lost == pytest.approx((1 - math.sqrt(0.5)) ** 2)
        assert d2 == pytest.approx(2 - math.sqrt(2))
    else:
        assert lost == pytest.approx(d2)
        assert d2 > 0.1


@pytest.mark.parametrize("seed", range(10))
def test_a_map_of_condition_number_c_is_within_its_bound(seed: int) -> None:
    x = unit(30, 6, seed)
    a = torch.randn(6, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    singular = torch.linalg.svdvals(a)
    c = float(singular[0] / singular[-1])
    d2 = float(procrustes_distance(x, x @ a, form="squared", **UNIT))
    assert 0 < d2 <= 2 * (math.sqrt(c) - 1) ** 2 / (c + 1)
    rotation = torch.linalg.qr(a.T)[0].T
    assert float(procrustes_distance(x, x @ rotation, form="squared", **UNIT)) < 1e-9  # c = 1


def test_the_best_projection_of_a_narrow_student_leaves_its_spectrum_free() -> None:
    x, y = from_spectra(12, [0.4, 0.3, 0.2, 0.1], [1e-7, 1e-7, 1 - 2e-7])
    assert float(projection_distance(x, y, **UNIT)) ** 2 == pytest.approx(0.1, abs=1e-6)
    d2 = float(procrustes_distance(x, y, form="squared", **UNIT))
    assert 2 - 2 * math.sqrt(0.2) - 5e-3 < d2 < 2 - 2 * math.sqrt(0.2)


@pytest.mark.parametrize(("n", "m", "c"), [(16, 8, 1.0), (64, 10, 2.0), (256, 200, 0.5)])
def test_the_antiparallel_example_in_closed_form(n: int, m: int, c: float) -> None:
    x, y = antiparallel(n, d_teacher=m + 1, d_student=1, perturbed=m, size=c)
    top = n + c**2 * m / n
    squares = n**2 + 2 * c**2 * m + c**4 * m * (1 - 2 / n + m / n**2)
    assert float(cka(x, y)) == pytest.approx(top / math.sqrt(squares), abs=1e-9)
    fidelity = procrustes_distance(x, y, form="similarity", center=True)
    assert float(fidelity) ** 2 == pytest.approx(top / (n + c**2 * m * (1 - 1 / n)), abs=1e-9)


def test_no_student_of_rank_one_exceeds_spread_mass() -> None:
    tested = 0
    for seed in range(200):
        x = unit(20, 4, seed)
        y = x[:, :1] + 0.1 * (seed % 10) * unit(20, 1, seed + 1000)
        f2 = float(procrustes_distance(x, y, form="similarity", center=True)) ** 2
        if f2 >= 1 / 4:  # four directions: m + 1
            tested += 1
            assert float(cka(x, y)) <= f2 / math.sqrt(f2**2 + (1 - f2) ** 2 / 3) + 1e-9
    assert tested > 50


@pytest.mark.parametrize(("p", "k"), [(0.0, 3), (0.6, 3), (0.9, 8)])
def test_a_shared_part_and_flat_rests_attain_the_left_bounds(p: float, k: int) -> None:
    rest, none = [(1 - p) / k] * k, [0.0] * k
    x, y = from_spectra(30, [p, *rest, *none], [p, *none, *rest])
    d2 = float(procrustes_distance(x, y, form="squared"))
    assert d2 == pytest.approx(2 * (1 - p), abs=1e-9)
    assert math.sqrt(2 * k) * float(feature_gram_distance(x, y)) == pytest.approx(d2, abs=1e-9)


def test_spread_mass_attains_the_bound_by_cka_in_the_limit() -> None:
    x, y = spread_mass(n=2003, directions=2000, lost=0.01, d_teacher=2001)
    bound = (2 * 2001 * (1 - cka(x, y)) / participation_ratio(x).sqrt()).sqrt()
    assert 0.98 < float(procrustes_distance(x, y, form="squared") / bound) <= 1


@pytest.mark.parametrize("c", [0.5, 3.0])
def test_without_unit_norm_the_size_counts(c: float) -> None:
    x, y = unit(400, 6, 0), unit(400, 6, 1)
    d2 = float(procrustes_distance(x, y, form="squared"))
    scaled = float(procrustes_distance(x, c * y, form="squared"))
    assert scaled == pytest.approx((1 - c) ** 2 + c * d2, abs=1e-9)
    assert float(cka(x, c * x)) == pytest.approx(1, abs=1e-9)
    assert float(procrustes_distance(x, c * x)) == pytest.approx(abs(1 - c), abs=1e-6)


@pytest.mark.parametrize("n", [2, 3, 6])
def test_without_centring_the_bounds_need_n_rows_in_place_of_n_minus_one(n: int) -> None:
    rows = torch.eye(n, dtype=torch.float64)
    half = n // 2
    generator = torch.Generator().manual_seed(n)
    random = torch.randn(2, 50, n, n, generator=generator, dtype=torch.float64)
    orthogonal = rows[:, :half] / math.sqrt(half), rows[:, half:] / math.sqrt(n - half)
    pairs = [orthogonal, *((x / x.norm(), y / y.norm()) for x, y in zip(*random, strict=True))]
    exceeded = []
    for x, y in pairs:
        d2 = float(procrustes_distance(x, y, form="squared"))
        k, el = x @ x.T, y @ y.T
        sizes, gram = k.norm() * el.norm(), float((k - el).norm())
        by_cka = float((2 * (sizes - (k * el).sum())).sqrt())
        assert d2 <= math.sqrt(n) * min(gram, by_cka) + 1e-7
        exceeded.append(d2 > math.sqrt(n - 1) * gram + 1e-3)
    assert exceeded[0]


def test_without_centring_shuffled_rows_can_stay_close() -> None:
    x, y = (unit(400, 6, seed) + 1 for seed in (0, 1))
    shuffled = y[torch.randperm(400, generator=torch.Generator().manual_seed(0))]
    nuclear = float(torch.linalg.matrix_norm(y / y.norm(), ord="nuc"))
    d2 = float(procrustes_distance(x, shuffled, form="squared", scale="frobenius"))
    assert d2 < 0.1 < 1 < 2 - 2 * nuclear / math.sqrt(399)


def test_the_left_bound_is_strict_where_both_have_a_direction_unequally() -> None:
    x, y = from_spectra(9, [0.5, 0.3, 0.2], [0.4, 0.4, 0.2])
    trace = float(torch.linalg.matrix_norm(x @ x.T - y @ y.T, ord="nuc"))
    assert float(procrustes_distance(x, y, form="squared")) < 0.2 * trace


def test_without_centring_a_common_mean_hides_the_rest() -> None:
    x, y = unit(400, 6, 0), unit(400, 6, 1)
    mean = torch.zeros(400, 6, dtype=torch.float64)
    mean[:, 5] = 5 / 20
    raw = float(procrustes_distance(x + mean, y + mean, scale="frobenius"))
    assert raw <= 2 * math.sqrt(2 - 2 * math.sqrt(1 - 1 / 26))
    assert raw < 0.3 < 1 < float(procrustes_distance(x, y))


def test_one_row_far_away_decides_cka_and_fidelity() -> None:
    x = unit(100, 8, 0)
    y = x.clone()
    y[0] += 1e5 * torch.nn.functional.normalize(torch.ones(8, dtype=torch.float64), dim=0)
    k = float(x[0] @ x[0]) * 100 / 99
    assert float(cka(x, y)) == pytest.approx(k / float((x @ x.T).norm()), abs=1e-4)
    fidelity = procrustes_distance(x, y, form="similarity", center=True)
    assert float(fidelity) == pytest.approx(math.sqrt(k), abs=1e-4)
