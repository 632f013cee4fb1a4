"""Permutation tests: p holds under the null, finds dependence, and pays for a search."""

from functools import partial

import pytest
import torch
from support.random_rows import normal
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


@pytest.mark.parametrize("measure", [one.function for one in MEASURES.values()])
def test_the_null_is_the_measure_of_shuffled_rows(measure: object) -> None:
    x, y = normal(15, 3), normal(15, 2, seed=1)
    result = permutation_test(measure, x, y, permutations=4, seed=3)
    generator = torch.Generator().manual_seed(3)
    slow = [measure(x, y[torch.randperm(15, generator=generator)]) for _ in range(4)]
    assert result.observed == pytest.approx(float(measure(x, y)), rel=1e-9)
    assert torch.allclose(result.null, torch.stack(slow), rtol=1e-9)
    assert len(set(result.null.tolist())) == 4


def test_p_counts_the_observed_value_too() -> None:
    x, y = normal(15, 3), normal(15, 2, seed=1)
    result = permutation_test(cka, x, y, permutations=99)
    count = int((result.null >= result.observed).sum())
    assert result.p == (1 + count) / 100
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


def chances(seed: int) -> list[Tensor]:
    """Four layers whose chance likenesses differ: of few and of many directions."""
    return [normal(12, d, seed=seed + d) for d in (1, 2, 5, 9)]


def test_the_best_of_many_unlike_pairs_needs_the_null_of_the_search() -> None:
    naive, honest, found_at = [], [], set()
    for seed in range(120):
        xs, ys = chances(1000 * seed), chances(1000 * seed + 500)
        result = search_test(cka, xs, ys, permutations=39, seed=seed)
        i, j = result.best_pair
        found_at.add((i, j))
        assert result.observed == pytest.approx(float(cka(xs[i], ys[j])))
        naive.append(permutation_test(cka, xs[i], ys[j], permutations=39, seed=seed).p)
        honest.append(result.p)
    assert (torch.tensor(naive) <= 0.1).double().mean() > 0.4
    for level in (0.1, 0.25, 0.5, 0.75):  # within three standard errors
        share = (torch.tensor(honest) <= level).double().mean()
        assert abs(share - level) < 3 * (level * (1 - level) / 120) ** 0.5
    assert len(found_at) >= 12  # not always the pair that is alike in any order


def test_z_is_a_pair_against_its_own_chance_and_the_null_the_largest_of_all() -> None:
    xs, ys = chances(0)[:2], chances(50)[:3]
    result = search_test(partial(procrustes_distance, center=True), xs, ys, permutations=9, seed=2)
    generator = torch.Generator().manual_seed(2)
    orders = [torch.arange(12), *(torch.randperm(12, generator=generator) for _ in range(9))]
    z = []
    for x in xs:
        for y in ys:
            values = [-procrustes_distance(x, y[order], center=True) for order in orders]
            mean = sum(values) / 10
            sd = (sum((v - mean) ** 2 for v in values) / 9) ** 0.5
            z.append([float((v - mean) / sd) for v in values])
    true = [pair[0] for pair in z]
    best = true.index(max(true))
    assert result.best_pair == divmod(best, 3)
    assert result.z == pytest.approx(true[best])
    largest = [max(pair[k] for pair in z) for k in range(1, 10)]
    assert result.null.tolist() == pytest.approx(largest)
    assert result.p == (1 + sum(one >= true[best] for one in largest)) / 10


def test_a_search_finds_the_pair_that_belongs_together() -> None:
    xs = [normal(30, 3, seed=i) for i in range(3)]
    ys = [normal(30, 2, seed=9), xs[2] @ normal(3, 2, seed=8)]
    for measure in (cka, partial(procrustes_distance, center=True, scale="frobenius")):
        result = search_test(measure, xs, ys, permutations=99)
        assert result.best_pair == (2, 1)
        assert result.p == 0.01
        assert result.z > result.null.max()


def test_a_search_does_not_find_what_is_near_everything() -> None:
    """A hub: wider than its rows are many, alike to all in any order, closest by raw value."""
    xs = [normal(20, 60, seed=1), normal(20, 8, seed=2)]
    ys = [normal(20, 60, seed=3), xs[1] + 0.8 * normal(20, 8, seed=4)]
    raw = {(i, j): float(cka(x, y)) for i, x in enumerate(xs) for j, y in enumerate(ys)}
    assert max(raw, key=lambda pair: raw[pair]) == (0, 0)
    result = search_test(cka, xs, ys, permutations=99)
    assert result.best_pair == (1, 1)
    assert result.observed == pytest.approx(raw[1, 1])
    assert result.p == 0.01


def test_the_defaults_are_999_orders_of_seed_0() -> None:
    x, y = normal(12, 3), normal(12, 2, seed=1)
    test, search = permutation_test(cka, x, y), search_test(cka, [x], [y])
    assert torch.equal(test.null, permutation_test(cka, x, y, permutations=999, seed=0).null)
    assert torch.equal(search.null, search_test(cka, [x], [y], permutations=999, seed=0).null)
    assert not torch.equal(test.null, permutation_test(cka, x, y, seed=1).null)


def test_constant_layers_stand_out_nowhere() -> None:
    x, ones = normal(15, 3), torch.ones(15, 2)
    result = search_test(cka, [ones, x], [ones, x[:, :2]], permutations=19)
    assert result.best_pair == (1, 1)
    assert result.p == 0.05
    nothing = search_test(cka, [ones], [ones, ones], permutations=19)
    assert (nothing.z, nothing.p) == (0, 1)


def test_refusals() -> None:
    x, y = normal(15, 3), normal(15, 2)
    for call, message in (
        (lambda: permutation_test(participation_ratio, x, y), "measure is participation_ratio"),
        (lambda: permutation_test(cka, x, y, permutations=0), "permutations = 0"),
        (lambda: search_test(cka, [], [y]), "0 xs, 1 ys: expected at least 1"),
        (lambda: permutation_test(cka, x[None], y[None]), r"x has shape \(1, 15, 3\)"),
        (lambda: permutation_test(cka, x, y[1:]), "expected one row of each"),
        (lambda: search_test(cka, x, [y]), r"x has shape \(3,\): expected \(\.\.\., n, d\)"),
    ):
        with pytest.raises(InputError, match=message):
            call()
