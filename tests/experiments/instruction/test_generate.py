"""Generated answers: as a slow loop, sampled by their seed alone, resumed after interruptions."""

import json
from types import MethodType

import pytest
import torch
from support.tiny_instructions import END, EXAMPLES, Letters, letters_opt

from geodistill.errors import InputError
from geodistill.experiments.instruction import generate as instruction_generate
from geodistill.experiments.instruction.generate import generate


@pytest.fixture
def model():
    return letters_opt()


def slow_answer(model, example, max_new_tokens):
    ids = list(example["prompt_ids"])
    for _ in range(max_new_tokens):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == END:
            break
    return Letters().batch_decode(torch.tensor([ids[len(example["prompt_ids"]) :]]), True)[0]


@torch.no_grad()
def test_answers_in_batches_with_padding_are_those_of_a_slow_greedy_loop(model):
    answers = generate(model, Letters(), EXAMPLES, 20)
    assert answers == [slow_answer(model, e, 20) for e in EXAMPLES]
    assert len(set(answers)) == 3
    assert min(map(len, answers)) < 20  # one ended before the limit


def test_answers_end_at_each_end_token_of_the_model(model):
    """As in chats, whose turns end in another token than texts."""
    longer = generate(model, Letters(), EXAMPLES, 20)
    ids = Letters()(longer[0], add_special_tokens=False)["input_ids"]
    model.generation_config.eos_token_id = [ids[3], END]
    answer = generate(model, Letters(), EXAMPLES, 20)[0]
    assert len(answer) == ids.index(ids[3]) + 1 < len(longer[0])  # no special token of `Letters`
    model.generation_config.eos_token_id = ids[3]  # the tokenizer's ends them too
    shorter = generate(model, Letters(), EXAMPLES, 20)
    model.generation_config.eos_token_id = None
    assert generate(model, Letters(), EXAMPLES, 20) == longer
    assert shorter[0] == answer


def test_samples_follow_from_their_seed_alone(model):
    torch.manual_seed(0)
    first = generate(model, Letters(), EXAMPLES, 8, seed=10)
    state = torch.get_rng_state()
    torch.manual_seed(99)
    assert generate(model, Letters(), EXAMPLES, 8, seed=10) == first
    assert generate(model, Letters(), EXAMPLES, 8, seed=20) != first
    assert generate(model, Letters(), EXAMPLES, 8) != first
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)  # sampling has no effect on other draws


@torch.no_grad()
def test_samples_have_the_distribution_of_the_model(model):
    """The first token of many samples of one prompt, against the softmax (within 4 sigma)."""
    prompt = EXAMPLES[1]["prompt_ids"]
    probabilities = model(torch.tensor([prompt])).logits[0, -1].double().softmax(-1)
    counts = torch.zeros(30, dtype=torch.float64)
    n = 40 * instruction_generate.BATCH_SIZE
    for text in generate(model, Letters(), [EXAMPLES[1]] * n, 1, seed=10):
        counts[Letters()(text, add_special_tokens=False)["input_ids"] if text else END] += 1
    letter = probabilities[2:].argmax() + 2
    rate, p = counts[letter] / n, probabilities[letter]
    assert float((rate - p).abs()) < 4 * float((p * (1 - p) / n).sqrt())


class Dies(BaseException):
    """Stands for a signal."""


def count_calls(model, dies_at=0):
    """Makes `model.generate` count its calls, and die in one of them."""
    calls = []

    def counted(self, **inputs):
        calls.append(1)
        if len(calls) == dies_at:
            raise Dies
        return type(self).generate(self, **inputs)

    model.generate = MethodType(counted, model)
    return calls


def test_an_interrupted_generation_is_resumed(model, tmp_path, monkeypatch):
    monkeypatch.setattr(instruction_generate, "BATCH_SIZE", 1)
    expected = generate(model, Letters(), EXAMPLES, 8)
    file = tmp_path / "answers" / "a.jsonl"
    calls = count_calls(model, dies_at=3)
    with pytest.raises(Dies):
        generate(model, Letters(), EXAMPLES, 8, file=file)
    assert len(file.read_text().splitlines()) == 2
    with file.open("a") as lines:
        lines.write('{"rows": [0], "ans')  # cut off in the middle of a line
    shown = []
    assert generate(model, Letters(), EXAMPLES, 8, file=file, progress=shown.append) == expected
    assert len(calls) == 4  # two, one that died, and the one that was missing
    assert shown == ["1 of 3 answers", "2 of 3 answers", "3 of 3 answers"]
    assert [json.loads(line)["rows"] for line in file.read_text().splitlines()] == [[1], [2], [0]]
    assert generate(model, Letters(), EXAMPLES, 8, file=file) == expected
    assert len(calls) == 4


def test_a_file_of_other_answers_and_a_damaged_one_are_refused(model, tmp_path):
    file = tmp_path / "a.jsonl"
    generate(model, Letters(), EXAMPLES, 8, file=file)
    other_words = [{**e, "prompt_ids": [5] * len(e["prompt_ids"])} for e in EXAMPLES]
    for other in (
        {"examples": EXAMPLES[::-1]},
        {"examples": other_words},  # of the same lengths
        {"max_new_tokens": 7},
        {"seed": 3},
    ):
        arguments = {"examples": EXAMPLES, "max_new_tokens": 8, **other}
        with pytest.raises(InputError, match=r"a\.jsonl holds answers to other prompts, or of an"):
            generate(model, Letters(), **arguments, file=file)
    file.write_text("\0" * 20 + "\n" + file.read_text())
    with pytest.raises(InputError, match=r"a\.jsonl is damaged \(.*\); delete it"):
        generate(model, Letters(), EXAMPLES, 8, file=file)


def test_no_examples_and_a_prompt_beyond_the_positions_are_refused(model):
    with pytest.raises(InputError, match="examples is empty: expected at least one"):
        generate(model, Letters(), [], 8)
    message = (
        "longest prompt has 7 tokens; with 26 new ones it exceeds the model's 32 positions: leave "
        "it out, or lower max_new_tokens"
    )
    with pytest.raises(InputError, match=message):
        generate(model, Letters(), EXAMPLES, 26)
