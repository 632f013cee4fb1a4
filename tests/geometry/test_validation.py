"""Validation of features: what pairs, what is refused, and the messages."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry.validation import paired, single, valid_rows

X, Y = torch.ones(5, 3), torch.ones(5, 2)
KEEP = torch.tensor([1, 1, 0, 1, 0])


def nan_at(x: Tensor, row: int) -> Tensor:
    x = x.clone()
    x[row, 0] = float("nan")
    return x


@pytest.mark.parametrize(
    ("x", "y", "mask", "message"),
    [
        ([[1.0]], Y, None, r"teacher is a list: expected a torch.Tensor"),
        (X.long(), Y, None, r"teacher has dtype torch.int64: expected floating point"),
        (torch.ones(3), Y, None, r"teacher has shape \(3,\): expected \(..., n, d\)"),
        (X, torch.ones(5, 0), None, r"student has shape \(5, 0\)"),
        (torch.ones(0, 3), torch.ones(0, 2), None, r"teacher has shape \(0, 3\)"),
        (X, Y[:4], None, r"teacher has rows \(5,\) and student \(4,\): expected one row of each"),
        (X, Y, KEEP.float(), r"mask has dtype torch.float32: expected booleans or 0/1"),
        (X, Y, KEEP[:4], r"mask has shape \(4,\): expected \(5,\)"),
        (X, Y, 0 * KEEP, r"mask of shape \(5,\) keeps no row of teacher and student"),
        (X, Y, 2 * KEEP - 1, "mask holds -1: expected booleans, or 1 for rows that count and 0"),
        (X, Y, 255 * KEEP.byte(), "mask holds 255: expected booleans"),
        (X, Y, torch.tensor([0, 1, -100, 1, 1]), r"mask holds -100: .*mask=labels != -100"),
        (nan_at(X, 0), Y, None, r"teacher holds 1 NaN or infinite values of 15"),
        (X, nan_at(Y, 0), KEEP, r"student holds 1 NaN or infinite values"),
        (X, Y / 0, None, r"student holds 10 NaN or infinite values of 10"),
    ],
)
def test_each_refusal_names_argument_and_expectation(
    x: Tensor, y: Tensor, mask: Tensor | None, message: str
) -> None:
    names = ("teacher", "student")
    with pytest.raises(InputError, match=message):
        paired(x, y, mask, torch.float64, names)
    with pytest.raises(InputError, match=message):
        valid_rows(x, y, mask, names)


def test_padding_may_hold_anything() -> None:
    x, _, mask = paired(nan_at(X, 2), nan_at(Y, 4), KEEP, torch.float64)
    assert mask is not None
    assert torch.equal(mask, KEEP.bool())
    assert torch.equal(x.sum(-1), 3.0 * KEEP)
    *rows, index = valid_rows(nan_at(X, 2), nan_at(Y, 4), KEEP)
    assert index is not None
    assert torch.equal(index, KEEP.nonzero()[:, 0])
    assert [tuple(r.shape) for r in rows] == [(3, 3), (3, 2)]
    assert torch.equal(rows[0], torch.ones(3, 3))


def test_a_batch_with_one_empty_member_is_refused_for_measures_but_not_for_rows() -> None:
    x, mask = torch.ones(2, 5, 3), torch.stack([KEEP, 0 * KEEP])
    with pytest.raises(InputError, match="keeps no row"):
        paired(x, x, mask, torch.float64)
    assert len(valid_rows(x, x, mask)[0]) == 3


def test_rows_are_at_least_float32_and_of_one_dtype() -> None:
    for dtypes, expected in (
        ((torch.bfloat16, torch.bfloat16), torch.float32),
        ((torch.float16, torch.float32), torch.float32),
        ((torch.float32, torch.float64), torch.float64),
    ):
        x, y, _ = valid_rows(X.to(dtypes[0]), Y.to(dtypes[1]), None)
        assert x.dtype == y.dtype == expected


def test_single_wants_two_dimensions() -> None:
    assert single(X, "x").shape == X.shape
    with pytest.raises(InputError, match=r"x has shape \(1, 5, 3\): expected \(n, d\)"):
        single(X[None], "x")


def test_squares_that_overflow_float32_alone_pass_in_float64() -> None:
    assert torch.equal(single(X * 1e25, "x"), (X * 1e25).double())
    with pytest.raises(InputError, match=r"x has values up to .*squares overflow torch\.float32"):
        valid_rows(X * 1e25, X * 1e25, None)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.integers(0, 4), st.data())
def test_any_shape_is_either_paired_or_refused(
    lead: list[int], width: int, data: st.DataObject
) -> None:
    shape = [*lead, width]
    keep = data.draw(st.booleans())
    mask = torch.full(lead, keep)
    x = torch.zeros(shape)
    if 0 in shape or not keep:
        with pytest.raises(InputError):
            valid_rows(x, x, mask)
    else:
        assert len(valid_rows(x, x, mask)[0]) == mask.numel()
