"""Which layers and rows a term compares, against hand values; every refusal and its words."""

import math

import numpy as np
import pandas as pd
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
    assert resolve_layer(layer, 6, "teacher") == index


@pytest.mark.parametrize("layer", [7, -8, 12])
def test_an_unknown_layer_is_told_which_there_are(layer):
    words = rf"teacher_layer is {layer}, the teacher has layers 0 \(embeddings\) to 6"
    with pytest.raises(InputError, match=words):
        resolve_layer(layer, 6, "teacher")


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


def test_a_row_of_a_layer_map_names_layers():
    (row,) = pd.DataFrame({"layer_a": [2], "layer_b": [-1]}).itertuples(index=False)
    of_map = FeatureTerm(np.int64(row.layer_a), row.layer_b, ProcrustesLoss())
    assert (of_map.teacher_layer, of_map.student_layer) == (2, -1)
    assert type(of_map.teacher_layer) is int


@pytest.mark.parametrize("layers", [("", -1), (-1, 0.5), (True, 1)])
def test_a_layer_is_a_number_or_a_path(layers):
    with pytest.raises(InputError, match=r"_layer is .*; expected an integer, -1 for the last, or"):
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


def with_outliers(seed, first=300.0):
    """Token features (6, 10, 8) whose first token in each text is far from the others."""
    features = torch.randn(6, 10, 8, generator=torch.Generator().manual_seed(seed))
    features[:, 0, 0] += first
    return features


TOKENS = torch.ones(6, 10, dtype=torch.bool)
TOKENS[2:, 7:] = False  # padding


def term_loss(teacher, student, mask=TOKENS, teacher_mask=None, **settings):
    term = FeatureTerm(-1, -1, ProcrustesLoss(), **settings)
    return TermModule(term)(student, teacher, mask, teacher_mask)


def test_outlier_rows_are_left_out_of_both_sides():
    teacher, student = with_outliers(0), with_outliers(1, first=0.0)
    student[3, 5] *= 100
    keep = TOKENS.clone()
    keep[:, 0] = False
    keep[3, 5] = False
    expected = ProcrustesLoss()(student[keep], teacher[keep])
    with pytest.warns(UserWarning, match=r"6 of 48 rows of the teacher .* drop_outliers=True"):
        plain = term_loss(teacher, student)
    dropped = term_loss(teacher, student, drop_outliers=True)
    torch.testing.assert_close(dropped, expected)
    assert abs(float(plain - dropped)) > 0.1
    gradient_of = student.clone().requires_grad_()
    term_loss(teacher, gradient_of, drop_outliers=True).backward()
    assert torch.equal(gradient_of.grad.norm(dim=-1) > 0, keep)


def test_means_leave_out_each_models_own_outliers():
    """The teacher has other tokens; one text is an outlier token alone, and keeps it."""
    teacher, student = with_outliers(0)[:, :8], with_outliers(1)
    teacher_mask, mask = TOKENS[:, :8].clone(), TOKENS.clone()
    teacher_mask[5, 1:] = False
    means = []
    for features, valid in ((student, mask), (teacher, teacher_mask)):
        means.append(torch.stack([
            row[1:][on[1:]].mean(0) if on[1:].any() else row[0]
            for row, on in zip(features, valid, strict=True)
        ]))  # fmt: skip
    expected = ProcrustesLoss()(*means)
    dropped = term_loss(teacher, student, mask, teacher_mask, pooling="mean", drop_outliers=True)
    torch.testing.assert_close(dropped, expected)


@pytest.mark.parametrize("pooling", ["first", "last"])
def test_pooled_rows_that_are_outliers_are_left_out(pooling):
    teacher, student = (torch.randn(20, 3, 4) for _ in "ts")
    teacher[7] += 1000
    mask = torch.ones(20, 3, dtype=torch.bool)
    at = 0 if pooling == "first" else -1
    others = torch.arange(20) != 7
    expected = ProcrustesLoss()(student[others, at], teacher[others, at])
    dropped = term_loss(teacher, student, mask, pooling=pooling, drop_outliers=True)
    torch.testing.assert_close(dropped, expected)


@pytest.mark.parametrize("pooling", ["all", "first", "mean", "last"])
def test_padding_may_hold_nan(pooling):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(6, 5, 3, generator=generator) for _ in range(2))
    mask = torch.arange(5) < torch.tensor([5, 4, 3, 2, 1, 5])[:, None]
    term = TermModule(FeatureTerm(-1, -1, ProcrustesLoss(), pooling=pooling))
    clean = term(student, teacher, mask)
    spoilt = [features.masked_fill(~mask[..., None], math.nan) for features in (student, teacher)]
    spoilt[0].requires_grad_()
    loss = term(*spoilt, mask)
    loss.backward()
    assert loss.item() == clean.item() > 0.1
    assert torch.isfinite(spoilt[0].grad).all()
    assert spoilt[0].grad.norm() > 0


def test_feature_maps_are_told_the_recipe():
    features = torch.randn(2, 16, 7, 7)
    term = TermModule(FeatureTerm(6, 3, ProcrustesLoss()))
    with pytest.raises(
        InputError, match=r"ProcrustesLoss\[6-3\]: features have shape .*channels_l"
    ):
        term(features, features, torch.ones(2, 16, dtype=torch.bool))
