"""Tokens of a batch pooled to rows, against hand values."""

import pytest
import torch
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry.pooling import channels_last, pool_tokens
from geodistill.losses import ProcrustesLoss

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
    for padding in (1e6, float("nan"), float("inf")):
        spoilt = torch.where(LEFT.unsqueeze(-1), FEATURES, padding).requires_grad_()
        rows = pool_tokens(spoilt, LEFT, pooling)[0]
        assert torch.equal(rows, pool_tokens(FEATURES, LEFT, pooling)[0])
        (gradient,) = torch.autograd.grad(rows.sum(), spoilt)
        assert gradient[LEFT].sum() == pytest.approx(6)  # one for each example and column
        assert not gradient[~LEFT].any()


def test_a_mean_in_half_precision_is_summed_in_float32() -> None:
    """512 tokens near 200 sum to 102,400; float16 ends at 65,504, bfloat16 counts to 256."""
    features = 200 + torch.randn(2, 512, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(512).expand(2, -1) < torch.tensor([[512], [400]])
    for dtype in (torch.float16, torch.bfloat16):
        half = features.to(dtype)
        means, _ = pool_tokens(half, mask, "mean")
        expected = torch.stack([half[0].double().mean(0), half[1, :400].double().mean(0)])
        assert means.dtype == torch.float32
        assert torch.allclose(means.double(), expected, rtol=1e-6)
    assert pool_tokens(features.double(), mask, "mean")[0].dtype == torch.float64


@pytest.mark.parametrize("pooling", ["first", "last", "mean"])
def test_an_example_without_tokens_is_refused(pooling: str) -> None:
    mask = RIGHT.clone()
    mask[1] = False
    with pytest.raises(InputError, match="mask keeps no token of example 1; leave such"):
        pool_tokens(FEATURES, mask, pooling)
    assert pool_tokens(FEATURES, mask, "all")[0] is FEATURES


# --- images ------------------------------------------------------------------------------------


def maps(channels: int, height: int = 7, width: int = 7, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, channels, height, width, generator=generator)


def test_channels_last_has_a_row_for_each_position() -> None:
    features = maps(5, 2, 3)
    rows = channels_last(features)
    assert rows.shape == (4, 6, 5)
    assert torch.equal(rows[2, 4], features[2, :, 1, 1])
    assert channels_last(features[..., 0]).shape == (4, 2, 5)
    with pytest.raises(
        InputError, match=r"shape \(5, 2\): expected \(b, channels, height, width\)"
    ):
        channels_last(features[0, ..., 0])


def test_channels_first_is_refused_and_the_recipe_compares_channels() -> None:
    teacher, student = maps(16), maps(16, seed=1)
    with pytest.raises(InputError, match=r"rows of width 7: pass .*geometry\.channels_last, or fl"):
        ProcrustesLoss()(student, teacher)
    mixed = torch.einsum("bchw,cd->bdhw", teacher, torch.linalg.qr(torch.randn(16, 16))[0])
    assert ProcrustesLoss()(channels_last(mixed), channels_last(teacher)) < 1e-5
    assert ProcrustesLoss()(mixed.flatten(0, 2), teacher.flatten(0, 2)) > 0.1
    with pytest.raises(InputError, match=r"\(4, 16, 7\) and student \(4, 8, 7\): .*channels_last"):
        ProcrustesLoss()(maps(8), teacher)
    clips = maps(16)[:, :, None].expand(-1, -1, 2, -1, -1)  # of two frames
    with pytest.raises(InputError, match=r"rows of width 7: pass .*geometry\.channels_last"):
        ProcrustesLoss()(clips, clips)
    with pytest.raises(InputError, match=r"features is a list: expected a torch\.Tensor"):
        channels_last([1.0])


@pytest.mark.parametrize("shape", [(16, 8, 6), (8, 16, 16)])
def test_channels_first_is_warned_of_where_it_is_less_likely(shape: tuple[int, int, int]) -> None:
    with pytest.warns(UserWarning, match=r"rows of width \d+: pass .*geometry\.channels_last"):
        ProcrustesLoss()(maps(*shape), maps(*shape, seed=1))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(7, 7, 64), (12, 40, 64), (3, 2, 2), (2, 3, 5)])
def test_features_with_their_width_last_pass(shape: tuple[int, int, int]) -> None:
    assert ProcrustesLoss()(maps(*shape), maps(*shape, seed=1)) > 0.01


@pytest.mark.parametrize("pooling", ["all", "first", "mean", "last"])
def test_pooling_takes_tokens_alone(pooling: str) -> None:
    mask = torch.ones(4, 16, dtype=torch.bool)
    with pytest.raises(InputError, match=r"\(4, 16, 7, 7\): expected \(b, t, d\).*channels_last"):
        pool_tokens(maps(16), mask, pooling)
