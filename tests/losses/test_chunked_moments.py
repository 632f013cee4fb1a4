"""Sums over rows by chunks: those over all at once, with their gradient, in flat memory."""

import pytest
import torch
from support.random_rows import normal
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from geodistill.errors import InputError
from geodistill.losses import CKALoss, FeatureGramLoss, ProcrustesLoss, chunked_moments
from geodistill.losses.chunked_moments import Rows, column_sums, products

NAMES = ("xx", "yy", "xy")


X, Y = normal(11, 4) + 2, normal(11, 3, seed=1) - 1
INDEX = torch.tensor([0, 2, 3, 5, 6, 7, 10])
MEANS = (normal(4, seed=2), normal(3, seed=3))


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked_moments, "CHUNK", 3)  # divides neither 7 nor 11


@pytest.mark.parametrize("index", [None, INDEX])
def test_sums_are_those_of_all_rows_at_once(index: Tensor | None) -> None:
    x, y = (f if index is None else f[index] for f in (X, Y))
    x_sum, y_sum = column_sums(Rows(X, Y, index))
    assert torch.allclose(x_sum, x.sum(0))
    assert torch.allclose(y_sum, y.sum(0))
    sums = products(Rows(X, Y, index), MEANS, NAMES)
    x, y = x - MEANS[0], y - MEANS[1]
    expected = {"size_x": (x * x).sum(), "size_y": (y * y).sum()}
    expected |= {"xx": x.T @ x, "yy": y.T @ y, "xy": x.T @ y}
    assert sums.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(sums[name], value), name


@pytest.mark.parametrize("index", [None, INDEX])
def test_gradients_of_both_sides_by_finite_differences(index: Tensor | None) -> None:
    def every(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return tuple(products(Rows(x, y, index), MEANS, NAMES).values())

    assert torch.autograd.gradcheck(every, (X.clone().requires_grad_(), Y.clone().requires_grad_()))


def test_dropped_rows_count_nowhere_whatever_they_hold() -> None:
    x, y = torch.full_like(X, torch.nan), torch.full_like(Y, torch.inf)
    x[INDEX], y[INDEX] = X[INDEX], Y[INDEX]
    y.requires_grad_()
    sums = products(Rows(x, y, INDEX), MEANS, NAMES)
    sum(value.sum() for value in sums.values()).backward()
    assert torch.isfinite(torch.stack([value.sum() for value in sums.values()])).all()
    dropped = torch.ones(len(Y), dtype=torch.bool)
    dropped[INDEX] = False
    assert (y.grad[dropped] == 0).all()
    assert (y.grad[~dropped] != 0).all()


def test_a_row_that_is_not_finite_or_too_large_is_told() -> None:
    mask = torch.ones(11, dtype=torch.bool)
    bad = Y.clone()
    bad[4, 1] = torch.nan
    with pytest.raises(InputError, match="student holds 1 NaN or infinite values of 33"):
        ProcrustesLoss()(bad, X, mask)
    large = normal(11, 3) + 1e308  # finite, its sum is not
    with pytest.raises(InputError, match=r"student has values up to 1e\+308, whose squares"):
        column_sums(Rows(X, large, None))


def test_half_precision_is_summed_in_float64() -> None:
    x, y = normal(900, 4).bfloat16() + 5, normal(900, 3, seed=1).bfloat16()
    sums = products(Rows(x, y, None), (x.double().mean(0), y.double().mean(0)), ("xy",))
    a, b = (f.double() - f.double().mean(0) for f in (x, y))
    assert sums["xy"].dtype == torch.float64
    assert torch.allclose(sums["xy"], a.T @ b, rtol=1e-12)
    assert sums["xy"].norm() > 1


class Largest(TorchDispatchMode):
    """Most elements of a floating point tensor made on the way, but for those of one shape."""

    def __init__(self, but: torch.Size) -> None:
        super().__init__()
        self.but, self.most = but, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        inputs = {a.untyped_storage().data_ptr() for a in args if isinstance(a, Tensor)}
        for t in out if isinstance(out, tuple | list) else (out,):
            counts = isinstance(t, Tensor) and t.is_floating_point() and t.shape != self.but
            if counts and t.untyped_storage().data_ptr() not in inputs:
                self.most = max(self.most, t.numel())
        return out


@pytest.mark.parametrize("loss", [ProcrustesLoss(), FeatureGramLoss(), CKALoss()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_tensor_but_the_gradient_grows_with_the_rows(
    loss: torch.nn.Module, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked_moments, "CHUNK", 64)
    most = {}
    for n in (512, 2048):
        student = normal(2, n, 16).to(dtype).requires_grad_()
        teacher = normal(2, n, 24, seed=1).to(dtype)
        mask = torch.ones(2, n, dtype=torch.bool)
        mask[0, :5] = False
        watch = Largest(torch.Size((2 * n, 16)))
        with watch:
            loss(student, teacher, mask).backward()
        assert student.grad is not None
        most[n] = watch.most
    assert most[512] == most[2048] == 64 * 24  # a chunk of the wider side


class Operations(TorchDispatchMode):
    """Counts what a device would be asked to do."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("loss", "fixed", "each_chunk"), [(ProcrustesLoss(), 145, 37), (FeatureGramLoss(), 145, 44)]
)
def test_a_step_asks_for_few_operations(
    loss: torch.nn.Module, fixed: int, each_chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of chunks of 256 of 2,048 rows, once the first call has looked for outliers."""
    monkeypatch.setattr(chunked_moments, "CHUNK", 256)
    student, teacher = normal(2048, 16).float().requires_grad_(), normal(2048, 24, seed=1).float()
    loss(student, teacher).backward()
    watch = Operations()
    with watch:
        loss(student, teacher).backward()
    assert 8 * each_chunk / 2 < watch.count <= fixed + 8 * each_chunk
