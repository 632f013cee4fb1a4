"""Theorems of chapter 1 on random pairs, by formulas written here: no notebook is run."""

import math

import pytest
import torch
from torch import Tensor

from geodistill.geometry import cka, from_spectra, procrustes_distance

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
        turn = torch.linalg.qr(unit(d + 1, d, seed)[:d])[0]
        x = basis @ torch.tensor(spectrum, dtype=torch.float64).sqrt().diag()
        y = basis @ turn @ torch.tensor(spectrum, dtype=torch.float64).sqrt().diag()
        d2 = float(procrustes_distance(x, y, form="squared"))
        gram = float((x @ x.T - y @ y.T).square().sum())
        assert d2 > 1e-4
        return d2 * (2 - d2 / 2) - gram

    assert all(abs(gap([0.8, 0.2], seed)) < 1e-9 for seed in range(5))
    assert all(gap([0.5, 0.3, 0.2], seed) > 1e-5 for seed in range(5))


@pytest.mark.parametrize("seed", range(10))
def test_a_map_of_condition_c_keeps_within_its_price(seed: int) -> None:
    x = unit(30, 6, seed)
    a = torch.randn(6, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    singular = torch.linalg.svdvals(a)
    c = float(singular[0] / singular[-1])
    d2 = float(procrustes_distance(x, x @ a, form="squared", **UNIT))
    assert 0 < d2 <= 2 * (math.sqrt(c) - 1) ** 2 / (c + 1)
    turn = torch.linalg.qr(a.T)[0].T
    assert float(procrustes_distance(x, x @ turn, form="squared", **UNIT)) < 1e-9  # c = 1
