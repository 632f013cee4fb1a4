"""SecondMoments: any chunking, order or offset gives the measure of all rows."""

import inspect
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from support.random_rows import normal
from torch import Tensor, multiprocessing
from torch import distributed as dist

from geodistill.errors import InputError
from geodistill.geometry import (
    MEASURES,
    SecondMoments,
    cka,
    linear_regression_r2,
    mean_canonical_correlation,
    procrustes_distance,
    procrustes_parts,
    projection_distance,
)

N, D_X, D_Y = 60, 7, 4


X, Y = normal(N, D_X) + 0.7, normal(N, D_Y, seed=1) - 2


def accumulated(x: Tensor, y: Tensor, cuts: list[int], dtype: torch.dtype) -> SecondMoments:
    moments = SecondMoments(x.shape[1], y.shape[1], dtype)
    for part in zip(x.tensor_split(cuts), y.tensor_split(cuts), strict=True):
        if len(part[0]):
            moments.update(*part)
    return moments


@pytest.mark.parametrize("options", [{}, {"center": True, "scale": "frobenius"}, {"scale": "rms"}])
@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_takes_moments_for_features(name: str, options: dict[str, object]) -> None:
    accepted = inspect.signature(MEASURES[name].function).parameters
    options = {key: value for key, value in options.items() if key in accepted}
    moments = accumulated(X, Y, [10, 11, 40], torch.float64)
    value = MEASURES[name].function(moments, **options)
    assert value > 0.01
    assert torch.allclose(value, MEASURES[name].function(X, Y, **options), rtol=1e-10)


def test_parts_take_moments_too() -> None:
    moments = accumulated(X, Y, [20], torch.float64)
    for part, full in zip(procrustes_parts(moments), procrustes_parts(X, Y), strict=True):
        assert torch.allclose(part, full, rtol=1e-10)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, N - 1), max_size=6), st.sampled_from([0.0, 1e4]))
def test_any_chunking_under_any_offset(cuts: list[int], offset: float) -> None:
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        x, y = (X + offset).to(dtype), (Y - offset).to(dtype)
        value = cka(accumulated(x, y, sorted(cuts), dtype))
        assert torch.allclose(value, cka(x, y), rtol=tolerance)


def test_merging_is_updating_and_ignores_the_order() -> None:
    left, right = (accumulated(X[s], Y[s], [5], torch.float64) for s in (slice(25), slice(25, N)))
    both = SecondMoments(D_X, D_Y)
    both.merge(right)
    both.merge(SecondMoments(D_X, D_Y))
    both.merge(left)
    assert both.n == N
    assert torch.allclose(both.mean_x, X.mean(0))
    assert torch.allclose(procrustes_distance(both), procrustes_distance(X, Y), rtol=1e-10)


def test_update_masks_and_flattens_as_the_losses_do() -> None:
    mask = torch.arange(N).view(3, 20) % 3 != 0
    x = torch.where(mask[..., None], X.view(3, 20, D_X), float("nan"))
    moments = SecondMoments(D_X, D_Y)
    moments.update(x, Y.view(3, 20, D_Y), mask)
    valid = mask.flatten()
    assert moments.n == valid.sum()
    assert torch.allclose(cka(moments), cka(X[valid], Y[valid]), rtol=1e-10)


def test_save_and_load_go_on_where_they_stopped(tmp_path: Path) -> None:
    path = tmp_path / "moments.safetensors"
    accumulated(X[:30], Y[:30], [], torch.float64).save(path)
    moments = SecondMoments.load(path)
    moments.update(X[30:], Y[30:])
    assert torch.allclose(cka(moments), cka(X, Y), rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_mean_of_a_million_standard_deviations_costs_no_precision(dtype: torch.dtype) -> None:
    """The rows hold the variation, to 0.06 of it in float32; so must sums about the mean."""
    x, y = normal(3000, D_X), normal(3000, D_Y, seed=1)
    x, y = (x + y @ normal(D_Y, D_X, seed=2) + 1e6).to(dtype), (y - 1e6).to(dtype)
    for sums in (torch.float32, torch.float64):
        moments = SecondMoments(D_X, D_Y, sums)
        for part_x, part_y in zip(x.split(137), y.split(137), strict=True):
            moments.update(part_x, part_y)
        for function in (
            cka,
            partial(cka, debiased=True),
            linear_regression_r2,
            mean_canonical_correlation,
            partial(procrustes_distance, center=True, scale="frobenius"),
            partial(projection_distance, center=True),
        ):
            expected = function(x.double(), y.double())
            assert expected > 0.1
            assert torch.allclose(function(moments), expected, rtol=2e-6)
        raw = projection_distance(moments)  # uncentred: the error is a share of the large norm
        assert abs(raw - projection_distance(x, y)) < 1e-8 * x.double().norm()


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_moments_of_any_size(size: float) -> None:
    x, y = (X * size).float(), (Y / size).float()
    moments = accumulated(x, y, [13, 40], torch.float64)
    for function in (cka, linear_regression_r2, mean_canonical_correlation):
        assert torch.allclose(function(moments), function(x, y), rtol=1e-9)
        assert function(x, y) > 0.01
    single, expected = SecondMoments(D_X, D_Y, torch.float32), "expected 1e-15 to 1e15 for float32"
    with pytest.raises(InputError, match=expected):
        single.update(x, y)
    single.update(0 * x, y / y.abs().max())
    assert single.n == N


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fits_of_moments_leave_out_constant_and_dependent_columns(dtype: torch.dtype) -> None:
    x = torch.cat([X, torch.full((N, 1), 1e5 / 3, dtype=X.dtype)], 1)
    y = torch.cat([Y, Y[:, :1] - 2 * Y[:, 1:2]], 1)
    moments = SecondMoments(D_X + 1, D_Y + 1, dtype)
    for part_x, part_y in zip(x.split(7), y.split(7), strict=True):
        moments.update(part_x, part_y)
    for function in (linear_regression_r2, mean_canonical_correlation):
        assert torch.allclose(function(moments), function(X, Y), rtol=1e-5)


def test_equal_rows_have_no_geometry_here_either() -> None:
    for dtype in (torch.float32, torch.float64):
        constant = torch.full((N, D_Y), 0.1, dtype=dtype)
        moments = accumulated(X.to(dtype), constant, [7, 20], dtype)
        assert cka(moments) == 0
        value = procrustes_distance(moments, center=True, scale="frobenius", form="squared")
        assert float(value) == pytest.approx(1, abs=1e-5)


def test_refusals(tmp_path: Path) -> None:
    moments = SecondMoments(D_X, D_Y)
    save_file({"n": torch.zeros(())}, tmp_path / "other")
    moments.save(tmp_path / "cut")
    (tmp_path / "cut").write_bytes((tmp_path / "cut").read_bytes()[:-5])
    for call, message in (
        (lambda: cka(moments), "has seen no rows: expected an update first"),
        (lambda: moments.update(Y, X), r"widths \(x, y\) are \(4, 7\): expected \(7, 4\)"),
        (lambda: moments.merge(SecondMoments(2, 3)), r"are \(2, 3\): expected \(7, 4\)"),
        (lambda: moments.update(X, Y[1:]), "expected one row of each"),
        (lambda: cka(moments, Y), "was passed with SecondMoments: expected neither"),
        (lambda: cka(X), "y is None"),
        (lambda: SecondMoments(0, 3), "d_x = 0, d_y = 3"),
        (lambda: SecondMoments(2, 3, torch.bfloat16), "dtype = torch.bfloat16"),
        (lambda: SecondMoments.load(tmp_path / "other"), r"holds \['n'\]: expected"),
        (
            lambda: SecondMoments.load(tmp_path / "cut"),
            r"cut: .*; expected a file of SecondMoments",
        ),
        (lambda: SecondMoments(2, 2).save(tmp_path / "cut" / "x"), r"cut/x: .*can be written"),
        (lambda: SecondMoments.load(tmp_path / "none"), r"none: No such file .*; expected a file"),
    ):
        with pytest.raises(InputError, match=message):
            call()


# --- debiased CKA from sums, a sample of rows, several processes --------------------------------


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, N - 1), max_size=6), st.sampled_from([0.0, 1e4]))
def test_debiased_cka_of_any_chunking_under_any_offset(cuts: list[int], offset: float) -> None:
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        x, y = (X + offset + Y @ normal(D_Y, D_X)).to(dtype), (Y - offset).to(dtype)
        moments = accumulated(x, y, sorted(cuts), dtype)
        expected = cka(x, y, debiased=True)
        assert expected > 0.1
        assert torch.allclose(cka(moments, debiased=True), expected, rtol=tolerance)


def sampler(x: Tensor, seed: int, sample_size: int = 8) -> SecondMoments:
    moments = SecondMoments(x.shape[1], x.shape[1], sample_size=sample_size, seed=seed)
    for part in x.split(7):
        moments.update(part, 2 * part)
    return moments


def test_the_sample_is_uniform_paired_and_flat_in_n() -> None:
    x = torch.arange(40.0, dtype=torch.float64)[:, None]
    counts, merged = torch.zeros(40), torch.zeros(40)
    for seed in range(400):
        single, few, many = (
            sampler(part, 3 * seed + i) for i, part in enumerate((x, x[:10], x[10:]))
        )
        few.merge(many)
        for moments, count in ((single, counts), (few, merged)):
            row_x, row_y = moments.sample()
            assert torch.equal(row_y, 2 * row_x)
            assert len(row_x.unique()) == 8
            count[row_x[:, 0].long()] += 1
    for count in (counts, merged):  # 80 each, standard deviation 8
        assert (count - 80).abs().max() < 4 * 8
        assert abs(count[:10].sum() - 800) < 4 * 22
    sizes = {sum(value.nbytes for value in vars(sampler(x[:n], 0)).values()) for n in (9, 40)}
    assert len(sizes) == 1


def test_the_sample_goes_on_after_a_reload_and_refuses_a_seed_twice(tmp_path: Path) -> None:
    x = normal(40, 2)
    full, half = sampler(x[:28], 5), sampler(x[:14], 5)
    half.save(tmp_path / "half")
    loaded = SecondMoments.load(tmp_path / "half")
    for part in x[14:28].split(7):
        loaded.update(part, 2 * part)
    assert torch.equal(loaded.sample()[0], full.sample()[0])
    for call, message in (
        (lambda: full.merge(sampler(x, 5)), r"one seed \(this one's is 5\)"),
        (
            lambda: full.merge(sampler(x, 6, sample_size=3)),
            "keeps 3 of its 40 rows: expected sample_size=8",
        ),
        (lambda: SecondMoments(2, 2).sample(), "sample of 0 rows is empty: .*sample_size=k"),
        (lambda: SecondMoments(2, 2, sample_size=-1), "sample_size = -1, seed = 0"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def one_process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    moments = SecondMoments(D_X, D_Y, sample_size=9, seed=rank)
    part = slice(0, 17) if rank == 0 else slice(17, N)
    moments.update(X[part] + 1e4, Y[part])
    moments.all_reduce()
    moments.save(f"{folder}/rank{rank}")
    dist.destroy_process_group()


def test_two_processes_are_one(tmp_path: Path) -> None:
    multiprocessing.spawn(one_process, (str(tmp_path),), nprocs=2)
    full = accumulated(X + 1e4, Y, [], torch.float64)
    ranks = [SecondMoments.load(tmp_path / f"rank{i}") for i in range(2)]
    for moments in ranks:
        assert moments.n == N
        assert torch.allclose(
            procrustes_distance(moments, center=True),
            procrustes_distance(full, center=True),
            rtol=1e-10,
        )
        assert torch.allclose(cka(moments, debiased=True), cka(full, debiased=True), rtol=1e-10)
        assert len(moments.sample()[0]) == 9
    assert torch.equal(ranks[0].sample()[0], ranks[1].sample()[0])
