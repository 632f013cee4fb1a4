"""Kullback-Leibler losses against torch.distributions, with masks, temperature and refusals."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from geodistill.errors import InputError
from geodistill.losses import KLDivergenceLoss

KINDS = ["forward", "reverse", "skew"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


STUDENT, TEACHER = 2 * normal(2, 5, 6), 2 * normal(2, 5, 6, seed=1)
MASK = torch.tensor([[1, 1, 0, 0, 1], [0, 1, 1, 1, 1]])


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_torch_distributions(kind: str, temperature: float) -> None:
    p, q = (Categorical(logits=a[MASK.bool()] / temperature) for a in (TEACHER, STUDENT))
    pairs = {
        "forward": (p, q),
        "reverse": (q, p),
        "skew": (p, Categorical(probs=0.1 * p.probs + 0.9 * q.probs)),
    }
    expected = kl_divergence(*pairs[kind]).mean() * temperature**2
    value = KLDivergenceLoss(kind, temperature)(STUDENT, TEACHER, MASK)
    assert value > 0.1
    assert torch.allclose(value, expected, rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck_zero_at_the_teacher_and_shift_of_logits(kind: str) -> None:
    loss = KLDivergenceLoss(kind, 2.0)
    assert torch.autograd.gradcheck(lambda s: loss(s, TEACHER, MASK), STUDENT.requires_grad_())
    equal = TEACHER.clone().requires_grad_()
    value = loss(equal + 3, TEACHER)
    value.backward()
    assert value.detach().abs() < 1e-12
    assert equal.grad.abs().max() < 1e-9


def test_forward_gradient_is_cross_entropy_s_with_soft_targets() -> None:
    student = STUDENT.detach().clone().requires_grad_()
    KLDivergenceLoss()(student, TEACHER).backward()
    expected = (student.softmax(-1) - TEACHER.softmax(-1)) / 10
    assert torch.allclose(student.grad, expected.detach())


def test_extreme_logits_stay_finite_and_the_skew_is_bounded() -> None:
    far = torch.tensor([[0.0, 1e4]]), torch.tensor([[1e4, 0.0]])
    for kind in KINDS:
        value = KLDivergenceLoss(kind)(*far)
        assert torch.isfinite(value)
        assert value > 1
    assert float(value) == pytest.approx(math.log(10), rel=1e-5)


def test_half_precision_is_computed_in_float32() -> None:
    student, teacher = STUDENT.detach().bfloat16(), TEACHER.bfloat16()
    value = KLDivergenceLoss()(student, teacher)
    assert value.dtype == torch.float32
    exact = KLDivergenceLoss()(student.double(), teacher.double())
    assert float(value) == pytest.approx(float(exact), rel=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: KLDivergenceLoss("js"), r"kind is 'js': expected one of \('forward'"),
        (lambda: KLDivergenceLoss(temperature=0), "temperature is 0: expected a number above 0"),
        (lambda: KLDivergenceLoss()(STUDENT, TEACHER[..., :5]), "have 6 classes, teacher_logits 5"),
        (lambda: KLDivergenceLoss()(STUDENT, TEACHER[:1]), r"teacher_logits has rows \(1, 5\)"),
        (lambda: KLDivergenceLoss()(STUDENT / 0, TEACHER), "student_logits holds"),
        (lambda: KLDivergenceLoss()(STUDENT, TEACHER, 0 * MASK), "keeps no row"),
    ],
)
def test_refusals(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
