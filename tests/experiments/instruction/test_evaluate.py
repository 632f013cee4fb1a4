"""Scores of answers against slow loops; samples that follow from their seed; interruptions."""

import json

import pytest
import torch
from support.tiny_instructions import END, Letters, row
from support.tiny_models import tiny_opt

from geodistill.errors import InputError
from geodistill.experiments.instruction import evaluate as instruction_evaluate
from geodistill.experiments.instruction.evaluate import (
    generate,
    likelihoods,
    marked,
    repetition,
    score,
    unigram_nll,
)
from geodistill.tasks.prompts import encode

ROWS = [row("0", "say ab", "ab"), row("1", "say", "a b c"), row("2", "go on", "d")]
EXAMPLES = [encode(r, Letters()) for r in ROWS]


@pytest.fixture(scope="module")
def model():
    """With a head of its own: tied to the embeddings it repeats one letter."""
    made = tiny_opt(0, vocabulary=30).eval()
    made.lm_head.weight = torch.nn.Parameter(torch.randn(30, 32))
    return made


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


def test_a_stemmer_takes_the_endings_off_and_the_default_leaves_them():
    wanted = [{"completion": "the cats were running"}]
    given = ["the cat was runs"]
    assert marked(wanted, given)["rougeL"].tolist() == [0.25]  # "the" alone
    assert marked(wanted, given, stemmer=True)["rougeL"].tolist() == [0.75]  # cat, run


@torch.no_grad()
def test_answers_in_batches_with_padding_are_those_of_a_slow_greedy_loop(model):
    given = generate(model, Letters(), EXAMPLES, 20)
    assert given == [slow_answer(model, e, 20) for e in EXAMPLES]
    assert len(set(given)) == 3
    assert min(map(len, given)) < 20  # an answer that ended before its time


def test_no_examples_and_texts_beyond_the_positions_are_told(model):
    with pytest.raises(InputError, match="examples is empty: expected at least one"):
        generate(model, Letters(), [], 8)
    long = [{**EXAMPLES[0], "input_ids": [3] * 200, "labels": [3] * 200}]
    with pytest.raises(InputError, match=r"a batch has 200 tokens, the model takes \d+"):
        likelihoods(model, long, 0)


def test_marks_by_hand(model, monkeypatch):
    """ "a c" of "a b c": precision 1, recall 2/3, F 0.8; white space at the ends does not count."""
    monkeypatch.setattr(
        instruction_evaluate, "generate", lambda *given, **named: [" ab\n", "a c", "x"]
    )
    metrics, items = score(model, Letters(), EXAMPLES, new_tokens=5)
    assert items["rougeL"].tolist() == pytest.approx([1, 0.8, 0])
    assert items["exact_match"].tolist() == [1, 0, 0]
    assert items["words"].tolist() == [1, 2, 1]
    assert items["answer"].tolist() == [" ab\n", "a c", "x"]
    assert metrics["rougeL"] == pytest.approx(0.6)
    assert metrics["exact_match"] == pytest.approx(1 / 3)
    assert metrics["words"] == pytest.approx(4 / 3)


def test_repetition_by_hand():
    """Runs of four words: abab abab has abab baba abab baba abab, two of five are new."""
    assert repetition("a b a b a b a b") == pytest.approx(3 / 5)
    assert repetition("a b c d e f") == 0
    assert repetition("a a a") == repetition("") == 0  # no run of four


def test_samples_follow_from_their_seed_alone(model):
    torch.manual_seed(0)
    first = generate(model, Letters(), EXAMPLES, 8, seed=10)
    state = torch.get_rng_state()
    torch.manual_seed(99)
    assert generate(model, Letters(), EXAMPLES, 8, seed=10) == first
    assert generate(model, Letters(), EXAMPLES, 8, seed=20) != first
    assert generate(model, Letters(), EXAMPLES, 8) != first
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)  # sampling left no trace on other draws


@torch.no_grad()
def test_samples_have_the_model_s_own_distribution(model):
    """The first token of many samples of one prompt, against the softmax (within 4 sigma)."""
    prompt = EXAMPLES[1]["prompt_ids"]
    probabilities = model(torch.tensor([prompt])).logits[0, -1].double().softmax(-1)
    seen = torch.zeros(30, dtype=torch.float64)
    n = 40 * instruction_evaluate.BATCH
    texts = generate(model, Letters(), [EXAMPLES[1]] * n, 1, seed=10)
    for text in texts:
        seen[Letters()(text, add_special_tokens=False)["input_ids"] if text else END] += 1
    letter = probabilities[2:].argmax() + 2
    expected, p = seen[letter] / n, probabilities[letter]
    assert float((expected - p).abs()) < 4 * float((p * (1 - p) / n).sqrt())


def test_every_decoding_seed_has_its_column(model):
    metrics, items = score(model, Letters(), EXAMPLES, 8, decodings=(10, 20))
    for seed in (10, 20):
        assert items[f"answer/seed{seed}"].tolist() == generate(
            model, Letters(), EXAMPLES, 8, seed=seed
        )
        assert metrics[f"rougeL/seed{seed}"] == pytest.approx(items[f"rougeL/seed{seed}"].mean())
    assert items["answer"].tolist() == generate(model, Letters(), EXAMPLES, 8)


def test_only_the_first_examples_are_sampled(model, monkeypatch):
    monkeypatch.setattr(instruction_evaluate, "SAMPLED", 2)
    metrics, items = score(model, Letters(), EXAMPLES, 8, decodings=(10,))
    assert items["answer/seed10"].isna().tolist() == [False, False, True]
    assert metrics["rougeL/seed10"] == pytest.approx(items["rougeL/seed10"][:2].mean())
    assert items["answer"].notna().all()


def test_an_interrupted_generation_goes_on(model, tmp_path, monkeypatch):
    monkeypatch.setattr(instruction_evaluate, "BATCH", 1)
    expected = generate(model, Letters(), EXAMPLES, 8)
    path = tmp_path / "answers" / "a.jsonl"
    made = []
    batch = instruction_evaluate._generate_batch

    def dies(*given):
        made.append(1)
        if len(made) == 3:
            raise KeyboardInterrupt
        return batch(*given)

    monkeypatch.setattr(instruction_evaluate, "_generate_batch", dies)
    with pytest.raises(KeyboardInterrupt):
        generate(model, Letters(), EXAMPLES, 8, stored=path)
    assert len(path.read_text().splitlines()) == 2
    with path.open("a") as file:
        file.write('{"rows": [0], "ans')  # cut off in the middle of a line
    told = []
    report = lambda done, total: told.append((done, total))  # noqa: E731
    assert generate(model, Letters(), EXAMPLES, 8, stored=path, report=report) == expected
    assert len(made) == 4  # two, one that died, and the one that was missing
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert [json.loads(line)["rows"] for line in path.read_text().splitlines()] == [[1], [2], [0]]
    assert generate(model, Letters(), EXAMPLES, 8, stored=path) == expected
    assert len(made) == 4
    other_words = [{**e, "prompt_ids": [5] * len(e["prompt_ids"])} for e in EXAMPLES]
    for other in (
        {"examples": EXAMPLES[::-1]},
        {"examples": other_words},  # as many tokens each
        {"new_tokens": 7},
        {"seed": 3},
    ):
        asked = {"examples": EXAMPLES, "new_tokens": 8, **other}
        with pytest.raises(InputError, match=r"a\.jsonl holds answers to other prompts, or of an"):
            generate(model, Letters(), **asked, stored=path)
    path.write_text("\0" * 20 + "\n" + path.read_text())
    with pytest.raises(InputError, match=r"a\.jsonl is damaged \(.*\); delete it"):
        generate(model, Letters(), EXAMPLES, 8, stored=path)


def test_a_prompt_beyond_the_context_is_refused(model):
    with pytest.raises(InputError, match="longest prompt has 7 tokens; with 26 new ones it exceeds "
                       "the model's 32 positions"):  # fmt: skip
        generate(model, Letters(), EXAMPLES, 26)


def test_the_unigram_model_by_hand():
    """Answers ab$, a b c$ and d$: 11 tokens; one added for each of 30."""
    total, count = unigram_nll(EXAMPLES, EXAMPLES[:1], 30)
    a, b, end = 2 + 1, 2 + 1, 3 + 1
    expected = -sum(float(torch.tensor(n / 41.0).log()) for n in (a, b, end))
    assert float(total[0]) == pytest.approx(expected, rel=1e-6)
    assert float(count[0]) == 3
    # A model that knows the frequencies of these very answers beats one that knows none.
    assert float(total[0] / count[0]) < float(torch.tensor(30.0).log())
