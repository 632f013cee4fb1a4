"""The adapter: a killed fit resumes to the same weights; its folder is complete or absent."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from support.own_cache import own_cache
from support.tiny_models import answers, moved, tiny_opt, weights

from geodistill.distill.training.checkpoints import last_complete
from geodistill.experiments.instruction import adapter
from geodistill.experiments.instruction.adapter import (
    RECIPES,
    AdapterSettings,
    fit_adapter,
    save_adapter,
    train_adapter,
)
from geodistill.files import no_progress

SETTINGS = AdapterSettings(n_train=24, batch_size=4, save_steps=2, rank=2, threads=1)  # six steps
ROWS = answers([7, 9, 8, 12, 6, 10] * 4, [3, 4, 2, 5, 2, 3] * 4)


def lora(model):
    return {name: value for name, value in weights(model).items() if "lora" in name}


def train(folder, progress=no_progress):
    return train_adapter(tiny_opt(0), ROWS, 0, SETTINGS, folder, progress)


class Killed(Exception):
    """Stands for a signal."""


def test_a_killed_fit_resumes_from_the_last_checkpoint_to_the_same_weights(tmp_path):
    complete, _ = train(tmp_path / "complete")
    lines = []

    def dies(line):
        lines.append(line)
        if line.startswith("step 4"):  # its checkpoint is not written yet
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path / "killed", dies)
    assert last_complete(tmp_path / "killed").name == "checkpoint-2"
    resumed, seconds = train(tmp_path / "killed", lines.append)
    assert [line.partition(",")[0] for line in lines] == [
        "step 2 of 6", "step 4 of 6", "resumed at step 2", "step 4 of 6", "step 6 of 6",
    ]  # fmt: skip
    assert "minutes left" in lines[-1]
    assert seconds > 0
    assert moved(lora(complete), lora(resumed)) == 0
    fresh, _ = train_adapter(
        tiny_opt(0), ROWS, 0, replace(SETTINGS, learning_rate=0.0), tmp_path / "0", no_progress
    )
    assert moved(lora(fresh), lora(complete)) > 1e-3


def test_an_incomplete_checkpoint_is_not_used(tmp_path):
    train(tmp_path)
    newest = last_complete(tmp_path)
    assert newest.name == "checkpoint-6"
    (newest / "trainer_state.json").unlink()
    assert last_complete(tmp_path).name == "checkpoint-4"
    assert last_complete(tmp_path / "none") is None


def test_only_the_answers_are_learned(tmp_path):
    """The loss that is reported first is the mean cross-entropy of the labelled tokens."""
    seen = []
    train(tmp_path, seen.append)
    model = tiny_opt(0)
    with torch.no_grad():
        values = []
        for row in ROWS:
            out = model(torch.tensor([row["input_ids"]]), labels=torch.tensor([row["labels"]]))
            values.append(float(out.loss))
    first = float(seen[0].split("loss ")[1].partition(",")[0])
    assert first == pytest.approx(sum(values) / len(values), rel=0.1)


def test_the_folder_is_replaced_completely(tmp_path):
    model, _ = train(tmp_path / "work")
    folder = tmp_path / "smollm2-x"
    folder.mkdir()
    (folder / "old").touch()
    save_adapter(model, {"recipe": 1}, folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "recipe.json",
    ]  # fmt: skip
    stored = load_file(folder / "adapter_model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    assert str(tmp_path) not in (folder / "adapter_config.json").read_text()
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_the_recipe_has_scores_before_and_after(tmp_path, monkeypatch):
    calls = []

    def evaluate(model, tokenizer, examples, max_new_tokens):
        calls.append(len(examples))
        return {"nll": 4.0 - len(calls)}, None

    class Tokenizer:
        pad_token_id = 0

    monkeypatch.setattr(adapter, "load_teacher", lambda name, adapter: (tiny_opt(0), Tokenizer()))
    monkeypatch.setattr(adapter, "select_pairs", lambda rows, n, *others: (ROWS[:n], 0))
    monkeypatch.setattr(adapter, "evaluate_model", evaluate)
    with own_cache(tmp_path / "cache"):
        settings = replace(SETTINGS, n_validation=5)
        fit_adapter(settings, tmp_path / "made", no_progress)
        assert not list((tmp_path / "cache" / "adapters").iterdir())
    recipe = json.loads((tmp_path / "made" / "recipe.json").read_text())
    assert calls == [5, 5]
    assert (recipe["validation_before"], recipe["validation_after"]) == ({"nll": 3.0}, {"nll": 2.0})
    assert recipe["recipe"]["threads"] == 1
    assert recipe["train_seconds"] > 0


def test_the_recipes_keep_their_numbers():
    embedded, t0 = RECIPES["embedded"], RECIPES["t0"]
    assert (embedded.n_train, t0.n_train, t0.n_validation) == (1600, 4000, 200)
    for recipe in (embedded, t0):
        assert (recipe.rank, recipe.alpha, recipe.epochs, recipe.batch_size) == (8, 16, 1.0, 16)
        assert (recipe.learning_rate, recipe.max_length) == (5e-4, 160)
