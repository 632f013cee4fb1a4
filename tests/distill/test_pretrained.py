"""Loading refuses weights that are not the model's, whatever prefix they carry."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny_models import tiny_bert, tiny_opt
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertForMaskedLM,
)

from geodistill.distill.pretrained import load_pretrained
from geodistill.errors import InputError


def saved(model, folder, rename=lambda key: key):
    """The folder of a model whose weights have other names; None leaves one out."""
    model.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    renamed = {name: value for key, value in weights.items() if (name := rename(key))}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


PREFIXES = ["_orig_mod.", "module.", "student.", "model._orig_mod."]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    ("model", "auto_class"),
    [
        (tiny_bert(1), AutoModel),
        (tiny_bert(1), AutoModelForSequenceClassification),
        (tiny_opt(1), AutoModel),
        (tiny_opt(1), AutoModelForCausalLM),
    ],
)
def test_a_prefix_is_refused(tmp_path, model, auto_class, prefix):
    folder = saved(model, tmp_path, lambda key: prefix + key)
    for new_head in (False, True):
        with pytest.raises(
            InputError, match=r"^\d\d \(.*\) missing and \d\d \(.*_orig_mod"
        ) as error:
            load_pretrained(auto_class, folder, new_head=new_head)
        assert "\n" not in str(error.value)


def test_a_compiled_part_of_a_model_is_refused(tmp_path):
    folder = saved(tiny_bert(1), tmp_path, lambda key: key.replace("bert.", "bert._orig_mod."))
    with pytest.raises(InputError, match=r"39 .* missing and 39 .*bert._orig_mod"):
        load_pretrained(AutoModelForSequenceClassification, folder)


def test_one_missing_weight_and_layers_too_many_are_refused(tmp_path):
    dense = "bert.encoder.layer.1.output.dense.weight"
    folder = saved(tiny_bert(1), tmp_path / "a", lambda key: None if key == dense else key)
    with pytest.raises(
        InputError, match=r"1 \(encoder.layer.1.output.dense.weight\) missing and 2 \(class"
    ):
        load_pretrained(AutoModel, folder)
    deeper = saved(tiny_bert(1, layers=3), tmp_path / "b")
    tiny_bert(1).config.save_pretrained(deeper)
    with pytest.raises(InputError, match=r"0 missing and 16 \(bert.encoder.layer.2"):
        load_pretrained(AutoModel, deeper)


def test_a_head_may_be_ignored_or_new_and_must_be_there_otherwise(tmp_path):
    classifier = tiny_bert(1)
    whole, body = saved(classifier, tmp_path / "whole"), saved(classifier.bert, tmp_path / "body")
    masked = saved(BertForMaskedLM(classifier.config), tmp_path / "masked")
    expected = classifier.bert.embeddings.word_embeddings.weight
    for folder in (whole, body):
        loaded = load_pretrained(AutoModel, folder)
        assert torch.equal(loaded.embeddings.word_embeddings.weight, expected)
    assert load_pretrained(AutoModel, masked).pooler is not None  # new, and in no hidden state
    with_head = load_pretrained(AutoModelForSequenceClassification, whole)
    assert torch.equal(with_head.classifier.weight, classifier.classifier.weight)
    for folder in (body, masked):
        with pytest.raises(InputError, match=r"classifier.bias|bert.pooler"):
            load_pretrained(AutoModelForSequenceClassification, folder)
        new = load_pretrained(
            AutoModelForSequenceClassification, folder, new_head=True, num_labels=5
        )
        assert new.classifier.weight.shape[0] == 5


def test_buffers_of_older_versions_are_no_weights(tmp_path):
    folder = saved(tiny_opt(1), tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["model.decoder.layers.0.self_attn.masked_bias"] = torch.zeros(1)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_pretrained(AutoModelForCausalLM, folder) is not None
