"""Which layers and rows a term compares, against hand values; every refusal and its words."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from geodistill.distill import FeatureTerm
from geodistill.distill.feature_term import TermModule, loss_mask, resolve_layer, term_modules
from geodistill.errors import InputError
from geodistill.losses import ProcrustesLoss

FEATURES = torch.arange(24.0).reshape(2, 4, 3)  # row t of example b begins with 12 b + 3 t
RIGHT = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).bool()


def test_equal_terms_have_names_of_their_own():
    layers = [(2, 1), (2, 1), (1, 1), (2, 1)]
    terms = term_modules([FeatureTerm(t, s, ProcrustesLoss()) for t, s in layers])
    names = [term.name for term in terms]
    one = "ProcrustesLoss[2-1]"
    assert names == [one, f"{one} #2", "ProcrustesLoss[1-1]", f"{one} #3"]


def test_classification_keeps_all_but_padding():
    ids = torch.ones(2, 4, dtype=torch.long)
    batch = {"input_ids": ids, "attention_mask": RIGHT.long(), "labels": torch.tensor([0, 1])}
    assert torch.equal(loss_mask(batch), RIGHT)
    del batch["attention_mask"]
    assert torch.equal(loss_mask(batch), torch.ones(2, 4, dtype=torch.bool))


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
    mask = loss_mask({"input_ids": ids, "attention_mask": ids, "labels": torch.tensor([labels])})
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
        ({"pooling": "odd"}, "pooling is 'odd'; expected one of all, first, mean, last"),
        ({"weight": -0.5}, "weight is -0.5; expected a finite number of at least 0"),
        ({"weight": math.nan}, "weight is nan"),
        ({"weight": math.inf}, "weight is inf"),
        (
            {"weight_warmup_batches": -1},
            "weight_warmup_batches is -1; expected a number of micro-b",
        ),
    ],
)
def test_terms_out_of_range(settings, words):
    with pytest.raises(InputError, match=words):
        FeatureTerm(-1, -1, ProcrustesLoss(), **settings)


@pytest.mark.parametrize("layers", [("last", -1), (-1, 0.5)])
def test_a_layer_is_a_number(layers):
    with pytest.raises(InputError, match=r"_layer is .*; expected an integer, -1 for the last"):
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
    term = TermModule(FeatureTerm(-1, -1, Scaled(3.0), weight=20.0, weight_warmup_batches=2))
    assert term.warming_up
    assert term.weight == 0
    for value in (1.0, 2.0):  # base gradient 0.5 x, own 3 x: norms value·√24·(0.5, 3)
        features = torch.full((2, 4, 3), value, requires_grad=True)
        own = term(features, FEATURES, RIGHT)
        term.measure(0.25 * features.square().sum(), own, features)
    assert not term.warming_up
    assert term.weight == pytest.approx(20 * 0.5 / 3)


def test_the_window_is_a_ratio_of_means_not_a_mean_of_ratios():
    term = TermModule(FeatureTerm(-1, -1, Scaled(1.0), weight_warmup_batches=2))
    for value, factor in ((1.0, 4.0), (3.0, 2.0)):
        features = torch.full((1, 1, 1), value, requires_grad=True)
        term.measure(
            0.5 * factor * features.square().sum(), term(features, features, None), features
        )
    assert term.weight == pytest.approx((4 * 1 + 2 * 3) / (1 + 3))


def test_without_balance_the_weight_is_as_given():
    term = TermModule(FeatureTerm(-1, -1, Scaled(1.0), weight=0.7))
    assert not term.warming_up
    assert term.weight == 0.7


@pytest.mark.parametrize(
    ("base", "own", "words"),
    [
        (1.0, 0.0, r"Scaled\[2-1\] has no gradient at the student's features"),
        (0.0, 1.0, "the base loss has no gradient at the student's features"),
    ],
)
def test_a_window_without_gradient_is_refused(base, own, words):
    term = TermModule(FeatureTerm(2, 1, Scaled(own), weight_warmup_batches=1))
    features = torch.ones(1, 1, 1, requires_grad=True)
    term.measure(base * features.sum(), term(features, features, None), features)
    with pytest.raises(InputError, match=words + r".*weight_warmup_batches=0"):
        term.weight  # noqa: B018


def test_what_a_loss_refuses_is_told_with_the_term():
    features = torch.full((2, 4, 3), math.nan)
    term = TermModule(FeatureTerm(6, 3, ProcrustesLoss()))
    with pytest.raises(InputError, match=r"ProcrustesLoss\[6-3\]: teacher holds 21 NaN"):
        term(FEATURES, features, RIGHT)
