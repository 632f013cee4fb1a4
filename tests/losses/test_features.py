"""Feature losses: values, gradients, masks, dtypes, controls, against independent formulas."""

import math

import pytest
import torch
from support.feature_losses import (
    D_S,
    D_T,
    NAMES,
    STUDENT,
    TEACHER,
    build_losses,
    normal,
)
from torch import Tensor, nn

from geodistill.errors import InputError
from geodistill.geometry import (
    best_student,
    ceiling,
    cka,
    feature_gram_distance,
    from_spectra,
    procrustes_distance,
    procrustes_parts,
)
from geodistill.losses import (
    AlignmentLoss,
    CKALoss,
    CosineLoss,
    FlexLoss,
    IsotropyLoss,
    OrthogonalProjectionLoss,
    PatientLoss,
    PCATargetLoss,
    ProcrustesLoss,
    ProjectionLoss,
    RelationalLoss,
    ShuffledRows,
    SpectrumLoss,
)

X, Y = TEACHER.flatten(0, 1), STUDENT.flatten(0, 1)
WITH_PARAMETERS = {"projection", "orthogonal", "cosine", "patient"}


def in_double(name: str) -> nn.Module:
    """The loss with its learned map, if it has one, in float64 too."""
    return build_losses()[name].double()


def centred_unit(x: Tensor) -> Tensor:
    x = x - x.mean(0)
    return x / x.norm()


def test_values_are_those_of_the_measures() -> None:
    unit = {"center": True, "scale": "frobenius"}
    losses = build_losses()
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
    losses = build_losses()
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
    loss = build_losses()[name].double()
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
    valid = mask.flatten().bool()
    masked, short = in_double(name)(student, teacher, mask), in_double(name)(Y[valid], X[valid])
    assert torch.equal(masked, short)
    assert not torch.allclose(masked, in_double(name)(STUDENT, TEACHER), rtol=1e-6)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("cka-debiased", "shuffled")])
def test_unchanged_when_every_row_is_repeated(name: str) -> None:
    loss = in_double(name)
    once, twice = loss(Y, X), loss(Y.repeat(3, 1), X.repeat(3, 1))
    assert torch.allclose(once, twice, rtol=1e-6)


def test_debiased_cka_counts_the_rows() -> None:
    loss = CKALoss(debiased=True)
    assert abs(loss(Y, X) - loss(Y.repeat(3, 1), X.repeat(3, 1))) > 1e-3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_and_autocast_compute_in_float32(name: str, dtype: torch.dtype) -> None:
    student, teacher = (f.to(dtype) for f in (STUDENT, TEACHER))
    exact = build_losses()[name].double()(student.double(), teacher.double())
    student.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = build_losses()[name](student, teacher)
    value.backward()
    assert value.dtype == torch.float32
    assert float(value.detach()) == pytest.approx(float(exact.detach()), abs=2e-5)
    assert student.grad.dtype == dtype
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("offset", [0, 10])
@pytest.mark.parametrize(("d_student", "flat"), [(128, False), (384, True)])
def test_float32_is_as_close_to_float64_as_stated(
    d_student: int, flat: bool, offset: float
) -> None:
    """Thousands of rows of a falling spectrum: where sums in float32 lose most."""
    teacher, student = (
        normal(4096, d, seed=d) * torch.arange(1, d + 1) ** (0.0 if flat else -1.0) + offset
        for d in (768, d_student)
    )
    for name in ("procrustes", "gram", "cka", "spectrum", "isotropy"):
        results = []
        for dtype in (torch.float64, torch.float32):
            y = student.float().to(dtype).requires_grad_()
            value = build_losses()[name](y, teacher.float().to(dtype))
            value.backward()
            results.append((float(value.detach()), y.grad.double()))
        (exact, gradient), (value, approximate) = results
        loose = name == "spectrum" or (name == "isotropy" and offset)
        assert value == pytest.approx(exact, abs=1e-5), name
        assert (approximate - gradient).norm() < (2e-3 if loose else 1e-4) * gradient.norm(), name
        assert gradient.norm() > 0


@pytest.mark.parametrize("rows", [4, 40])  # few rows are compared as rows, many by their sums
@pytest.mark.parametrize("name", ["procrustes", "gram", "cka", "spectrum", "alignment"])
@pytest.mark.parametrize("size", [1e-30, 1e-22, 1e-15, 1e15, 1e30])
def test_any_size_that_float32_holds_gives_the_same_loss(name: str, rows: int, size: float) -> None:
    """Squares of float32 would under- or overflow; the gradient falls as the size grows."""
    student, teacher = normal(rows, D_S).float(), normal(rows, D_T, seed=1).float()
    y, scaled = student.clone().requires_grad_(), (size * student).requires_grad_()
    expected, value = build_losses()[name](y, teacher), build_losses()[name](scaled, size * teacher)
    expected.backward()
    value.backward()
    assert float(value.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    assert y.grad.norm() > 1e-4
    assert (scaled.grad.double() * size - y.grad).norm() < 1e-4 * y.grad.norm()


@pytest.mark.parametrize("rows", [4, 40])
def test_squares_that_overflow_are_refused(rows: int) -> None:
    student, teacher = normal(rows, D_S), normal(rows, D_T)
    for name in ("procrustes", "gram", "cka", "spectrum"):
        with pytest.raises(InputError, match=r"student has values up to .*squares overflow"):
            build_losses()[name](1e160 * student, teacher)
    with pytest.raises(InputError, match=r"student has values up to .*squares overflow"):
        build_losses()["isotropy"](1e30 * student.float(), teacher.float())


@pytest.mark.parametrize("name", ["procrustes", "gram", "cka"])
def test_no_second_derivative_comes_out_as_zeros(name: str) -> None:
    with pytest.raises(RuntimeError, match="a second derivative"):
        torch.autograd.functional.hessian(lambda y: build_losses()[name](y, X), Y)


@pytest.mark.parametrize("kind", [CosineLoss, PatientLoss])
@pytest.mark.parametrize("map_dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_projection_of_another_precision_is_cast_to(kind: type, map_dtype: torch.dtype) -> None:
    linear = nn.Linear(D_S, D_T, bias=False).to(map_dtype)
    results = kind(linear)(STUDENT, TEACHER)
    expected = kind()((Y @ linear.weight.double().T).view(*STUDENT.shape[:-1], D_T), TEACHER)
    assert torch.allclose(results, expected, atol=1e-2 if map_dtype == torch.bfloat16 else 1e-6)
    results.backward()
    assert linear.weight.grad.abs().sum() > 0


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
            value = build_losses()[name].to(dtype)(y, X.to(dtype))
            value.backward()
            assert torch.isfinite(value), case
            assert torch.isfinite(y.grad).all(), case
            assert y.grad.abs().max() < 1e3, case


@pytest.mark.parametrize(
    "name", [n for n in NAMES if n not in ("cka-debiased", "cosine", "patient")]
)
@pytest.mark.filterwarnings("ignore:.*a batch of one row")
def test_one_row_has_no_geometry_and_no_gradient(name: str) -> None:
    y = Y[:1].clone().requires_grad_()
    loss = in_double(name)
    loss(y, X[:1]).backward()
    assert y.grad.abs().max() == 0


@pytest.mark.parametrize("name", NAMES)
def test_unusable_features_are_refused_by_name(name: str) -> None:
    for student, teacher, mask, message in (
        (STUDENT / 0, TEACHER, None, "student holds"),
        (STUDENT, TEACHER * float("nan"), None, "teacher holds"),
        (STUDENT.tolist(), TEACHER, None, "student is a list: expected a torch.Tensor"),
        (STUDENT, TEACHER, [True], "mask is a list: expected a torch.Tensor"),
        (STUDENT[:2], TEACHER, None, r"teacher has rows \(3, 10\) and student \(2, 10\)"),
        (STUDENT, TEACHER, torch.zeros(3, 10), "mask has dtype"),
        (STUDENT, TEACHER, torch.zeros(3, 10, dtype=torch.bool), "keeps no row"),
    ):
        with pytest.raises(InputError, match=message):
            in_double(name)(student, teacher, mask)


@pytest.mark.parametrize("name", NAMES)
def test_every_feature_loss_asks_for_hidden_states(name: str) -> None:
    assert build_losses()[name].requires_hidden_states is True


# --- what each is for --------------------------------------------------------------------------


def test_descent_on_procrustes_reaches_the_floor_of_the_width() -> None:
    y = Y.clone().requires_grad_()
    optimiser = torch.optim.Adam([y], lr=0.1)
    for _ in range(300):
        optimiser.zero_grad()
        loss = ProcrustesLoss()(y, X)
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) == pytest.approx(
        ceiling(procrustes_distance, X, D_S) ** 2, abs=1e-4
    )


def test_zero_of_the_pca_target_is_the_procrustes_floor() -> None:
    student = (X - X.mean(0)) @ PCATargetLoss.fit(X, D_S).components.double()
    assert PCATargetLoss.fit(X, D_S)(student, X) < 1e-10
    reached = procrustes_distance(X, student, center=True, scale="frobenius")
    assert float(reached) == pytest.approx(ceiling(procrustes_distance, X, D_S), abs=1e-6)
    turned = student @ torch.linalg.qr(normal(D_S, D_S))[0]
    assert PCATargetLoss.fit(X, D_S)(turned, X) > 0.1  # it may not rotate


def test_pca_target_survives_a_large_offset_in_float32() -> None:
    loss = PCATargetLoss.fit(X + 1e3, D_S)
    target, _ = loss.prepare((X + 1e3).float(), Y.float())
    assert target.mean(0).abs().max() < 1e-2 < target.std()  # the offset is subtracted first
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


def test_one_column_on_each_side_is_a_width_too() -> None:
    correlation = (centred_unit(X[:, :1]).T @ centred_unit(Y[:, :1])).item()
    for loss in (ProjectionLoss(1, 1), OrthogonalProjectionLoss(1, 1)):
        value = loss(Y[:, :1], X[:, :1]).item()
        assert value == pytest.approx(2 - 2 * loss.weight.item() * correlation, abs=1e-6)


def test_projection_weight_is_a_parameter_that_gets_a_gradient() -> None:
    loss = ProjectionLoss(D_S, D_T)
    assert [name for name, _ in loss.named_parameters()] == ["weight"]
    loss(STUDENT.float(), TEACHER.float()).backward()
    assert loss.weight.grad.norm() > 1e-3
    assert {n for n, m in build_losses().items() if list(m.parameters())} == WITH_PARAMETERS


@pytest.mark.parametrize("n", [6, 30, 400])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spectrum_and_alignment_part_sum_to_procrustes(n: int, dtype: torch.dtype) -> None:
    """Fewer rows than columns, and many; and the alignment part by a formula of its own."""
    x = normal(n, D_T) * torch.arange(1, D_T + 1) + 3
    y = normal(n, D_S, seed=1) + x[:, :D_S]
    student = y.to(dtype).requires_grad_()
    parts = [loss(student, x.to(dtype)) for loss in (SpectrumLoss(), AlignmentLoss())]
    total = ProcrustesLoss()(student, x.to(dtype))
    assert float(sum(parts).detach()) == pytest.approx(float(total.detach()), abs=1e-6)
    gradients = [torch.autograd.grad(value, student)[0] for value in (sum(parts), total)]
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-3 * float(gradients[1].norm()))
    unit = [rows - rows.mean(0) for rows in (x, y)]
    unit = [rows / rows.norm() for rows in unit]
    singular = [torch.linalg.svdvals(rows)[: min(D_T, D_S)] for rows in unit]
    overlap = (singular[0] * singular[1]).sum()
    expected = float(2 * (overlap - torch.linalg.svdvals(unit[0].T @ unit[1]).sum()).detach())
    assert float(parts[1].detach()) == pytest.approx(expected, abs=1e-6)
    assert expected > 0.01


def test_alignment_is_zero_for_any_variances_and_knows_the_order_of_rows() -> None:
    basis = torch.linalg.qr(normal(20, 3) - normal(20, 3).mean(0))[0]
    stretched = basis * torch.tensor([5.0, 2.0, 1.0])
    flatter = basis * torch.tensor([1.5, 1.2, 1.0])
    assert abs(AlignmentLoss()(flatter, stretched)) < 1e-9
    assert float(SpectrumLoss()(flatter, stretched)) > 0.01
    rotation = torch.linalg.qr(normal(3, 3, seed=5))[0]
    assert abs(AlignmentLoss()(stretched @ rotation, stretched)) < 1e-9
    assert float(AlignmentLoss()(stretched.flip(0), stretched)) > 0.1
    assert float(SpectrumLoss()(stretched.flip(0), stretched)) < 1e-9


def test_controls_are_invariant_to_what_they_ignore() -> None:
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    for loss, blind in ((SpectrumLoss(), True), (IsotropyLoss(), True), (ProcrustesLoss(), False)):
        moved = abs(loss(Y, X) - loss(Y, X[order]))
        assert (moved < 1e-9) == blind
    assert torch.equal(IsotropyLoss()(Y, X), IsotropyLoss()(Y, normal(30, 2)))
    flat = from_spectra(20, [0.25] * 4, [1.0]).teacher
    assert abs(IsotropyLoss()(flat, flat)) < 1e-9
    assert abs(SpectrumLoss()(Y, X) - SpectrumLoss()(Y, X * X)) > 1e-3


DEPEND_ON_AXES = {"projection", "orthogonal", "cosine", "patient", "flex", "pca"}
"""Losses whose parameters or fit belong to the axes of the teacher's features."""


@pytest.mark.parametrize("name", NAMES)
def test_a_rotated_teacher_gives_the_same_loss_unless_it_depends_on_axes(name: str) -> None:
    turned = X @ torch.linalg.qr(normal(D_T, D_T, seed=9))[0]
    before, after = (float(in_double(name)(Y, teacher).detach()) for teacher in (X, turned))
    assert before > 1e-3
    assert (abs(after - before) < 1e-6) == (name not in DEPEND_ON_AXES)


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


# --- rivals --------------------------------------------------------------------------------------


def test_orthogonal_projection_is_bounded_below_by_procrustes_and_reaches_it() -> None:
    torch.manual_seed(1)
    loss = OrthogonalProjectionLoss(D_S, D_T).double()
    floor = float(ProcrustesLoss()(Y, X))
    optimiser = torch.optim.Adam(loss.parameters(), lr=0.05)
    values = []
    for _ in range(400):
        optimiser.zero_grad()
        value = loss(Y, X)
        value.backward()
        optimiser.step()
        values.append(float(value.detach()))
        q = loss.weight.detach()
        assert torch.allclose(q @ q.T, torch.eye(D_S).double(), atol=1e-6)
    assert min(values) >= floor - 1e-6
    assert values[0] > floor + 0.1
    assert values[-1] == pytest.approx(floor, abs=1e-2)
    distorted = X[:, :D_S] @ (normal(D_S, D_S, seed=4) + torch.eye(D_S))
    free = torch.linalg.lstsq(centred_unit(distorted), centred_unit(X[:, :D_S])).residuals
    assert free.sum() < 1e-9  # what the free projection allows, the orthogonal one does not
    assert OrthogonalProjectionLoss(D_S, D_S).double()(distorted, X[:, :D_S]) > 0.1


def test_cosine_and_patient_values_and_that_one_is_twice_the_other() -> None:
    teacher = torch.tensor([[1.0, 0], [0, 2], [3, 4], [1, 1]])
    student = torch.tensor([[5.0, 0], [-1, 0], [-3, -4], [0, 0]])
    assert float(CosineLoss()(student, teacher)) == pytest.approx((0 + 1 + 2 + 1) / 4)
    assert float(PatientLoss()(student, teacher)) == pytest.approx((0 + 2 + 4 + 1) / 4)
    nonzero = normal(20, D_T, seed=6)
    x = X[:20]
    expected = 1 - torch.cosine_similarity(nonzero, x).mean()
    assert torch.allclose(CosineLoss()(nonzero, x), expected)
    assert torch.allclose(PatientLoss()(nonzero, x), 2 * expected)
    assert torch.allclose(CosineLoss()(nonzero * X[:20, :1].abs(), x), expected)  # blind to length
    assert abs(CosineLoss()(nonzero + 1, x) - expected) > 1e-3  # not to a shift


def test_relational_value_is_the_double_and_triple_loop() -> None:
    y, x = Y[:6], X[:6]

    def huber(a: Tensor) -> Tensor:
        return a**2 / 2 if a.abs() < 1 else a.abs() - 0.5

    def distance(a: Tensor, i: int, j: int) -> Tensor:
        mean = sum((a[k] - a[m]).norm() for k in range(6) for m in range(6)) / 30
        return (a[i] - a[j]).norm() / mean

    def cosine(a: Tensor, i: int, j: int, k: int) -> Tensor:
        if j in (i, k):
            return torch.zeros(()).double()
        return torch.dot(a[i] - a[j], a[k] - a[j]) / (a[i] - a[j]).norm() / (a[k] - a[j]).norm()

    pairs = [huber(distance(y, i, j) - distance(x, i, j)) for i in range(6) for j in range(6)]
    triplets = [
        huber(cosine(y, i, j, k) - cosine(x, i, j, k))
        for i in range(6)
        for j in range(6)
        for k in range(6)
    ]
    by_pair, by_triplet = sum(pairs) / 36, sum(triplets) / 216
    assert torch.allclose(RelationalLoss(distance=1, angle=0)(y, x), by_pair)
    assert torch.allclose(RelationalLoss(distance=0, angle=1)(y, x), by_triplet)
    assert torch.allclose(RelationalLoss()(y, x), by_pair + 2 * by_triplet)
    assert min(by_pair, by_triplet) > 1e-3


def test_relational_ignores_rotation_shift_and_scale_but_no_distortion() -> None:
    turned = 3 * Y @ torch.linalg.qr(normal(D_S, D_S))[0] + 1
    loss = RelationalLoss()
    assert torch.allclose(loss(turned, X), loss(Y, X))
    assert loss(turned, Y) < 1e-12
    assert loss(Y * torch.arange(1, D_S + 1), Y) > 1e-3


def test_flex_takes_the_units_with_the_largest_gradients_and_correlates() -> None:
    gradients = torch.zeros(3, 10, D_T).double()
    gradients[..., 5], gradients[..., 1], gradients[..., 2] = -3, 2, 1
    gradients[0, 0, 0] = 1e3
    mask = torch.ones(3, 10).bool()
    mask[0, 0] = False
    loss = FlexLoss.fit(gradients, 3, mask)
    assert loss.units.tolist() == [1, 2, 5]
    y = Y[:, :3]
    expected = [
        torch.corrcoef(torch.stack([y[:, j], X[:, u]]))[0, 1] for j, u in enumerate((1, 2, 5))
    ]
    assert torch.allclose(loss(y, X), 1 - sum(expected) / 3)
    assert loss(2 * X[:, [1, 2, 5]] + 1, X) < 1e-12
    assert float(loss(-X[:, [1, 2, 5]], X)) == pytest.approx(2)
    assert loss(X[:, [2, 1, 5]], X) > 0.1  # coordinate against coordinate
    assert "units" in loss.state_dict()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: OrthogonalProjectionLoss(4, 3)(Y, X), r"are \(4, 7\): expected \(4, 3"),
        (lambda: CosineLoss()(Y, X), "student has width 4 and teacher 7: expected one width"),
        (
            lambda: PatientLoss(nn.Linear(4, 3).double())(Y, X),
            "student has width 3 after the projection and teacher 7",
        ),
        (
            lambda: CosineLoss(5),
            r"projection is 5: expected a module, such as nn.Linear\(d_student",
        ),
        (lambda: PatientLoss(X), r"projection is tensor\([^\n]*: expected a module"),
        (lambda: CosineLoss(nn.Linear), "projection is <class .*Linear'>: expected a module"),
        (
            lambda: ShuffledRows(ProcrustesLoss),
            r"loss is <class .*: expected a module, such as Proc",
        ),
        (lambda: RelationalLoss(0, 0), "distance = 0, angle = 0: expected finite weights"),
        (lambda: RelationalLoss(-1), "distance = -1, angle = 2.0: expected finite weights"),
        (lambda: RelationalLoss(float("nan")), "distance = nan, angle = 2.0: expected finite"),
        (lambda: RelationalLoss(1, math.inf), "distance = 1, angle = inf: expected finite"),
        (lambda: FlexLoss([0, 1]), r"units is \[0, 1\]: expected a torch.Tensor of indices"),
        (lambda: FlexLoss(torch.tensor([2, -1])), "units holds -1: expected indices from 0 on"),
        (
            lambda: CosineLoss(nn.Sequential(nn.Linear(5, 7)).double())(Y, X),
            "projection cannot map the student's rows of width 4 .*: expected a module for this",
        ),
        (lambda: FlexLoss.fit(X, 8), "d_student is 8: expected 1 to the teacher's width 7"),
        (lambda: FlexLoss.fit(X / 0, 3), "gradients holds"),
        (lambda: FlexLoss(torch.tensor([0.5])), r"units has shape \(1,\) and dtype torch.float32"),
        (
            lambda: FlexLoss(torch.tensor([2, 7]))(Y[:, :2], X),
            r"widths \(student, teacher\) are \(2, 7\): expected 2 and more than 7",
        ),
        (lambda: CKALoss(root=True, debiased=True), "root=True with debiased=True"),
        (lambda: ProjectionLoss(0, 3), "d_student = 0, d_teacher = 3"),
        (lambda: ProjectionLoss(4, 3)(Y, X), r"\(student, teacher\) are \(4, 7\): expected \(4, 3"),
        (lambda: PCATargetLoss.fit(X, 9), "d_student is 9: expected 1 to the teacher's width 7"),
        (lambda: PCATargetLoss.fit(X, 3)(Y, X), r"\(student, teacher\) are \(4, 7\): expected \(3"),
        (lambda: PCATargetLoss(X, X[0, :2]), r"components \(30, 7\), mean \(2,\): expected"),
        (lambda: PCATargetLoss.fit(X / 0, 3), "teacher_features holds"),
        (lambda: ProcrustesLoss(scale="l2"), "scale is 'l2'"),
        (lambda: CKALoss(debiased=True)(Y[:3], X[:3]), "got 3 rows: expected at least 4"),
    ],
)
def test_refusals(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
