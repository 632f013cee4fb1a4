"""Published pairs: settings with sources, every stage on tiny OPTs, finished stages reused."""

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
from geodistill.experiments.instruction.evaluate import answer_nll
from geodistill.experiments.published_pairs import data as pairs_data
from geodistill.experiments.published_pairs import evaluate as pairs_evaluate
from geodistill.experiments.published_pairs import train as pairs_train
from geodistill.experiments.published_pairs.config import (
    DEFAULT_SEED,
    METHODS,
    load_pair,
    plan_students,
    published_scores,
    settings_table,
)
from geodistill.experiments.published_pairs.data import (
    byte_tokenizer,
    load_from_hub,
    tiny_models_and_data,
)
from geodistill.experiments.published_pairs.evaluate import (
    caveats,
    comparison_table,
    evaluate_student,
    store_scores,
    stored_seeds,
    student_label,
)
from geodistill.experiments.published_pairs.train import train_and_evaluate
from geodistill.files import no_progress
from geodistill.tasks.instructions import INSTRUCTION_SETS
from geodistill.tasks.prompts import alpaca_prompt

NAMES = ("minillm-opt", "distillm-opt125m")


def test_the_settings_are_those_of_the_scripts():
    pair = load_pair("distillm-opt125m")
    assert (pair.teacher, pair.student) == ("facebook/opt-2.7b", "facebook/opt-125m")
    assert (pair.sft_epochs, pair.epochs, pair.learning_rate) == (3, 20, 5e-5)
    assert (pair.batch_size, pair.gradient_accumulation_steps, pair.kd_weight) == (8, 4, 1.0)
    assert (pair.max_length, pair.max_prompt_length) == (512, 256)
    assert pair.sampling_seeds == [10, 20, 30, 40, 50]
    other = load_pair("minillm-opt")
    assert (other.teacher, other.student) == ("facebook/opt-13b", "facebook/opt-1.3b")


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_has_a_source_and_every_set_exists(name):
    table = settings_table(name)
    assert len(table) == 18
    assert all(re.search(r"scripts/|scripts:|ours|GPUs", source) for source in table["source"])
    assert {load_pair(name).task, *load_pair(name).eval_sets} <= set(INSTRUCTION_SETS)


def test_published_rows_are_those_of_the_source():
    table = published_scores("distillm-opt125m")
    assert len(table) == 6 * 4
    wide = table.pivot(index="method", columns="task", values="rougeL")
    order = ["dolly", "self_instruct", "vicuna", "s_ni"]
    assert wide.loc["SFT", order].tolist() == [21.78, 8.09, 14.40, 13.45]
    assert wide.loc["DistiLLM", order].tolist() == [25.07, 11.60, 16.75, 22.45]
    assert set(table["source"]) == {"CaRE-KD, table 7"}
    assert published_scores("minillm-opt").empty


def test_an_unknown_pair_and_one_without_a_gpu_or_a_hub(monkeypatch, tmp_path):
    with pytest.raises(
        InputError, match="published pair is 'x'; expected one of minillm-opt, distillm"
    ):
        load_pair("x")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = CliRunner().invoke(app, ["reproduce", "minillm-opt", "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, InputError)
    assert "needs a GPU, and there is none; try it by --dry-run" in str(done.exception)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(AssetError, match=r"facebook/opt-125m can't be loaded .*--dry-run"):
        load_from_hub(load_pair("distillm-opt125m"), None, no_progress)


def cut(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])


def lose(folder):
    (folder / "model.safetensors").unlink()


def add_a_layer(folder):
    """Make the configuration ask for one more layer than the weights have."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))


def cut_config(folder):
    (folder / "config.json").write_text("{")


BROKEN_TEACHERS = [
    (cut, "SafetensorError: .*file not fully covered"),
    (lose, "OSError: Error no file named"),
    (add_a_layer, r"InputError: 16 \(model.decoder.layers.2.* missing and 0 unexpected weights"),
    (cut_config, "OSError: .*not a valid JSON"),
]


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """A student on disk: all that a pair needs but its data."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    tiny_opt(1).save_pretrained(tmp_path / "student")
    byte_tokenizer().save_pretrained(tmp_path / "student")
    return replace(load_pair("distillm-opt125m"), student=str(tmp_path / "student"))


@pytest.mark.parametrize(("harm", "reason"), BROKEN_TEACHERS)
def test_a_teacher_that_cannot_be_loaded_is_refused_at_once(tmp_path, offline, harm, reason):
    tiny_opt(2).save_pretrained(tmp_path / "teacher")
    harm(tmp_path / "teacher")
    message = rf"--teacher is .*teacher: expected a folder with a fine-tuned model \(.*{reason}"
    with pytest.raises(InputError, match=message) as error:
        load_from_hub(offline, tmp_path / "teacher", print)
    assert "\n" not in str(error.value)


def test_a_teacher_of_another_vocabulary_is_refused_and_a_complete_one_is_taken(tmp_path, offline):
    tiny_opt(2, vocabulary=90).save_pretrained(tmp_path / "other")
    with pytest.raises(
        InputError, match=r"other: it has 90 logits, the student .*student 100; exp"
    ):
        load_from_hub(offline, tmp_path / "other", print)
    tiny_opt(2).save_pretrained(tmp_path / "teacher")
    with pytest.raises(AssetError, match="instruction set 'dolly'"):  # the next thing that it needs
        load_from_hub(offline, tmp_path / "teacher", print)


def test_self_instruct_and_vicuna_have_the_prompt_template_of_dolly(tmp_path, offline, monkeypatch):
    """Students of Dolly are asked in Alpaca's template; those of another set in the plain one."""
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
    row = {"item": "0", "source": "0", "prompt": alpaca_prompt("Ask"), "completion": "Say"}
    mine, load = SimpleNamespace(train=[row], test=[row]), pairs_data.load_instructions
    sets = {"dolly": mine, "mine": mine}
    monkeypatch.setattr(
        pairs_data, "load_instructions", lambda name: sets[name] if name in sets else load(name)
    )
    both = ["self_instruct", "vicuna"]
    pair = replace(offline, eval_sets=both, max_length=900, max_prompt_length=800)

    def first_prompts(task):
        materials = load_from_hub(replace(pair, task=task), None, no_progress)
        return [
            materials.tokenizer.decode(materials.eval_sets[name][0]["prompt_ids"]) for name in both
        ]

    assert first_prompts("dolly") == [
        f"{alpaca_prompt('Sum up.', 'Text.')}\n",
        f"{alpaca_prompt('How many?')}\n",
    ]
    assert first_prompts("mine") == ["Sum up.\n\nText.\n", "How many?\n"]


def test_students_have_a_folder_for_all_that_they_depend_on():
    pair = load_pair("distillm-opt125m")
    first = plan_students(pair, seed=10, weight=None)
    assert [s.method for s in first] == list(METHODS)
    assert [s.name for s in first] == list(METHODS)
    assert [s.weight for s in first] == [None, None, 1.0, 1.0, 1.0]
    other = plan_students(pair, seed=10, weight=0.5)
    assert [s.name for s in other[2:]] == [f"{method}, weight 0.5" for method in METHODS[2:]]
    same = [a.folder == b.folder for a, b in zip(first, other, strict=True)]
    assert same == [True, True, False, False, False]  # the start and KD have no term
    again = plan_students(pair, seed=11, weight=None)
    assert not {s.folder for s in first} & {s.folder for s in again}
    assert student_label(other[3].name) == "KD + Procrustes, rows shuffled, weight 0.5"
    assert student_label("sft-start") == "SFT start"


@pytest.mark.parametrize(
    ("options", "message"),
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
def test_what_cannot_be_trained_is_refused_before_anything_is_written(options, message, tmp_path):
    pair = load_pair("minillm-opt")
    with pytest.raises(InputError, match=message):
        train_and_evaluate(pair, None, tmp_path / "out", print, **options)
    assert not (tmp_path / "out").exists()


def test_several_processes_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    command = ["reproduce", "minillm-opt", "--dry-run", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, InputError)
    assert "WORLD_SIZE is 2: each process would run every stage" in str(done.exception)
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("WORLD_SIZE", "1")
    done = CliRunner().invoke(app, ["reproduce", "x", "--dry-run"])
    assert "published pair is 'x'" in str(done.exception)


def test_the_command_passes_its_options_on(monkeypatch, tmp_path):
    def show(pair, materials, folder, progress, **options):
        raise InputError(str({**options, "folder": folder.name}))

    monkeypatch.setattr(pairs_train, "train_and_evaluate", show)
    more = ["--seed", "3", "--weight", "2", "--method", "kd+isotropy", "--out", str(tmp_path / "o")]
    for words, expected in (
        (more, {"seed": 3, "weight": 2.0, "methods": ["kd+isotropy"], "folder": "o"}),
        (
            ["--out", str(tmp_path / "o")],
            {"seed": DEFAULT_SEED, "weight": None, "methods": METHODS},
        ),
    ):
        done = CliRunner().invoke(app, ["reproduce", "minillm-opt", "--dry-run", *words])
        assert str(done.exception) == str({**expected, "folder": "o"})


def test_scores_are_stemmed_by_decoding_and_by_item(tmp_path, monkeypatch):
    """Two decodings of two items, by hand; the likelihood is that of the right answers."""
    pair = replace(
        load_pair("minillm-opt"), max_length=40, max_prompt_length=20, sampling_seeds=[1, 2]
    )
    materials = tiny_models_and_data(pair)
    examples = [{**e, "completion": "cats running"} for e in materials.eval_sets["questions"][:2]]
    materials = replace(materials, eval_sets={"questions": examples})
    answers = {1: ["cat runs", "cat"], 2: ["dog", "dog"]}
    monkeypatch.setattr(pairs_evaluate, "generate", lambda *args, seed, **kwargs: answers[seed])
    model = materials.load_student(None)
    model.save_pretrained(tmp_path / "model")
    (student,) = plan_students(pair, ["kd+isotropy"], seed=3, weight=0.5)
    rows, items = evaluate_student(pair, materials, student, tmp_path, print)
    assert rows.to_dict("list") == {
        "task": ["questions"] * 2, "method": ["kd+isotropy, weight 0.5"] * 2, "seed": [3, 3],
        "weight": [0.5, 0.5], "decoding": [1, 2], "rougeL": [pytest.approx(250 / 3), 0],
    }  # fmt: skip
    assert list(items) == ["task", "method", "seed", "item", "source", "score", "nll"]
    assert items["score"].tolist() == pytest.approx([0.5, 1 / 3])
    total, count = answer_nll(model.eval(), examples, materials.tokenizer.pad_token_id)
    assert items["nll"].tolist() == pytest.approx((total / count).tolist())


def test_the_printed_table_says_what_it_compares():
    names = {"task": "vicuna", "seed": 10, "decoding": [10, 20], "rougeL": [1.0, 3.0]}
    scores = pd.concat([pd.DataFrame({"method": m, **names}) for m in ("sft-start", "kd")])
    table = comparison_table("distillm-opt125m", scores)
    ours = table[table["source"] == "this run, seed 10"]
    assert ours["method"].tolist() == ["SFT start", "KD"]
    assert ours["sd (decodings)"].tolist() == pytest.approx([2**0.5] * 2)
    assert "sd" not in table
    assert (table["method"] == "SFT").sum() == 4  # the published ones
    text = " ".join(caveats(table))
    assert "sd (decodings): over several samplings" in text
    assert "this run has the ten questions with a reference answer" in text
    assert "SFT start: the short training" in text
    alone = caveats(comparison_table("minillm-opt", scores))
    assert len(alone) == 1


@pytest.mark.smoke
@pytest.mark.parametrize("name", NAMES)
def test_a_dry_run_takes_a_pair_through_every_stage(name, tmp_path):
    done = CliRunner().invoke(app, ["reproduce", name, "--dry-run", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "these scores mean nothing" in done.output
    assert (
        f"one training seed, {DEFAULT_SEED}, which does not show how trainings vary" in done.output
    )
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert list(scores["method"].unique()) == list(METHODS)
    assert len(scores) == 5 * 5
    assert set(scores["seed"]) == {DEFAULT_SEED}
    assert sorted(set(scores["decoding"])) == [10, 20, 30, 40, 50]
    assert {"commit", "versions"} <= set(scores.columns)
    planned = plan_students(load_pair(name), seed=DEFAULT_SEED, weight=None)
    assert len(pd.read_parquet(tmp_path / "items.parquet")) == 5 * 6
    stages = [tmp_path / student.folder for student in planned]
    weights = [load_file(stage / "model" / "model.safetensors") for stage in stages]
    name_of = "model.decoder.layers.1.fc1.weight"
    for one, other in combinations(weights, 2):  # each loss makes a difference
        assert not torch.equal(one[name_of], other[name_of])
    trained = json.loads(next(stages[1].glob("checkpoint-*/trainer_state.json")).read_text())
    assert trained["epoch"] == load_pair(name).epochs
    answers = (stages[2] / "answers_questions_50.jsonl").read_text().splitlines()
    assert len(json.loads(answers[0])["answers"]) == 6


SHORT = replace(
    load_pair("distillm-opt125m"), max_length=40, max_prompt_length=20, teacher_epochs=1, epochs=2,
    sampling_seeds=[10],
)  # fmt: skip


def trainings(lines):
    return [line for line in lines if "epochs" in line]


@pytest.mark.smoke
def test_finished_stages_are_reused(tmp_path):
    """A finished stage is read; one that stopped resumes from its checkpoint."""
    lines: list[str] = []
    tmp_path = tmp_path / "out"
    first = train_and_evaluate(SHORT, tiny_models_and_data(SHORT), tmp_path, lines.append)
    assert trainings(lines) == [
        "teacher: 1 epochs",
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
    again = train_and_evaluate(SHORT, tiny_models_and_data(SHORT), tmp_path, lines.append)
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
        train_and_evaluate(real, tiny_models_and_data(SHORT), tmp_path, lines.append)
    stored = json.loads((tmp_path / "settings.json").read_text())
    del stored["teacher_seed"]
    (tmp_path / "settings.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match=r"teacher_seed is None, not"):
        train_and_evaluate(SHORT, tiny_models_and_data(SHORT), tmp_path, lines.append)


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory):
    """A folder with seeds 10 and 11 of all methods, and the term at another weight."""
    folder, lines = tmp_path_factory.mktemp("pair") / "out", []
    pair = replace(SHORT, sampling_seeds=[10, 20])
    for options in ({}, {"seed": 11}, {"weight": 0.5, "methods": ("kd", "kd+procrustes")}):
        lines.append([])
        train_and_evaluate(pair, tiny_models_and_data(pair), folder, lines[-1].append, **options)
    return folder, [trainings(log) for log in lines]


@pytest.mark.smoke
def test_seeds_and_weights_share_what_does_not_depend_on_them(two_seeds):
    folder, (_, second, third) = two_seeds
    assert second[0] == "SFT start, seed 11: 3 epochs"  # the teacher is shared
    assert len(second) == 5
    assert third == ["KD + Procrustes, weight 0.5, seed 10: 2 epochs"]
    scores = pd.read_csv(folder / "scores.csv")
    assert len(scores) == (5 + 5 + 1) * 2  # rows of earlier calls are kept, each once
    assert stored_seeds(folder) == [10, 11]
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
    comparison = compare(table.frame, "kd+procrustes", "kd+procrustes-shuffled")
    assert (comparison.n_seeds, comparison.n_items) == (2, 6)
    one_seed = table.frame[table.frame["seed"] == 10]
    with pytest.raises(
        InputError, match=r"kd\+isotropy and kd share 1 seeds in questions; a compar"
    ):
        compare(one_seed, "kd+isotropy", "kd")
    text = compared(folder / "items.parquet", "--metric", "nll")
    assert "better" in text
    alone = folder / "one.parquet"
    pd.read_parquet(folder / "items.parquet").query("seed == 10").to_parquet(alone)
    assert "about these trained models, not about the methods" in compared(alone, "--metric", "nll")


def test_decodings_are_not_taken_for_trainings(tmp_path):
    """The table of decodings has several rows a training, which `compare` refuses."""
    rows = [
        {"task": "t", "method": m, "seed": 10, "decoding": d, "rougeL": i + d / 100}
        for i, m in enumerate(("kd", "kd+procrustes"))
        for d in (10, 20)
    ]
    store_scores(tmp_path, pd.DataFrame(rows), pd.DataFrame(rows).assign(item="i"))
    with pytest.raises(InputError, match="two different values for task t, method kd, seed 10"):
        compared(tmp_path / "scores.csv", "--metric", "rougeL")


def compared(path, *more):
    done = CliRunner().invoke(app, ["compare", str(path), "--baseline", "kd", *more])
    if done.exception:
        raise done.exception
    return " ".join(done.output.split())


def test_a_folder_of_other_files_and_a_teacher_that_is_none(tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    pair = load_pair("minillm-opt")
    for folder in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(InputError, match="holds other files: expected a new or empty folder"):
            train_and_evaluate(pair, tiny_models_and_data(pair), folder, print)
    assert (tmp_path / "thesis.tex").read_text() == "years"
    for more, words in (
        ([], "expected a folder with a fine-tuned model"),
        (["--dry-run"], "a dry"),
    ):
        command = ["reproduce", "minillm-opt", "--teacher", str(tmp_path), *more]
        done = CliRunner().invoke(app, command)
        assert isinstance(done.exception, InputError)
        assert words in str(done.exception)
