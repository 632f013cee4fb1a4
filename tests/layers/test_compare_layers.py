"""The layer map against measures of stacked features; known matches; refusals; nothing is left."""

import warnings
from functools import partial

import numpy as np
import pytest
import torch
from support.tiny_models import tiny_bert, tiny_opt
from support.tiny_tokenizers import word_tokenizer
from transformers import (
    LlamaConfig,
    RobertaConfig,
    RobertaModel,
    ViTConfig,
    ViTModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
)

from geodistill.errors import InputError
from geodistill.geometry import (
    cka,
    feature_gram_distance,
    inlier_mask,
    permutation_test,
    procrustes_distance,
    projection_distance,
    search_test,
)
from geodistill.layers import compare_layers
from geodistill.layers.statistics import pvalue_columns
from geodistill.positions import max_tokens, max_tokens_of

WORDS = [f"w{i}" for i in range(2, 100)]
TOKENIZER = word_tokenizer(WORDS)


def texts(count=20, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(3, 9))) for _ in range(count)]


def compared(a, b, **settings):
    given = {"tokenizer_a": TOKENIZER, "permutations": 19, "progress": False, **settings}
    return compare_layers(a, b, given.pop("texts", texts()), **given).table


@torch.no_grad()
def stacked(model, means):
    """Features of each layer, one text at a time, with no padding."""
    model.eval()
    per_text = []
    for text in texts():
        ids = torch.tensor([TOKENIZER(text)["input_ids"]])
        hidden = model(ids, output_hidden_states=True).hidden_states
        per_text.append([h[0].mean(0, keepdim=True) if means else h[0] for h in hidden])
    return [torch.cat(rows) for rows in zip(*per_text, strict=True)]


@pytest.mark.parametrize("pooling", ["token", "text"])
def test_values_are_the_measures_of_the_stacked_features(pooling):
    a, b = tiny_bert(1).double(), tiny_opt(2, width=8, layers=1).double()
    rows = compared(a, b, pooling=pooling).set_index(["measure", "layer_a", "layer_b"])["value"]
    unit = {"center": True, "scale": "frobenius"}
    for i, x in enumerate(stacked(a, pooling == "text")):
        for j, y in enumerate(stacked(b, pooling == "text")):
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
            wide = pooling == "text"  # 20 rows, 32 dimensions
            assert np.isnan(rows["r2_to_b", i, j]) == wide
            assert np.isnan(rows["projection_to_b", i, j]) == wide


def test_a_model_against_itself_matches_on_the_diagonal():
    rows = compared(tiny_bert(1), tiny_bert(1), permutations=39)
    rows = rows[rows["measure"] == "procrustes"].reset_index()
    best = rows.loc[rows.groupby("layer_a")["beyond_chance"].idxmax()]
    assert best["beyond_chance"].min() == pytest.approx(1, abs=1e-4)
    assert best["layer_a"].tolist() == best["layer_b"].tolist() == [0, 1, 2]
    assert best["value"].max() < 1e-5
    assert best["geometry_kept"].min() == pytest.approx(1, abs=1e-5)
    assert best["p_search"].max() == 1 / 40
    assert set(rows["pooling"]) == {"token"}


def test_chunks_change_nothing():
    a, b = tiny_bert(1).double(), tiny_opt(2).double()
    first, second = (compared(a, b, batch_size=size) for size in (1, 20))
    numbers = ["value", "null", "beyond_chance", "geometry_kept", "z", "p", "p_search"]
    np.testing.assert_allclose(first[numbers], second[numbers], rtol=1e-9, atol=1e-9)
    assert np.isfinite(first["value"]).all()


def test_a_search_over_unrelated_models_needs_its_own_p():
    """Texts that share no word leave random models nothing in common."""
    words = [" ".join(WORDS[3 * i : 3 * i + 3]) for i in range(32)]
    naive, search = [], []
    for seed in range(10):
        a, b = tiny_bert(seed, layers=3), tiny_opt(50 + seed, layers=3)
        rows = compared(a, b, texts=words, pooling="text", permutations=59)
        rows = rows[rows["measure"] == "cka"]
        naive.append(rows["p"].min())
        search.append(rows["p_search"].min())
        assert (rows["p_search"] >= rows["p"]).all()
    assert sum(p < 0.05 for p in naive) >= 2
    assert np.median(search) > 0.15


def searched(a, b, permutations=99):
    """`pvalue_columns` of lists of layers (n, d)."""
    widths = ([x.shape[1] for x in a], [y.shape[1] for y in b])
    rows = (torch.cat(a, 1), torch.cat(b, 1))
    return pvalue_columns(*rows, widths, permutations, 0, progress=False)[0]


def test_of_unrelated_layers_the_least_p_is_often_small_and_the_search_keeps_its_level():
    generator = torch.Generator().manual_seed(0)
    widths = (2, 4, 8, 16)  # nulls from 0.07 to 0.35
    naive, search = [], []
    for _ in range(40):
        a, b = (
            [torch.randn(24, d, generator=generator, dtype=torch.float64) for d in widths]
            for _ in "ab"
        )
        p = searched(a, b, 39)
        naive.append(p["p"]["cka"].min())
        search.append(p["p_search"]["cka"].min())
    assert np.mean(np.array(naive) <= 0.05) > 0.4  # 16 chances of 0.05
    assert np.mean(np.array(search) <= 0.05) < 0.13  # 2.3 standard errors above 0.05


def test_a_copy_is_found_where_other_pairs_are_alike_by_chance():
    """Layer 0 is wider than its rows are many: its pair, of unrelated rows, is the closest."""
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    a, turn = [draw(40, 120), draw(40, 6)], torch.linalg.qr(draw(6, 6))[0]
    b = [draw(40, 120), (a[1] + draw(40, 6)) @ turn]
    assert permutation_test(cka, a[0], b[0], permutations=99).null.min() > cka(a[1], b[1])
    for name in ("procrustes", "gram", "cka", "cka_debiased"):
        p = searched(a, b)["p_search"][name]
        assert p[1, 1] == 0.01, name
        assert np.delete(p.ravel(), 3).min() > 0.05, name
    assert searched(a, [b[0], a[1] @ turn])["p_search"]["procrustes"][1, 1] == 0.01


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("procrustes", partial(procrustes_distance, center=True, scale="frobenius")),
        ("cka", cka),
        ("cka_debiased", partial(cka, debiased=True)),
    ],
)
def test_the_search_is_that_of_geometry(name, measure):
    generator = torch.Generator().manual_seed(3)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    a = [draw(30, 6), draw(30, 40), draw(30, 2)]
    b = [0.15 * a[0] + draw(30, 6), draw(30, 3)]
    found, other = searched(a, b), search_test(measure, a, b, permutations=99)
    assert found["p_search"][name][other.best_pair] == pytest.approx(other.p)
    assert found["z"][name][other.best_pair] == pytest.approx(other.z)
    assert found["z"][name].max() == pytest.approx(other.z)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            alone = permutation_test(measure, x, y, permutations=99)
            assert found["p"][name][i, j] == pytest.approx(alone.p)


def test_a_noised_copy_of_a_model_matches_layer_by_layer():
    a, b = tiny_bert(1), tiny_bert(1)
    torch.manual_seed(0)
    for weight in b.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    rows = compared(a, b, texts=texts(40), permutations=59)
    true = rows[(rows["layer_a"] == rows["layer_b"]) & rows["measure"].isin(["cka", "procrustes"])]
    assert len(true) == 6
    assert true["p_search"].max() == pytest.approx(1 / 60)
    assert true["value"].between(1e-3, 1).all()


def test_some_layers_count_as_in_hidden_states():
    a, b = tiny_bert(1), tiny_opt(2)
    keys, every = ["measure", "layer_a", "layer_b"], compared(a, b)
    some = compared(a, b, layers_a=[-1, 0], layers_b=[1])
    assert set(zip(some["layer_a"], some["layer_b"], strict=True)) == {(2, 1), (0, 1)}
    both = some.merge(every, on=keys)
    assert len(both) == len(some)
    np.testing.assert_allclose(both["value_x"], both["value_y"], atol=1e-9)


def test_other_tokenizers_give_one_row_per_text():
    other = word_tokenizer(WORDS[::-1])
    rows = compared(tiny_bert(1), tiny_opt(2), tokenizer_b=other)
    assert set(rows["pooling"]) == {"text"}
    assert set(rows["n"]) == {20}
    with pytest.raises(InputError, match=r"pooling is 'token', but the tokenizers give diff"):
        compared(tiny_bert(1), tiny_opt(2), tokenizer_b=other, pooling="token")


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
        ({"texts": ["w2", " ", "w3", "w4"]}, r"texts: number 1 is ' ', expected a text"),
        ({"texts": ["w2", "w5", None, "w4"]}, r"texts: number 2 is None, expected a text"),
        ({"tokenizer_a": None}, r"tokenizer_a is None: expected the tokenizer of model_a itself"),
        ({"tokenizer_b": "bert"}, r"tokenizer_b is 'bert': expected the tokenizer of model_b"),
        ({"layers_a": 1}, r"layers_a is 1, model_a has .*: expected a list of some of them"),
        ({"layers_a": [0.5]}, r"layers_a is \[0.5\], model_a has layers 0"),
        ({"layers_b": [1, 3]}, r"layers_b is \[1, 3\], model_b has layers 0 \(embeddings\) to 2"),
        ({"layers_a": [-4]}, r"layers_a is \[-4\], model_a has layers 0"),
        ({"layers_a": []}, r"layers_a is \[\], model_a has layers 0 .*: expected a list of some"),
        ({"pooling": "word"}, r"pooling is 'word': expected token or text"),
        ({"permutations": 0}, r"permutations 0"),
    ],
)
def test_what_cannot_be_compared_is_refused(settings, words):
    with pytest.raises(InputError, match=words):
        compared(tiny_bert(1), tiny_opt(2), **settings)


def test_other_models_and_vocabularies_are_refused():
    with pytest.raises(InputError, match="model_b is a Linear: expected an encoder or decoder"):
        compared(tiny_bert(1), torch.nn.Linear(2, 2))
    images = ViTModel(
        ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=16)
    )
    with pytest.raises(InputError, match="model_b is a ViTModel, which reads no tokens"):
        compared(tiny_bert(1), images)
    speech = Wav2Vec2Model(
        Wav2Vec2Config(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            conv_dim=(8,), conv_stride=(5,), conv_kernel=(5,), num_conv_pos_embedding_groups=2,
        )
    )  # fmt: skip
    with pytest.raises(InputError, match="model_b is a Wav2Vec2Model, which reads no tokens"):
        compared(tiny_bert(1), speech)
    with pytest.raises(InputError, match=r"model_b embeds 50 tokens, its tokenizer gives id 9\d"):
        compared(tiny_bert(1), tiny_opt(2, vocabulary=50))


def test_sums_larger_than_the_memory_are_refused(monkeypatch):
    from types import SimpleNamespace

    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=10_000))
    with pytest.raises(InputError, match=r"sums of 3 × 3 layers need 0.0 GB, .* fewer layers"):
        compared(tiny_bert(1), tiny_opt(2))


# ---- outlier tokens ----


def with_outliers(words=("w2",), layers=2, seed=2):
    """An OPT that gives some words hidden states of 100 times the usual norm in its residuals."""
    model = tiny_opt(seed, layers=layers).double()
    for word in words:
        model.get_input_embeddings().weight.data[TOKENIZER.convert_tokens_to_ids(word)] *= 300
    return model


def texts_with(word="w2", count=20):
    """Texts that start with the word with outliers, as decoders treat the first token."""
    return [f"{word} {text}" for text in texts(count)]


N_OUTLIERS = sum(text.split().count("w2") for text in texts_with())


@torch.no_grad()
def hidden_states(model, text):
    ids = torch.tensor([TOKENIZER(text)["input_ids"]])
    return [h[0] for h in model(ids, output_hidden_states=True).hidden_states]


@pytest.mark.parametrize("pooling", ["token", "text"])
def test_without_outliers_the_map_is_that_of_the_other_tokens(pooling):
    a, b = with_outliers().eval(), tiny_bert(1).double().eval()
    sides = [[hidden_states(model, text) for text in texts_with()] for model in (a, b)]
    stacks = [[torch.cat(rows) for rows in zip(*side, strict=True)] for side in sides]
    lengths = [len(side[0]) for side in sides[0]]
    keeps = [torch.stack([inlier_mask(x, x) for x in stack]).all(0) for stack in stacks]
    assert [int((~keep).sum()) for keep in keeps] == [N_OUTLIERS, 0]
    if pooling == "token":
        keeps = [keeps[0] & keeps[1]] * 2
        rows = [[x[keep] for x in stack] for stack, keep in zip(stacks, keeps, strict=True)]
    else:
        rows = [
            [
                torch.stack(
                    [
                        r[k].mean(0)
                        for r, k in zip(x.split(lengths), keep.split(lengths), strict=True)
                    ]
                )
                for x in stack
            ]
            for stack, keep in zip(stacks, keeps, strict=True)
        ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer_map = compare_layers(
            a, b, texts_with(), tokenizer_a=TOKENIZER, pooling=pooling, permutations=9,
            drop_outliers=True, progress=False,
        )  # fmt: skip
    assert layer_map.dropped == (
        (N_OUTLIERS, N_OUTLIERS) if pooling == "token" else (N_OUTLIERS, 0)
    )
    table = layer_map.table.set_index(["measure", "layer_a", "layer_b"])
    assert set(table["n"]) == {len(rows[0][0])}
    for i, x in enumerate(rows[0]):
        for j, y in enumerate(rows[1]):
            expected = procrustes_distance(x, y, center=True, scale="frobenius")
            value = table["value"]["procrustes", i, j]
            assert value == pytest.approx(float(expected), abs=1e-8), (i, j)
    assert table["p"].between(0.1, 1).any()


def test_outlier_tokens_are_reported_once_with_number_and_share():
    a, b = with_outliers(), tiny_bert(1)
    with pytest.warns(UserWarning, match="Little else is compared") as caught:
        table = compared(a, b, texts=texts_with())
    (warning,) = caught
    n = int(table["n"].iloc[0])
    words = str(warning.message)
    assert words.startswith(
        f"model_a: in layers 0-1 at most {N_OUTLIERS} of {n} tokens have at least 99."
    )
    assert "drop_outliers=True (--drop-outliers)" in words
    assert "model_b" not in words
    with pytest.warns(
        UserWarning, match=f"^model_a and model_b: in layers 0-1 at most {N_OUTLIERS}"
    ):
        compared(a, a, texts=texts_with())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compared(tiny_opt(2), b)


def test_one_direction_is_reported_too():
    model = tiny_opt(2)
    embeddings = model.get_input_embeddings().weight.data
    embeddings[:, 3] += 40 * torch.randn(
        len(embeddings), generator=torch.Generator().manual_seed(0)
    )
    with pytest.warns(UserWarning, match=r"model_a: in layers 0-1 one direction has at least 9\d"):
        compared(model, tiny_bert(1))


def test_outliers_do_not_depend_on_the_batches():
    a, b = with_outliers(), tiny_bert(1).double()
    first, second = (
        compared(a, b, texts=texts_with(), batch_size=size, drop_outliers=True) for size in (1, 7)
    )
    assert set(first["n"]) == set(second["n"])
    np.testing.assert_allclose(first["value"], second["value"], rtol=1e-9, atol=1e-9)


def test_texts_of_outliers_alone_are_left_out_and_too_few_are_refused():
    mixed = ["w2"] * 3 + texts(20)
    layer_map = compare_layers(
        with_outliers(), tiny_bert(1).double(), mixed, tokenizer_a=TOKENIZER, pooling="text",
        permutations=9, drop_outliers=True, progress=False,
    )  # fmt: skip
    assert set(layer_map.table["n"]) == {20}
    with pytest.raises(InputError, match="drop_outliers leaves tokens of 3 texts"):
        compared(with_outliers(), tiny_bert(1), texts=["w2"] * 4 + texts(3), drop_outliers=True)


# ---- positions, unknown tokens, weights that are not finite ----


def test_positions_are_those_that_the_model_takes():
    config = RobertaConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=34,
    )  # fmt: skip
    roberta = RobertaModel(config)
    assert max_tokens(roberta) == max_tokens_of(config) == 32
    rotary = LlamaConfig(max_position_embeddings=48, num_hidden_layers=1, vocab_size=9)
    assert max_tokens_of(rotary) == 48
    long = [" ".join(WORDS[i : i + 60]) for i in range(6)]
    tokenizer = word_tokenizer(WORDS)
    tokenizer.model_max_length = 1000
    layer_map = compare_layers(
        roberta, tiny_bert(1), long, tokenizer_a=tokenizer, permutations=9, progress=False
    )
    assert layer_map.truncated == 6
    assert set(layer_map.table["n"]) == {6 * 32}


def test_a_tokenizer_that_knows_few_of_the_tokens_is_refused():
    foreign = word_tokenizer(["other", "words"])
    n_words = sum(len(text.split()) for text in texts())
    match = rf"{n_words} of the {n_words} tokens of the texts are unknown to tokenizer_b: expected"
    with pytest.raises(InputError, match=match):
        compared(tiny_bert(1), tiny_bert(1), tokenizer_b=foreign)
    some = [f"{text} other words here" for text in texts()]
    with pytest.warns(UserWarning, match="60 of the .* unknown to tokenizer_a; it may belong"):
        compared(tiny_bert(1), tiny_bert(1), texts=some)


@pytest.mark.parametrize(("weight", "layer"), [("embed_tokens", 0), ("layers.1.fc2", 2)])
def test_weights_that_are_not_finite_name_model_and_layer(weight, layer):
    broken = tiny_opt(2)
    broken.get_submodule(f"model.decoder.{weight}").weight.data[:] = torch.nan
    with pytest.raises(InputError, match=rf"model_b, layer {layer}: \d+ NaN or infinite hidden"):
        compared(tiny_bert(1), broken)
