"""Tokens of a batch pooled to rows, against hand values."""

import pytest
import torch
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry.pooling import pool_tokens

FEATURES = torch.arange(24.0).reshape(2, 4, 3)  # row t of example b begins with 12 b + 3 t
RIGHT = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).bool()
LEFT = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]]).bool()
GAPS = torch.tensor([[0, 1, 0, 1], [1, 0, 1, 0]]).bool()


@pytest.mark.parametrize(
    ("mask", "pooling", "expected"),
    [
        (RIGHT, "first", [0, 12]),
        (RIGHT, "last", [6, 21]),
        (RIGHT, "mean", [3, 16.5]),
        (LEFT, "first", [6, 15]),
        (LEFT, "last", [9, 21]),
        (LEFT, "mean", [7.5, 18]),
        (GAPS, "first", [3, 12]),
        (GAPS, "last", [9, 18]),
        (GAPS, "mean", [6, 15]),
    ],
)
def test_one_row_per_example(mask: Tensor, pooling: str, expected: list[float]) -> None:
    rows, valid = pool_tokens(FEATURES, mask, pooling)
    assert valid is None
    assert rows.shape == (2, 3)
    assert rows[:, 0].tolist() == expected
    assert (rows[:, 1] - rows[:, 0]).tolist() == [1, 1]


def test_all_rows_stay_with_their_mask() -> None:
    rows, valid = pool_tokens(FEATURES, RIGHT, "all")
    assert rows is FEATURES
    assert valid is RIGHT


@pytest.mark.parametrize("pooling", ["first", "last", "mean"])
def test_masked_tokens_have_no_influence(pooling: str) -> None:
    spoilt = torch.where(LEFT.unsqueeze(-1), FEATURES, torch.full_like(FEATURES, 1e6))
    assert torch.equal(
        pool_tokens(spoilt, LEFT, pooling)[0], pool_tokens(FEATURES, LEFT, pooling)[0]
    )


@pytest.mark.parametrize("pooling", ["first", "last", "mean"])
def test_an_example_without_tokens_is_refused(pooling: str) -> None:
    mask = RIGHT.clone()
    mask[1] = False
    with pytest.raises(InputError, match="mask keeps no token of example 1; leave such"):
        pool_tokens(FEATURES, mask, pooling)
    assert pool_tokens(FEATURES, mask, "all")[0] is FEATURES
