"""Orthonormal bases of columns, their rank and gradient; the fits that are built on them."""

import pytest
import torch
from support.random_rows import normal
from torch import Tensor

from geodistill.geometry import (
    linear_regression_r2,
    mean_canonical_correlation,
    projection_distance,
)
from geodistill.geometry.column_space import column_basis

FLOOR = 1e-13


def test_the_columns_are_orthonormal_and_span_those_of_the_rows() -> None:
    rows = normal(2, 12, 4)
    q = column_basis(rows, FLOOR)
    assert torch.allclose(q.mT @ q, torch.eye(4, dtype=q.dtype).expand(2, 4, 4), atol=1e-12)
    assert torch.allclose(q @ (q.mT @ rows), rows, atol=1e-12)
    assert torch.allclose(q @ q.mT, rows @ torch.linalg.pinv(rows), atol=1e-12)


@pytest.mark.parametrize("units", [1e-30, 1e-6, 1.0, 1e30])
def test_units_of_the_columns_do_not_matter(units: float) -> None:
    rows, scales = normal(12, 3), torch.tensor([1e-6, 1.0, 1e6], dtype=torch.float64)
    projections = [
        q @ q.mT for q in (column_basis(r, FLOOR) for r in (rows, rows * scales * units))
    ]
    assert torch.allclose(*projections, atol=1e-12)


@pytest.mark.parametrize(
    ("rows", "rank"),
    [
        (torch.cat([normal(9, 2), normal(9, 2) @ normal(2, 3, seed=1)], 1), 2),
        (torch.cat([normal(9, 2), torch.zeros(9, 1)], 1), 2),
        (torch.zeros(9, 3, dtype=torch.float64), 0),
        (normal(3, 7), 3),
    ],
    ids=["dependent", "zero column", "zero", "wide"],
)
def test_directions_beyond_the_rank_are_zero_columns(rows: Tensor, rank: int) -> None:
    q = column_basis(rows, FLOOR)
    assert q.shape == (len(rows), min(rows.shape))
    assert (q != 0).any(0).sum() == rank
    assert torch.allclose(q @ (q.T @ rows), rows, atol=1e-12)


FITS = [
    projection_distance,
    linear_regression_r2,
    mean_canonical_correlation,
    lambda x, y: projection_distance(x, y, direction="to_student", center=True),
]


@pytest.mark.parametrize("fit", FITS)
def test_fits_pass_gradcheck_and_refuse_a_second_derivative(fit: object) -> None:
    x, y = normal(12, 3).requires_grad_(), (normal(12, 2, seed=1) + 0.5).requires_grad_()
    assert torch.autograd.gradcheck(fit, (x, y))
    gradients = torch.autograd.grad(fit(x, y), (x, y), create_graph=True)
    assert min(gradient.norm() for gradient in gradients) > 1e-3
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), (x, y))


def test_the_gradient_in_a_span_of_lower_rank_is_that_of_its_independent_columns() -> None:
    x, y = normal(12, 3), normal(12, 2, seed=1)
    doubled = torch.cat([y, y[:, :1]], 1).requires_grad_()
    independent = y.clone().requires_grad_()
    projection_distance(x, doubled).backward()
    projection_distance(x, independent).backward()
    first, second = independent.grad.T
    # moved alike, the two copies are one column
    assert torch.allclose(doubled.grad[:, 0] + doubled.grad[:, 2], first, rtol=1e-9)
    assert torch.allclose(doubled.grad[:, 1], second, rtol=1e-9)
    assert first.norm() > 0.01
