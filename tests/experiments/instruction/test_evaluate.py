"""Likelihoods and scores of answers, against slow loops and by hand."""

import random

import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from support.tiny_instructions import EXAMPLES, Letters, letters_opt

from geodistill.errors import InputError
from geodistill.experiments.instruction import evaluate as instruction_evaluate
from geodistill.experiments.instruction.evaluate import (
    answer_nll,
    evaluate_model,
    repeated_ngram_rate,
    score_answers,
)


@pytest.fixture(scope="module")
def model():
    return letters_opt()


def slow_nll(model, example):
    """Nats of every answer token, one forward pass each."""
    values = []
    for i, label in enumerate(example["labels"]):
        if label != -100:
            logits = model(torch.tensor([example["input_ids"][:i]])).logits[0, -1]
            values.append(-float(logits.log_softmax(-1)[label]))
    return values


@torch.no_grad()
def test_scores_are_those_of_a_slow_loop(model):
    metrics, items = evaluate_model(model, Letters(), EXAMPLES, max_new_tokens=5)
    slow = [slow_nll(model, e) for e in EXAMPLES]
    assert [len(values) for values in slow] == [3, 6, 2]
    expected = [sum(values) / len(values) for values in slow]
    assert items["nll"].tolist() == pytest.approx(expected, rel=1e-5)
    assert items["score"].tolist() == items["exact_match"].tolist()
    # Over all tokens: not the mean of the items' means.
    assert metrics["nll"] == pytest.approx(sum(map(sum, slow)) / 11, rel=1e-5)
    assert metrics["nll"] != pytest.approx(sum(expected) / 3, rel=1e-5)
    assert items["item"].tolist() == ["0", "1", "2"]


def test_a_stemmer_takes_the_endings_off_and_the_default_leaves_them():
    examples = [{"completion": "the cats were running"}]
    answers = ["the cat was runs"]
    assert score_answers(examples, answers)["rougeL"].tolist() == [0.25]  # "the" alone
    assert score_answers(examples, answers, stemmer=True)["rougeL"].tolist() == [0.75]  # cat, run


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [
        ("да", "да", 1),
        ("да, 5", "нет, 5", 0.5),
        ("Größe", "GRO\u0308SSE", 1),  # an o with a mark of its own
        ("größe", "gr e", 0),
        ("cafe", "café", 0),
        ("की", "का", 0),  # one letter with two vowel signs
        ("北京是首都", "北京", 4 / 7),
        ("東京タワー", "大阪タワー", 0.6),
        ("조선 말", "조선 글", 0.5),
        ("+", "+", 1),
        ("+ -", "+", 2 / 3),
        ("👍", "👎", 0),
        ("C++", "C#", 1),
        ("don’t", "don't", 1),
        ("", "", 0),
    ],
)
def test_rouge_reads_texts_in_any_script(reference, answer, expected):
    score = score_answers([{"completion": reference}], [answer])["rougeL"].item()
    assert score == pytest.approx(expected)
    swapped = score_answers([{"completion": answer}], [reference])["rougeL"].item()
    assert swapped == pytest.approx(expected)


def test_rouge_compares_words_if_the_reference_has_any():
    scores = score_answers([{"completion": "a, b"}, {"completion": "да, а"}], [",", ","])
    assert scores["rougeL"].tolist() == [0, 0]


def test_rouge_of_ascii_words_is_that_of_the_package():
    draw, scorer = random.Random(0), RougeScorer(["rougeL"])
    texts = ["a" + "".join(draw.choices("abA1_ ,.-\n", k=12)) for _ in range(400)]
    scores = score_answers([{"completion": text} for text in texts[:200]], texts[200:])["rougeL"]
    pairs = zip(texts[:200], texts[200:], strict=True)
    assert scores.tolist() == [scorer.score(a, b)["rougeL"].fmeasure for a, b in pairs]
    assert scores.nunique() > 10


def test_an_answer_is_scored_without_what_the_template_inserts(model, monkeypatch):
    monkeypatch.setattr(
        instruction_evaluate, "generate", lambda *args, **kwargs: ["<t>\n\nab", "a b c", "<t>\n\nx"]
    )
    examples = [{**e, "inserted": "<t>\n\n"} for e in EXAMPLES]
    _, items = evaluate_model(model, Letters(), examples, max_new_tokens=5)
    assert items["exact_match"].tolist() == [1, 1, 0]
    assert items["rougeL"].tolist() == [1, 1, 0]


def test_an_example_beyond_the_positions_is_refused(model):
    long = [{**EXAMPLES[0], "input_ids": [3] * 200, "labels": [3] * 200}]
    with pytest.raises(InputError, match=r"a batch has 200 tokens, the model takes \d+"):
        answer_nll(model, long, 0)


def test_scores_by_hand(model, monkeypatch):
    """ "a c" of "a b c": precision 1, recall 2/3, F 0.8; white space at the ends does not count."""
    monkeypatch.setattr(
        instruction_evaluate, "generate", lambda *args, **kwargs: [" ab\n", "a c", "x"]
    )
    metrics, items = evaluate_model(model, Letters(), EXAMPLES, max_new_tokens=5)
    assert items["rougeL"].tolist() == pytest.approx([1, 0.8, 0])
    assert items["exact_match"].tolist() == [1, 0, 0]
    assert items["words"].tolist() == [1, 2, 1]
    assert items["answer"].tolist() == [" ab\n", "a c", "x"]
    assert metrics["rougeL"] == pytest.approx(0.6)
    assert metrics["exact_match"] == pytest.approx(1 / 3)
    assert metrics["words"] == pytest.approx(4 / 3)


def test_repeated_ngrams_by_hand():
    """Runs of four words: abab abab has abab baba abab baba abab, two of five are new."""
    assert repeated_ngram_rate("a b a b a b a b") == pytest.approx(3 / 5)
    assert repeated_ngram_rate("a b c d e f") == 0
    assert repeated_ngram_rate("a a a") == repeated_ngram_rate("") == 0  # no run of four
