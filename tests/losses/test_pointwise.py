"""Losses of coordinates and pairs where float32 would not do: float64's value and gradient."""

import pytest
import torch
from support.feature_losses import D_S, D_T, build_losses, normal
from torch import Tensor, nn

from geodistill.geometry.moments import standardised
from geodistill.losses import CosineLoss, FlexLoss, PatientLoss, PCATargetLoss, RelationalLoss

NAMES = ["projection", "orthogonal", "cosine", "patient", "relational", "flex", "pca"]
X, Y = normal(20, D_T), normal(20, D_S, seed=1)


def check(loss: nn.Module, student: Tensor, teacher: Tensor) -> None:
    """Each row's gradient, in float32, against that in float64."""
    results = []
    for dtype in (torch.float64, torch.float32):
        y = student.float().to(dtype).requires_grad_()
        value = loss.to(dtype)(y, teacher.float().to(dtype))
        value.backward()
        results.append((float(value.detach()), y.grad.double()))
    (exact, gradient), (value, approximate) = results
    assert value == pytest.approx(exact, abs=1e-5)
    assert exact > 0.01
    assert (gradient.norm(dim=1) > 0).all()
    assert ((approximate - gradient).norm(dim=1) < 1e-3 * gradient.norm(dim=1)).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1e-30, 1e-22, 1e-15, 1, 1e15])
def test_any_size_gives_the_gradient(name: str, size: float) -> None:
    loss = build_losses()[name]
    if name == "pca":
        loss = PCATargetLoss.fit((size * X).float(), D_S)
    check(loss, size * Y, size * X)


@pytest.mark.parametrize("kind", [CosineLoss, PatientLoss, RelationalLoss])
def test_a_few_rows_of_another_size(kind: type[nn.Module]) -> None:
    student, teacher = Y.clone(), X[:, :D_S].clone()
    student[3] *= 1e-20
    student[5] *= 1e-25
    teacher[7] *= 1e16
    check(kind(), student, teacher)


@pytest.mark.parametrize("offset", [1e5, 1e6])
def test_rows_far_from_zero_are_not_taken_for_equal_ones(offset: float) -> None:
    check(build_losses()["projection"], Y - offset, X + offset)
    student = Y + offset * torch.tensor([0, 1, 0, 0])
    student[:, 2] *= 1e-20
    check(FlexLoss(torch.tensor([4, 1, 0, 6])), student, X)


def test_zero_rows_have_cosine_zero_and_leave_the_others_as_they_are() -> None:
    student = Y.float()
    student[2] = 0
    y = student.requires_grad_()
    value = CosineLoss()(y, X[:, :D_S].float())
    value.backward()
    assert y.grad[2].abs().max() == 0
    others = torch.arange(20) != 2
    alone = CosineLoss()(Y[others].float(), X[others][:, :D_S].float())
    assert float(value.detach()) == pytest.approx((19 * float(alone) + 1) / 20, abs=1e-6)
    n = torch.ones(20)
    rows = standardised(student[:, None], n, center=False, scale="frobenius")
    expected = standardised(student[others][:, None], n[others], center=False, scale="frobenius")
    assert torch.equal(rows[others], expected)  # in float32 as without the zero row
