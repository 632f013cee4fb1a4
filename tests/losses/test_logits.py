"""Kullback-Leibler losses against torch.distributions, with masks, temperature and refusals."""

import math

import pytest
import torch
from support.random_rows import normal
from torch import Tensor
from torch.distributions import Categorical, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from geodistill.distill.teacher_outputs import topk_with_tail
from geodistill.errors import InputError
from geodistill.losses import (
    BernoulliKLLoss,
    KLDivergenceLoss,
    SquaredErrorLoss,
    logit_loss_for,
)

KINDS = ["forward", "reverse", "skew"]


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


def on_top(k: int, kind: str) -> tuple[Tensor, Tensor, Tensor]:
    """Per row: the divergence on the teacher's top k and the rest, the full one, the gap's parts.

    The gap by the chain rule, computed apart: the mass of the tail times the divergence within it.
    """
    teacher, student = 2 * normal(40, 200, seed=2), 2 * normal(40, 200, seed=3)
    log_p, log_q = teacher.log_softmax(-1), student.log_softmax(-1)
    values, indices = log_p.topk(k, dim=-1)
    loss = KLDivergenceLoss(kind)
    student_top = topk_with_tail(log_q.gather(-1, indices))
    rows = zip(student_top, topk_with_tail(values), strict=True)
    short = torch.stack([loss(a[None], b[None]) for a, b in rows])
    full = torch.stack([loss(a[None], b[None]) for a, b in zip(student, teacher, strict=True)])
    tail = torch.ones_like(log_p, dtype=torch.bool).scatter(1, indices, False)
    p, q = (a.exp()[tail].view(40, -1) for a in (log_p, log_q))
    first, second = {"forward": (p, q), "reverse": (q, p), "skew": (p, 0.1 * p + 0.9 * q)}[kind]
    mass = first.sum(-1)
    within = kl_divergence(
        *(Categorical(probs=a / a.sum(-1, keepdim=True)) for a in (first, second))
    )
    return short, full, mass * within


@pytest.mark.parametrize("kind", KINDS)
def test_on_top_k_and_the_rest_the_gap_is_what_the_tail_hides(kind: str) -> None:
    short, full, gap = on_top(20, kind)
    assert torch.allclose(full - short, gap, rtol=1e-7, atol=1e-10)
    assert (gap > 0).all()  # data processing: never above the full divergence
    narrower = [float((f - s).mean()) for s, f, _ in (on_top(k, kind) for k in (5, 20, 80, 198))]
    assert narrower == sorted(narrower, reverse=True)
    assert narrower[-1] < 0.01 * float(full.mean())


@pytest.mark.parametrize("kind", KINDS)
def test_on_top_k_in_float32_is_that_in_float64(kind: str) -> None:
    teacher, student = 4 * normal(64, 500, seed=4), 4 * normal(64, 500, seed=5)
    values = []
    for dtype in (torch.float32, torch.float64):
        log_p, log_q = (a.to(dtype).log_softmax(-1) for a in (teacher, student))
        top, indices = log_p.topk(32, dim=-1)
        student_top = topk_with_tail(log_q.gather(-1, indices))
        values.append(float(KLDivergenceLoss(kind)(student_top, topk_with_tail(top))))
    assert values[0] == pytest.approx(values[1], rel=1e-4)


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
        (
            lambda: KLDivergenceLoss(temperature=0),
            "temperature is 0: expected a finite number above 0",
        ),
        (
            lambda: KLDivergenceLoss(temperature=float("inf")),
            "temperature is inf: expected a finite number above 0",
        ),
        (
            lambda: KLDivergenceLoss(temperature=float("nan")),
            "temperature is nan: expected a finite number above 0",
        ),
        (lambda: KLDivergenceLoss()(STUDENT, TEACHER[..., :5]), "have 6 classes, teacher_logits 5"),
        (lambda: KLDivergenceLoss()(STUDENT, TEACHER[:1]), r"teacher_logits has rows \(1, 5\)"),
        (lambda: KLDivergenceLoss()(STUDENT / 0, TEACHER), "student_logits holds"),
        (lambda: KLDivergenceLoss()(STUDENT, TEACHER, 0 * MASK), "keeps no row"),
        (
            lambda: BernoulliKLLoss()(STUDENT, -TEACHER / 0),
            r"teacher_logits holds .*: expected fin",
        ),
        (lambda: SquaredErrorLoss()(STUDENT, TEACHER * math.nan), "teacher holds 60 NaN or infini"),
        (lambda: SquaredErrorLoss()(STUDENT.long(), TEACHER), "student has dtype torch.int64: exp"),
    ],
)
def test_refusals(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("kind", KINDS)
def test_a_masked_class_counts_for_nothing(kind: str) -> None:
    masked = torch.full_like(STUDENT[..., :1], torch.finfo(torch.float32).min)
    student = torch.cat([STUDENT, masked], -1).float().detach().requires_grad_()
    value = KLDivergenceLoss(kind)(student, torch.cat([TEACHER, masked], -1).float())
    value.backward()
    assert float(value) == pytest.approx(float(KLDivergenceLoss(kind)(STUDENT, TEACHER)), rel=1e-5)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
    assert student.grad[..., -1].abs().max() == 0


def test_squares_of_half_precision_do_not_overflow() -> None:
    far = torch.tensor([[600.0], [0.0]])
    assert float(SquaredErrorLoss()(far.half(), torch.zeros(2, 1).half())) == 180_000


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_bernoulli_kl_is_cross_entropy_less_entropy(temperature: float) -> None:
    """By torch's own binary cross-entropy, summed over the labels of a row."""
    student = STUDENT.double().requires_grad_()
    p = (TEACHER / temperature).sigmoid().double()
    rows = bce(student / temperature, p, reduction="none")
    rows = (rows - bce(TEACHER.double() / temperature, p, reduction="none")).sum(-1)
    expected = temperature**2 * rows[MASK.bool()].mean()
    value = BernoulliKLLoss(temperature)(student, TEACHER.double(), MASK)
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    assert float(value) > 0.1
    (found,) = torch.autograd.grad(value, student)
    (wanted,) = torch.autograd.grad(expected, student)
    assert torch.allclose(found, wanted, atol=1e-8)


def test_bernoulli_kl_sees_a_common_shift_and_a_softmax_does_not() -> None:
    assert float(KLDivergenceLoss()(STUDENT + 3, STUDENT)) < 1e-6
    assert float(BernoulliKLLoss()(STUDENT + 3, STUDENT)) > 0.5
    assert float(BernoulliKLLoss()(STUDENT, STUDENT)) == pytest.approx(0, abs=1e-6)


def test_bernoulli_kl_is_finite_far_out() -> None:
    far = torch.tensor([[200.0, -200.0]], requires_grad=True)
    value = BernoulliKLLoss()(far, -far.detach())
    value.backward()
    assert float(value) == pytest.approx(400)
    assert far.grad is not None
    assert far.grad.tolist() == [[1.0, -1.0]]


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        ("single_label_classification", KLDivergenceLoss),
        ("multi_label_classification", BernoulliKLLoss),
        ("regression", SquaredErrorLoss),
    ],
)
def test_the_loss_of_a_kind_of_head(problem: str, kind: type) -> None:
    assert type(logit_loss_for(problem)) is kind
    assert logit_loss_for(problem).takes_logits


def test_the_loss_of_an_unknown_kind_of_head() -> None:
    with pytest.raises(InputError, match=r"problem_type is 'ranking': expected one of single_lab"):
        logit_loss_for("ranking")


def test_one_logit_has_no_softmax() -> None:
    with pytest.raises(InputError, match=r"have 1 class, whose softmax is always 1: expected Sq"):
        KLDivergenceLoss()(STUDENT[..., :1], TEACHER[..., :1])
    with pytest.raises(InputError, match=r"student outputs have shape \(2,\), the teacher's \(2,"):
        SquaredErrorLoss()(torch.zeros(2), torch.zeros(2, 1))
