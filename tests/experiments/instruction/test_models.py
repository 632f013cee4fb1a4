"""The models of the instruction study: what is damaged or does not fit is refused early."""

import json
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from support.tiny_instructions import SETTINGS, letters_world
from support.tiny_models import tiny_opt
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from geodistill.distill import take_layers
from geodistill.errors import AssetError, InputError
from geodistill.experiments.instruction import models
from geodistill.experiments.instruction import setup as instruction_setup
from geodistill.experiments.instruction.models import load_student, load_teacher
from geodistill.experiments.instruction.run import run_instruction
from geodistill.experiments.instruction.setup import build_student, prepare_instruction
from geodistill.tasks import assets


def test_an_unknown_adapter_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(models, "data_dir", lambda: tmp_path)
    with pytest.raises(InputError, match=r"adapter is 'none'; .*has no adapter_model.safetensors"):
        load_teacher("smollm2", "none")


def word_tokenizer(folder, n_tokens=30):
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(n_tokens)}, unk_token="w0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1")
    tokenizer.save_pretrained(folder)
    return tokenizer


def saved_adapter(folder, width):
    lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    get_peft_model(tiny_opt(0, width=width), lora).save_pretrained(folder)


def test_a_damaged_teacher_or_adapter_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(models, "data_dir", lambda: tmp_path)
    tiny_opt(0).save_pretrained(tmp_path / "teacher")
    word_tokenizer(tmp_path / "teacher")
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
    models.write_recipe(weights, {"recipe": {"rank": 2}})
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
    weights = tmp_path / "teacher" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:40])
    with pytest.raises(
        AssetError, match=r"teacher .* can't be read from .*expected a folder or hu"
    ):
        load_teacher(str(tmp_path / "teacher"), "")


@pytest.mark.parametrize("recipe", [{"lr": 1}, [1], {"sha256": "of the data"}])
def test_a_recipe_of_the_user_s_own_is_left_alone(tmp_path, recipe):
    tiny_opt(0).save_pretrained(tmp_path)
    word_tokenizer(tmp_path)
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    load_teacher(str(tmp_path), "")


def test_a_teacher_trained_further_in_its_folder_has_other_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "data_dir", lambda: tmp_path)
    saved_adapter(tmp_path / "adapters" / "good", 32)
    names = (str(tmp_path / "teacher"), "")
    tiny_opt(0).save_pretrained(names[0])
    first = models.weights_hash(*names)
    tiny_opt(0).save_pretrained(names[0])
    assert models.weights_hash(*names) == first != models.weights_hash(names[0], "good")
    tiny_opt(1).save_pretrained(names[0])
    assert models.weights_hash(*names) != first
    assert models.weights_hash("a/hub-name", "") == models.weights_hash("smollm2", "") == ""


def test_the_embedded_teacher_s_first_layers_are_a_student():
    teacher, _ = load_teacher("smollm2", "")
    assert take_layers(teacher, [1]).config.num_hidden_layers == 1


def test_a_damaged_gguf_is_named(monkeypatch, tmp_path):
    (tmp_path / assets.SMOLLM2_GGUF).write_bytes(b"GGUF, but not for long")
    monkeypatch.setattr(assets, "path", lambda name: tmp_path)
    with pytest.raises(
        AssetError,
        match=rf"teacher 'smollm2' can't be read from .*{assets.SMOLLM2_GGUF} .*delete the folder",
    ):
        load_teacher("smollm2", "")


# ---- a student by name ----


def test_a_student_in_a_folder_starts_from_its_own_weights(tmp_path):
    tokenizer = word_tokenizer(tmp_path)
    tiny_opt(4, vocabulary=30).save_pretrained(tmp_path)
    student = load_student(str(tmp_path), tokenizer, 16)
    stored = tiny_opt(4, vocabulary=30)
    for loaded, expected in zip(student.parameters(), stored.parameters(), strict=True):
        assert torch.equal(loaded, expected)
    assert all(p.requires_grad for p in student.parameters())
    positions = student.config.max_position_embeddings
    with pytest.raises(InputError, match=rf"takes {positions} tokens; expected at least 999, the"):
        load_student(str(tmp_path), tokenizer, 999)
    with pytest.raises(InputError, match=r"another vocabulary than the teacher \(30 .* has 31\)"):
        load_student(str(tmp_path), word_tokenizer(tmp_path / "other", 31), 16)
    with pytest.raises(InputError, match=r"student is '.*none'; expected a folder or hub name"):
        load_student(str(tmp_path / "none"), tokenizer, 16)


def test_the_study_trains_a_pretrained_student_of_any_width(tmp_path, monkeypatch):
    with letters_world(tmp_path / "cache"):
        pretrained = tiny_opt(4, width=96, vocabulary=30)
        monkeypatch.setattr(
            instruction_setup, "load_student", lambda name, *others: deepcopy(pretrained)
        )
        setup = prepare_instruction(replace(SETTINGS, student="a folder"))
        run, student = run_instruction(setup, "kd+projection", 0)
    assert student.config.hidden_size == 96 != SETTINGS.width
    assert run.config["student"] == "a folder"
    layer = student.model.decoder.layers[0].fc1.weight
    assert not torch.equal(layer, pretrained.model.decoder.layers[0].fc1.weight)
    assert -1 < run.metrics["geometry_kept/procrustes"] <= 1


def test_a_student_can_be_the_teacher_s_first_layers(tmp_path):
    with letters_world(tmp_path / "cache"):
        setup = prepare_instruction(replace(SETTINGS, student="first"))
    before = {name: weight.clone() for name, weight in setup.teacher.state_dict().items()}
    assert len(setup.teacher.model.decoder.layers) == 2
    student = build_student(setup, seed=0)
    assert len(student.model.decoder.layers) == SETTINGS.layers == 1
    assert all(torch.equal(weight, before[name]) for name, weight in student.state_dict().items())
    run, trained = run_instruction(setup, "kd+procrustes", 0)
    assert run.config["student"] == "first"
    changed = [
        n for n, weight in trained.state_dict().items() if not torch.equal(weight, before[n])
    ]
    assert changed
    for name, weight in setup.teacher.state_dict().items():
        assert torch.equal(weight, before[name]), f"the teacher's {name} was trained"
    deeper = replace(setup, settings=replace(setup.settings, layers=3))
    with pytest.raises(InputError, match=r"layers is \[1, 2, 3\]; expected numbers from 1 to 2"):
        build_student(deeper, 0)
