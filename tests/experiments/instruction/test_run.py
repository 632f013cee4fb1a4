"""The instruction study in miniature: paired students, their metrics, and what stops a run."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from support.tiny_instructions import END, SETTINGS, Letters, letters_opt, letters_world, row

from geodistill.errors import InputError
from geodistill.experiments import registry, training
from geodistill.experiments.instruction import train as instruction_train
from geodistill.experiments.instruction.feature_metrics import (
    CHECKPOINT_FRACTIONS,
    answer_features,
    teacher_features,
)
from geodistill.experiments.instruction.grid import InstructionGrid
from geodistill.experiments.instruction.run import run_instruction
from geodistill.experiments.instruction.setup import (
    build_student,
    cache_teacher_outputs,
    prepare_instruction,
    select_pairs,
    teacher_generations,
)
from geodistill.experiments.methods import INSTRUCTION_METHODS, INSTRUCTION_REFERENCES
from geodistill.experiments.settings import setup_settings
from geodistill.geometry import participation_ratio, procrustes_distance
from geodistill.tasks import assets
from geodistill.tasks.base import hash_to_unit


def test_pairs_are_selected_by_the_hash_of_their_id_and_long_ones_left_out():
    rows = [row(str(i), "ab" * (1 + i % 3), "c") for i in range(30)]
    order = sorted(rows, key=lambda r: hash_to_unit(r["item"]))
    short = [r["item"] for r in order if len(r["prompt"]) < 6]
    selected, n_long = select_pairs(rows, 10, Letters(), 7)
    assert [e["item"] for e in selected] == short[:10]
    assert [e["row"] for e in selected] == list(range(10))
    last = [r["item"] for r in order].index(short[9])
    assert n_long == last + 1 - 10 > 0
    assert select_pairs(rows[::-1], 10, Letters(), 7)[0] == selected  # whatever their order
    with pytest.raises(InputError, match="20 pairs have at most 7 tokens; expected at least the"):
        select_pairs(rows, 21, Letters(), 7)


@pytest.mark.parametrize("name", ["prompt", "completion"])
def test_an_empty_text_is_refused(name):
    rows = [{**row("7", "a", "b"), name: " \n"}]
    with pytest.raises(InputError, match=rf"7: {name} is ' \\n'; expected a text"):
        select_pairs(rows, 1, Letters(), 9)


# ---- in miniature ----


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with letters_world(tmp_path_factory.mktemp("letters") / "cache"):
        yield


@pytest.fixture(scope="module")
def setup(world):
    return prepare_instruction(SETTINGS)


def test_teacher_outputs_are_computed_by_one_thread_whatever_the_process_has(setup):
    threads = []
    hook = setup.teacher.register_forward_hook(lambda *_: threads.append(torch.get_num_threads()))
    examples = [{**e, "input_ids": [*e["input_ids"], END]} for e in setup.train[:8]]  # not stored
    examples = [{**e, "labels": [*e["labels"], END]} for e in examples]
    with training.torch_threads(2):
        cache_teacher_outputs(setup.teacher, setup.tokenizer, SETTINGS, examples)
        assert torch.get_num_threads() == 2
    hook.remove()
    assert set(threads) == {1}


TRAINED = ("sft", "kd", "skew", "seqkd", "kd+procrustes", "kd+isotropy", "seqkd+gram")
METHODS = (*TRAINED, *INSTRUCTION_REFERENCES)


@pytest.fixture(scope="module")
def runs(setup):
    return {method: run_instruction(setup, method, 0) for method in METHODS}


def test_every_method_makes_another_student(runs):
    assert len(runs) == 11
    assert set(TRAINED) <= set(INSTRUCTION_METHODS)
    assert len(INSTRUCTION_METHODS) == 4 * 6 + 2 * 4
    answers_alone = ("lookup", "nearest")
    nll = [tuple(run.items["nll"]) for name, (run, _) in runs.items() if name not in answers_alone]
    assert len(set(nll)) == len(nll) == 9
    assert len({run.run_id for run, _ in runs.values()}) == len(runs)
    for name, (run, model) in runs.items():
        assert 0 < run.metrics.get("nll", 1.0) < 20
        assert len(run.items) == 40
        assert ("nll" in run.metrics) == (name not in answers_alone)
        assert (model is None) == (name in answers_alone)
        assert run.metrics["exact_match"] == run.items["score"].mean()
    # Training on the answers helps.
    assert runs["sft"][0].metrics["nll"] < runs["start"][0].metrics["nll"] - 0.1
    assert runs["teacher"][1] is not None
    floor = max(runs[name][0].metrics["exact_match"] for name in answers_alone)
    assert {run.metrics["lookup_exact_match"] for run, _ in runs.values()} == {floor}


def test_the_floor_is_that_of_the_better_lookup(setup):
    """Each training prompt is its own nearest one."""
    run, _ = run_instruction(replace(setup, test=setup.train), "lookup", 0)
    assert run.metrics["exact_match"] < run.metrics["lookup_exact_match"] == 1.0


def test_the_geometry_is_measured_on_the_answer_tokens(setup, runs):
    run, student = runs["kd+procrustes"]
    example = setup.test[5]
    with torch.no_grad():
        out = student(torch.tensor([example["input_ids"]]), output_hidden_states=True)
    positions = [i - 1 for i, label in enumerate(example["labels"]) if label != -100]
    features = answer_features(student, setup.test, 0)
    start = sum(sum(x != -100 for x in e["labels"]) for e in setup.test[:5])
    expected = out.hidden_states[-1][0, positions]
    assert torch.allclose(features[start : start + len(positions)], expected, atol=1e-5)
    teacher = teacher_features(setup.test_cache)
    assert len(teacher) == len(features)
    squared = procrustes_distance(teacher, features, center=True, scale="frobenius") ** 2
    parts = run.metrics["procrustes/spectrum"], run.metrics["procrustes/alignment"]
    assert sum(parts) == pytest.approx(float(squared), abs=1e-4)
    assert min(parts) > 0
    assert run.metrics["participation_ratio"] == pytest.approx(
        float(participation_ratio(features)), rel=1e-4
    )
    scores = {m: runs[m][0].metrics["geometry_kept/procrustes"] for m in ("start", "kd+procrustes")}
    assert scores["start"] < scores["kd+procrustes"] < 1


def test_the_participation_ratio_is_measured_at_fixed_fractions_of_the_training(setup, runs):
    run, student = runs["kd+isotropy"]
    names = [f"participation_ratio/at{round(100 * x):03d}" for x in CHECKPOINT_FRACTIONS]
    assert set(names) <= set(run.metrics)
    untrained = build_student(setup, 0)
    first = float(participation_ratio(answer_features(untrained, setup.test[:100], 0)))
    last = float(participation_ratio(answer_features(student, setup.test[:100], 0)))
    assert run.metrics[names[0]] == pytest.approx(first, rel=1e-4)
    assert run.metrics[names[-1]] == pytest.approx(last, rel=1e-4)
    # Isotropy is what the term asks for.
    assert run.metrics[names[-1]] > runs["kd"][0].metrics[names[-1]]


def test_the_same_run_twice_is_the_same(setup, runs):
    run, student = runs["kd+procrustes"]
    again, twin = run_instruction(setup, "kd+procrustes", 0)
    assert again.metrics == run.metrics
    pd.testing.assert_frame_equal(again.items, run.items, check_exact=True)
    assert all(map(torch.equal, student.parameters(), twin.parameters()))


@pytest.fixture
def trainers(monkeypatch):
    """Every trainer of a run with the weights that it starts from, instead of its training."""
    started = []

    def fit(trainer, resume):
        started.append((trainer, [p.detach().clone() for p in trainer.model.parameters()]))

    monkeypatch.setattr(instruction_train, "fit", fit)
    return started


def test_methods_share_start_and_order(setup, trainers):
    for method, seed in (("sft", 0), ("kd+gram", 0), ("kd", 1)):
        run_instruction(setup, method, seed)
    orders = [(trainer.args.seed, trainer.args.data_seed) for trainer, _ in trainers]
    assert orders == [(2000, 2000)] * 2 + [(2001, 2001)]
    first, same, other = (weights for _, weights in trainers)
    assert all(map(torch.equal, first, same))
    assert not all(map(torch.equal, first, other))


def test_the_answers_have_what_the_logits_leave(setup, trainers):
    mostly = replace(setup, settings=replace(SETTINGS, kd_weight=0.75, weight=3.0))
    run_instruction(mostly, "kd+procrustes", 0)
    ((trainer, _),) = trainers
    assert (trainer.task_weight, trainer.logit_weight) == (0.25, 0.75)
    assert [term.weight for term in trainer.terms] == [3.0]


def test_bases_differ_in_the_logit_loss(setup, trainers):
    for method in ("kd", "skew+cka", "sft+cka", "seqkd"):
        run_instruction(setup, method, 0)
    losses = [trainer.logit_loss for trainer, _ in trainers]
    assert [loss and loss.kind for loss in losses] == ["forward", "skew", None, None]
    assert [trainer.task_weight for trainer, _ in trainers] == [0.5, 0.5, 1.0, 1.0]


@torch.no_grad()
def test_seqkd_learns_the_teacher_s_greedy_answers(setup):
    n_compared = 0
    generations = teacher_generations(setup)
    for example in generations:
        prompt = example["prompt_ids"]
        ids = list(prompt)
        while ids[-1] != 1 and len(ids) < len(prompt) + 5:
            ids.append(int(setup.teacher(torch.tensor([ids])).logits[0, -1].argmax()))
        if 0 in ids:  # padding, which this teacher may generate, is no text
            continue
        n_compared += 1
        assert example["input_ids"] == ids
        assert example["labels"] == [-100] * len(prompt) + ids[len(prompt) :]
    assert n_compared > 10
    cut = [e for e in generations if e["input_ids"][-1] != 1]
    assert cut  # answers that were cut get no end token
    assert all(len(e["input_ids"]) == len(e["prompt_ids"]) + 5 for e in cut)


def test_the_teacher_s_answers_are_generated_once(setup):
    first = teacher_generations(setup)
    assert len(list((assets.cache_dir() / "answers").glob("*.jsonl"))) == 1
    silent = letters_opt()  # of another width and other answers
    assert teacher_generations(replace(setup, teacher=silent)) == first


def test_validation_and_further_sets_are_scored(world, monkeypatch):
    other = prepare_instruction(replace(SETTINGS, split="validation", extra_eval_sets=("further",)))
    assert {e["item"].split("/")[1] for e in other.test} == {"validation"}
    assert len(other.extra_eval_sets["further"]) == 45
    run, _ = run_instruction(other, "start", 0)
    wanted = {"nll", "rougeL", "exact_match", "words", "repetition"}
    assert wanted <= set(run.metrics)
    assert {f"further/{name}" for name in wanted} <= set(run.metrics)
    assert run.metrics["further/nll"] != run.metrics["nll"]
    assert dict(run.items["task"].value_counts()) == {"letters": 40, "further": 45}
    further = run.items[run.items["task"] == "further"]
    assert further["rougeL"].mean() == pytest.approx(run.metrics["further/rougeL"])
    assert set(further["item"]) == {e["item"] for e in other.extra_eval_sets["further"]}


def test_an_unknown_method_is_refused(setup):
    with pytest.raises(InputError, match=r"method is 'ce'; expected one of sft, sft.projection, "):
        run_instruction(setup, "ce", 0)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_its_batch(setup, monkeypatch, tmp_path):
    monkeypatch.setenv("GEODISTILL_CACHE", str(tmp_path))

    class Broken(torch.nn.Module):
        requires_hidden_states = True

        def forward(self, student, teacher, mask=None):
            return student.sum() * float("nan")

    monkeypatch.setattr(instruction_train, "build_feature_loss", lambda *args, **kwargs: Broken())
    with pytest.raises(FloatingPointError, match=r"Broken.* is nan at step 0; its batch is in "):
        run_instruction(setup, "kd+gram", 0)
    (batch,) = tmp_path.glob("trainings/letters-kd+gram-s0.*/not_finite_step_0.safetensors")
    assert load_file(batch)["input_ids"].shape[0] == SETTINGS.batch_size


@pytest.mark.parametrize("method", ["sft", "kd+procrustes"])
def test_weights_that_diverge_are_reported_as_such(setup, monkeypatch, tmp_path, method):
    monkeypatch.setenv("GEODISTILL_CACHE", str(tmp_path))
    hot = replace(setup, settings=replace(setup.settings, learning_rate=1e30))
    with pytest.raises(FloatingPointError, match=r"is (nan|inf) at step \d+; its batch is in "):
        run_instruction(hot, method, 0)
    assert list(tmp_path.glob("trainings/*/not_finite_step_*.safetensors"))


def test_a_last_step_that_diverges_is_reported(setup, monkeypatch):
    class Trainer:
        model = torch.nn.Linear(2, 2)
        state = SimpleNamespace(global_step=7)

        def remove_callback(self, kind):
            pass

        def train(self, resume_from_checkpoint):
            self.model.weight.data.fill_(torch.inf)

    with pytest.raises(FloatingPointError, match="weights are not finite after step 7, the last"):
        training.fit(Trainer())


def test_a_finished_run_leaves_no_folder(setup, runs):
    assert not list((assets.cache_dir() / "trainings").glob("*"))


def test_students_of_one_setup_differ_in_the_rest():
    for name, value in (("weight", 9.0), ("learning_rate", 2.0), ("epochs", 2.0), ("width", 128)):
        assert setup_settings(replace(SETTINGS, **{name: value})) == setup_settings(SETTINGS)
    for name, value in (("split", "validation"), ("n_train", 7), ("adapter", "x"), ("task", "t0")):
        assert setup_settings(replace(SETTINGS, **{name: value})) != setup_settings(SETTINGS)


# ---- a section of the protocol, from its plan to its runs ----


@pytest.fixture
def letters_protocol(world, monkeypatch):
    """A section of letters: three methods, one of which needs the teacher's answers."""
    names = ("adapter", "n_train", "n_test", "batch_size", "width", "layers", "max_length",
             "max_new_tokens", "top_k", "epochs")  # fmt: skip
    tuning = {"minutes": 1, "methods": ["start", "kd+gram", "seqkd"], "weights": [1, 2],
              "seeds": [7]}  # fmt: skip
    protocol = {
        "tasks": ["letters"],
        "setting": {name: getattr(SETTINGS, name) for name in names},
        "grid": {"tuning": tuning},
    }
    monkeypatch.setattr(InstructionGrid, "protocol", lambda self: protocol)


def test_the_runs_of_a_section_share_one_teacher(letters_protocol):
    study = registry.find_study("instruction", "tuning")
    lines = []
    study.prepare(study.jobs, lines.append)
    assert lines.count("loading the teacher") == 1
    assert "teacher: 48 of 48 answers" in lines
    runs = [job.work() for job in study.jobs]
    assert [run.run_id for run in runs] == [job.run_id for job in study.jobs]
    assert {run.study for run in runs} == {"instruction/tuning"}
    assert Counter(run.method for run in runs) == {"start": 1, "kd+gram": 2, "seqkd": 1}
    assert {run.config["weight"] for run in runs if run.method == "kd+gram"} == {1.0, 2.0}
    assert len({run.run_id for run in runs}) == 4
