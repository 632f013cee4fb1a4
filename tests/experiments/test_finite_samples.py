"""Measures of unrelated features: exact means, bounds, rows needed; the bias of a batch loss."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch

from geodistill.errors import InputError
from geodistill.experiments.finite_samples import (
    all_measures,
    batch_bias,
    chance_curves,
    measured_sample_size,
    nuclear_rank,
    permutation_means,
    power_law,
    sample_size_for,
    unit,
)
from geodistill.geometry import from_spectra


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
    with_decay = batch_bias(teacher, student, [16], decay=0.9).iloc[0]
    gap, corrected = (row["full_loss"] - row["loss"] for row in (alone.iloc[0], with_decay))
    assert abs(corrected) < 0.5 * gap
