"""The instruction teacher: what is damaged, or of another model, is named before it teaches."""

import hashlib
import json

import pytest
from safetensors.torch import load_file, save_file

from geodistill.errors import AssetError, InputError
from geodistill.experiments import instruction_teacher
from geodistill.experiments.instruction_teacher import load_teacher
from geodistill.tasks import assets


def test_an_unknown_adapter_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(instruction_teacher, "data_dir", lambda: tmp_path)
    with pytest.raises(InputError, match=r"adapter is 'none'; .*has no adapter_model.safetensors"):
        load_teacher("smollm2", "none")


def saved_teacher(folder, width=32):
    from tiny_models import tiny_opt
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tiny_opt(0, width=width).save_pretrained(folder)
    letters = Tokenizer(models.WordLevel({"a": 0, "<end>": 1}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=letters, eos_token="<end>").save_pretrained(folder)


def saved_adapter(folder, width):
    from peft import LoraConfig, get_peft_model
    from tiny_models import tiny_opt

    lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    get_peft_model(tiny_opt(0, width=width), lora).save_pretrained(folder)


def test_a_damaged_teacher_or_adapter_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(instruction_teacher, "data_dir", lambda: tmp_path)
    saved_teacher(tmp_path / "teacher")
    saved_adapter(tmp_path / "adapters" / "good", 32)
    saved_adapter(tmp_path / "adapters" / "other", 64)
    model, tokenizer = load_teacher(str(tmp_path / "teacher"), "good")
    assert tokenizer.pad_token_id == tokenizer.eos_token_id  # it came without one
    assert not model.training
    assert not any("lora" in name for name, _ in model.named_parameters())  # merged
    with pytest.raises(InputError, match=r"adapters/other is damaged or of another model \(Run"):
        load_teacher(str(tmp_path / "teacher"), "other")
    weights = tmp_path / "adapters" / "good" / "adapter_model.safetensors"
    tensors = load_file(weights)
    recorded = json.dumps({"sha256": hashlib.sha256(weights.read_bytes()).hexdigest()})
    (weights.parent / "recipe.json").write_text(recorded)
    load_teacher(str(tmp_path / "teacher"), "good")
    save_file({name: 2 * t for name, t in tensors.items()}, weights)  # wrong, and finite
    with pytest.raises(InputError, match=r"adapters/good is damaged .*has sha256 .* is recorded"):
        load_teacher(str(tmp_path / "teacher"), "good")
    (weights.parent / "recipe.json").unlink()
    save_file({name: t for name, t in tensors.items() if "layers.0" not in name}, weights)
    with pytest.raises(InputError, match=r"adapters/good is damaged .*Found missing adapter keys"):
        load_teacher(str(tmp_path / "teacher"), "good")
    save_file({name: t / 0 for name, t in tensors.items()}, weights)
    with pytest.raises(InputError, match=r"adapters/good is damaged .*weights that are not finite"):
        load_teacher(str(tmp_path / "teacher"), "good")
    weights.write_bytes(weights.read_bytes()[:40])
    with pytest.raises(InputError, match=r"adapters/good is damaged or of another model \(Safe"):
        load_teacher(str(tmp_path / "teacher"), "good")
    whole = tmp_path / "teacher" / "model.safetensors"
    whole.write_bytes(whole.read_bytes()[:40])
    with pytest.raises(
        AssetError, match=r"teacher .* can't be read from .*expected a folder or hu"
    ):
        load_teacher(str(tmp_path / "teacher"), "")


def test_a_damaged_gguf_is_named(monkeypatch, tmp_path):
    (tmp_path / assets.SMOLLM2_GGUF).write_bytes(b"GGUF, but not for long")
    monkeypatch.setattr(assets, "path", lambda name: tmp_path)
    with pytest.raises(
        AssetError,
        match=rf"teacher 'smollm2' can't be read from .*{assets.SMOLLM2_GGUF} .*delete the folder",
    ):
        load_teacher("smollm2", "")
