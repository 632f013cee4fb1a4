"""The computed teacher: a killed training ends at the same weights, and is loaded by name."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny_models import weights

from geodistill.errors import AssetError, InputError
from geodistill.experiments.instruction import models
from geodistill.experiments.instruction.computed_teacher import (
    CHUNK_STEPS,
    TeacherSettings,
    build_model,
    checkpoint_folder,
    exact_match_by_family,
    fit_teacher,
    rate_factor,
    train_teacher,
)
from geodistill.experiments.instruction.evaluate import teacher_forced_exact_match
from geodistill.experiments.instruction.generate import generate
from geodistill.experiments.instruction.models import load_teacher
from geodistill.files import no_progress
from geodistill.paths import data_dir
from geodistill.tasks import load_instructions
from geodistill.tasks.computed_families import FAMILIES
from geodistill.tasks.computed_tokenizer import build_tokenizer, check_symbols
from geodistill.tasks.prompts import encode_pair

TINY = TeacherSettings(
    width=32,
    layers=1,
    heads=2,
    batch_size=8,
    warmup_steps=2,
    decay_steps=4,
    steps=16,
    evaluation_steps=8,
    n_validation=4,
)


class Killed(Exception):
    """Stands for a kill."""


def test_a_killed_training_ends_at_the_same_weights(tmp_path: Path) -> None:
    lines: list[str] = []
    model, state = fit_teacher(TINY, tmp_path / "whole", lines.append)
    assert [line.partition(":")[0] for line in lines] == ["step 8", "step 16"]
    assert state.step == 16
    assert set(state.history[-1]["exact_match"]) == set(FAMILIES)

    def kill(line: str) -> None:
        if line.startswith("step 8"):
            raise Killed

    with pytest.raises(Killed):
        fit_teacher(TINY, tmp_path / "killed", kill)
    resumed, second = fit_teacher(TINY, tmp_path / "killed", lines.append)
    assert lines[2] == "resumed at step 8"
    assert second == state
    first = weights(model)
    assert all(torch.equal(first[name], p) for name, p in weights(resumed).items())
    start = weights(build_model(TINY, build_tokenizer()))
    assert all(not torch.equal(first[name], p) for name, p in start.items() if "weight" in name)


def test_a_longer_training_continues_a_shorter_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEODISTILL_CACHE", str(tmp_path))
    longer = replace(TINY, steps=24, decay_steps=8)
    assert checkpoint_folder(longer) == checkpoint_folder(TINY)
    assert checkpoint_folder(replace(TINY, seed=1)) != checkpoint_folder(TINY)
    assert checkpoint_folder(TINY).is_relative_to(tmp_path)


def test_the_learning_rate_rises_stays_and_falls() -> None:
    settings = TeacherSettings(warmup_steps=4, decay_steps=5, steps=20)
    factors = [rate_factor(settings, step) for step in range(20)]
    assert factors == pytest.approx([0.25, 0.5, 0.75, *[1.0] * 13, 0.8, 0.6, 0.4, 0.2])


def test_exact_match_is_that_of_greedy_answers(tmp_path: Path) -> None:
    """A model of few steps gives some of the answers, and others not."""
    tokenizer = build_tokenizer()
    rows = list(load_instructions("computed").validation)[::8]
    examples = [encode_pair(row, tokenizer) for row in rows]
    model, _ = fit_teacher(replace(TINY, width=64, steps=160, batch_size=32), tmp_path, no_progress)
    model.eval()
    greedy = generate(model, tokenizer, examples, 8)
    expected = [a == row["completion"] for a, row in zip(greedy, rows, strict=True)]
    assert 0 < sum(expected) < len(expected)
    assert teacher_forced_exact_match(model, examples, tokenizer.pad_token_id) == expected
    by_family = exact_match_by_family(model, examples, tokenizer.pad_token_id)
    contains = [e for e, row in zip(expected, rows, strict=True) if row["family"] == "contains"]
    assert by_family["contains"] == sum(contains) / len(contains)


def test_the_teacher_is_written_with_hash_and_scores_and_loaded_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEODISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(models, "data_dir", lambda: tmp_path)
    folder = tmp_path / "teachers" / "opt-computed"
    train_teacher(TINY, folder, no_progress)
    assert not checkpoint_folder(TINY).exists()
    recipe = json.loads((folder / "recipe.json").read_text())
    assert recipe["recipe"]["steps"] == 16
    assert set(recipe["validation_exact_match"]) == set(FAMILIES)
    model, tokenizer = load_teacher("opt-computed", "")
    assert tokenizer.get_vocab() == build_tokenizer().get_vocab()
    assert (model.config.model_type, model.dtype, model.training) == ("opt", torch.float32, False)
    stored = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    save_file({name: 2 * t for name, t in stored.items()}, folder / "model.safetensors")
    message = r"^teacher 'opt-computed' can't be read .* is recorded\); restore the folder, or"
    with pytest.raises(AssetError, match=message):
        load_teacher("opt-computed", "")


def test_too_few_positions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^positions is 12; expected at least \d\d, the tokens"):
        fit_teacher(replace(TINY, positions=12), tmp_path, no_progress)


def test_the_shipped_teacher_has_its_recorded_scores_and_the_recipe_of_the_code() -> None:
    folder = data_dir() / "teachers" / "opt-computed"
    recipe = json.loads((folder / "recipe.json").read_text())
    assert recipe["recipe"] == asdict(TeacherSettings())
    assert TeacherSettings().evaluation_steps % CHUNK_STEPS == 0
    assert sum(file.stat().st_size for file in folder.iterdir()) < 10e6
    model, tokenizer = load_teacher("opt-computed", "")
    rows = list(load_instructions("computed").test)
    check_symbols(tokenizer, rows)
    examples = [encode_pair(row, tokenizer) for row in rows]
    scores = exact_match_by_family(model, examples, tokenizer.pad_token_id)
    recorded = recipe["validation_exact_match"]
    assert set(recorded) == set(FAMILIES)
    # 60 test prompts a family against 48 others: three standard errors of the difference.
    assert all(abs(scores[name] - recorded[name]) < 0.3 for name in scores)
    mean = sum(scores.values()) / len(scores)
    assert mean == pytest.approx(sum(recorded[name] for name in scores) / len(scores), abs=0.05)
    assert sum(score >= 0.9 for score in recorded.values()) >= 13
