"""Presets: settings with sources, every stage on tiny OPTs, what is finished is not done again."""

import json
import re
from dataclasses import replace

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import tiny_opt
from typer.testing import CliRunner

from geodistill.cli import app
from geodistill.errors import AssetError, InputError
from geodistill.experiments.preset_parts import byte_tokenizer, dry_parts, hub_parts
from geodistill.experiments.presets import METHODS, preset, published, run, sources
from geodistill.tasks.instruct import KNOWN

NAMES = ("minillm-opt", "distillm-opt125m")


def test_the_settings_that_were_asked_for():
    found = preset("distillm-opt125m")
    assert (found.teacher, found.student) == ("facebook/opt-2.7b", "facebook/opt-125m")
    assert (found.sft_epochs, found.epochs, found.learning_rate) == (3, 20, 5e-5)
    assert (found.batch_size, found.accumulation, found.kd_share) == (8, 4, 1.0)
    assert (found.max_length, found.max_prompt) == (512, 256)
    assert found.decodings == [10, 20, 30, 40, 50]
    other = preset("minillm-opt")
    assert (other.teacher, other.student) == ("facebook/opt-13b", "facebook/opt-1.3b")


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_has_a_source_and_every_set_exists(name):
    table = sources(name)
    assert len(table) == 18
    assert all(re.search(r"scripts/|scripts:|ours|GPUs", source) for source in table["source"])
    assert {preset(name).task, *preset(name).evaluation} <= set(KNOWN)


def test_published_rows_are_those_of_the_source():
    table = published("distillm-opt125m")
    assert len(table) == 6 * 4
    wide = table.pivot(index="method", columns="task", values="rougeL")
    order = ["dolly", "self_instruct", "vicuna", "s_ni"]
    assert wide.loc["SFT", order].tolist() == [21.78, 8.09, 14.40, 13.45]
    assert wide.loc["DistiLLM", order].tolist() == [25.07, 11.60, 16.75, 22.45]
    assert set(table["source"]) == {"CaRE-KD, table 7"}
    assert published("minillm-opt").empty


def test_an_unknown_preset_and_one_without_a_gpu_or_a_hub(monkeypatch, tmp_path):
    with pytest.raises(InputError, match="preset is 'x'; expected one of minillm-opt, distillm"):
        preset("x")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = CliRunner().invoke(app, ["preset", "minillm-opt", "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, InputError)
    assert "needs a GPU, and there is none; try it by --dry-run" in str(done.exception)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(AssetError, match=r"facebook/opt-125m can't be loaded .*--dry-run"):
        hub_parts(preset("distillm-opt125m"), None, lambda line: None)


def cut(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])


def lose(folder):
    (folder / "model.safetensors").unlink()


def add_a_layer(folder):
    """To the config, which then has one more than the weights."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))


def cut_config(folder):
    (folder / "config.json").write_text("{")


NO_TEACHERS = [
    (cut, "SafetensorError: .*file not fully covered"),
    (lose, "OSError: Error no file named"),
    (add_a_layer, "ValueError: 16 weights are missing, such as model.decoder.layers.2"),
    (cut_config, "OSError: .*not a valid JSON"),
]


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """A student on disk: all that a preset needs but its data."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    tiny_opt(1).save_pretrained(tmp_path / "student")
    byte_tokenizer().save_pretrained(tmp_path / "student")
    return replace(preset("distillm-opt125m"), student=str(tmp_path / "student"))


@pytest.mark.parametrize(("harm", "reason"), NO_TEACHERS)
def test_a_teacher_that_cannot_be_loaded_is_told_at_once(tmp_path, offline, harm, reason):
    tiny_opt(2).save_pretrained(tmp_path / "teacher")
    harm(tmp_path / "teacher")
    told = rf"--teacher is .*teacher: expected a folder with a fine-tuned model \(.*{reason}"
    with pytest.raises(InputError, match=told) as error:
        hub_parts(offline, tmp_path / "teacher", print)
    assert "\n" not in str(error.value)


def test_a_teacher_of_another_vocabulary_is_told_and_a_whole_one_is_taken(tmp_path, offline):
    tiny_opt(2, vocabulary=90).save_pretrained(tmp_path / "other")
    with pytest.raises(
        InputError, match=r"other: it has 90 logits, the student .*student 100; exp"
    ):
        hub_parts(offline, tmp_path / "other", print)
    tiny_opt(2).save_pretrained(tmp_path / "teacher")
    with pytest.raises(AssetError, match="instruction set 'dolly'"):  # the next thing that it needs
        hub_parts(offline, tmp_path / "teacher", print)


@pytest.mark.smoke
@pytest.mark.parametrize("name", NAMES)
def test_a_dry_run_takes_a_preset_through(name, tmp_path):
    done = CliRunner().invoke(app, ["preset", name, "--dry-run", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "these scores mean nothing" in done.output
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert list(scores["method"].unique()) == list(METHODS)
    assert len(scores) == 3 * 5
    assert {"commit", "versions"} <= set(scores.columns)
    stages = [tmp_path / name for name in ("sft", "kd", "kd_procrustes")]
    weights = [load_file(stage / "model" / "model.safetensors") for stage in stages]
    name_of = "model.decoder.layers.1.fc1.weight"
    assert not torch.equal(weights[1][name_of], weights[0][name_of])  # trained on from SFT
    assert not torch.equal(weights[2][name_of], weights[1][name_of])  # geometry tells
    trained = json.loads(next(stages[1].glob("checkpoint-*/trainer_state.json")).read_text())
    assert trained["epoch"] == preset(name).epochs
    answers = (stages[2] / "answers_questions_50.jsonl").read_text().splitlines()
    assert len(json.loads(answers[0])["answers"]) == 6


@pytest.mark.smoke
def test_what_is_finished_is_not_done_again(tmp_path):
    """A finished stage is read, one that stopped goes on from its checkpoint."""
    chosen = replace(
        preset("distillm-opt125m"), max_length=40, max_prompt=20, teacher_epochs=1, epochs=2,
        decodings=[10],
    )  # fmt: skip
    lines: list[str] = []
    tmp_path = tmp_path / "out"
    first = run(chosen, dry_parts(chosen), tmp_path, lines.append)
    assert [line for line in lines if "epochs" in line] == [
        "teacher: fine-tuning for 1 epochs",
        "SFT: 3 epochs",
        "KD: 2 epochs",
        "KD + Procrustes: 2 epochs",
    ]
    kept = load_file(tmp_path / "kd" / "model" / "model.safetensors")
    (tmp_path / "kd" / "model").rename(tmp_path / "kd" / "gone")
    (tmp_path / "kd" / "checkpoint-99").mkdir()  # killed while it was written
    (tmp_path / "kd" / "checkpoint-99" / "model.safetensors").write_bytes(b"half")
    lines.clear()
    again = run(chosen, dry_parts(chosen), tmp_path, lines.append)
    assert [line for line in lines if "epochs" in line] == ["KD: 2 epochs"]
    pd.testing.assert_frame_equal(first, again)
    resumed = load_file(tmp_path / "kd" / "model" / "model.safetensors")
    assert all(torch.equal(resumed[name], kept[name]) for name in kept)
    real = replace(chosen, max_length=512)  # what a dry run made is not taken for the real thing
    with pytest.raises(InputError, match=r"run of other settings \(max_length is 40, not 512\)"):
        run(real, dry_parts(chosen), tmp_path, lines.append)


def test_a_folder_of_other_files_and_a_teacher_that_is_none(tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    chosen = preset("minillm-opt")
    for folder in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(InputError, match="holds other files: expected a new or empty folder"):
            run(chosen, dry_parts(chosen), folder, print)
    assert (tmp_path / "thesis.tex").read_text() == "years"
    for more, words in (
        ([], "expected a folder with a fine-tuned model"),
        (["--dry-run"], "a dry"),
    ):
        command = ["preset", "minillm-opt", "--teacher", str(tmp_path), *more]
        done = CliRunner().invoke(app, command)
        assert isinstance(done.exception, InputError)
        assert words in str(done.exception)
