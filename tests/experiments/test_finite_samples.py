"""Measures of unrelated features: exact means, bounds, rows needed; the bias of a batch loss."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes

from geodistill.errors import InputError
from geodistill.experiments.finite_samples import (
    ESTIMATORS,
    all_measures,
    batch_bias,
    chance_curves,
    cross_fitted,
    loss_after_training,
    measured_sample_size,
    nuclear_rank,
    permutation_means,
    power_law,
    sample_size_for,
    unit,
)
from geodistill.geometry import from_spectra
from geodistill.losses import ProcrustesLoss


@pytest.mark.parametrize("widths", [(3, 2), (2, 4)])
def test_means_over_all_orders_are_the_formulas(widths: tuple[int, int]) -> None:
    x, y = (power_law(5, d, 1.0, seed) + 3 for seed, d in enumerate(widths))
    every = [all_measures(x, y[list(order)]) for order in permutations(range(5))]
    mean = {name: np.mean([v[name] for v in every]) for name in every[0]}
    squares = {name: np.mean([v[name] ** 2 for v in every]) for name in every[0]}
    exact = permutation_means(x, y)
    assert mean["cka"] == pytest.approx(exact["cka"], abs=1e-12)
    assert mean["debiased"] == pytest.approx(0, abs=1e-12)
    assert squares["gram"] == pytest.approx(exact["gram squared"], abs=1e-12)
    assert squares["projection"] == pytest.approx(exact["projection squared"], abs=1e-7)
    assert squares["procrustes"] > exact["procrustes squared at least"] > 0
    assert np.std([v["cka"] for v in every]) > 0.05  # single orders differ


def test_chance_curves_have_the_numbers_of_the_design() -> None:
    """d_t 384, d_s 128, variances 1/k."""
    mean = chance_curves([16, 32, 128, 2048], 384, 128, 1.0, range(6)).groupby("n").mean()
    assert mean["cka"].tolist() == pytest.approx([0.60, 0.41, 0.16, 0.01], abs=0.06)
    assert mean["procrustes"].tolist() == pytest.approx([0.48, 0.63, 0.89, 1.29], abs=0.05)


def test_nuclear_rank_counts_flat_directions() -> None:
    assert nuclear_rank(from_spectra(20, [0.25] * 4, [1.0]).teacher * 7 + 2) == pytest.approx(4)
    assert nuclear_rank(power_law(50, 1, 0, seed=0)) == pytest.approx(1)
    assert 1 < nuclear_rank(power_law(500, 16, 1, seed=0)) < 16


def test_unit_is_centred_and_of_norm_one() -> None:
    x = unit(power_law(9, 3, 1, seed=0) + 5)
    assert float(x.norm()) == pytest.approx(1)
    assert x.mean(0).abs().max() < 1e-12


def test_sample_size_is_the_bound_and_measured_rows_stay_below() -> None:
    assert sample_size_for(10, 0.1) == 1001
    rank = nuclear_rank(power_law(4096, 16, 0.0, seed=5))
    grid = [8 * 2**k for k in range(9)]
    measured = measured_sample_size(64, 16, 0.0, 0.2, grid)
    assert 0.6 * sample_size_for(rank, 0.2) < measured < 1.05 * sample_size_for(rank, 0.2)
    assert math.isnan(measured_sample_size(64, 16, 0.0, 0.2, grid[:3]))  # not reached
    assert math.isnan(measured_sample_size(64, 16, 0.0, 0.2, grid[7:]))  # passed before


@pytest.mark.parametrize(("rank", "fidelity"), [(0.5, 0.1), (4, 0), (4, 1.5)])
def test_sample_size_refuses(rank: float, fidelity: float) -> None:
    with pytest.raises(
        InputError, match=f"rank = {rank}, fidelity = {fidelity}: expected rank ≥ 1"
    ):
        sample_size_for(rank, fidelity)


def test_the_loss_of_a_batch_is_too_low_and_decay_corrects_it() -> None:
    teacher = power_law(1024, 32, 1.0, seed=0)
    distorted = teacher[:, :16] * torch.linspace(1.5, 0.3, 16)
    student = distorted + 0.3 * power_law(1024, 16, 0.5, seed=1)
    alone = batch_bias(teacher, student, [16, 256])
    assert (alone["loss"] < alone["full_loss"]).all()
    assert alone["loss"].is_monotonic_increasing
    assert alone["gradient_ratio"].iloc[0] > 1.5 > 1.3 > alone["gradient_ratio"].iloc[1]
    with_decay = batch_bias(teacher, student, [16], ESTIMATORS["decay 0.9"]).iloc[0]
    gap, corrected = (row["full_loss"] - row["loss"] for row in (alone.iloc[0], with_decay))
    assert abs(corrected) < 0.5 * gap


def test_a_batch_of_all_rows_has_no_bias() -> None:
    """Rows drawn with replacement, so many of them: the gradient is that on all rows."""
    teacher, student = power_law(64, 6, 1.0, seed=0), power_law(64, 4, 0.0, seed=1)
    for name in ("batch alone", "jackknife"):
        row = batch_bias(teacher, student, [100_000], ESTIMATORS[name], batches=2).iloc[0]
        assert row["loss"] == pytest.approx(row["full_loss"], abs=0.02)
        assert row["cosine"] > 0.99
        assert row["gradient_ratio"] == pytest.approx(1, abs=0.05)


def test_cross_fitting_uses_the_rotation_of_the_other_half() -> None:
    """By scipy's orthogonal Procrustes; and its bias is −2 times that of the batch."""
    x, y = power_law(40, 5, 1.0, seed=0), power_law(40, 5, 1.0, seed=1)
    values = []
    for k in (0, 1):
        rotation, _ = orthogonal_procrustes(unit(y[1 - k :: 2]), unit(x[1 - k :: 2]))
        values.append(
            float((unit(x[k::2]) - unit(y[k::2]) @ torch.tensor(rotation)).square().sum())
        )
    assert float(cross_fitted(y, x)) == pytest.approx(sum(values) / 2, rel=1e-9)
    student = x @ torch.diag(torch.tensor([1.0, 2, 3, 4, 5]).double())
    assert float(cross_fitted(student, x)) > float(ProcrustesLoss()(student, x)) > 0.01


def test_the_biases_of_a_batch_and_its_halves_cancel() -> None:
    teacher = power_law(20_000, 6, 0.5, seed=0)
    student = teacher[:, :4] + 0.5 * power_law(20_000, 4, 0.0, seed=1)
    full = float(ProcrustesLoss()(student, teacher))
    mean = {
        name: batch_bias(teacher, student, [100], ESTIMATORS[name], batches=150)["loss"].iloc[0]
        for name in ("batch alone", "cross-fitted halves", "jackknife")
    }
    bias = full - mean["batch alone"]
    assert bias > 0
    assert mean["cross-fitted halves"] - full == pytest.approx(2 * bias, rel=0.4)
    assert abs(mean["jackknife"] - full) < 0.4 * bias


def test_training_on_all_rows_lowers_the_loss_that_small_batches_raise() -> None:
    teacher = power_law(1024, 32, 1.0, seed=0)
    student = teacher[:, :16] + 0.1 * power_law(1024, 16, 0.5, seed=1)
    before = float(ProcrustesLoss()(student, teacher))
    after = {
        n: loss_after_training(teacher, student, n, steps=40, learning_rate=0.01) for n in (8, 4096)
    }
    assert after[8] > before + 0.001
    assert after[4096] < before
    assert loss_after_training(teacher, student, 8, learning_rate=0.0, steps=2) == before
