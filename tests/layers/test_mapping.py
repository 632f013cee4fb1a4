"""The monotone mapping against a search by brute force, and its p-value against its level."""

from itertools import combinations, combinations_with_replacement

import numpy as np
import pandas as pd
import pytest
import torch

from geodistill.layers.mapping import best_monotone, mapping_p, suggest_mappings


def by_hand(gains):
    """The best mean over all monotone maps, and the map."""
    n_a, n_b = gains.shape
    maps = (combinations if n_a >= n_b else combinations_with_replacement)(range(n_a), n_b)
    return max((np.mean([gains[a, b] for b, a in enumerate(m)]), m) for m in maps)


@pytest.mark.parametrize("shape", [(6, 3), (4, 4), (2, 5), (1, 3), (5, 1)])
def test_the_best_of_all_monotone_maps(shape):
    rng = np.random.default_rng(0)
    for _ in range(20):
        gains = rng.standard_normal(shape)
        value, layers = best_monotone(torch.tensor(gains))
        expected, layer_map = by_hand(gains)
        assert float(value) == pytest.approx(expected)
        assert tuple(layers.tolist()) == layer_map
    batch = torch.tensor(rng.standard_normal((7, *shape)))
    assert best_monotone(batch)[0].tolist() == [float(best_monotone(g)[0]) for g in batch]


def test_the_p_value_keeps_its_level_and_finds_a_diagonal():
    generator = torch.Generator().manual_seed(0)
    p = []
    for _ in range(200):
        orders = 0.1 + 0.01 * torch.randn(40, 4, 3, generator=generator)
        p.append(mapping_p(orders, 1.0, (0, 0)))
    assert 0.01 <= np.mean(np.array(p) <= 0.05) <= 0.1
    orders = 0.1 + 0.01 * torch.randn(40, 3, 3, generator=generator)
    orders[0] += 0.2 * torch.eye(3)
    assert mapping_p(orders, 1.0, (0, 0)) == pytest.approx(1 / 40)
    orders[0, 2, 2] = torch.nan
    assert np.isnan(mapping_p(orders, 1.0, (0, 0)))


def test_embeddings_are_not_mapped_and_undefined_measures_have_no_mapping():
    pairs = [(a, b) for a in range(4) for b in range(3)]
    table = pd.DataFrame(pairs, columns=["layer_a", "layer_b"])
    gain = [1.0 if (a, b) in {(0, 0), (1, 1), (3, 2)} else 0.0 for a, b in pairs]
    table = pd.concat(
        [table.assign(measure="cka", beyond_chance=gain), table.assign(measure="r2_to_a")]
    )
    mapping = suggest_mappings(table, {"cka": 0.01, "r2_to_a": 0.5}, (1, 1))
    assert mapping[["layer_a", "layer_b"]].to_numpy().tolist() == [[1, 1], [3, 2]]
    assert mapping["p_map"].tolist() == [0.01, 0.01]
    assert mapping["beyond_chance"].tolist() == [1.0, 1.0]
