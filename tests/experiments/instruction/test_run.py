"""The instruction study: the whole in miniature, paired; and what stops it."""

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from support.tiny_instructions import SETTING, Letters, letters_world, row

from geodistill.errors import InputError
from geodistill.experiments import training
from geodistill.experiments.instruction import (
    evaluate as instruction_evaluate,
)
from geodistill.experiments.instruction import (
    run as instruction_run,
)
from geodistill.experiments.instruction import (
    setup as instruction_setup,
)
from geodistill.experiments.instruction.feature_metrics import MARKS, response_features, stored_rows
from geodistill.experiments.instruction.run import instruction_config, run_instruction, smoke
from geodistill.experiments.instruction.setup import (
    choose,
    open_instruction_room,
    own_words,
    shared_setting,
    start_student,
)
from geodistill.experiments.methods import (
    INSTRUCTION_METHODS,
    INSTRUCTION_REFERENCES,
)
from geodistill.experiments.run_store import config_hash
from geodistill.geometry import participation_ratio, procrustes_distance
from geodistill.tasks import assets
from geodistill.tasks.base import fraction


def test_pairs_are_chosen_by_the_hash_of_their_id_and_long_ones_left_out():
    rows = [row(str(i), "ab" * (1 + i % 3), "c") for i in range(30)]
    order = sorted(rows, key=lambda r: fraction(r["item"]))
    short = [r["item"] for r in order if len(r["prompt"]) < 6]
    chosen, left = choose(rows, 10, Letters(), 7)
    assert [e["item"] for e in chosen] == short[:10]
    assert [e["row"] for e in chosen] == list(range(10))
    until = [r["item"] for r in order].index(short[9])
    assert left == until + 1 - 10 > 0
    assert choose(rows[::-1], 10, Letters(), 7)[0] == chosen  # whatever the order of the file
    with pytest.raises(InputError, match="21 pairs asked for, 20 have at most 7 tokens"):
        choose(rows, 21, Letters(), 7)


@pytest.mark.parametrize("name", ["prompt", "completion"])
def test_an_empty_text_is_named(name):
    rows = [{**row("7", "a", "b"), name: " \n"}]
    with pytest.raises(InputError, match=rf"7: {name} is ' \\n'; expected a text"):
        choose(rows, 1, Letters(), 9)


# ---- in miniature ----


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with letters_world(tmp_path_factory.mktemp("letters") / "cache"):
        yield


@pytest.fixture(scope="module")
def room(world):
    return open_instruction_room(SETTING)


SOME = ("sft", "kd", "skew", "seqkd", "kd+procrustes", "kd+isotropy", "seqkd+gram")


@pytest.fixture(scope="module")
def runs(room):
    return {method: run_instruction(room, method, 0) for method in (*SOME, *INSTRUCTION_REFERENCES)}


def test_every_method_makes_another_student(runs):
    assert len(runs) == 10
    assert set(SOME) <= set(INSTRUCTION_METHODS)
    assert len(INSTRUCTION_METHODS) == 4 * 6 + 3
    assert len({tuple(run.items["nll"]) for run, _ in runs.values()}) == len(runs)
    assert len({run.run_id for run, _ in runs.values()}) == len(runs)
    for run, _ in runs.values():
        assert 0 < run.metrics["nll"] < 20
        assert len(run.items) == 40
    # Training on the answers helps, and the unigram model does not know the teacher's features.
    assert runs["sft"][0].metrics["nll"] < runs["start"][0].metrics["nll"] - 0.1
    assert "cka" not in runs["unigram"][0].metrics
    assert runs["teacher"][1] is not None
    assert runs["unigram"][1] is None


def test_what_is_kept_of_the_geometry_is_that_of_the_answers(room, runs):
    run, student = runs["kd+procrustes"]
    example = room.test[5]
    with torch.no_grad():
        out = student(torch.tensor([example["input_ids"]]), output_hidden_states=True)
    places = [i - 1 for i, label in enumerate(example["labels"]) if label != -100]
    rows = response_features(student, room.test, 0)
    start = sum(sum(x != -100 for x in e["labels"]) for e in room.test[:5])
    assert torch.allclose(
        rows[start : start + len(places)], out.hidden_states[-1][0, places], atol=1e-5
    )
    teacher = stored_rows(room.test_cache)
    assert len(teacher) == len(rows)
    squared = procrustes_distance(teacher, rows, center=True, scale="frobenius") ** 2
    parts = run.metrics["procrustes/spectrum"], run.metrics["procrustes/alignment"]
    assert sum(parts) == pytest.approx(float(squared), abs=1e-4)
    assert min(parts) > 0
    assert run.metrics["participation_ratio"] == pytest.approx(
        float(participation_ratio(rows)), rel=1e-4
    )
    kept = {m: runs[m][0].metrics["geometry_kept/procrustes"] for m in ("start", "kd+procrustes")}
    assert kept["start"] < kept["kd+procrustes"] < 1


def test_the_spread_is_taken_at_fixed_shares_of_the_training(room, runs):
    run, student = runs["kd+isotropy"]
    names = [f"participation_ratio/at{round(100 * mark):03d}" for mark in MARKS]
    assert set(names) <= set(run.metrics)
    untrained = start_student(room, 0)
    first = float(participation_ratio(response_features(untrained, room.test[:100], 0)))
    last = float(participation_ratio(response_features(student, room.test[:100], 0)))
    assert run.metrics[names[0]] == pytest.approx(first, rel=1e-4)
    assert run.metrics[names[-1]] == pytest.approx(last, rel=1e-4)
    # Isotropy is what the term asks for.
    assert run.metrics[names[-1]] > runs["kd"][0].metrics[names[-1]]


def test_the_same_run_twice_is_the_same(room, runs):
    run, student = runs["kd+procrustes"]
    again, twin = run_instruction(room, "kd+procrustes", 0)
    assert again.metrics == run.metrics
    pd.testing.assert_frame_equal(again.items, run.items, check_exact=True)
    assert all(map(torch.equal, student.parameters(), twin.parameters()))


def looks(seen):
    def fit(trainer):
        seen.append((trainer, [p.detach().clone() for p in trainer.model.parameters()]))

    return fit


def test_methods_share_start_and_order(room, monkeypatch):
    seen = []
    monkeypatch.setattr(instruction_run, "fit", looks(seen))
    other_start = replace(room, setting=replace(SETTING, start_seed=5))
    for where, method, seed in ((room, "sft", 0), (room, "kd+gram", 0), (room, "kd", 1),
                                (other_start, "kd", 1)):  # fmt: skip
        run_instruction(where, method, seed)
    orders = [(trainer.args.seed, trainer.args.data_seed) for trainer, _ in seen]
    assert orders == [(2000, 2000)] * 2 + [(2001, 2001)] * 2
    first, same, other, fixed = (weights for _, weights in seen)
    assert all(map(torch.equal, first, same))
    assert not all(map(torch.equal, first, other))
    assert not all(map(torch.equal, other, fixed))


def test_two_stages_distil_first_and_learn_the_answers_then(room, monkeypatch):
    seen = []
    monkeypatch.setattr(instruction_run, "fit", looks(seen))
    two = replace(room, setting=replace(SETTING, stages=2, epochs=6.0, accumulate=4))
    run_instruction(two, "kd+procrustes", 0)
    (first, _), (second, _) = seen
    assert (first.task_weight, first.logit_weight, len(first.terms)) == (0.0, 1.0, 1)
    assert (second.task_weight, second.logit_loss, len(second.terms)) == (1.0, None, 0)
    assert first.args.num_train_epochs == second.args.num_train_epochs == 3.0
    assert first.args.gradient_accumulation_steps == 4
    assert first.model is second.model
    run_instruction(room, "kd+procrustes", 0)
    assert (seen[2][0].task_weight, seen[2][0].logit_weight, len(seen[2][0].terms)) == (0.5, 0.5, 1)


def test_bases_differ_in_the_logit_loss(room, monkeypatch):
    seen = []
    monkeypatch.setattr(instruction_run, "fit", looks(seen))
    for method in ("kd", "skew+cka", "sft+cka", "seqkd"):
        run_instruction(room, method, 0)
    losses = [trainer.logit_loss for trainer, _ in seen]
    assert [loss and loss.kind for loss in losses] == ["forward", "skew", None, None]
    assert [trainer.task_weight for trainer, _ in seen] == [0.5, 0.5, 1.0, 1.0]


def test_the_two_stages_watch_the_whole_training(room):
    run, student = run_instruction(
        replace(room, setting=replace(SETTING, stages=2)), "kd+isotropy", 0
    )
    last = float(participation_ratio(response_features(student, room.test[:100], 0)))
    assert run.metrics["participation_ratio/at100"] == pytest.approx(last, rel=1e-4)
    assert sum(name.startswith("participation_ratio/at") for name in run.metrics) == len(MARKS)


def test_an_untied_head_starts_as_the_tied_one_and_parts_from_it(room):
    tied = start_student(room, 0)
    apart = start_student(replace(room, setting=replace(SETTING, tied=False)), 0)
    ids = torch.tensor([room.test[0]["input_ids"]])
    assert torch.equal(tied(ids).logits, apart(ids).logits)
    assert tied.lm_head.weight is tied.model.decoder.embed_tokens.weight
    assert apart.lm_head.weight is not apart.model.decoder.embed_tokens.weight
    assert not apart.config.tie_word_embeddings


@torch.no_grad()
def test_seqkd_learns_the_teacher_s_own_greedy_words(room, monkeypatch):
    compared = 0
    for example in own_words(room):
        prompt = example["prompt_ids"]
        ids = list(prompt)
        while ids[-1] != 1 and len(ids) < len(prompt) + 5:
            ids.append(int(room.teacher(torch.tensor([ids])).logits[0, -1].argmax()))
        if 0 in ids:  # padding, which this teacher may say, is no text
            continue
        compared += 1
        assert example["input_ids"] == ids
        assert example["labels"] == [-100] * len(prompt) + ids[len(prompt) :]
    assert compared > 10
    cut = [e for e in own_words(room) if e["input_ids"][-1] != 1]
    assert cut  # answers that were cut get no end token
    assert all(len(e["input_ids"]) == len(e["prompt_ids"]) + 5 for e in cut)
    batches = list((assets.cache_dir() / "answers").glob("*.jsonl"))
    assert len(batches) == 1  # generated once

    def fails(*given):
        raise AssertionError("generated again")

    monkeypatch.setattr(instruction_evaluate, "_generate_batch", fails)
    assert len(own_words(room)) == 48


def test_validation_and_further_sets_are_scored(world, monkeypatch):
    setting = replace(SETTING, part="validation", also=("further",), decodings=(10,))
    other = open_instruction_room(setting)
    assert {e["item"].split("/")[1] for e in other.test} == {"validation"}
    assert len(other.also["further"]) == 45
    run, _ = run_instruction(other, "start", 0)
    wanted = {"nll", "rougeL", "exact_match", "words", "repetition"}
    wanted |= {"rougeL/seed10"}
    assert wanted <= set(run.metrics)
    assert {f"further/{name}" for name in wanted} <= set(run.metrics)
    assert run.metrics["further/nll"] != run.metrics["nll"]
    assert dict(run.items["task"].value_counts()) == {"letters": 40, "further": 45}
    further = run.items[run.items["task"] == "further"]
    assert further["rougeL"].mean() == pytest.approx(run.metrics["further/rougeL"])
    assert set(further["item"]) == {e["item"] for e in other.also["further"]}


def test_what_is_unknown_is_named(room):
    with pytest.raises(InputError, match=r"method is 'ce'; expected one of sft, sft.projection, "):
        run_instruction(room, "ce", 0)


def test_a_loss_that_is_not_finite_stops_the_run_and_its_batch_is_kept(room, monkeypatch, tmp_path):
    monkeypatch.setenv("GEODISTILL_CACHE", str(tmp_path))

    class Broken(torch.nn.Module):
        requires_hidden_states = True

        def forward(self, student, teacher, mask=None):
            return student.sum() * float("nan")

    monkeypatch.setattr(instruction_run, "feature_loss", lambda *given: Broken())
    with pytest.raises(FloatingPointError, match=r"Broken.* is nan at step 0; its batch is in "):
        run_instruction(room, "kd+gram", 0)
    (batch,) = tmp_path.glob("trainings/letters-kd+gram-s0.*/not_finite_step_0.safetensors")
    assert load_file(batch)["input_ids"].shape[0] == SETTING.batch_size


@pytest.mark.parametrize("method", ["sft", "kd+procrustes"])
def test_weights_that_blow_up_are_told_as_such_not_as_features(room, monkeypatch, tmp_path, method):
    monkeypatch.setenv("GEODISTILL_CACHE", str(tmp_path))
    hot = replace(room, setting=replace(room.setting, learning_rate=1e30))
    with pytest.raises(FloatingPointError, match=r"is (nan|inf) at step \d+; its batch is in "):
        run_instruction(hot, method, 0)
    assert list(tmp_path.glob("trainings/*/not_finite_step_*.safetensors"))


def test_a_last_step_that_blows_up_is_told(room, monkeypatch):
    class Trainer:
        model = torch.nn.Linear(2, 2)
        state = SimpleNamespace(global_step=7)

        def remove_callback(self, kind):
            pass

        def train(self, resume_from_checkpoint):
            self.model.weight.data.fill_(torch.inf)

    with pytest.raises(FloatingPointError, match="weights are not finite after step 7, the last"):
        training.fit(Trainer())


def test_a_finished_run_leaves_no_folder(room, runs):
    assert not list((assets.cache_dir() / "trainings").glob("*"))


# ---- names of runs ----


def test_the_configuration_holds_every_setting():
    config = instruction_config(smoke(), "kd")
    assert config["method"] == "kd"
    assert set(vars(smoke())) - set(instruction_run.LATER) == set(config) - {"method"}
    changed = {
        "part": "validation", "decodings": (1,), "also": ("vicuna",), "tied": False, "stages": 2,
        "accumulate": 2, "start_seed": 0, "student": "a folder",
    }  # fmt: skip
    assert set(changed) == set(instruction_run.LATER)
    for name, value in changed.items():
        other = instruction_config(replace(smoke(), **{name: value}), "kd")
        assert other[name] == value
        assert config_hash(other) != config_hash(config)


def test_runs_made_before_keep_their_names():
    from geodistill.experiments.registry import study

    stored = pd.read_parquet(
        instruction_setup.data_dir() / "results" / instruction_run.STUDY / "rows.parquet"
    )
    assert {job.run_id for job in study("instruction").jobs} == set(stored["run_id"])


def test_students_of_one_room_share_it():
    base = SETTING
    for name, value in (("weight", 9.0), ("tied", False), ("epochs", 2.0), ("width", 128)):
        assert shared_setting(replace(base, **{name: value})) == shared_setting(base)
    for name, value in (("part", "validation"), ("n_train", 7), ("adapter", "x"), ("task", "t0")):
        assert shared_setting(replace(base, **{name: value})) != shared_setting(base)
