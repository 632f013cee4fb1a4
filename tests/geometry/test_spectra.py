"""Weighted sums of singular values from Gram matrices, against an SVD of the rows."""

import pytest
import torch
from torch import Tensor

from geodistill.geometry.spectra import weighted_spectrum

WEIGHTS = torch.tensor([3.0, 2.0, 1.5, 0.5], dtype=torch.float64)


def rows_with(spectrum: list[float], n: int = 30) -> Tensor:
    generator = torch.Generator().manual_seed(len(spectrum))
    u = torch.linalg.qr(torch.randn(n, len(spectrum), generator=generator, dtype=torch.float64))[0]
    v = torch.randn(len(spectrum), len(spectrum), generator=generator, dtype=torch.float64)
    return u * torch.tensor(spectrum, dtype=torch.float64) @ torch.linalg.qr(v)[0]


def value_and_gradient(y: Tensor, *, refined: bool) -> tuple[float, Tensor]:
    leaf, fixed = y.clone().requires_grad_(), y.clone()
    refine = (lambda v: (fixed @ v).T @ (fixed @ v)) if refined else None
    value = weighted_spectrum(leaf.T @ leaf, WEIGHTS, refine)
    value.backward()
    return float(value.detach()), leaf.grad


@pytest.mark.parametrize("refined", [False, True])
@pytest.mark.parametrize("spectrum", [[4.0, 3.0, 2.0, 1.0], [1.0, 0.1, 0.01, 1e-3, 1e-4]])
def test_value_and_gradient_are_those_of_the_singular_values(
    spectrum: list[float], refined: bool
) -> None:
    y = rows_with(spectrum)
    value, gradient = value_and_gradient(y, refined=refined)
    u, s, vh = torch.linalg.svd(y, full_matrices=False)
    assert value == pytest.approx(float((WEIGHTS * s[:4]).sum()), rel=1e-10)
    assert torch.allclose(gradient, (u[:, :4] * WEIGHTS) @ vh[:4], atol=1e-5)


def test_gradients_of_rows_and_weights_by_finite_differences() -> None:
    y = rows_with([4.0, 3.0, 2.0, 1.0], n=6).requires_grad_()
    weights = WEIGHTS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda y, w: weighted_spectrum(y.T @ y, w), (y, weights))


def test_small_singular_values_come_from_the_rows() -> None:
    """A Gram matrix in float64 leaves 1e-8 of the largest; the rows resolve far less."""
    y = rows_with([1.0, 1e-3, 1e-7, 3e-9])
    u, _, vh = torch.linalg.svd(y, full_matrices=False)
    exact = (u * WEIGHTS) @ vh
    errors = [
        float((value_and_gradient(y, refined=refined)[1] - exact).norm() / exact.norm())
        for refined in (False, True)
    ]
    assert errors[1] < 1e-4 < 1e-2 < errors[0]


def test_a_direction_without_rows_gets_no_gradient() -> None:
    y = rows_with([2.0, 1.0, 0.5, 0.25])
    y[:, 2] = 0
    _, gradient = value_and_gradient(y, refined=True)
    assert gradient[:, 2].abs().max() < 1e-6
    assert gradient.norm() > 1
