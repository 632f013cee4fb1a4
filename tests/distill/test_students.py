"""Students start from their teacher's embeddings, the best that their width allows."""

import re

import numpy as np
import pytest
import torch
from support.tiny_models import moved, tiny_bert, tiny_opt, weights
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    Qwen2Config,
    Qwen2ForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from geodistill.distill.students import (
    bert_student,
    opt_student,
    pca_init_embeddings,
    principal_directions,
    take_layers,
)
from geodistill.errors import InputError

BERT, OPT = tiny_bert(3, width=64), tiny_opt(3, width=128)


def bert(width=32, layers=1, seed=0):
    return bert_student(BERT, width=width, layers=layers, seed=seed)


def opt(width=64, layers=1, seed=0):
    return opt_student(OPT, width=width, layers=layers, max_positions=40, seed=seed)


@pytest.mark.parametrize("width", [1, 5, 12])
def test_directions_are_numpys_right_singular_vectors(width):
    embeddings = torch.randn(50, 12, generator=torch.Generator().manual_seed(0)) + 3
    found = principal_directions(embeddings.double(), width).numpy()
    centred = embeddings.double().numpy() - embeddings.double().numpy().mean(0)
    axes = np.linalg.svd(centred)[2][:width].T
    assert found.shape == (12, width)
    assert np.allclose(np.abs((found * axes).sum(0)), 1, atol=1e-9)
    assert np.allclose(found.T @ found, np.eye(width), atol=1e-9)
    largest = np.abs(found).argmax(0)
    assert (found[largest, range(width)] > 0).all()


def test_no_other_directions_keep_more_of_the_variance():
    embeddings = torch.randn(60, 10, generator=torch.Generator().manual_seed(1))
    embeddings = embeddings * torch.arange(1, 11)
    centred = embeddings - embeddings.mean(0)
    kept = (centred @ principal_directions(embeddings, 3)).square().sum()
    other = torch.linalg.qr(torch.randn(10, 3, generator=torch.Generator().manual_seed(2)))[0]
    assert kept > (centred @ other).square().sum()
    assert kept < centred.square().sum()


@pytest.mark.parametrize("width", [0, 13])
def test_a_width_that_the_teacher_has_not(width):
    with pytest.raises(InputError, match=rf"width is {width}; expected 1 to 12, the teacher's"):
        principal_directions(torch.randn(20, 12), width)


def tables(model):
    if hasattr(model, "bert"):
        e = model.bert.embeddings
        return [e.word_embeddings, e.position_embeddings, e.token_type_embeddings]
    return [model.get_input_embeddings()]


@pytest.mark.parametrize(("teacher", "student", "width"), [(BERT, bert, 32), (OPT, opt, 64)])
def test_embeddings_have_the_teachers_inner_products_in_its_top_directions(teacher, student, width):
    words = tables(teacher)[0].weight.detach().double().numpy()
    axes = np.linalg.svd(words - words.mean(0))[2][:width]
    onto = axes.T @ axes
    pairs = list(zip(tables(teacher), tables(student()), strict=True))
    assert len(pairs) == len(tables(teacher)) >= 1
    for source, target in pairs:
        e, s = (t.weight.detach().double().numpy() for t in (source, target))
        assert s.shape == (len(e), width)
        assert np.allclose(s @ s.T, e @ onto @ e.T, atol=1e-4)
        assert np.abs(s @ s.T - e @ e.T).max() > 1e-2  # the rest is lost


def test_a_student_as_wide_as_its_teacher_loses_nothing():
    source, target = tables(BERT)[0].weight, tables(bert(width=64))[0].weight
    assert torch.allclose(source @ source.T, target @ target.T, atol=1e-4)


@pytest.mark.parametrize("student", [bert, opt])
def test_one_seed_one_start(student):
    assert moved(weights(student(seed=4)), weights(student(seed=4))) == 0
    assert moved(weights(student(seed=4)), weights(student(seed=5))) > 1e-3
    for one, other in zip(tables(student(seed=4)), tables(student(seed=5)), strict=True):
        assert torch.equal(one.weight, other.weight)


def test_the_student_takes_the_teachers_vocabulary_and_labels():
    student = bert(layers=2)
    config = student.config
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (32, 2, 1)
    assert (config.vocab_size, config.num_labels, config.pad_token_id) == (100, 3, 0)
    assert student(torch.tensor([[5, 6, 7]])).logits.shape == (1, 3)


def test_an_opt_student_is_tied_and_takes_padding_on_the_left():
    student = opt(layers=2).eval()
    assert student.get_output_embeddings().weight is student.get_input_embeddings().weight
    assert student.config.max_position_embeddings == 40
    alone = student(torch.tensor([[5, 6, 7]])).logits[0]
    padded = student(
        torch.tensor([[0, 0, 5, 6, 7]]), attention_mask=torch.tensor([[0, 0, 1, 1, 1]])
    ).logits[0, 2:]
    assert torch.allclose(alone, padded, atol=1e-5)
    assert alone.shape == (3, 100)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bert(width=48), "width is 48; expected a multiple of 32"),
        (lambda: bert(width=0), "width is 0; expected a multiple of 32"),
        (lambda: bert(width=96), "width is 96; expected at most 64, the teacher's embedding width"),
        (lambda: opt(width=96), "width is 96; expected a multiple of 64"),
        (lambda: opt(width=-64), "width is -64; expected a multiple of 64"),
        (lambda: opt(width=192), "width is 192; expected at most 128, the teacher's"),
    ],
)
def test_refused_widths(call, words):
    with pytest.raises(InputError, match=words):
        call()


# ---- other teachers ----


def tiny_roberta():
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=100, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=40, type_vocab_size=1, num_labels=3,
        pad_token_id=1,
    )  # fmt: skip
    return RobertaForSequenceClassification(config)


def tiny_distilbert():
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=100, dim=64, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=40,
        num_labels=3,
    )  # fmt: skip
    return DistilBertForSequenceClassification(config)


@pytest.mark.parametrize("make", [tiny_roberta, tiny_distilbert])
def test_another_encoders_words_are_carried_over_and_its_positions_are_not(make):
    teacher = make()
    student = bert_student(teacher, width=32, layers=1, seed=0)
    source = teacher.get_input_embeddings().weight.detach()
    own = student.get_input_embeddings().weight.detach()
    assert torch.allclose(own, source @ principal_directions(source, 32), atol=1e-6)
    # Its kind counts positions otherwise, or adds others up: BERT's own start.
    fresh = student.bert.embeddings.position_embeddings.weight.detach()
    assert fresh.shape == (40, 32)
    assert 0.01 < fresh.std() < 0.03
    assert student(torch.tensor([[5, 6, 7]])).logits.shape == (1, 3)


def test_a_start_needs_the_teachers_vocabulary():
    with pytest.raises(InputError, match="student has embeddings of 90 tokens; expected 100, the"):
        pca_init_embeddings(tiny_bert(0, width=32, vocabulary=90), BERT)


# ---- a teacher cut short ----

IDS = torch.tensor([[5, 6, 7, 8]])


def test_a_truncated_bert_is_the_model_with_those_blocks_alone():
    teacher = tiny_bert(1, layers=5).eval().requires_grad_(False)
    before = teacher(IDS).logits
    student = take_layers(teacher, 2)
    twin = tiny_bert(2, layers=2)
    own = teacher.state_dict()
    kept = {}
    for name, value in own.items():
        head, block, rest = name.partition("encoder.layer.")
        place = rest.partition(".")[0]
        if not block:
            kept[name] = value
        elif place in ("1", "4"):  # layers 2 (of 2.5) and 5, counted from 1
            kept[f"{head}{block}{'0' if place == '1' else '1'}{rest[1:]}"] = value
    twin.load_state_dict(kept)
    assert torch.equal(student.eval()(IDS).logits, twin.eval()(IDS).logits)
    assert (student(IDS).logits - before).abs().max() > 1e-3
    assert student.config.num_hidden_layers == 2
    assert all(p.requires_grad for p in student.parameters())
    # The teacher is as it was, and shares nothing with its student.
    assert (teacher.config.num_hidden_layers, len(teacher.bert.encoder.layer)) == (5, 5)
    assert torch.equal(teacher(IDS).logits, before)
    assert not {p.data_ptr() for p in teacher.parameters()} & {
        p.data_ptr() for p in student.parameters()
    }


def test_a_truncation_to_all_layers_says_what_the_teacher_says():
    teacher = tiny_distilbert().eval()
    assert torch.equal(take_layers(teacher, 2)(IDS).logits, teacher(IDS).logits)


def alternating_decoder():
    """Its blocks are of two kinds, in turn."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=100, hidden_size=32, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=2, intermediate_size=64, initializer_range=0.3,
        layer_types=["full_attention", "sliding_attention"] * 2, use_sliding_window=True,
        sliding_window=2, max_window_layers=0,
    )  # fmt: skip
    return Qwen2ForCausalLM(config)


def test_a_truncated_decoder_finds_its_keys_in_a_cache():
    student = take_layers(alternating_decoder(), 2).eval()
    assert student.config.layer_types == ["sliding_attention"] * 2
    whole = student(IDS).logits[0]
    keys, stepwise = None, []
    for token in IDS[0]:
        out = student(token.view(1, 1), past_key_values=keys, use_cache=True)
        keys = out.past_key_values
        stepwise.append(out.logits[0, 0])
    assert torch.allclose(torch.stack(stepwise), whole, atol=1e-5)
    assert len(keys.layers) == 2


def test_one_layer_is_the_last():
    teacher = tiny_bert(1, layers=3)
    (block,) = take_layers(teacher, 1).bert.encoder.layer
    expected = teacher.bert.encoder.layer[2].state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in block.state_dict().items())


@pytest.mark.parametrize("layers", [(1, 2, 3), [2, 5], range(4, 5), [1, 5]])
def test_blocks_named_by_number_are_taken_in_their_order(layers):
    teacher = tiny_bert(1, layers=5).eval().requires_grad_(False)
    student = take_layers(teacher, layers)
    assert student.config.num_hidden_layers == len(student.bert.encoder.layer) == len(layers)
    for block, number in zip(student.bert.encoder.layer, layers, strict=True):
        expected = teacher.bert.encoder.layer[number - 1].state_dict()
        for name, tensor in block.state_dict().items():
            assert torch.equal(tensor, expected[name])
    # By hand: the embeddings, the blocks, and the head on the first token.
    hidden = teacher.bert.embeddings(IDS)
    for number in layers:
        out = teacher.bert.encoder.layer[number - 1](hidden)
        hidden = out[0] if isinstance(out, tuple) else out
    expected = teacher.classifier(teacher.bert.pooler(hidden))
    assert torch.allclose(student.eval()(IDS).logits, expected, atol=1e-6)
    assert all(p.requires_grad for p in student.parameters())


def test_evenly_spaced_blocks_are_those_named_by_number():
    teacher = tiny_bert(1, layers=4)
    even, named, first = (take_layers(teacher, layers) for layers in (2, (2, 4), (1, 2)))
    assert moved(weights(even), weights(named)) == 0
    assert moved(weights(even), weights(first)) > 1e-3


def test_the_first_layers_of_a_decoder_keep_their_kinds():
    student = take_layers(alternating_decoder(), range(1, 4))
    assert student.config.layer_types == ["full_attention", "sliding_attention", "full_attention"]
    assert [block.self_attn.layer_idx for block in student.model.layers] == [0, 1, 2]


@pytest.mark.parametrize("layers", [(), (0, 1), (1, 3), (2, 1), (1, 1), (-1,), range(1, 4)])
def test_numbers_that_name_no_blocks_of_the_teacher(layers):
    message = rf"layers is {re.escape(str([*layers]))}; expected numbers from 1 to 2, the teacher's"
    with pytest.raises(InputError, match=message):
        take_layers(BERT, layers)


@pytest.mark.parametrize("layers", [0, -1, 4])
def test_layers_that_the_teacher_has_not(layers):
    with pytest.raises(InputError, match=rf"layers is {layers}; expected 1 to 2, the teacher's"):
        take_layers(BERT, layers)


def test_blocks_that_stand_in_no_list():
    config = AlbertConfig(
        vocab_size=100, embedding_size=16, hidden_size=32, num_attention_heads=2,
        intermediate_size=32, num_hidden_layers=3,
    )  # fmt: skip
    with pytest.raises(InputError, match=r"AlbertForSequenceClassification has 0 lists of 3 bloc"):
        take_layers(AlbertForSequenceClassification(config), 2)
