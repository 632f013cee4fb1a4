"""Baselines against scikit-learn written out: single texts and pairs, classes and scores."""

from dataclasses import replace
from itertools import chain

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import logsumexp
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold
from support.own_cache import own_cache
from support.simulated_sections import PROVENANCE
from support.tiny_classification import MINILM, tiny_settings
from transformers import AutoModel

from geodistill.analysis.stored_results import load_items, load_rows
from geodistill.experiments.classification.baselines import evaluate_baseline, fit_tfidf
from geodistill.experiments.classification.run import run_classification
from geodistill.experiments.classification.setup import prepare_classification
from geodistill.experiments.methods import BASELINES
from geodistill.experiments.run_store import merge_runs, write_run
from geodistill.tasks import load_table, stratified_subsample

pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("classification")]
N_TRAIN, STRENGTHS = 40, [0.01, 0.1, 1.0, 10.0, 100.0]
WORDS = [
    "good",
    "bad",
    "fine",
    "poor",
    "long",
    "short",
    "red",
    "blue",
    "old",
    "new",
    "fast",
    "slow",
]


def table(pairs, classes):
    """120 short texts, or pairs; the label depends on their words, and a little on chance."""
    rng = np.random.default_rng(3)
    texts = [[" ".join(rng.choice(WORDS, rng.integers(3, 9))) for _ in "ab"] for _ in range(120)]
    frame = pd.DataFrame(texts, columns=["a", "b"])
    shared = [len({*a.split()} & {*b.split()}) for a, b in texts]
    good = [a.split().count("good") - a.split().count("bad") for a, _ in texts]
    frame["label"] = np.array(shared if pairs else good) + 0.7 * rng.standard_normal(120)
    if classes:
        frame["label"] = pd.qcut(frame["label"], 3, labels=["low", "middle", "high"]).astype(str)
    return frame


@pytest.fixture(scope="module", params=[(False, True), (True, True), (True, False)], ids=str)
def setup(request, tmp_path_factory):
    pairs, classes = request.param
    folder = tmp_path_factory.mktemp("baselines")
    table(pairs, classes).to_csv(folder / "mine.csv", index=False)
    data = load_table(folder / "mine.csv", texts=["a", "b"] if pairs else "a")
    with own_cache(folder / "cache"):
        settings = tiny_settings(folder / "base")
        teacher = replace(settings.teacher, max_train=0)
        sizes = {"task": "mine", "n_train": N_TRAIN, "max_test": 0, "teacher": teacher}
        yield prepare_classification(replace(settings, **sizes), data=data)


def subset(setup, seed=0):
    return stratified_subsample(setup.train, N_TRAIN, seed)


def columns(split, names):
    return [list(split[name]) for name in names]


def join(features):
    if len(features) == 1:
        return features[0]
    first, second = features
    return np.hstack([np.abs(first - second), first * second])


def fit_best(x, y, test, *, classes):
    """Predictions at the strength with the best mean score over five folds, the first of equals."""
    make = (
        (lambda c: LogisticRegression(C=c, max_iter=2000)) if classes else (lambda c: Ridge(1 / c))
    )
    folds = StratifiedKFold(5) if classes else KFold(5)
    scores = [
        np.mean([make(c).fit(x[a], y[a]).score(x[b], y[b]) for a, b in folds.split(x, y)])
        for c in STRENGTHS
    ]
    model = make(STRENGTHS[int(np.argmax(np.round(scores, 12)))]).fit(x, y)
    return model.predict_log_proba(test) if classes else model.predict(test)


def check(setup, method, expected):
    """Items and metrics of a baseline: log-probabilities, or scores, of all items."""
    metrics, items = evaluate_baseline(setup, method, subset(setup))
    labels = np.asarray(setup.test["labels"])
    assert list(items["item"]) == list(setup.test["item"])
    if setup.n_classes:
        assert (items["prediction"] == expected.argmax(1)).all()
        assert np.allclose(items["nll"], -expected[range(len(labels)), labels], atol=1e-4)
        assert metrics["accuracy"] == pytest.approx((expected.argmax(1) == labels).mean())
    else:
        assert np.allclose(items["prediction"], expected, atol=1e-4)
        assert np.allclose(items["score"], -((expected - labels) ** 2), atol=1e-3)
        assert metrics["mse"] == pytest.approx(((expected - labels) ** 2).mean(), abs=1e-3)
    return metrics


def test_the_majority(setup):
    labels = np.asarray(subset(setup)["labels"])
    if setup.n_classes:
        shares = np.bincount(labels, minlength=3) / len(labels)
        expected = np.tile(np.log(shares), (len(setup.test), 1))
        metrics = check(setup, "majority", expected)
        assert metrics["largest_class"] == 1
    else:
        metrics = check(setup, "majority", np.full(len(setup.test), labels.mean()))
        assert not {"pearson", "spearman", "agreement"} & set(metrics)  # of a constant: undefined
        assert "teacher_pearson" in metrics


def test_texts_without_words_of_two_letters_have_weights(setup):
    vectorizer = fit_tfidf(["M K V L", "M A V", "-"])
    assert sorted(vectorizer.vocabulary_) == ["-", "a", "k", "l", "m", "v"]
    usual = fit_tfidf(["a good thing", "I like it"])
    assert sorted(usual.vocabulary_) == ["good", "it", "like", "thing"]


def test_tfidf(setup):
    """Counts of words and pairs of words, 1 + log, times log((1 + n) / (1 + df)) + 1, unit norm."""
    train = columns(subset(setup), setup.text_columns)
    test = columns(setup.test, setup.text_columns)
    counter = CountVectorizer(ngram_range=(1, 2)).fit([*chain(*train)])
    n_texts = sum(map(len, train))
    appears = (counter.transform([*chain(*train)]).toarray() > 0).sum(0)
    rarity = np.log((1 + n_texts) / (1 + appears)) + 1

    def weigh(texts):
        counts = counter.transform(texts).toarray().astype(float)
        weighted = np.where(counts > 0, 1 + np.log(np.maximum(counts, 1)), 0) * rarity
        norm = np.linalg.norm(weighted, axis=1, keepdims=True)
        return weighted / np.where(norm > 0, norm, 1)

    x, new = (join([weigh(texts) for texts in split]) for split in (train, test))
    assert x.shape[1] > 60 * len(train)
    labels = np.asarray(subset(setup)["labels"])
    expected = fit_best(x, labels, new, classes=bool(setup.n_classes))
    assert np.ptp(expected, axis=0).max() > 1e-3
    check(setup, "tfidf", expected)


def test_frozen_features(setup):
    """The mean over a text's tokens, each text alone, of the model before fine-tuning."""
    encoder = AutoModel.from_pretrained(setup.settings.teacher.model).eval()

    def encode(texts):
        with torch.no_grad():
            return np.array(
                [
                    encoder(**MINILM(text, return_tensors="pt"))
                    .last_hidden_state[0]
                    .mean(0)
                    .numpy()
                    for text in texts
                ],
                dtype=float,
            )

    train = join([encode(texts) for texts in columns(subset(setup), setup.text_columns)])
    test = join([encode(texts) for texts in columns(setup.test, setup.text_columns)])
    mean, sd = train.mean(0), train.std(0)
    labels = np.asarray(subset(setup)["labels"])
    x, new = (train - mean) / sd, (test - mean) / sd
    expected = fit_best(x, labels, new, classes=bool(setup.n_classes))
    metrics, items = evaluate_baseline(setup, "frozen", subset(setup))
    if setup.n_classes:
        assert (items["prediction"] == expected.argmax(1)).mean() > 0.96
        assert np.allclose(
            items["nll"], -expected[range(len(new)), setup.test["labels"]], atol=0.05
        )
        assert metrics["majority_accuracy"] < 1
    else:
        assert np.allclose(items["prediction"], expected, atol=0.02)
        assert items["prediction"].std() > 0.01


def test_the_teacher(setup):
    logits = []
    for row in setup.test:
        inputs = {name: torch.tensor([row[name]]) for name in ("input_ids", "token_type_ids")}
        with torch.no_grad():
            logits.append(setup.teacher(**inputs).logits[0].numpy())
    logits = np.array(logits, dtype=float)
    if setup.n_classes:
        metrics = check(setup, "teacher", logits - logsumexp(logits, axis=1, keepdims=True))
        assert metrics["agreement"] == 1
        assert metrics["teacher_accuracy"] == metrics["accuracy"]
    else:
        metrics = check(setup, "teacher", logits[:, 0])
        assert metrics["agreement"] == pytest.approx(1)
        assert metrics["teacher_pearson"] == metrics["pearson"]


def test_a_baseline_sees_the_labels_of_the_student_with_its_seed(setup):
    first, _ = run_classification(setup, "tfidf", 0)
    again, _ = run_classification(setup, "tfidf", 0)
    other, _ = run_classification(setup, "tfidf", 1)
    key = "nll" if setup.n_classes else "prediction"
    assert first.items.equals(again.items)
    assert (first.items[key] - other.items[key]).abs().max() > 1e-6
    assert list(first.items["item"]) == list(other.items["item"])


def test_stored_baselines_are_read_back(setup, tmp_path):
    """A constant's correlation is not a number, which a results table may not hold."""
    for method in BASELINES:
        run, _ = run_classification(setup, method, 0)
        write_run(tmp_path, replace(run, provenance=PROVENANCE))
    merge_runs(tmp_path)
    rows = load_rows(tmp_path).frame
    assert set(rows["method"]) == set(BASELINES)
    assert rows["value"].notna().all()
    assert set(load_items(tmp_path).frame["method"]) == set(BASELINES)


def test_a_label_that_no_labelled_text_has_costs_a_hundred_nats(setup):
    if not setup.n_classes:
        return
    train = subset(setup).filter(lambda example: example["labels"] != 2)
    _, items = evaluate_baseline(setup, "majority", train)
    shares = np.bincount(train["labels"], minlength=3) / len(train)
    assert shares[2] == 0
    unseen = items["label"] == 2
    assert unseen.sum() > 2
    assert np.allclose(items.loc[unseen, "nll"], 100, atol=1e-4)
    assert np.allclose(items.loc[~unseen, "nll"], -np.log(shares[items.loc[~unseen, "label"]]))
