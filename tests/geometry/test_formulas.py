"""Every measure on every kind of input against formulas in numpy with 80 bits; cost at n < d."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from support.random_rows import normal
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from geodistill.geometry import (
    best_student,
    cka,
    feature_gram_distance,
    geometry_kept,
    linear_regression_r2,
    mean_canonical_correlation,
    participation_ratio,
    permutation_test,
    procrustes_distance,
    procrustes_parts,
    projection_distance,
)
from geodistill.geometry.column_space import narrow

UNIT = {"center": True, "scale": "frobenius"}
Rows = np.ndarray


# --- the definitions, on the n × n side and by Gram-Schmidt, in extended precision ---------------


def centred(x: Rows) -> Rows:
    return x - x.mean(0)


def unit(x: Rows) -> Rows:
    x = centred(x)
    return x / np.sqrt((x * x).sum())


def basis(y: Rows) -> Rows:
    """Gram-Schmidt, three times over; columns in the span of those before them are left out."""
    columns: list[Rows] = []
    for column in y.T:
        rest = column.copy()
        for _ in range(3):
            for q in columns:
                rest = rest - q * (q @ rest)
        if np.sqrt(rest @ rest) > 1e-13 * np.sqrt(column @ column):
            columns.append(rest / np.sqrt(rest @ rest))
    return np.stack(columns, 1)


def nuclear(x: Rows, y: Rows) -> float:
    """Rotated by Gram-Schmidt into as many columns as there are rows."""
    x, y = (f @ basis(f.T) if len(f) < f.shape[1] else f for f in (x, y))
    return float(np.linalg.svd((x.T @ y).astype(float), compute_uv=False).sum())


def procrustes(x: Rows, y: Rows) -> float:
    return max(0.0, float((x * x).sum() + (y * y).sum() - 2 * nuclear(x, y))) ** 0.5


def residual(x: Rows, y: Rows) -> Rows:
    q = basis(y)
    x = x - q @ (q.T @ x)
    return x - q @ (q.T @ x)


def norm(x: Rows) -> float:
    return float(np.sqrt((x * x).sum()))


def kernel_alignment(x: Rows, y: Rows) -> float:
    k, el = (f @ f.T for f in (unit(x), unit(y)))
    return float((k * el).sum() / np.sqrt((k * k).sum() * (el * el).sum()))


def debiased(x: Rows, y: Rows) -> float:
    """Song et al. (2012), equation 5, by Grams without their diagonals."""
    n = len(x)

    def hsic(k: Rows, el: Rows) -> Any:
        traces = k.sum() * el.sum() / ((n - 1) * (n - 2))
        return (k * el).sum() + traces - 2 * (k.sum(0) @ el.sum(0)) / np.longdouble(n - 2)

    k, el = (f @ f.T for f in (unit(x), unit(y)))
    k, el = k - np.diag(np.diag(k)), el - np.diag(np.diag(el))
    return float(hsic(k, el) / np.sqrt(hsic(k, k) * hsic(el, el)))


def ratio(x: Rows) -> float:
    k = unit(x) @ unit(x).T
    return float(np.trace(k) ** 2 / (k * k).sum())


def canonical(x: Rows, y: Rows) -> float:
    q_x, q_y = basis(centred(x)), basis(centred(y))
    correlations = np.linalg.svd((q_x.T @ q_y).astype(float), compute_uv=False)
    return float(correlations.mean())


# name: the measure, its definition, and the size that its error is a share of
CASES: dict[str, tuple[Callable[..., Tensor], Callable[..., float], Callable[..., float]]] = {
    "procrustes": (procrustes_distance, procrustes, lambda x, y: norm(x) + norm(y)),
    "unit procrustes": (
        partial(procrustes_distance, **UNIT),
        lambda x, y: procrustes(unit(x), unit(y)),
        lambda x, y: 1.0,
    ),
    "gram": (
        feature_gram_distance,
        lambda x, y: norm(x @ x.T - y @ y.T),
        lambda x, y: norm(x @ x.T) + norm(y @ y.T),
    ),
    "cka": (cka, kernel_alignment, lambda x, y: 1.0),
    "debiased cka": (partial(cka, debiased=True), debiased, lambda x, y: 1.0),
    "projection": (projection_distance, lambda x, y: norm(residual(x, y)), lambda x, y: norm(x)),
    "centred projection": (
        partial(projection_distance, center=True),
        lambda x, y: norm(residual(centred(x), centred(y))),
        lambda x, y: norm(centred(x)),
    ),
    "r2": (
        linear_regression_r2,
        lambda x, y: 1 - (norm(residual(centred(x), centred(y))) / norm(centred(x))) ** 2,
        lambda x, y: 1.0,
    ),
    "cca": (mean_canonical_correlation, canonical, lambda x, y: 1.0),
    "participation ratio": (
        lambda x, y, mask=None: participation_ratio(x, mask=mask),
        lambda x, y: ratio(x),
        lambda x, y: 1.0,
    ),
}
ROWS_FOR: dict[str, Callable[[int, int], int]] = {
    "projection": lambda d_x, d_y: d_y + 1,
    "centred projection": lambda d_x, d_y: d_y + 2,
    "r2": lambda d_x, d_y: d_y + 2,
    "cca": lambda d_x, d_y: d_x + d_y + 1,
}
SHAPES = [(40, 7, 4), (9, 4, 3), (4, 3, 1), (30, 1, 1), (30, 64, 4), (8, 40, 50), (5, 1, 9)]
KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": lambda x: x,
    "a constant column": lambda x: torch.cat([x, torch.full_like(x[:, :1], 1e6 / 3)], 1),
    "a zero column": lambda x: torch.cat([torch.zeros_like(x[:, :1]), x], 1),
    "dependent columns": lambda x: torch.cat([x, x[:, :1] - 2 * x[:, -1:]], 1),
    "offset 1e4": lambda x: x + 1e4,
    "condition 1e8": lambda x: x * torch.logspace(0, -8, x.shape[1], dtype=x.dtype) @ _mixer(x),
    "1e-30": lambda x: 1e-30 * x,
    "1e30": lambda x: 1e30 * x,
    "float32 of 1e-30": lambda x: (1e-30 * x).float(),
    "float32 of 1e30": lambda x: (1e30 * x).float(),
    "float16": lambda x: x.half(),
    "bfloat16": lambda x: x.bfloat16(),
}


def _mixer(x: Tensor) -> Tensor:
    mixed: Tensor = torch.linalg.qr(normal(x.shape[1], x.shape[1], seed=9))[0]
    return mixed


@pytest.mark.parametrize("rows", [5, 30])
def test_the_gradient_of_the_parts_of_a_batch_is_that_of_its_members(rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2, rows, d, generator=generator, dtype=torch.float64) for d in (7, 4))
    gradients = []
    for pairs in ([(x, y.requires_grad_())], zip(x, y, strict=True)):
        spectrum, _ = zip(*(procrustes_parts(*pair) for pair in pairs), strict=True)
        (gradient,) = torch.autograd.grad(sum(part.sum() for part in spectrum), y)
        gradients.append(gradient)
    assert torch.allclose(*gradients, rtol=1e-8, atol=1e-10)
    assert (gradients[0].flatten(1).norm(dim=1) > 0.01).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_the_measure_is_its_definition_for_every_kind_of_features(name: str, kind: str) -> None:
    function, definition, size = CASES[name]
    compared = 0
    for n, d_x, d_y in SHAPES:
        x = normal(n, d_x)
        y = x @ normal(d_x, d_y, seed=1) + 0.5 * normal(n, d_y, seed=2)
        x, y = KINDS[kind](x), KINDS[kind](y)
        if n < ROWS_FOR.get(name, lambda d_x, d_y: 1)(x.shape[1], y.shape[1]):
            continue
        value = float(function(x, y))
        rows = [f.double().numpy().astype(np.longdouble) for f in (x, y)]
        # twice the root of float64's rounding: a distance is the root of a difference
        assert abs(value - definition(*rows)) <= 3e-8 * size(*rows), (n, d_x, d_y)
        compared += 1
        padding = [torch.full_like(f[:2], float("nan")) for f in (x, y)]
        both = [
            torch.stack([torch.cat([f, nan]), torch.cat([nan, f])])
            for f, nan in zip((x, y), padding, strict=True)
        ]
        mask = torch.arange(n + 2) < n
        values = function(*both, mask=torch.stack([mask, mask.flip(0)]))
        assert (values - value).abs().max() <= 3e-8 * size(*rows)
    assert compared >= (2 if name in ROWS_FOR else len(SHAPES))


def test_an_offset_and_a_condition_number_of_1e8_cost_no_digits() -> None:
    """The products of the rows would square both: they gave 261.9 for 34.2 and 0.39 for 0.10."""
    x = normal(100, 16)
    y = x @ normal(16, 32, seed=1) + normal(100, 32, seed=2)
    graded = y * torch.logspace(0, -8, 32, dtype=y.dtype) @ _mixer(y)
    for a, b, center in ((x + 1e4, y + 1e4, False), (x, graded, True)):
        rows = [f.numpy().astype(np.longdouble) for f in (a, b)]
        prepare = centred if center else np.asarray
        expected = norm(residual(*map(prepare, rows)))
        value = float(projection_distance(a, b, center=center))
        assert expected > 1
        assert value == pytest.approx(expected, rel=1e-9)


# --- n < d: the n × n side ----------------------------------------------------------------------


class LargestResult(TorchDispatchMode):
    """The most numbers that an operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor):
                self.numbers = max(self.numbers, value.numel())
        return result


WIDE: dict[str, Callable[..., object]] = {
    "procrustes": procrustes_distance,
    "unit procrustes": partial(procrustes_distance, **UNIT),
    "parts": procrustes_parts,
    "gram": feature_gram_distance,
    "cka": cka,
    "debiased": partial(cka, debiased=True),
    "participation ratio": lambda x, y: participation_ratio(x),
    "gradient": lambda x, y: procrustes_distance(x.requires_grad_(), y).sum().backward(),
}
ONE_PAIR: dict[str, Callable[..., object]] = {
    "permutations": lambda x, y: permutation_test(procrustes_distance, x, y, permutations=20),
    "permuted cka": lambda x, y: permutation_test(cka, x, y, permutations=20),
    "best student": lambda x, y: best_student(feature_gram_distance, x, 40),
    "geometry kept": lambda x, y: geometry_kept(procrustes_distance, x, y[:, :3]),
}


@pytest.mark.parametrize(
    ("name", "lead"), [(n, ()) for n in [*WIDE, *ONE_PAIR]] + [(n, (3,)) for n in WIDE]
)
def test_few_rows_need_no_matrix_of_width_times_width(name: str, lead: tuple[int, ...]) -> None:
    x, y = normal(*lead, 16, 500), normal(*lead, 16, 400, seed=1)
    with LargestResult() as largest:
        (WIDE | ONE_PAIR)[name](x, y)
    assert 16 * 16 <= largest.numbers <= x.numel() < 400 * 400


def test_narrow_keeps_the_gram_matrix_and_the_gradient() -> None:
    x, y = normal(6, 40), normal(6, 30, seed=1)
    for rows in (x, x.clone().requires_grad_()):
        assert narrow(rows).shape == (6, 6)
        assert torch.allclose(narrow(rows) @ narrow(rows).T, x @ x.T, rtol=1e-12)
    assert torch.equal(narrow(x.T), x.T)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(procrustes_distance(x, y, form="squared"), x)
    u, _, vh = torch.linalg.svd(x.detach().T @ y, full_matrices=False)
    u, vh = u[:, :6], vh[:6]
    assert torch.allclose(gradient, 2 * (x.detach() - y @ vh.T @ u.T), rtol=1e-9)
