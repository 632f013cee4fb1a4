"""Baselines that train no network: the majority, linear models, and the teacher itself.

They see the labelled sentences of a student with the same seed, and are scored on the same items.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from torch import Tensor

from geodistill.distill.collate import batches_by_length, to_device
from geodistill.experiments.classification.evaluate import task_scores
from geodistill.experiments.classification.setup import ClassificationSetup, base_model, load_base
from geodistill.experiments.run_store import Evaluation

if TYPE_CHECKING:
    from datasets import Dataset

STRENGTHS, FOLDS = [0.01, 0.1, 1.0, 10.0, 100.0], 5
"""Inverse strengths of the penalty (`C`), of which cross-validation with so many folds takes the
best."""


def evaluate_baseline(setup: ClassificationSetup, method: str, train_subset: Dataset) -> Evaluation:
    """Metrics and items of a baseline, as those of a student.

    Args:
        setup: the task with its teacher.
        method: "majority", the most frequent label or the mean score; "tfidf", a linear model on
            weighted words and pairs of words; "frozen", a linear model on the mean token feature of
            what the teacher was before fine-tuning; "teacher", the fine-tuned teacher.
        train_subset: labelled examples.
    """
    if method == "teacher":
        return task_scores(setup, torch.tensor(setup.test_cache.array("logits")))
    if method == "majority":  # whatever the features
        train, test = (np.zeros((len(split), 1)) for split in (train_subset, setup.test))
        model: Any = DummyClassifier() if setup.n_classes else DummyRegressor()
    else:
        train, test = (_tfidf if method == "tfidf" else _mean_features)(setup, train_subset)
        linear: Any = LogisticRegression(max_iter=2000) if setup.n_classes else Ridge()
        penalty = {"C": STRENGTHS} if setup.n_classes else {"alpha": [1 / c for c in STRENGTHS]}
        model = GridSearchCV(linear, penalty, cv=FOLDS)  # by the labelled examples alone
    model.fit(train, np.asarray(train_subset["labels"]))
    if not setup.n_classes:
        return task_scores(setup, torch.tensor(model.predict(test))[:, None])
    log_probabilities = np.full((len(setup.test), setup.n_classes), -100.0)  # labels never seen
    with np.errstate(divide="ignore"):
        log_probabilities[:, model.classes_] = np.maximum(model.predict_log_proba(test), -100.0)
    return task_scores(setup, torch.tensor(log_probabilities))


def fit_tfidf(texts: Sequence[str], **options: Any) -> TfidfVectorizer:
    """Words of two letters or more, weighted by their rarity; if there are none, all words.

    Args:
        texts: some of them not blank.
        **options: of `TfidfVectorizer`.
    """
    try:
        return TfidfVectorizer(sublinear_tf=True, **options).fit(texts)
    except ValueError:  # no such word: letters of proteins, signs
        return TfidfVectorizer(sublinear_tf=True, token_pattern=r"\S+", **options).fit(texts)


def _tfidf(setup: ClassificationSetup, train_subset: Dataset) -> tuple[Any, Any]:
    """Words and pairs of words, weighted by their rarity in the labelled texts."""
    columns = setup.text_columns
    texts = [text for column in columns for text in train_subset[column]]
    vectorizer = fit_tfidf(texts, ngram_range=(1, 2))
    train, test = (
        [vectorizer.transform(split[column]) for column in columns]
        for split in (train_subset, setup.test)
    )
    return _joined(train), _joined(test)


def _mean_features(setup: ClassificationSetup, train_subset: Dataset) -> tuple[Any, Any]:
    """The mean token feature of each text, standardised by those of the labelled texts."""
    train, test = setup.once("mean features", partial(_encode_all, setup))
    train = train[train_subset["row"]]
    mean, sd = train.mean(0), train.std(0) + 1e-12
    return (train - mean) / sd, (test - mean) / sd


def _encode_all(setup: ClassificationSetup) -> tuple[np.ndarray, np.ndarray]:
    """Mean token features of all training and test texts, which are the same for every seed."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_model(setup.settings))
    encoder = load_base(setup.settings)
    encoded = []
    for split in (setup.train, setup.test):
        columns = []
        for column in setup.text_columns:
            ids = tokenizer(
                list(split[column]), truncation=True, max_length=setup.settings.max_length
            )["input_ids"]
            columns.append(_encode(encoder, ids, setup.pad_id))
        encoded.append(_joined(columns))
    return encoded[0], encoded[1]


@torch.no_grad()
def _encode(encoder: Any, input_ids: list[list[int]], pad_id: int) -> np.ndarray:
    features: list[Tensor] = [torch.empty(0)] * len(input_ids)
    examples = [{"input_ids": ids} for ids in input_ids]
    for batch in batches_by_length(examples, 128, pad_id):
        rows = batch.pop("row")
        batch = to_device(encoder, batch)
        mask = batch["attention_mask"][..., None]
        hidden = encoder(**batch).last_hidden_state
        means = (hidden * mask).sum(1) / mask.sum(1)
        for row, feature in zip(rows.tolist(), means.cpu(), strict=True):
            features[row] = feature
    array: np.ndarray = torch.stack(features).double().numpy()
    return array


def _joined(columns: list[Any]) -> Any:
    """The features of a single text; of a pair the absolute difference and the product."""
    if len(columns) == 1:
        return columns[0]
    first, second = columns
    if sparse.issparse(first):
        return sparse.hstack([abs(first - second), first.multiply(second)]).tocsr()
    return np.hstack([abs(first - second), first * second])
