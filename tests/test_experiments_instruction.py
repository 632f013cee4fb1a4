"""The instruction study: scores against slow loops, and the whole in miniature, paired."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from own_cache import own_cache
from tiny_models import tiny_opt

from geodistill.distill import students
from geodistill.errors import InputError
from geodistill.experiments import instruction
from geodistill.experiments.instruction import (
    choose,
    encode,
    generate,
    instruction_config,
    load_teacher,
    open_instruction_room,
    run_instruction,
    score,
    smoke,
)
from geodistill.experiments.protocol import INSTRUCTION_METHODS
from geodistill.tasks.base import fraction

END = 1


class Letters:
    """A tokenizer of lower-case letters: a is 3, b is 4, ...; a space is 2, a line break 29."""

    eos_token_id, pad_token_id = END, 0

    def __call__(self, text):
        return {"input_ids": [{" ": 2, "\n": 29}.get(c) or ord(c) - 94 for c in text]}

    def batch_decode(self, rows, skip_special_tokens):
        assert skip_special_tokens
        kept = [[i for i in row.tolist() if i not in (0, END)] for row in rows]
        return ["".join({2: " ", 29: "\n"}.get(i) or chr(i + 94) for i in row) for row in kept]


def row(item, prompt, completion):
    return {"item": item, "source": f"s{item}", "prompt": prompt, "completion": completion}


ROWS = [row("0", "say ab", "ab"), row("1", "say", "a b c"), row("2", "go on", "d")]
EXAMPLES = [encode(Letters(), r) for r in ROWS]


@pytest.fixture(scope="module")
def model():
    """With a head of its own: tied to the embeddings it repeats one letter."""
    made = tiny_opt(0, vocabulary=30).eval()
    made.lm_head.weight = torch.nn.Parameter(torch.randn(30, 32))
    return made


def test_only_the_answer_and_its_end_are_labels():
    example = EXAMPLES[0]
    prompt = [21, 3, 27, 2, 3, 4, 29]
    assert example["prompt_ids"] == prompt
    assert example["input_ids"] == [*prompt, 3, 4, END]
    assert example["labels"] == [-100] * 7 + [3, 4, END]
    assert (example["item"], example["source"], example["completion"]) == ("0", "s0", "ab")


def test_pairs_are_chosen_by_the_hash_of_their_id_and_long_ones_left_out():
    rows = [row(str(i), "ab" * (i % 3), "c") for i in range(30)]
    order = sorted(rows, key=lambda r: fraction(r["item"]))
    short = [r["item"] for r in order if len(r["prompt"]) < 4]
    chosen, left = choose(rows, 10, Letters(), 5)
    assert [e["item"] for e in chosen] == short[:10]
    assert [e["row"] for e in chosen] == list(range(10))
    until = [r["item"] for r in order].index(short[9])
    assert left == until + 1 - 10 > 0
    assert choose(rows[::-1], 10, Letters(), 5)[0] == chosen  # whatever the order of the file
    with pytest.raises(InputError, match="21 pairs asked for, 20 have at most 5 tokens"):
        choose(rows, 21, Letters(), 5)


def slow_nll(model, example):
    """Nats of every answer token, one forward pass each."""
    values = []
    for place, label in enumerate(example["labels"]):
        if label != -100:
            logits = model(torch.tensor([example["input_ids"][:place]])).logits[0, -1]
            values.append(-float(logits.log_softmax(-1)[label]))
    return values


def slow_answer(model, example, new_tokens):
    ids = list(example["prompt_ids"])
    for _ in range(new_tokens):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == END:
            break
    return Letters().batch_decode(torch.tensor([ids[len(example["prompt_ids"]) :]]), True)[0]


@torch.no_grad()
def test_scores_are_those_of_a_slow_loop(model):
    metrics, items = score(model, Letters(), EXAMPLES, new_tokens=5)
    slow = [slow_nll(model, e) for e in EXAMPLES]
    assert [len(values) for values in slow] == [3, 6, 2]
    expected = [sum(values) / len(values) for values in slow]
    assert items["nll"].tolist() == pytest.approx(expected, rel=1e-5)
    assert items["score"].tolist() == pytest.approx([-x for x in expected], rel=1e-5)
    # Over all tokens: not the mean of the items' means.
    assert metrics["nll"] == pytest.approx(sum(map(sum, slow)) / 11, rel=1e-5)
    assert metrics["nll"] != pytest.approx(sum(expected) / 3, rel=1e-5)
    assert items["item"].tolist() == ["0", "1", "2"]


@torch.no_grad()
def test_answers_in_batches_with_padding_are_those_of_a_slow_greedy_loop(model):
    answers = generate(model, Letters(), EXAMPLES, 20)
    assert answers == [slow_answer(model, e, 20) for e in EXAMPLES]
    assert len(set(answers)) == 3
    assert min(map(len, answers)) < 20  # an answer that ended before its time


def test_rouge_and_exact_match_by_hand(model, monkeypatch):
    """ "a c" of "a b c": precision 1, recall 2/3, F 0.8; white space at the ends does not count."""
    monkeypatch.setattr(instruction, "generate", lambda *given: [" ab\n", "a c", "x"])
    metrics, items = score(model, Letters(), EXAMPLES, new_tokens=5)
    assert items["rougeL"].tolist() == pytest.approx([1, 0.8, 0])
    assert items["exact_match"].tolist() == [1, 0, 0]
    assert items["answer"].tolist() == [" ab\n", "a c", "x"]
    assert metrics["rougeL"] == pytest.approx(0.6)
    assert metrics["exact_match"] == pytest.approx(1 / 3)


def test_the_configuration_holds_every_setting():
    config = instruction_config(smoke(), "kd")
    assert config["method"] == "kd"
    assert set(vars(smoke())) < set(config)


# ---- with the real teacher ----


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    folder = tmp_path_factory.mktemp("instruction") / "cache"
    with own_cache(folder), pytest.MonkeyPatch.context() as patch:
        made = open_instruction_room(replace(smoke(), adapter=""))
        # Seconds for each student, and the same for all of one teacher and width.
        embeddings = made.teacher.get_input_embeddings().weight.detach()
        directions = students.principal_directions(embeddings, made.setting.width)
        patch.setattr(students, "principal_directions", lambda *given: directions)
        yield made


@pytest.fixture(scope="module")
def runs(room):
    return {method: run_instruction(room, method, 0) for method in INSTRUCTION_METHODS}


class TestWithTheRealTeacher:
    pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("instruction")]  # noqa: RUF012

    def test_the_cache_holds_what_the_teacher_says_of_the_answers(self, room):
        example = room.train[3]
        with torch.no_grad():
            out = room.teacher(torch.tensor([example["input_ids"]]), output_hidden_states=True)
        kept = torch.tensor(example["labels"])[1:] != -100
        expected = out.logits[0, :-1][kept].log_softmax(-1).topk(room.setting.top_k)
        mask = torch.cat([kept, torch.tensor([False])])[None]
        layer = room.cache.manifest["layers"][0]
        said = room.cache.lookup(torch.tensor([3]), mask, [layer])
        assert torch.allclose(said.top[0], expected.values, atol=1e-3)
        features = out.hidden_states[-1][0, :-1][kept]
        assert torch.allclose(said.features[layer][mask], features, rtol=2e-2, atol=2e-2)
        assert len(features) == sum(label != -100 for label in example["labels"]) > 1

    def test_train_and_test_share_no_source(self, room):
        assert len(room.train) == 16
        assert len(room.test) == 8
        assert not {e["source"] for e in room.train} & {e["source"] for e in room.test}

    def test_the_same_run_twice_is_the_same(self, room, runs):
        run, student = runs["kd+procrustes"]
        again, twin = run_instruction(room, "kd+procrustes", 0)
        assert again.metrics == run.metrics
        pd.testing.assert_frame_equal(again.items, run.items, check_exact=True)
        assert all(map(torch.equal, student.parameters(), twin.parameters()))

    def test_every_method_makes_another_student(self, runs):
        nll = {tuple(run.items["nll"]) for run, _ in runs.values()}
        assert len(nll) == len(INSTRUCTION_METHODS) == 4
        for run, _ in runs.values():
            assert 0 < run.metrics["nll"] < 20
            assert 0 <= run.metrics["rougeL"] <= 1
            assert len(run.items) == 8
        assert len({run.run_id for run, _ in runs.values()}) == 4

    def test_methods_share_start_and_order(self, room, monkeypatch):
        seen = []

        def looks(trainer):
            seen.append(
                (trainer.args.seed, trainer.args.data_seed, list(trainer.model.parameters()))
            )
            raise StopIteration

        monkeypatch.setattr(instruction, "fit", looks)
        for method, seed in (("sft", 0), ("kd+procrustes-shuffled", 0), ("kd", 1)):
            with pytest.raises(StopIteration):
                run_instruction(room, method, seed)
        first, same, other = seen
        assert first[:2] == same[:2] != other[:2]
        assert all(map(torch.equal, first[2], same[2]))
        assert not all(map(torch.equal, first[2], other[2]))

    def test_what_is_unknown_is_named(self, room):
        with pytest.raises(InputError, match="method is 'ce'; expected one of sft, kd, "):
            run_instruction(room, "ce", 0)


def test_an_unknown_adapter_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(instruction, "data_dir", lambda: tmp_path)
    with pytest.raises(InputError, match=r"adapter is 'none'; .*has no adapter_model.safetensors"):
        load_teacher("smollm2", "none")
