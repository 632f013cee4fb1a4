"""Features of any module as rows, and which positions count."""

import pytest
import torch
from support.model_matrix import _T5S, _WAV, SPEECH, noise, own, stacked
from support.tiny_models import tiny_bert, tiny_opt
from torch import nn

from geodistill.distill.models.features import (
    check_layer,
    feature_rows,
    find_module,
    logits_of,
    position_mask,
    tensor_of,
)
from geodistill.errors import InputError

IDS = {"input_ids": torch.ones(2, 5, dtype=torch.long)}


def test_a_path_names_a_module_by_its_unique_end():
    model = tiny_bert(1)
    path, module = find_module(model, "encoder.layer.1", "teacher")
    assert path == "bert.encoder.layer.1"
    assert module is model.bert.encoder.layer[1]
    assert find_module(model, "classifier", "student")[1] is model.classifier


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (
            "encoder.layer.7",
            r"student_layer is 'encoder.layer.7', which names 0 modules of the stud",
        ),
        ("encoder.layr.1", r"such as .*bert.encoder.layer.1"),
        (
            "output.dense",
            r"names 4 modules of the student BertForSeq.*such as bert.encoder.layer.0",
        ),
    ],
)
def test_a_path_of_none_or_many_is_refused_with_near_ones(path, words):
    with pytest.raises(InputError, match=words):
        find_module(tiny_bert(1), path, "student")


def test_numbers_are_counted_where_the_model_can_say():
    assert check_layer(tiny_bert(1), -1, "teacher") == 2
    assert check_layer(_T5S(1), -1, "teacher") == -1
    with pytest.raises(InputError, match=r"OwnModule has no numbered hidden_states: .*embed, body"):
        check_layer(own(1), -1, "teacher")


def test_maps_become_rows_of_channels():
    maps = noise(0, 2, 7, 3, 4)
    for given in (maps, maps.permute(0, 2, 3, 1).contiguous()[:, :, :3]):
        rows, mask = feature_rows(given, {"pixel_values": maps}, own(1), "body", "student")
        assert mask.all()
        assert mask.shape == rows.shape[:2]
    rows, _ = feature_rows(maps, {"pixel_values": maps}, own(1), "body", "student")
    assert torch.equal(rows[1, 5], maps[1, :, 1, 1])
    square = noise(1, 2, 3, 3, 7)  # channels last
    rows, _ = feature_rows(square, {"pixel_values": maps}, own(1), "body", "student")
    assert torch.equal(rows[1, 4], square[1, 1, 1])


def test_one_vector_per_example_is_one_row():
    rows, mask = feature_rows(noise(0, 2, 6), IDS, own(1), "body", "student")
    assert rows.shape == (2, 1, 6)
    assert mask.tolist() == [[True], [True]]


def test_features_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"layer 'body' gives \(10, 6\) for a batch of 2"):
        feature_rows(noise(0, 10, 6), IDS, own(1), "body", "student")
    with pytest.raises(InputError, match="layer 'body' has 3 positions, its inputs 5, so padding"):
        feature_rows(noise(0, 2, 3, 6), IDS, own(1), "body", "student")


def test_frames_of_padded_speech_follow_the_models_convolutions():
    batch = stacked(SPEECH)
    model = _WAV(1)
    out = model.wav2vec2(batch["input_values"], attention_mask=batch["attention_mask"])
    mask = position_mask(out.last_hidden_state.shape[1], batch, model, -1, "teacher")
    lengths = [((int(n) - 8) // 4 + 1 - 8) // 4 + 1 for n in batch["attention_mask"].sum(1)]
    assert mask.sum(1).tolist() == lengths
    assert len(set(lengths)) == 4


def test_what_gives_no_tensor_or_no_logits_is_refused():
    with pytest.raises(InputError, match=r"the teacher's layer 'x' gives a NoneType"):
        tensor_of(None, "x", "teacher")
    assert tensor_of(({"a": torch.ones(2)},)[0], "x", "teacher").shape == (2,)
    out = tiny_bert(1).bert(**IDS)
    with pytest.raises(InputError, match="the teacher BertModel gives none: leave logit_loss out"):
        logits_of(out, tiny_bert(1).bert, IDS, "teacher")
    with pytest.raises(InputError, match=r"the student's logits have shape \(2, 3, 4, 4\)"):
        logits_of(torch.ones(2, 3, 4, 4), nn.Identity(), IDS, "student")
    logits, mask = logits_of(tiny_opt(1)(**IDS), tiny_opt(1), IDS, "student")
    assert logits.shape == (10, 100)
    assert mask.sum() == 10
