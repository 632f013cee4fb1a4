"""The nuclear norm and its gradient: three solvers, and where the norm is not differentiable."""

import pytest
import torch
from support.random_rows import normal
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry import nuclear as module
from geodistill.geometry import nuclear_norm

SOLVERS = ["svd", "eigh", "polar_express"]
SHAPES = [(7, 4), (4, 7), (5, 5), (1, 6), (3, 1)]


def with_spectrum(rows: int, columns: int, s: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix with these singular values, and its polar factor over the non-zero ones."""
    u = torch.linalg.qr(normal(rows, len(s)))[0]
    v = torch.linalg.qr(normal(columns, len(s), seed=1))[0]
    return (u * s) @ v.T, (u * (s > 0)) @ v.T


def value_and_gradient(c: Tensor, solver: str) -> tuple[Tensor, Tensor]:
    c = c.clone().requires_grad_()
    value = nuclear_norm(c, solver)
    value.sum().backward()
    return value.detach(), c.grad


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_equals_svdvals_and_autograd_through_it(solver: str, shape: tuple[int, int]) -> None:
    c = normal(*shape).requires_grad_()
    expected = torch.linalg.svdvals(c).sum()
    expected.backward()
    value, gradient = value_and_gradient(c.detach(), solver)
    assert torch.allclose(value, expected.detach(), rtol=1e-8)
    assert torch.allclose(gradient, c.grad, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradcheck_where_differentiable(shape: tuple[int, int]) -> None:
    for solver in ("svd", "eigh"):
        assert torch.autograd.gradcheck(
            lambda c, s=solver: nuclear_norm(c, s), normal(*shape).requires_grad_()
        )


@pytest.mark.parametrize("solver", SOLVERS)
def test_float32_gradient_on_a_decaying_spectrum(solver: str) -> None:
    s = 1 / torch.arange(1, 129, dtype=torch.float64)
    c, polar = with_spectrum(384, 128, s)
    value, gradient = value_and_gradient(c.float(), solver)
    assert value.dtype == gradient.dtype == torch.float32
    assert float(value) == pytest.approx(float(s.sum()), rel=1e-6)
    assert (gradient - polar).norm() / polar.norm() < 1e-5


def test_a_float32_gram_would_lose_the_gradient() -> None:
    """The trap that `eigh` avoids by float64, kept as contrast."""
    c, polar = with_spectrum(384, 128, 1 / torch.arange(1, 129, dtype=torch.float64) ** 2)
    squares, v = torch.linalg.eigh(c.float().T @ c.float())
    naive = c.float() @ (v / squares.clamp_min(1e-12).sqrt()) @ v.T
    assert (naive - polar).norm() / polar.norm() > 0.05
    _, gradient = value_and_gradient(c.float(), "eigh")
    assert (gradient - polar).norm() / polar.norm() < 1e-2


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("values", [[3, 2, 0, 0], [2, 2, 2, 1], [1, 1, 1, 1], [5, 0, 0, 0]])
def test_a_rank_deficient_matrix_gets_the_polar_factor_and_a_null_space_isometry(
    solver: str, values: list[float]
) -> None:
    c, polar = with_spectrum(6, 4, torch.tensor(values, dtype=torch.float64))
    value, gradient = value_and_gradient(c.float(), solver)
    assert float(value) == pytest.approx(sum(values), rel=1e-5)
    tolerance = 5e-2 if solver == "polar_express" else 1e-5
    completion = gradient.double() - polar
    assert (completion.T @ polar).norm() < tolerance
    assert (completion @ polar.T).norm() < tolerance
    assert torch.allclose(gradient.T @ gradient, torch.eye(4), atol=tolerance)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_the_choice_at_a_kink_is_the_matrix_s_alone(solver: str, shape: tuple[int, int]) -> None:
    """Zero columns and rows, on the axes too: rounding of size 1e-17 does not change the choice."""
    for lost in ([0], [1, 3]):
        c = torch.eye(*shape, dtype=torch.float64) if len(lost) == 1 else normal(*shape)
        c[:, lost] = 0
        _, exact = value_and_gradient(c, "svd")
        _, gradient = value_and_gradient(c + 1e-17 * normal(*shape, seed=4), solver)
        assert torch.allclose(gradient, exact, atol=1e-6)
        if shape[0] >= shape[1]:  # the left null space has room for each lost column
            assert torch.allclose(exact[:, lost].norm(dim=0), torch.ones(len(lost)).double())


@pytest.mark.parametrize("solver", SOLVERS)
def test_subgradient_inequality_at_a_kink(solver: str) -> None:
    c, _ = with_spectrum(6, 4, torch.tensor([3.0, 1, 0, 0], dtype=torch.float64))
    value, gradient = value_and_gradient(c, solver)
    assert torch.linalg.matrix_norm(gradient, ord=2) <= 1 + 1e-6
    for seed in range(20):
        other = c + 0.5 * normal(6, 4, seed=seed)
        linear = value + (gradient * (other - c)).sum()
        assert torch.linalg.svdvals(other).sum() >= linear - 1e-6


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_has_value_zero_and_an_isometry_for_a_subgradient(
    solver: str, dtype: torch.dtype
) -> None:
    value, gradient = value_and_gradient(torch.zeros(5, 3, dtype=dtype), solver)
    assert value == 0
    assert torch.allclose(gradient.T @ gradient, torch.eye(3, dtype=dtype), atol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_rounding_noise_is_no_direction(solver: str) -> None:
    """n < d: XᵀY in float32 has singular values of rounding where exact ones are zero."""
    x, y = normal(8, 60), normal(8, 40, seed=1)
    x, y = (f - f.mean(0) for f in (x, y))
    _, exact = value_and_gradient(x.T @ y, "svd")
    _, gradient = value_and_gradient(x.float().T @ y.float(), solver)
    assert (gradient - exact).norm() / exact.norm() < 1e-4
    signal = x @ exact
    assert torch.linalg.matrix_rank(signal) == 7  # the null spaces add nothing to the rows


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_batch_is_its_members(solver: str) -> None:
    c = normal(2, 3, 5, 4)
    c[1, 2] = 0
    value, gradient = value_and_gradient(c, solver)
    assert value.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            norm, slope = value_and_gradient(c[i, j], solver)
            assert torch.allclose(value[i, j], norm)
            assert torch.allclose(gradient[i, j], slope, atol=1e-8)


@pytest.mark.parametrize("solver", SOLVERS)
def test_half_precision_and_autocast_compute_in_float32(solver: str) -> None:
    c = normal(20, 10).bfloat16()
    expected = torch.linalg.svdvals(c.double()).sum()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = nuclear_norm(c, solver)
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(float(expected), rel=1e-5)


def test_every_coefficient_step_approaches_one() -> None:
    for lower in (1e-6, 1e-3, 0.5):
        x = torch.logspace(torch.log10(torch.tensor(lower)).item(), 0, 400, dtype=torch.float64)
        worst = 1 - lower
        for first, third, fifth in module._coefficients(lower):
            x = first * x + third * x**3 + fifth * x**5
            assert (x - 1).abs().max() <= worst + 1e-9
            worst = float((x - 1).abs().max())
        assert worst < 1e-6


# --- the traps, each kept as contrast -----------------------------------------------------------


def test_autograd_through_the_factors_of_an_svd_fails_where_ours_does_not() -> None:
    c, polar = with_spectrum(6, 4, torch.tensor([2.0, 2, 1, 1], dtype=torch.float64))
    naive = c.clone().requires_grad_()
    u, s, vh = torch.linalg.svd(naive, full_matrices=False)
    (u * s @ vh).diagonal().sum().backward()  # equals c's trace, of gradient 1 on the diagonal
    assert not torch.allclose(naive.grad, torch.eye(6, 4).double(), atol=1e-6)
    for solver in SOLVERS:
        assert torch.allclose(value_and_gradient(c, solver)[1], polar, atol=1e-6)


def test_muons_coefficients_would_not_converge_to_one() -> None:
    x = torch.linspace(0.1, 1, 50, dtype=torch.float64)
    for _ in range(50):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    assert (x - 1).abs().max() > 0.1


def test_tf32_is_off_inside_and_as_before_after(monkeypatch: pytest.MonkeyPatch) -> None:
    flags, before = torch.backends.cuda.matmul, torch.backends.cuda.matmul.allow_tf32
    inside = []
    product = torch.baddbmm

    def noting(*tensors: Tensor, **options: float) -> Tensor:
        inside.append(flags.allow_tf32)
        return product(*tensors, **options)

    monkeypatch.setattr(torch, "baddbmm", noting)
    try:
        flags.allow_tf32 = True
        nuclear_norm(normal(5, 3), "polar_express")
        assert flags.allow_tf32
    finally:
        flags.allow_tf32 = before
    assert inside
    assert not any(inside)


@pytest.mark.parametrize("shape", [(9, 5), (5, 9), (2, 4, 6)])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_graph_without_a_break_gives_the_same(solver: str, shape: tuple[int, ...]) -> None:
    def loss(x: Tensor) -> Tensor:
        return (2 * nuclear_norm(x + x.square(), solver) + 1).sum()

    x = normal(*shape, dtype=torch.float32)
    plain, compiled = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected = loss(plain)
    torch.compiler.reset()
    value = torch.compile(loss, fullgraph=True, backend="aot_eager")(compiled)
    expected.backward()
    value.backward()
    assert torch.allclose(value, expected, rtol=1e-5)
    assert plain.grad.norm() > 0.1
    assert torch.allclose(compiled.grad, plain.grad, atol=1e-4)


@pytest.mark.parametrize("width", [1, 63, 64, 65, 150])  # a block of the Gram has 64 columns
def test_eigh_is_the_svd_at_every_width(width: int) -> None:
    for shape in ((160, width), (2, width, 160)):
        value, gradient = value_and_gradient(normal(*shape), "eigh")
        expected, polar = value_and_gradient(normal(*shape), "svd")
        assert torch.allclose(value, expected, rtol=1e-10)
        assert torch.allclose(gradient, polar, atol=1e-8)


@pytest.mark.parametrize("shape", [(7, 3), (3, 7)])
def test_eigh_is_that_of_the_smaller_gram(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes, eigh = [], torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda a: shapes.append(a.shape) or eigh(a))
    value_and_gradient(normal(*shape), "eigh")
    assert shapes == [(3, 3)]


def test_auto_is_eigh_on_a_cpu() -> None:
    for dtype in (torch.float32, torch.float64):
        c = normal(9, 5, dtype=dtype)
        auto, eigh, other = (value_and_gradient(c, s) for s in ("auto", "eigh", "polar_express"))
        assert torch.equal(auto[0], eigh[0])
        assert torch.equal(auto[1], eigh[1])
        assert not torch.equal(auto[1], other[1])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("size", [1e-25, 1e15])
def test_neither_small_nor_large_numbers_leave_float32(solver: str, size: float) -> None:
    c = normal(6, 4)
    expected, polar = value_and_gradient(c, "svd")
    value, gradient = value_and_gradient((c * size).float(), solver)
    assert float(value) == pytest.approx(size * float(expected), rel=1e-5)
    assert torch.allclose(gradient.double(), polar, atol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_second_derivative_is_refused_not_zero(solver: str) -> None:
    c = normal(5, 3)
    through_svdvals = torch.autograd.functional.hessian(lambda c: torch.linalg.svdvals(c).sum(), c)
    assert through_svdvals.norm() > 0.1  # so zeros would be wrong
    with pytest.raises(RuntimeError, match=r"a second derivative .* expected one"):
        torch.autograd.functional.hessian(lambda c: nuclear_norm(c, solver), c)
    c.requires_grad_()
    (first,) = torch.autograd.grad(nuclear_norm(c, solver), c, create_graph=True)
    assert torch.equal(first, value_and_gradient(c.detach(), solver)[1])


@pytest.mark.parametrize(
    ("c", "solver", "message"),
    [
        ([[1.0]], "auto", r"c is a list: expected a torch\.Tensor"),
        (torch.tensor([[1.0, torch.nan]]), "auto", r"c holds 1 NaN or infinite values of 2"),
        (torch.tensor([[1.0, -torch.inf]]), "polar_express", r"c holds 1 NaN or infinite"),
        (torch.tensor([[3e38, 3e38]]), "auto", r"c has values up to 3e\+38, whose squares overf"),
        (torch.ones(2, 2), "qr", r"solver is 'qr': expected one of \('auto', 'svd'"),
        (torch.ones(2, 2, dtype=torch.long), "auto", r"dtype torch.int64: expected dense"),
        (torch.eye(3).to_sparse(), "auto", r"shape \(3, 3\) .* expected dense"),
        (torch.ones(3), "auto", r"shape \(3,\)"),
        (torch.ones(3, 0), "auto", r"shape \(3, 0\)"),
    ],
)
def test_refusals(c: Tensor, solver: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        nuclear_norm(c, solver)
