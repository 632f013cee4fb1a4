"""decay= and group=: the loss of more rows than the batch holds, against the loss of them all."""

import copy
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from support.random_rows import normal
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from geodistill.errors import InputError
from geodistill.geometry.moments import Scale
from geodistill.losses import (
    AlignmentLoss,
    CKALoss,
    FeatureGramLoss,
    MomentLoss,
    ProcrustesLoss,
    ProjectionLoss,
    SpectrumLoss,
)

LOSSES = {
    "procrustes": ProcrustesLoss,
    "procrustes-raw": lambda **k: ProcrustesLoss(center=False, scale=None, **k),
    "procrustes-rms": lambda **k: ProcrustesLoss(scale="rms", **k),
    "gram": FeatureGramLoss,
    "gram-uncentred": lambda **k: FeatureGramLoss(center=False, **k),
    "cka": CKALoss,
    "cka-root": lambda **k: CKALoss(root=True, **k),
    "spectrum": SpectrumLoss,
    "alignment": AlignmentLoss,
}
OF_UNIT_NORM = [name for name in LOSSES if name not in ("procrustes-raw", "procrustes-rms")]


X = normal(60, 7) * torch.arange(1, 8) + 1
Y = normal(60, 4, seed=1) + X[:, :4] - 2
SIZES = [20, 7, 13, 20]  # batches of unequal size


def value_and_gradient(loss: nn.Module, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient with respect to a linear map, the last layer of a student."""
    weight = torch.eye(y.shape[1], dtype=y.dtype, requires_grad=True)
    value = loss(y @ weight, x)
    return value.detach(), torch.autograd.grad(value, weight)[0]


def after(loss: MomentLoss, batches: list[tuple[Tensor, Tensor]]) -> MomentLoss:
    for y, x in batches:
        loss(y, x)
    return loss


def split() -> list[tuple[Tensor, Tensor]]:
    return list(zip(Y.split(SIZES), X.split(SIZES), strict=True))


@pytest.mark.parametrize("name", LOSSES)
def test_value_after_a_pass_is_that_of_all_the_data(name: str) -> None:
    *first, last = split()
    value = after(LOSSES[name](decay=1.0), first)(*last)
    rows = 1 if name in OF_UNIT_NORM else len(last[0]) / len(X)  # a sum over rows, else a mean
    assert value == pytest.approx(float(LOSSES[name]()(Y, X)) * rows, rel=1e-9)
    assert abs(value - LOSSES[name]()(*last)) > 1e-3


@pytest.mark.parametrize("name", OF_UNIT_NORM)
def test_mean_gradient_over_batches_is_that_of_all_the_data(name: str) -> None:
    """Each batch in turn comes last; the rescaled gradients, weighted by rows, are averaged."""
    batches = split()
    _, full = value_and_gradient(LOSSES[name](), Y, X)
    mean = torch.zeros_like(full)
    plain = torch.zeros_like(full)
    for i, (y, x) in enumerate(batches):
        loss = after(LOSSES[name](decay=1.0), batches[:i] + batches[i + 1 :])
        mean += value_and_gradient(loss, y, x)[1] * len(x) / len(X)
        plain += value_and_gradient(LOSSES[name](), y, x)[1] * len(x) / len(X)
    assert full.norm() > 1e-3
    assert (mean - full).norm() < 1e-6 * full.norm()
    assert (plain - full).norm() > 0.05 * full.norm()


@pytest.mark.parametrize("name", ["procrustes-raw", "procrustes-rms"])
def test_without_unit_norm_gradients_of_the_batches_add_up_to_that_of_all_the_data(
    name: str,
) -> None:
    batches = split()
    value, full = value_and_gradient(LOSSES[name](), Y, X)
    losses = [after(LOSSES[name](decay=1.0), batches[:i] + batches[i + 1 :]) for i in range(4)]
    results = [value_and_gradient(loss, *pair) for loss, pair in zip(losses, batches, strict=True)]
    assert full.norm() > 1e-3
    assert (sum(gradient for _, gradient in results) - full).norm() < 1e-6 * full.norm()
    assert sum(float(v) for v, _ in results) == pytest.approx(float(value), rel=1e-9)


@pytest.mark.parametrize("scale", [None, "rms"])
@pytest.mark.parametrize("make", [ProcrustesLoss, FeatureGramLoss])
def test_without_unit_norm_the_same_batch_keeps_its_value_and_gradient(
    make: type[MomentLoss], scale: Scale
) -> None:
    """The past repeats the batch, so nothing changes, however many rows were counted."""
    value, gradient = value_and_gradient(make(scale=scale), Y, X)
    loss = make(scale=scale, decay=0.99)
    for _ in range(50):
        repeated, repeated_gradient = value_and_gradient(loss, Y, X)
    assert repeated == pytest.approx(float(value), rel=1e-6)
    assert (repeated_gradient - gradient).norm() < 1e-6 * gradient.norm()
    assert gradient.norm() > 1e-3


@pytest.mark.parametrize("rows", [5, 60])  # as rows, and by their sums
def test_rms_is_the_number_of_rows_times_unit_norm(rows: int) -> None:
    value, gradient = value_and_gradient(ProcrustesLoss(), Y[:rows], X[:rows])
    scaled, scaled_gradient = value_and_gradient(ProcrustesLoss(scale="rms"), Y[:rows], X[:rows])
    assert float(scaled) == pytest.approx(rows * float(value), rel=1e-9)
    assert (scaled_gradient - rows * gradient).norm() < 1e-6 * scaled_gradient.norm()
    assert gradient.norm() > 1e-3


def test_mean_gradient_over_later_passes_approaches_that_of_all_the_data() -> None:
    _, full = value_and_gradient(ProcrustesLoss(), Y, X)
    loss, errors = ProcrustesLoss(decay=1.0), []
    for _ in range(32):
        results = [value_and_gradient(loss, y, x)[1] * len(x) / len(X) for y, x in split()]
        errors.append(float((sum(results) - full).norm() / full.norm()))
    assert errors[0] > errors[2] > errors[8] > errors[31]
    assert errors[31] < 0.05


def test_float32_after_many_batches_and_a_large_mean() -> None:
    x, y = normal(4096, 24) + 100, normal(4096, 12, seed=1)
    y = (y + x[:, :12]).float()
    x = x.float()
    loss = ProcrustesLoss(decay=1.0)
    for start in range(0, 4096, 64):
        value = loss(y[start : start + 64], x[start : start + 64])
    assert float(value) == pytest.approx(float(ProcrustesLoss()(y.double(), x.double())), abs=2e-6)


def test_decay_weighs_the_past_as_repeated_rows_would() -> None:
    batches = [(Y[:16], X[:16]), (Y[16:32], X[16:32]), (Y[32:48], X[32:48])]
    value = after(ProcrustesLoss(decay=0.5), batches[:2])(*batches[2])
    weights = [1, 2, 4]  # 0.25, 0.5, 1
    y, x = (
        torch.cat([b[side].repeat(w, 1) for b, w in zip(batches, weights, strict=True)])
        for side in (0, 1)
    )
    assert value == pytest.approx(float(ProcrustesLoss()(y, x)), rel=1e-9)


def test_gradient_is_rescaled_by_total_over_batch_rows() -> None:
    """Against autograd through the loss of past and batch, the past held fixed."""
    y = Y[40:].clone().requires_grad_()
    after(loss := ProcrustesLoss(decay=1.0), [(Y[:40], X[:40])])(y, X[40:]).backward()
    joined = Y[40:].clone().requires_grad_()
    ProcrustesLoss()(torch.cat([Y[:40], joined]), X).backward()
    assert torch.allclose(y.grad, 3 * joined.grad, rtol=1e-6, atol=1e-12)
    assert not loss.past_xy.requires_grad


def test_evaluation_neither_reads_nor_changes_the_past() -> None:
    loss = after(ProcrustesLoss(decay=0.9), [(Y[:20], X[:20])])
    before = copy.deepcopy(loss.state_dict())
    assert torch.equal(loss.eval()(Y[20:40], X[20:40]), ProcrustesLoss()(Y[20:40], X[20:40]))
    assert before.keys() == loss.state_dict().keys()
    assert len(before) > 3
    assert all(torch.equal(before[k], v) for k, v in loss.state_dict().items())
    assert abs(loss.train()(Y[40:], X[40:]) - ProcrustesLoss()(Y[40:], X[40:])) > 1e-3


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_resumed_run_goes_on_alike(wrapped: bool, tmp_path: Path) -> None:
    def fresh() -> nn.Module:
        loss = FeatureGramLoss(decay=0.9)
        return nn.ModuleList([loss, ProjectionLoss(4, 7)]) if wrapped else loss

    first, second = fresh(), fresh()
    of = (lambda m: m[0]) if wrapped else (lambda m: m)
    after(of(first), split()[:2])
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt"))
    y, x = split()[2]
    assert torch.equal(of(first)(y, x), of(second)(y, x))
    assert not torch.equal(of(fresh())(y, x), of(second)(y, x))


def test_masks_and_autocast_with_decay() -> None:
    mask = torch.arange(60) % 3 != 0
    loss = after(ProcrustesLoss(decay=1.0), [(Y[:30][mask[:30]], X[:30][mask[:30]])])
    y = Y[30:].clone()
    y[~mask[30:]] = float("nan")
    value = loss(y, X[30:], mask[30:])
    assert value == pytest.approx(float(ProcrustesLoss()(Y[mask], X[mask])), rel=1e-9)
    loss = ProcrustesLoss(decay=1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for y, x in split():
            value = loss(y.bfloat16(), x.bfloat16())
    assert (value.dtype, loss.past_xy.dtype) == (torch.float32, torch.float64)
    expected = ProcrustesLoss()(Y.bfloat16().double(), X.bfloat16().double())
    assert float(value) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("other", [FeatureGramLoss(decay=0.9), ProcrustesLoss()])
def test_a_state_of_another_loss_is_refused(other: MomentLoss) -> None:
    """Sums that are lacking, or that no decay asked for."""
    loss = ProcrustesLoss(decay=0.9)
    loss(normal(20, 3), normal(20, 4, seed=1))
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\) in state_dict: .*past_"):
        other.load_state_dict(loss.state_dict())
    assert not dict(other.named_buffers())


def test_rows_that_are_all_equal_have_no_geometry_over_past_batches_either() -> None:
    loss = ProcrustesLoss(decay=1.0)
    for start in (0, 30):
        y = torch.full((30, 4), 0.1).requires_grad_()
        value = loss(y, X[start : start + 30].float())
        value.backward()
        assert float(value.detach()) == pytest.approx(1)
        assert y.grad.abs().max() == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ProcrustesLoss(decay=0), "decay is 0: expected a number above 0 and up to 1"),
        (lambda: SpectrumLoss(decay=1.5), "decay is 1.5: expected a number"),
        (lambda: CKALoss(debiased=True, decay=0.9), "debiased=True with decay or group"),
        (
            lambda: after(ProcrustesLoss(decay=0.9), [(Y, X)])(Y[:, :3], X),
            r"widths \(teacher, student\) are \(7, 3\): expected \(7, 4\), those of the past",
        ),
        (lambda: ProcrustesLoss(decay=0.9)(Y / 0, X), "student holds"),
    ],
)
def test_refusals(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


# --- ranks ---------------------------------------------------------------------------------------

RANK_ROWS = (slice(0, 23), slice(23, 60))
DECAYS = (None, 0.5)
TWO_STEPS = (X.flip(0), X)  # teachers of two steps, so that there are past batches


def joined(name: str, decay: float | None) -> tuple[Tensor, Tensor]:
    """Value and gradient of the second step, by one process."""
    loss = LOSSES[name](decay=decay)
    value_and_gradient(loss, Y, TWO_STEPS[0])
    return value_and_gradient(loss, Y, TWO_STEPS[1])


def one_rank(rank: int, folder: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    rows, results = RANK_ROWS[rank], {}
    for name in LOSSES:
        for decay in DECAYS:
            layer = nn.Linear(4, 4, bias=False).double()
            nn.init.eye_(layer.weight)
            student = DistributedDataParallel(layer)
            loss = LOSSES[name](decay=decay, group=dist.group.WORLD)
            for x in TWO_STEPS:
                student.zero_grad()
                value = loss(student(Y[rows]), x[rows])
                value.backward()
            results[name, decay] = (value.detach(), layer.weight.grad.T)
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_give_the_loss_and_gradient_of_the_joined_batch(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(one_rank, (str(tmp_path),), nprocs=2)
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert len(results[0]) == len(LOSSES) * len(DECAYS)
    for key in results[0]:
        value, gradient = joined(*key)
        for rank in (0, 1):
            assert torch.allclose(results[rank][key][0], value, rtol=1e-6), key
            assert (results[rank][key][1] - gradient).norm() < 1e-5 * gradient.norm(), key
        alone = value_and_gradient(LOSSES[key[0]](), Y[:23], X[:23])[1]
        assert (alone - gradient).norm() > 1e-3 * gradient.norm(), key
