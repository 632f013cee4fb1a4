"""Presets: settings with sources, every stage on tiny OPTs, what is finished is not done again."""

import json
import re
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from support.tiny_models import tiny_opt
from typer.testing import CliRunner

from geodistill.analysis.score_tables import read_scores
from geodistill.analysis.stats.compare import compare
from geodistill.cli.main import app
from geodistill.errors import AssetError, InputError
from geodistill.experiments.instruction.evaluate import likelihoods
from geodistill.experiments.published_pairs import (
    data as published_pairs_data,
)
from geodistill.experiments.published_pairs import (
    evaluate as published_pairs_evaluate,
)
from geodistill.experiments.published_pairs import (
    train as published_pairs_train,
)
from geodistill.experiments.published_pairs.config import (
    METHODS,
    SEED,
    preset,
    published,
    sources,
    students,
)
from geodistill.experiments.published_pairs.data import byte_tokenizer, dry_parts, hub_parts
from geodistill.experiments.published_pairs.evaluate import (
    beside_published,
    label,
    remarks,
    scored,
    seeds,
)
from geodistill.experiments.published_pairs.train import run
from geodistill.tasks.instructions import KNOWN
from geodistill.tasks.prompts import alpaca

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


def test_self_instruct_and_vicuna_are_worded_as_dolly_is(tmp_path, offline, monkeypatch):
    """Students of Alpaca's words are asked in them; those of another set in plain ones."""
    files = {
        "self_instruct_eval": {
            "id": "a", "instruction": "Sum up.", "instances": [{"input": "Text.", "output": "T."}]
        },
        "vicuna_questions": {"question_id": 7, "category": "maths", "turns": ["How many?"]},
        "vicuna_reference_gpt4": {"question_id": 7, "choices": [{"turns": ["Two."]}]},
    }  # fmt: skip
    (tmp_path / "instruct").mkdir()
    for name, line in files.items():
        (tmp_path / "instruct" / f"{name}.jsonl").write_text(json.dumps(line))
    monkeypatch.setenv("GEODISTILL_DATA_DIR", str(tmp_path))
    row = {"item": "0", "source": "0", "prompt": alpaca("Ask"), "completion": "Say"}
    mine, load = SimpleNamespace(train=[row], test=[row]), published_pairs_data.load_instructions
    sets = {"dolly": mine, "mine": mine}
    monkeypatch.setattr(
        published_pairs_data,
        "load_instructions",
        lambda name: sets[name] if name in sets else load(name),
    )
    both = ["self_instruct", "vicuna"]
    chosen = replace(offline, evaluation=both, max_length=900, max_prompt=800)

    def asked(task):
        parts = hub_parts(replace(chosen, task=task), None, lambda line: None)
        return [parts.tokenizer.decode(parts.tests[name][0]["prompt_ids"]) for name in both]

    assert asked("dolly") == [f"{alpaca('Sum up.', 'Text.')}\n", f"{alpaca('How many?')}\n"]
    assert asked("mine") == ["Sum up.\n\nText.\n", "How many?\n"]


def test_students_are_kept_apart_by_what_they_depend_on():
    chosen = preset("distillm-opt125m")
    first = students(chosen, seed=10, weight=None)
    assert [one.method for one in first] == list(METHODS)
    assert [one.name for one in first] == list(METHODS)
    assert [one.weight for one in first] == [None, None, 1.0, 1.0, 1.0]
    other = students(chosen, seed=10, weight=0.5)
    assert [one.name for one in other[2:]] == [f"{method}, weight 0.5" for method in METHODS[2:]]
    same = [a.stage == b.stage for a, b in zip(first, other, strict=True)]
    assert same == [True, True, False, False, False]  # the start and KD have no term
    again = students(chosen, seed=11, weight=None)
    assert not {one.stage for one in first} & {one.stage for one in again}
    assert label(other[3].name) == "KD + Procrustes, rows shuffled, weight 0.5"
    assert label("sft-start") == "SFT start"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"methods": ("kd+gram",)},
            r"method is 'kd\+gram'; expected one of sft-start, kd, kd\+pro",
        ),
        ({"methods": ()}, "methods is empty; expected some of sft-start"),
        ({"weight": -1.0}, "weight is -1.0; expected a finite number of at least 0"),
        ({"weight": float("nan")}, "weight is nan; expected a finite number"),
        ({"seed": -1}, "seed is -1; expected a whole number from 0"),
        ({"seed": 2**32}, "seed is 4294967296; expected a whole number from 0"),
    ],
)
def test_what_cannot_be_trained_is_told_before_anything_is_made(asked, message, tmp_path):
    chosen = preset("minillm-opt")
    with pytest.raises(InputError, match=message):
        run(chosen, None, tmp_path / "out", print, **asked)
    assert not (tmp_path / "out").exists()


def test_several_processes_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    command = ["preset", "minillm-opt", "--dry-run", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, InputError)
    assert "WORLD_SIZE is 2: each process would run every stage" in str(done.exception)
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("WORLD_SIZE", "1")
    done = CliRunner().invoke(app, ["preset", "x", "--dry-run"])
    assert "preset is 'x'" in str(done.exception)


def test_the_command_hands_on_what_was_asked_for(monkeypatch, tmp_path):
    def told(chosen, parts, folder, report, **asked):
        raise InputError(str({**asked, "folder": folder.name}))

    monkeypatch.setattr(published_pairs_train, "run", told)
    more = ["--seed", "3", "--weight", "2", "--method", "kd+isotropy", "--out", str(tmp_path / "o")]
    for words, expected in (
        (more, {"seed": 3, "weight": 2.0, "methods": ["kd+isotropy"], "folder": "o"}),
        (["--out", str(tmp_path / "o")], {"seed": SEED, "weight": None, "methods": METHODS}),
    ):
        done = CliRunner().invoke(app, ["preset", "minillm-opt", "--dry-run", *words])
        assert str(done.exception) == str({**expected, "folder": "o"})


def test_scores_are_stemmed_by_decoding_and_by_item(tmp_path, monkeypatch):
    """Two decodings of two items, by hand; the likelihood is that of the right answers."""
    chosen = replace(preset("minillm-opt"), max_length=40, max_prompt=20, decodings=[1, 2])
    parts = dry_parts(chosen)
    asked = [{**e, "completion": "cats running"} for e in parts.tests["questions"][:2]]
    parts = replace(parts, tests={"questions": asked})
    said = {1: ["cat runs", "cat"], 2: ["dog", "dog"]}
    monkeypatch.setattr(
        published_pairs_evaluate, "generate", lambda *given, seed, **rest: said[seed]
    )
    model = parts.load_student(None)
    model.save_pretrained(tmp_path / "model")
    (one,) = students(chosen, ["kd+isotropy"], seed=3, weight=0.5)
    rows, items = scored(chosen, parts, one, tmp_path, print)
    assert rows.to_dict("list") == {
        "task": ["questions"] * 2, "method": ["kd+isotropy, weight 0.5"] * 2, "seed": [3, 3],
        "weight": [0.5, 0.5], "decoding": [1, 2], "rougeL": [pytest.approx(250 / 3), 0],
    }  # fmt: skip
    assert list(items) == ["task", "method", "seed", "item", "source", "score", "nll"]
    assert items["score"].tolist() == pytest.approx([0.5, 1 / 3])
    total, count = likelihoods(model.eval(), asked, parts.tokenizer.pad_token_id)
    assert items["nll"].tolist() == pytest.approx((total / count).tolist())


def test_the_printed_table_says_what_it_compares():
    names = {"task": "vicuna", "seed": 10, "decoding": [10, 20], "rougeL": [1.0, 3.0]}
    scores = pd.concat([pd.DataFrame({"method": m, **names}) for m in ("sft-start", "kd")])
    table = beside_published("distillm-opt125m", scores)
    ours = table[table["source"] == "this run, seed 10"]
    assert ours["method"].tolist() == ["SFT start", "KD"]
    assert ours["sd (decodings)"].tolist() == pytest.approx([2**0.5] * 2)
    assert "sd" not in table
    assert (table["method"] == "SFT").sum() == 4  # the published ones
    told = " ".join(remarks(table))
    assert "sd (decodings): over several samplings" in told
    assert "ours are the ten questions that have a reference answer" in told
    assert "SFT start: the short training" in told
    alone = remarks(beside_published("minillm-opt", scores))
    assert len(alone) == 1


@pytest.mark.smoke
@pytest.mark.parametrize("name", NAMES)
def test_a_dry_run_takes_a_preset_through(name, tmp_path):
    done = CliRunner().invoke(app, ["preset", name, "--dry-run", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "these scores mean nothing" in done.output
    assert f"one training seed, {SEED}: it says nothing of another" in done.output
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert list(scores["method"].unique()) == list(METHODS)
    assert len(scores) == 5 * 5
    assert set(scores["seed"]) == {SEED}
    assert sorted(set(scores["decoding"])) == [10, 20, 30, 40, 50]
    assert {"commit", "versions"} <= set(scores.columns)
    made = students(preset(name), seed=SEED, weight=None)
    assert len(pd.read_parquet(tmp_path / "items.parquet")) == 5 * 6
    stages = [tmp_path / one.stage for one in made]
    weights = [load_file(stage / "model" / "model.safetensors") for stage in stages]
    name_of = "model.decoder.layers.1.fc1.weight"
    for one, other in combinations(weights, 2):  # trained on from the start; each loss tells
        assert not torch.equal(one[name_of], other[name_of])
    trained = json.loads(next(stages[1].glob("checkpoint-*/trainer_state.json")).read_text())
    assert trained["epoch"] == preset(name).epochs
    answers = (stages[2] / "answers_questions_50.jsonl").read_text().splitlines()
    assert len(json.loads(answers[0])["answers"]) == 6


SHORT = replace(
    preset("distillm-opt125m"), max_length=40, max_prompt=20, teacher_epochs=1, epochs=2,
    decodings=[10],
)  # fmt: skip


def trainings(lines):
    return [line for line in lines if "epochs" in line]


@pytest.mark.smoke
def test_what_is_finished_is_not_done_again(tmp_path):
    """A finished stage is read, one that stopped goes on from its checkpoint."""
    lines: list[str] = []
    tmp_path = tmp_path / "out"
    first = run(SHORT, dry_parts(SHORT), tmp_path, lines.append)
    assert trainings(lines) == [
        "teacher: fine-tuning for 1 epochs",
        "SFT start, seed 10: 3 epochs",
        "KD, seed 10: 2 epochs",
        "KD + Procrustes, seed 10: 2 epochs",
        "KD + Procrustes, rows shuffled, seed 10: 2 epochs",
        "KD + isotropy, no teacher, seed 10: 2 epochs",
    ]
    kept = {}
    for method in ("kd", "kd+procrustes-shuffled_weight1.0"):
        stage = tmp_path / "seed10" / method
        kept[stage] = load_file(stage / "model" / "model.safetensors")
        (stage / "model").rename(stage / "gone")
        (stage / "checkpoint-99").mkdir()  # killed while it was written
        (stage / "checkpoint-99" / "model.safetensors").write_bytes(b"half")
    lines.clear()
    again = run(SHORT, dry_parts(SHORT), tmp_path, lines.append)
    assert trainings(lines) == [
        "KD, seed 10: 2 epochs",
        "KD + Procrustes, rows shuffled, seed 10: 2 epochs",
    ]
    pd.testing.assert_frame_equal(first, again)
    assert len(pd.read_csv(tmp_path / "scores.csv")) == len(first)
    for stage, weights in kept.items():
        resumed = load_file(stage / "model" / "model.safetensors")
        assert all(torch.equal(resumed[name], weights[name]) for name in weights)
    real = replace(SHORT, max_length=512)  # what a dry run made is not taken for the real thing
    with pytest.raises(InputError, match=r"run of other settings \(max_length is 40, not 512\)"):
        run(real, dry_parts(SHORT), tmp_path, lines.append)
    stored = json.loads((tmp_path / "settings.json").read_text())
    del stored["teacher_seed"]
    (tmp_path / "settings.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match=r"teacher_seed is missing, as of an earlier version, not"):
        run(SHORT, dry_parts(SHORT), tmp_path, lines.append)


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory):
    """A folder with seeds 10 and 11 of all methods, and the term at another weight."""
    folder, lines = tmp_path_factory.mktemp("preset") / "out", []
    chosen = replace(SHORT, decodings=[10, 20])
    for asked in ({}, {"seed": 11}, {"weight": 0.5, "methods": ("kd", "kd+procrustes")}):
        lines.append([])
        run(chosen, dry_parts(chosen), folder, lines[-1].append, **asked)
    return folder, [trainings(told) for told in lines]


@pytest.mark.smoke
def test_seeds_and_weights_share_what_does_not_depend_on_them(two_seeds):
    folder, (_, second, third) = two_seeds
    assert second[0] == "SFT start, seed 11: 3 epochs"  # the teacher is shared
    assert len(second) == 5
    assert third == ["KD + Procrustes, weight 0.5, seed 10: 2 epochs"]
    scores = pd.read_csv(folder / "scores.csv")
    assert len(scores) == (5 + 5 + 1) * 2  # rows of earlier calls are kept, each once
    assert seeds(folder) == [10, 11]
    other = scores[scores["method"] == "kd+procrustes, weight 0.5"]
    assert (set(other["seed"]), set(other["weight"])) == ({10}, {0.5})
    assert scores["weight"].isna().sum() == 2 * 2 * 2  # the start and KD
    paths = [
        folder / f"seed{seed}" / f"kd+procrustes_weight{weight}" / "model" / "model.safetensors"
        for seed, weight in ((10, 1.0), (11, 1.0), (10, 0.5))
    ]
    name = "model.decoder.layers.1.fc1.weight"
    for one, two in combinations([load_file(path)[name] for path in paths], 2):
        assert not torch.equal(one, two)


@pytest.mark.smoke
def test_compare_pairs_trainings_and_not_decodings(two_seeds):
    folder, _ = two_seeds
    table = read_scores(folder / "items.parquet", "kd", metric="nll")
    found = compare(table.frame, "kd+procrustes", "kd+procrustes-shuffled")
    assert (found.n_seeds, found.n_items) == (2, 6)
    one = table.frame[table.frame["seed"] == 10]
    with pytest.raises(
        InputError, match=r"kd\+isotropy and kd share 1 seeds in questions; a compar"
    ):
        compare(one, "kd+isotropy", "kd")
    told = compared(folder / "items.parquet", "--metric", "nll")
    assert "better" in told
    alone = folder / "one.parquet"
    pd.read_parquet(folder / "items.parquet").query("seed == 10").to_parquet(alone)
    assert "one seed: this speaks of these trained models" in compared(alone, "--metric", "nll")


def test_decodings_are_not_taken_for_trainings(tmp_path):
    """The table of decodings has several rows a training, which `compare` refuses."""
    rows = [
        {"task": "t", "method": m, "seed": 10, "decoding": d, "rougeL": i + d / 100}
        for i, m in enumerate(("kd", "kd+procrustes"))
        for d in (10, 20)
    ]
    published_pairs_evaluate.keep(tmp_path, pd.DataFrame(rows), pd.DataFrame(rows).assign(item="i"))
    with pytest.raises(InputError, match="two different values for task t, method kd, seed 10"):
        compared(tmp_path / "scores.csv", "--metric", "rougeL")


def compared(path, *more):
    done = CliRunner().invoke(app, ["compare", str(path), "--baseline", "kd", *more])
    if done.exception:
        raise done.exception
    return " ".join(done.output.split())


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
