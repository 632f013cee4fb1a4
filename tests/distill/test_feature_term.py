"""Which layers and rows a term compares, against hand values; every refusal and its words."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from geodistill.distill import FeatureTerm
from geodistill.distill.feature_term import (
    BalancedTerm,
    balanced,
    kept_rows,
    resolve_layer,
    select_rows,
)
from geodistill.errors import InputError
from geodistill.losses import ProcrustesLoss

FEATURES = torch.arange(24.0).reshape(2, 4, 3)  # row t of example b begins with 12 b + 3 t
RIGHT = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).bool()
LEFT = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]]).bool()


@pytest.mark.parametrize(
    ("mask", "rows", "expected"),
    [
        (RIGHT, "first", [0, 12]),
        (RIGHT, "last", [6, 21]),
        (RIGHT, "mean", [3, 16.5]),
        (LEFT, "first", [6, 15]),
        (LEFT, "last", [9, 21]),
        (LEFT, "mean", [7.5, 18]),
    ],
)
def test_one_row_an_example(mask, rows, expected):
    chosen, kept = select_rows(FEATURES, mask, rows)
    assert kept is None
    assert chosen.shape == (2, 3)
    assert chosen[:, 0].tolist() == expected
    assert (chosen[:, 1] - chosen[:, 0]).tolist() == [1, 1]


def test_all_rows_go_on_with_their_mask():
    chosen, kept = select_rows(FEATURES, RIGHT, "all")
    assert chosen is FEATURES
    assert kept is RIGHT


@pytest.mark.parametrize("rows", ["first", "last", "mean"])
def test_what_is_not_kept_has_no_influence(rows):
    spoilt = torch.where(LEFT.unsqueeze(-1), FEATURES, torch.full_like(FEATURES, 1e6))
    assert torch.equal(select_rows(spoilt, LEFT, rows)[0], select_rows(FEATURES, LEFT, rows)[0])


@pytest.mark.parametrize("rows", ["first", "last", "mean"])
def test_an_example_without_tokens_is_refused(rows):
    mask = RIGHT.clone()
    mask[1] = False
    with pytest.raises(InputError, match="mask keeps no token of example 1"):
        select_rows(FEATURES, mask, rows)


def test_equal_terms_have_names_of_their_own():
    layers = [(2, 1), (2, 1), (1, 1), (2, 1)]
    terms = balanced([FeatureTerm(t, s, ProcrustesLoss()) for t, s in layers])
    names = [term.name for term in terms]
    one = "ProcrustesLoss[2-1]"
    assert names == [one, f"{one} #2", "ProcrustesLoss[1-1]", f"{one} #3"]


def test_classification_keeps_all_but_padding():
    ids = torch.ones(2, 4, dtype=torch.long)
    batch = {"input_ids": ids, "attention_mask": RIGHT.long(), "labels": torch.tensor([0, 1])}
    assert torch.equal(kept_rows(batch), RIGHT)
    del batch["attention_mask"]
    assert torch.equal(kept_rows(batch), torch.ones(2, 4, dtype=torch.bool))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([-100, -100, 7, 8, -100], [0, 1, 1, 0, 0]),  # padded on the right
        ([-100, -100, -100, 7, 8], [0, 0, 1, 1, 0]),  # padded on the left
        ([5, 6, 7, 8, 9], [1, 1, 1, 1, 0]),  # the first label has no position before it
    ],
)
def test_language_models_keep_the_positions_that_predict_a_target(labels, expected):
    ids = torch.ones(1, 5, dtype=torch.long)
    mask = kept_rows({"input_ids": ids, "attention_mask": ids, "labels": torch.tensor([labels])})
    assert mask.int().tolist() == [expected]


@pytest.mark.parametrize(("layer", "index"), [(0, 0), (6, 6), (-1, 6), (-7, 0)])
def test_layers_count_as_in_hidden_states(layer, index):
    assert resolve_layer(layer, SimpleNamespace(num_hidden_layers=6), "teacher") == index


@pytest.mark.parametrize("layer", [7, -8, 12])
def test_an_unknown_layer_is_told_which_there_are(layer):
    words = rf"teacher_layer is {layer}, the teacher has layers 0 \(embeddings\) to 6"
    with pytest.raises(InputError, match=words):
        resolve_layer(layer, SimpleNamespace(num_hidden_layers=6), "teacher")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rows": "odd"}, "rows is 'odd'; expected one of all, first, mean, last"),
        ({"weight": -0.5}, "weight is -0.5; expected a finite number of at least 0"),
        ({"weight": math.nan}, "weight is nan"),
        ({"weight": math.inf}, "weight is inf"),
        ({"balance": -1}, "balance is -1; expected a number of micro-batches, 0 for none"),
    ],
)
def test_terms_out_of_range(settings, words):
    with pytest.raises(InputError, match=words):
        FeatureTerm(-1, -1, ProcrustesLoss(), **settings)


@pytest.mark.parametrize("layers", [("last", -1), (-1, 0.5)])
def test_a_layer_is_a_number(layers):
    with pytest.raises(InputError, match=r"_layer is .*; expected a whole number, -1 for the last"):
        FeatureTerm(*layers, ProcrustesLoss())


@pytest.mark.parametrize("loss", [ProcrustesLoss, None, "procrustes"])
def test_a_loss_that_is_no_module_is_refused(loss):
    with pytest.raises(InputError, match=r"loss is .*: expected a module, such as ProcrustesLoss"):
        FeatureTerm(-1, -1, loss)


class Scaled(nn.Module):
    """factor · ½ Σ student²: its gradient is factor · student."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, student, teacher, mask=None):
        return 0.5 * self.factor * student.square().sum()


def test_the_balanced_weight_is_factor_times_the_ratio_of_mean_gradient_norms():
    term = BalancedTerm(FeatureTerm(-1, -1, Scaled(3.0), weight=20.0, balance=2))
    assert term.balancing
    assert term.weight == 0
    for value in (1.0, 2.0):  # base gradient 0.5 x, own 3 x: norms value·√24·(0.5, 3)
        features = torch.full((2, 4, 3), value, requires_grad=True)
        own = term(features, FEATURES, RIGHT)
        term.measure(0.25 * features.square().sum(), own, features)
    assert not term.balancing
    assert term.weight == pytest.approx(20 * 0.5 / 3)


def test_the_window_is_a_ratio_of_means_not_a_mean_of_ratios():
    term = BalancedTerm(FeatureTerm(-1, -1, Scaled(1.0), balance=2))
    for value, factor in ((1.0, 4.0), (3.0, 2.0)):
        features = torch.full((1, 1, 1), value, requires_grad=True)
        term.measure(
            0.5 * factor * features.square().sum(), term(features, features, None), features
        )
    assert term.weight == pytest.approx((4 * 1 + 2 * 3) / (1 + 3))


def test_without_balance_the_weight_is_as_given():
    term = BalancedTerm(FeatureTerm(-1, -1, Scaled(1.0), weight=0.7))
    assert not term.balancing
    assert term.weight == 0.7


@pytest.mark.parametrize(
    ("base", "own", "words"),
    [
        (1.0, 0.0, r"Scaled\[2-1\] has no gradient at the student's features"),
        (0.0, 1.0, "the base loss has no gradient at the student's features"),
    ],
)
def test_a_window_without_gradient_is_refused(base, own, words):
    term = BalancedTerm(FeatureTerm(2, 1, Scaled(own), balance=1))
    features = torch.ones(1, 1, 1, requires_grad=True)
    term.measure(base * features.sum(), term(features, features, None), features)
    with pytest.raises(InputError, match=words + r".*balance=0"):
        term.weight  # noqa: B018


def test_what_a_loss_refuses_is_told_with_the_term():
    features = torch.full((2, 4, 3), math.nan)
    term = BalancedTerm(FeatureTerm(6, 3, ProcrustesLoss()))
    with pytest.raises(InputError, match=r"ProcrustesLoss\[6-3\]: teacher holds 21 NaN"):
        term(FEATURES, features, RIGHT)
