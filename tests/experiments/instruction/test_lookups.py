"""Answers without a model, against loops by hand."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest

from geodistill.experiments.instruction.evaluate import score_answers
from geodistill.experiments.instruction.lookups import (
    evaluate_lookup,
    most_frequent_answers,
    nearest_answers,
)


def example(template: str, prompt_ids: list[int], completion: str) -> dict[str, Any]:
    ids = {"prompt_ids": prompt_ids, "item": f"i{prompt_ids}", "source": "s"}
    return {**ids, "template": template, "completion": completion}


TRAIN = [
    example("a", [5, 6, 7], "no"),
    example("a", [5, 6, 8], "yes"),
    example("a", [5, 9, 9], "yes"),
    example("b", [4, 6], "no"),
    example("b", [4, 7, 7, 8], "no"),
    example("b", [4, 9], "maybe so"),
]
TEST = [
    example("a", [5, 6, 6, 7], "yes"),
    example("b", [4, 9, 3], "maybe so"),
    example("c", [2, 8, 8, 7, 4], "no"),
]


def test_the_most_frequent_answer_of_the_template() -> None:
    assert most_frequent_answers(TRAIN, TEST) == ["yes", "no", "no"]  # "no" is the first of all


def slow_nearest(train: list[dict[str, Any]], test: dict[str, Any]) -> str:
    """Cosine of counts times log((1 + n) / (1 + documents)) + 1, as scikit-learn defines it."""
    documents = Counter(token for e in train for token in set(e["prompt_ids"]))

    def weights(ids: list[int]) -> dict[int, float]:
        idf = {t: math.log((1 + len(train)) / (1 + documents[t])) + 1 for t in documents}
        return {t: n * idf[t] for t, n in Counter(ids).items() if t in idf}

    def cosine(one: list[int], other: list[int]) -> float:
        a, b = weights(one), weights(other)
        dot = sum(a[t] * b[t] for t in a if t in b)
        return dot / math.sqrt(sum(v * v for v in a.values()) * sum(v * v for v in b.values()))

    best = max(train, key=lambda e: cosine(e["prompt_ids"], test["prompt_ids"]))
    return str(best["completion"])


def test_the_nearest_prompt_is_that_of_a_slow_loop() -> None:
    answers = nearest_answers(TRAIN, TEST)
    assert answers == [slow_nearest(TRAIN, e) for e in TEST] == ["no", "maybe so", "no"]
    assert nearest_answers(TRAIN, TRAIN) == [e["completion"] for e in TRAIN]


@pytest.mark.parametrize("method", ["lookup", "nearest"])
def test_scores_of_a_lookup(method: str) -> None:
    metrics, items = evaluate_lookup(method, TRAIN, TEST)
    expected = score_answers(
        TEST, {"lookup": ["yes", "no", "no"]}.get(method, ["no", "maybe so", "no"])
    )
    assert items["exact_match"].tolist() == expected["exact_match"].tolist()
    assert metrics["exact_match"] == pytest.approx(2 / 3)
    assert items["item"].tolist() == [e["item"] for e in TEST]
    assert set(metrics) == {"rougeL", "exact_match", "repetition", "words"}
