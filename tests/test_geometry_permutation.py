"""Permutation tests: p holds under the null, finds dependence, and pays for a search."""

from functools import partial

import pytest
import torch
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry import (
    MEASURES,
    cka,
    participation_ratio,
    permutation_test,
    procrustes_distance,
    search_test,
)

FORMS = [cka, partial(procrustes_distance, center=True), partial(cka, debiased=True)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("measure", [one.function for one in MEASURES.values()])
def test_the_null_is_the_measure_of_shuffled_rows(measure: object) -> None:
    x, y = normal(15, 3), normal(15, 2, seed=1)
    found = permutation_test(measure, x, y, permutations=4, seed=3)
    generator = torch.Generator().manual_seed(3)
    slow = [measure(x, y[torch.randperm(15, generator=generator)]) for _ in range(4)]
    assert found.observed == pytest.approx(float(measure(x, y)), rel=1e-9)
    assert torch.allclose(found.null, torch.stack(slow), rtol=1e-9)
    assert len(set(found.null.tolist())) == 4


def test_p_counts_the_observed_value_too() -> None:
    x, y = normal(15, 3), normal(15, 2, seed=1)
    found = permutation_test(cka, x, y, permutations=99)
    alike = int((found.null >= found.observed).sum())
    assert found.p == (1 + alike) / 100
    constant = permutation_test(cka, x, torch.ones(15, 2), permutations=9)
    assert constant.p == 1  # every order is the same arrangement


@pytest.mark.parametrize("measure", FORMS)
def test_p_is_uniform_on_independent_rows_and_small_on_dependent_ones(measure: object) -> None:
    values = []
    for seed in range(150):
        x, y = normal(12, 3, seed=2 * seed), normal(12, 2, seed=2 * seed + 1)
        values.append(permutation_test(measure, x, y, permutations=39, seed=seed).p)
    p = torch.tensor(values)
    assert p.min() >= 1 / 40
    for level in (0.1, 0.25, 0.5, 0.75):  # within three standard errors
        assert abs((p <= level).double().mean() - level) < 3 * (level * (1 - level) / 150) ** 0.5
    y = x[:, :2] + 0.3 * normal(12, 2, seed=9)
    assert permutation_test(measure, x, y, permutations=99).p <= 0.02


def test_the_best_of_many_pairs_needs_the_null_of_the_search() -> None:
    naive, honest = [], []
    for seed in range(60):
        xs = [normal(12, 2, seed=100 * seed + i) for i in range(4)]
        ys = [normal(12, 2, seed=100 * seed + 50 + i) for i in range(4)]
        found = search_test(cka, xs, ys, permutations=39, seed=seed)
        i, j = found.best
        assert found.observed == pytest.approx(float(max(cka(x, y) for x in xs for y in ys)))
        naive.append(permutation_test(cka, xs[i], ys[j], permutations=39, seed=seed).p)
        honest.append(found.p)
    assert (torch.tensor(naive) <= 0.1).double().mean() > 0.4
    assert (torch.tensor(honest) <= 0.1).double().mean() < 0.22  # 0.1 and three standard errors


def test_a_search_finds_the_pair_that_belongs_together() -> None:
    xs = [normal(30, 3, seed=i) for i in range(3)]
    ys = [normal(30, 2, seed=9), xs[2] @ normal(3, 2, seed=8)]
    for measure in (cka, partial(procrustes_distance, center=True, scale="frobenius")):
        found = search_test(measure, xs, ys, permutations=99)
        assert found.best == (2, 1)
        assert found.p == 0.01


def test_refusals() -> None:
    x, y = normal(15, 3), normal(15, 2)
    for call, message in (
        (lambda: permutation_test(participation_ratio, x, y), "measure is participation_ratio"),
        (lambda: permutation_test(cka, x, y, permutations=0), "permutations = 0"),
        (lambda: search_test(cka, [], [y]), "0 xs, 1 ys: expected at least 1"),
        (lambda: permutation_test(cka, x[None], y[None]), r"x has shape \(1, 15, 3\)"),
        (lambda: permutation_test(cka, x, y[1:]), "expected one row of each"),
    ):
        with pytest.raises(InputError, match=message):
            call()
