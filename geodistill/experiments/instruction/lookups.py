"""Answers without a model: what a student that has learned anything must beat."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable

import numpy as np
import pandas as pd

from geodistill.experiments.instruction.evaluate import answer_metrics, exact_matches, score_answers
from geodistill.experiments.instruction.generate import Example
from geodistill.experiments.run_store import Evaluation


def most_frequent_answers(train: list[Example], test: list[Example]) -> list[str]:
    """The most frequent training answer of each prompt's template; of all, for a new template.

    Args:
        train: examples with `template` and `completion`; of equals the answer that comes first.
        test: examples with `template`.

    Example:
        >>> train = [{"template": "a", "completion": text} for text in ("no", "yes", "yes")]
        >>> most_frequent_answers(train, [{"template": "a"}, {"template": "b"}])
        ['yes', 'yes']
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    everything: Counter[str] = Counter()
    for example in train:
        counts[example["template"]][example["completion"]] += 1
        everything[example["completion"]] += 1
    return [
        (counts.get(example["template"]) or everything).most_common(1)[0][0] for example in test
    ]


def nearest_answers(train: list[Example], test: list[Example]) -> list[str]:
    """The answer of the training prompt that is nearest by TF-IDF of its tokens.

    Args:
        train: examples with `prompt_ids` and `completion`; of equals the one that comes first.
        test: examples with `prompt_ids`.

    Example:
        >>> train = [{"prompt_ids": [1, 2], "completion": "yes"},
        ...          {"prompt_ids": [1, 3], "completion": "no"}]
        >>> nearest_answers(train, [{"prompt_ids": [1, 3, 4]}])
        ['no']
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer=lambda example: example["prompt_ids"])
    train_vectors = vectorizer.fit_transform(train)
    similarity = vectorizer.transform(test) @ train_vectors.T
    nearest = np.asarray(similarity.argmax(axis=1)).ravel()
    return [train[index]["completion"] for index in nearest]


LOOKUPS: dict[str, Callable[[list[Example], list[Example]], list[str]]] = {
    "lookup": most_frequent_answers,
    "nearest": nearest_answers,
}
"""By the name of the method."""


def best_lookup(train: list[Example], test: list[Example]) -> float:
    """The exact match of the better lookup, in 0..1.

    Args:
        train: examples that it knows.
        test: examples that it answers.
    """
    matches = (exact_matches(test, answer(train, test)) for answer in LOOKUPS.values())
    return max(float(np.mean(values)) for values in matches)


def evaluate_lookup(method: str, train: list[Example], test: list[Example]) -> Evaluation:
    """Scores of a lookup's answers.

    Args:
        method: a name of `LOOKUPS`.
        train: examples that it knows.
        test: examples that it answers.

    Returns:
        `answer_metrics`, and one row per example: `item`, `source` and the columns of
        `score_answers`.
    """
    scores = score_answers(test, LOOKUPS[method](train, test))
    items = pd.DataFrame(test, columns=["item", "source"])
    return answer_metrics(scores), pd.concat([items, scores], axis=1)
