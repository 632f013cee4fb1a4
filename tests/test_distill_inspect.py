"""The layer map against measures of stacked features; known matches; refusals; nothing is left."""

import numpy as np
import pytest
import torch
from tiny_models import tiny_bert, tiny_opt
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from geodistill.distill import compare_layers
from geodistill.errors import InputError
from geodistill.geometry import cka, feature_gram_distance, procrustes_distance, projection_distance

WORDS = [f"w{i}" for i in range(2, 100)]


def tokenizer(words=WORDS):
    vocabulary = {"[PAD]": 0, "[UNK]": 1, **{word: i for i, word in enumerate(words, 2)}}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", model_max_length=30
    )


def texts(count=20, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(3, 9))) for _ in range(count)]


def compared(a, b, **settings):
    given = {"tokenizer_a": tokenizer(), "permutations": 19, "progress": False, **settings}
    return compare_layers(a, b, given.pop("texts", texts()), **given).rows


@torch.no_grad()
def stacked(model, means):
    """Features of each layer, one text at a time, with no padding."""
    model.eval()
    per_text = []
    for text in texts():
        ids = torch.tensor([tokenizer()(text)["input_ids"]])
        hidden = model(ids, output_hidden_states=True).hidden_states
        per_text.append([h[0].mean(0, keepdim=True) if means else h[0] for h in hidden])
    return [torch.cat(rows) for rows in zip(*per_text, strict=True)]


@pytest.mark.parametrize("kind", ["token", "text"])
def test_values_are_the_measures_of_the_stacked_features(kind):
    a, b = tiny_bert(1).double(), tiny_opt(2, width=8, layers=1).double()
    rows = compared(a, b, rows=kind).set_index(["measure", "layer_a", "layer_b"])["value"]
    unit = {"center": True, "scale": "frobenius"}
    for i, x in enumerate(stacked(a, kind == "text")):
        for j, y in enumerate(stacked(b, kind == "text")):
            expected = {
                "procrustes": procrustes_distance(x, y, **unit),
                "gram": feature_gram_distance(x, y, **unit),
                "cka": cka(x, y),
                "cka_debiased": cka(x, y, debiased=True),
                "projection_to_a": projection_distance(x, y, **unit),
            }
            for name, value in expected.items():
                assert rows[name, i, j] == pytest.approx(float(value), abs=1e-8), (name, i, j)
            residual = rows["projection_to_a", i, j]
            assert rows["r2_to_a", i, j] == pytest.approx(1 - residual**2, abs=1e-8)
            wide = kind == "text"  # 20 rows, 32 dimensions
            assert np.isnan(rows["r2_to_b", i, j]) == wide
            assert np.isnan(rows["projection_to_b", i, j]) == wide


def test_a_model_against_itself_matches_on_the_diagonal():
    rows = compared(tiny_bert(1), tiny_bert(1), permutations=39)
    best = rows[rows["best"] & (rows["measure"] == "procrustes")]
    assert best["layer_a"].tolist() == best["layer_b"].tolist() == [0, 1, 2]
    assert best["value"].max() < 1e-5
    assert best["geometry_kept"].min() == pytest.approx(1, abs=1e-5)
    assert best["p_search"].max() == 1 / 40
    assert set(rows["rows"]) == {"token"}


def test_chunks_change_nothing():
    a, b = tiny_bert(1).double(), tiny_opt(2).double()
    first, second = (compared(a, b, batch_size=size) for size in (1, 20))
    numbers = ["value", "null", "p", "p_search", "geometry_kept"]
    np.testing.assert_allclose(first[numbers], second[numbers], rtol=1e-9, atol=1e-9)
    assert np.isfinite(first["value"]).all()


def test_a_search_over_unrelated_models_needs_its_own_p():
    """Texts that share no word leave random models nothing in common."""
    words = [" ".join(WORDS[3 * i : 3 * i + 3]) for i in range(32)]
    naive, search = [], []
    for seed in range(6):
        rows = compared(
            tiny_bert(seed, layers=3), tiny_opt(50 + seed, layers=3), texts=words, rows="text"
        )
        rows = rows[rows["measure"] == "cka"]
        naive.append(rows["p"].min())
        search.append(rows["p_search"].min())
    assert np.mean(search) > np.mean(naive)
    assert np.median(search) > 0.1
    assert all(s >= p for s, p in zip(search, naive, strict=True))


def test_other_tokenizers_give_one_row_a_text():
    other = tokenizer(WORDS[::-1])
    rows = compared(tiny_bert(1), tiny_opt(2), tokenizer_b=other)
    assert set(rows["rows"]) == {"text"}
    assert set(rows["n"]) == {20}
    with pytest.raises(InputError, match=r"rows is 'token', the tokenizers give other ids"):
        compared(tiny_bert(1), tiny_opt(2), tokenizer_b=other, rows="token")


def test_the_models_are_left_as_they_were():
    a, b = tiny_bert(1), tiny_opt(2)
    a.train()
    a.bert.encoder.layer[0].eval()
    b.eval()
    ids = torch.tensor([[5, 6, 7]])
    states = [[m.training for m in model.modules()] for model in (a, b)]
    before = b(ids).logits
    # transformers installs its own recorders at the first call with output_hidden_states.
    a.bert(ids, output_hidden_states=True)
    hooks = [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in a.modules()]
    compared(a, b)
    assert [[m.training for m in model.modules()] for model in (a, b)] == states
    assert torch.equal(b(ids).logits, before)
    left = [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in a.modules()]
    assert left == hooks
    assert all(p.grad is None and p.requires_grad for p in a.parameters())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"texts": []}, r"texts is 0: expected a list of at least 4"),
        ({"texts": "w2 w3"}, r"texts is one string"),
        ({"texts": ["w2", " ", "w3", "w4"]}, r"texts: number 1 is empty"),
        ({"tokenizer_a": None}, r"tokenizer_a is None"),
        ({"layers_b": [3]}, r"model_b_layer is 3, the model_b has layers 0"),
        ({"rows": "word"}, r"rows is 'word': expected one of token, text"),
        ({"permutations": 0}, r"permutations 0"),
    ],
)
def test_what_cannot_be_compared_is_refused(settings, words):
    with pytest.raises(InputError, match=words):
        compared(tiny_bert(1), tiny_opt(2), **settings)


def test_other_models_and_vocabularies_are_refused():
    with pytest.raises(InputError, match="model_b is a Linear: expected an encoder or decoder"):
        compared(tiny_bert(1), torch.nn.Linear(2, 2))
    with pytest.raises(InputError, match=r"model_b embeds 50 tokens, its tokenizer gives id 9\d"):
        compared(tiny_bert(1), tiny_opt(2, vocabulary=50))


def test_sums_larger_than_the_memory_are_refused(monkeypatch):
    from types import SimpleNamespace

    from geodistill.distill import inspect

    monkeypatch.setattr(inspect.psutil, "virtual_memory", lambda: SimpleNamespace(available=10_000))
    with pytest.raises(InputError, match=r"sums of 3 × 3 layers need 0.0 GB, .* fewer layers"):
        compared(tiny_bert(1), tiny_opt(2))
