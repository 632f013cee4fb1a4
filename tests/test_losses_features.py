"""Feature losses: values, gradients, masks, dtypes, controls, against independent formulas."""

import math

import pytest
import torch
from torch import Tensor, nn

from geodistill.errors import InputError
from geodistill.geometry import (
    best,
    best_student,
    cka,
    feature_gram_distance,
    from_spectra,
    procrustes_distance,
    procrustes_parts,
)
from geodistill.losses import (
    CKALoss,
    FeatureGramLoss,
    IsotropyLoss,
    PCATargetLoss,
    ProcrustesLoss,
    ProjectionLoss,
    ShuffledRows,
    SpectrumLoss,
)

D_S, D_T = 4, 7


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TEACHER = normal(3, 10, D_T) * torch.arange(1, D_T + 1) + 1
STUDENT = normal(3, 10, D_S, seed=1) - 2
X, Y = TEACHER.flatten(0, 1), STUDENT.flatten(0, 1)


def build() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "procrustes": ProcrustesLoss(),
        "gram": FeatureGramLoss(),
        "cka": CKALoss(),
        "cka-root": CKALoss(root=True),
        "cka-debiased": CKALoss(debiased=True),
        "projection": ProjectionLoss(D_S, D_T),
        "pca": PCATargetLoss.fit(TEACHER, D_S),
        "spectrum": SpectrumLoss(),
        "isotropy": IsotropyLoss(),
        "shuffled": ShuffledRows(ProcrustesLoss()),
    }


NAMES = list(build())


def centred_unit(x: Tensor) -> Tensor:
    x = x - x.mean(0)
    return x / x.norm()


def test_values_are_those_of_the_measures() -> None:
    unit = {"center": True, "scale": "frobenius"}
    losses = build()
    expected = {
        "procrustes": procrustes_distance(X, Y, form="squared", **unit),
        "gram": feature_gram_distance(X, Y, **unit) ** 2,
        "cka": 1 - cka(X, Y),
        "cka-root": 1 - cka(X, Y, root=True),
        "cka-debiased": 1 - cka(X, Y, debiased=True),
        "spectrum": procrustes_parts(X, Y)[0],
        "isotropy": 2 - 2 * torch.linalg.svdvals(centred_unit(Y)).sum() / math.sqrt(D_S),
    }
    for name, value in expected.items():
        assert torch.allclose(losses[name](STUDENT, TEACHER), value, rtol=1e-10), name
        assert value > 0.01


def test_projection_and_pca_values_are_their_definitions() -> None:
    losses = build()
    weight = losses["projection"].weight.double()
    x, y = centred_unit(X), centred_unit(Y)
    expected = (x - y @ weight).norm() ** 2
    assert torch.allclose(losses["projection"](STUDENT, TEACHER), expected, rtol=1e-10)
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    target = centred_unit(u[:, :D_S] * s[:D_S])
    target = target * (target.T @ losses["pca"].prepare(X, Y)[0]).diag().sign()
    expected = (target - y).norm() ** 2
    assert torch.allclose(losses["pca"](STUDENT, TEACHER), expected, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck_and_gradient_is_not_zero(name: str) -> None:
    loss = build()[name].double()
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    if name == "shuffled":  # a fixed order, or finite differences see another function each call
        loss, teacher = ProcrustesLoss(), X[order].view_as(TEACHER)
    else:
        teacher = TEACHER
    mask = torch.arange(30).view(3, 10) % 7 != 0
    student = STUDENT.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda y: loss(y, teacher, mask), student)
    loss(student, teacher, mask).backward()
    assert student.grad.norm() > 1e-4
    assert student.grad[~mask].abs().max() == 0


@pytest.mark.parametrize("name", NAMES)
def test_masked_rows_are_dropped_exactly(name: str) -> None:
    mask = torch.ones(3, 10, dtype=torch.long)
    mask[0, 4:] = mask[2, 0] = 0
    student, teacher = STUDENT.clone(), TEACHER.clone()
    student[0, 4:], teacher[2, 0] = float("nan"), float("inf")
    kept = mask.flatten().bool()
    masked, short = build()[name](student, teacher, mask), build()[name](Y[kept], X[kept])
    assert torch.equal(masked, short)
    assert not torch.allclose(masked, build()[name](STUDENT, TEACHER), rtol=1e-6)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("cka-debiased", "shuffled")])
def test_unchanged_when_every_row_is_repeated(name: str) -> None:
    loss = build()[name]
    once, twice = loss(Y, X), loss(Y.repeat(3, 1), X.repeat(3, 1))
    assert torch.allclose(once, twice, rtol=1e-6)


def test_debiased_cka_counts_the_rows() -> None:
    loss = CKALoss(debiased=True)
    assert abs(loss(Y, X) - loss(Y.repeat(3, 1), X.repeat(3, 1))) > 1e-3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_and_autocast_compute_in_float32(name: str, dtype: torch.dtype) -> None:
    student, teacher = (f.to(dtype) for f in (STUDENT, TEACHER))
    exact = build()[name].double()(student.double(), teacher.double())
    student.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = build()[name](student, teacher)
    value.backward()
    assert value.dtype == torch.float32
    assert float(value.detach()) == pytest.approx(float(exact.detach()), abs=2e-5)
    assert student.grad.dtype == dtype
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_degenerate_features_have_finite_values_and_gradients(name: str) -> None:
    rows = torch.arange(1, 31, dtype=torch.float64)[:, None]
    cases = {
        "equal": X[:, :D_S].clone(),
        "constant": torch.full((30, D_S), 0.1),
        "zero": torch.zeros(30, D_S),
        "rank one": rows * torch.ones(D_S),
    }
    for case, student in cases.items():
        for dtype in (torch.float32, torch.float64):
            y = student.to(dtype, copy=True).requires_grad_()
            value = build()[name](y, X.to(dtype))
            value.backward()
            assert torch.isfinite(value), case
            assert torch.isfinite(y.grad).all(), case
            assert y.grad.abs().max() < 1e3, case


@pytest.mark.parametrize("name", [n for n in NAMES if n != "cka-debiased"])
def test_one_row_has_no_geometry_and_no_gradient(name: str) -> None:
    y = Y[:1].clone().requires_grad_()
    build()[name](y, X[:1]).backward()
    assert y.grad.abs().max() == 0


@pytest.mark.parametrize("name", NAMES)
def test_unusable_features_are_refused_by_name(name: str) -> None:
    for student, teacher, mask, message in (
        (STUDENT / 0, TEACHER, None, "student holds"),
        (STUDENT, TEACHER * float("nan"), None, "teacher holds"),
        (STUDENT[:2], TEACHER, None, r"teacher has rows \(3, 10\) and student \(2, 10\)"),
        (STUDENT, TEACHER, torch.zeros(3, 10), "mask has dtype"),
        (STUDENT, TEACHER, torch.zeros(3, 10, dtype=torch.bool), "keeps no row"),
    ):
        with pytest.raises(InputError, match=message):
            build()[name](student, teacher, mask)


# --- what each is for --------------------------------------------------------------------------


def test_descent_on_procrustes_reaches_the_floor_of_the_width() -> None:
    y = Y.clone().requires_grad_()
    optimiser = torch.optim.Adam([y], lr=0.1)
    for _ in range(300):
        optimiser.zero_grad()
        loss = ProcrustesLoss()(y, X)
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) == pytest.approx(best(procrustes_distance, X, D_S) ** 2, abs=1e-4)


def test_zero_of_the_pca_target_is_the_procrustes_floor() -> None:
    student = (X - X.mean(0)) @ PCATargetLoss.fit(X, D_S).components.double()
    assert PCATargetLoss.fit(X, D_S)(student, X) < 1e-10
    reached = procrustes_distance(X, student, center=True, scale="frobenius")
    assert float(reached) == pytest.approx(best(procrustes_distance, X, D_S), abs=1e-6)
    turned = student @ torch.linalg.qr(normal(D_S, D_S))[0]
    assert PCATargetLoss.fit(X, D_S)(turned, X) > 0.1  # it may not rotate


def test_pca_target_survives_a_large_offset_in_float32() -> None:
    loss = PCATargetLoss.fit(X + 1e3, D_S)
    student = best_student(procrustes_distance, X, D_S)
    expected = PCATargetLoss.fit(X, D_S)(student, X)
    assert torch.allclose(loss(student.float(), (X + 1e3).float()).double(), expected, atol=1e-3)


def test_projection_starts_on_the_scale_of_procrustes_and_ends_at_one_minus_r2() -> None:
    loss = ProjectionLoss(D_S, D_T).double()
    assert torch.allclose(loss.weight @ loss.weight.T, torch.eye(D_S).double(), atol=1e-6)
    assert ProcrustesLoss()(Y, X) <= loss(Y, X) <= 4
    solution = torch.linalg.lstsq(centred_unit(Y), centred_unit(X)).solution
    with torch.no_grad():
        loss.weight.copy_(solution)
    residual = (centred_unit(X) - centred_unit(Y) @ solution).norm() ** 2
    assert torch.allclose(loss(Y, X), residual)
    with torch.no_grad():
        loss.weight.zero_()
    assert float(loss(Y, X).detach()) == pytest.approx(1)


def test_projection_weight_is_a_parameter_that_gets_a_gradient() -> None:
    loss = ProjectionLoss(D_S, D_T)
    assert [name for name, _ in loss.named_parameters()] == ["weight"]
    loss(STUDENT.float(), TEACHER.float()).backward()
    assert loss.weight.grad.norm() > 1e-3
    assert all(not list(m.parameters()) for n, m in build().items() if n != "projection")


def test_controls_know_only_what_they_should() -> None:
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    for loss, blind in ((SpectrumLoss(), True), (IsotropyLoss(), True), (ProcrustesLoss(), False)):
        moved = abs(loss(Y, X) - loss(Y, X[order]))
        assert (moved < 1e-9) == blind
    assert torch.equal(IsotropyLoss()(Y, X), IsotropyLoss()(Y, normal(30, 2)))
    flat = from_spectra(20, [0.25] * 4, [1.0]).teacher
    assert abs(IsotropyLoss()(flat, flat)) < 1e-9
    assert abs(SpectrumLoss()(Y, X) - SpectrumLoss()(Y, X * X)) > 1e-3


def test_shuffled_rows_are_the_teachers_rows_in_another_order_each_call() -> None:
    class Record(nn.Module):
        def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
            self.seen = (student, teacher)
            return student.sum()

    record = Record()
    shuffled = ShuffledRows(record, seed=3)
    mask = torch.arange(30).view(3, 10) < 20
    seen = []
    for _ in range(3):
        shuffled(STUDENT, TEACHER, mask)
        student, teacher = record.seen
        assert torch.equal(student, Y[:20])
        assert not torch.equal(teacher, X[:20])
        assert torch.equal(teacher.sort(0).values, X[:20].sort(0).values)
        seen.append(teacher)
    assert not torch.equal(seen[0], seen[1])
    resumed = ShuffledRows(record, seed=3)
    shuffled(STUDENT, TEACHER, mask)
    state = {"calls": torch.tensor(3)}
    resumed.load_state_dict(state)
    expected = record.seen[1]
    resumed(STUDENT, TEACHER, mask)
    assert torch.equal(record.seen[1], expected)
    other = ShuffledRows(record, seed=4)
    other(STUDENT, TEACHER, mask)
    assert not torch.equal(record.seen[1], seen[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CKALoss(root=True, debiased=True), "root=True with debiased=True"),
        (lambda: ProjectionLoss(0, 3), "d_student = 0, d_teacher = 3"),
        (lambda: ProjectionLoss(4, 3)(Y, X), r"\(student, teacher\) are \(4, 7\): expected \(4, 3"),
        (lambda: PCATargetLoss.fit(X, 9), "d_student is 9: expected 1 to the teacher's width 7"),
        (lambda: PCATargetLoss.fit(X, 3)(Y, X), r"\(teacher, student\) are \(7, 4\): expected"),
        (lambda: PCATargetLoss(X, X[0, :2]), r"components \(30, 7\), mean \(2,\): expected"),
        (lambda: PCATargetLoss.fit(X / 0, 3), "teacher_features holds"),
        (lambda: ProcrustesLoss(scale="l2"), "scale is 'l2'"),
        (lambda: CKALoss(debiased=True)(Y[:3], X[:3]), "got 3 rows: expected at least 4"),
    ],
)
def test_refusals(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
