"""Texts without labels: a student gives each the embedding that its teacher gives."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from geodistill.distill.students import uniform_layer_map
from geodistill.errors import InputError
from geodistill.experiments.classification.baselines import fit_tfidf
from geodistill.experiments.classification.cached_outputs import cache_outputs
from geodistill.experiments.classification.evaluate import evaluate_student
from geodistill.experiments.classification.run import train_student
from geodistill.experiments.classification.setup import (
    ClassificationSetup,
    base_model,
    load_base,
    tokenized_splits,
)
from geodistill.experiments.classification.students import build_student, student_dims
from geodistill.experiments.run_store import Evaluation, Run
from geodistill.experiments.settings import run_config
from geodistill.experiments.training import default_device
from geodistill.experiments.your_model.sentence_encoder import (
    TRANSFORMER,
    SentenceEncoder,
    pooling_of,
)
from geodistill.experiments.your_model.settings import YourModelSettings
from geodistill.experiments.your_model.task import FEW_ROWS, Inputs, OnTrained, Split
from geodistill.experiments.your_model.text_classification import TextClassification
from geodistill.experiments.your_model.text_inputs import load_texts, read_runs
from geodistill.files import Progress
from geodistill.tasks import ClassificationData
from geodistill.tasks.base import SPLITS

N_NEIGHBOURS = 10
CHUNK = 1024
"""Texts whose similarities to all others are held at once."""


@dataclass(frozen=True)
class EmbeddingSetup(ClassificationSetup):
    """Texts with a teacher of embeddings, which are the logits in the caches."""

    def build_student(self, seed: int) -> SentenceEncoder:
        """An untrained student that pools as the teacher does."""
        base, teacher = base_model(self.settings), self.teacher.encoder
        student = build_student(self.settings, base, teacher, seed, with_head=False)
        return SentenceEncoder(student, self.teacher.pooling)


class SentenceSimilarity(TextClassification):
    """The share of the teacher's ten nearest texts that are the student's; no label is read."""

    pipeline = "sentence-similarity"
    trivial = ("tfidf", "start")

    def read(self, settings: YourModelSettings) -> Inputs:
        """Read data, tokenizer and configurations."""
        data = load_texts(settings, with_labels=False)
        if len(data.text_columns) > 1:
            raise InputError(
                f"data is {settings.data!r} and text {settings.text!r}, pairs of texts; expected "
                "one column: an embedding is of one text"
            )
        data, n_repeated = _without_repeated(data)
        sizes = {split: settings.rows_used(len(getattr(data, split))) for split in SPLITS}
        for split, n in sizes.items():
            if split != "train" and n <= 2 * N_NEIGHBOURS:
                raise InputError(
                    f"data is {settings.data!r}, whose {split} split has {n} different texts; "
                    f"expected more than {2 * N_NEIGHBOURS}, to look for the {N_NEIGHBOURS} nearest"
                )
        runs, config, width, _ = read_runs(settings, data, n_labels=None)
        if width != config.hidden_size:
            raise InputError(
                f"student {settings.student!r} is {width} wide, the teacher {config.hidden_size}; "
                "expected the same, since their embeddings are compared number by number "
                "(examples/embeddings.py distils into another width)"
            )
        runs = replace(runs, kd_weight=1.0, teacher=replace(runs.teacher, epochs=0.0))
        pooling_of(base_model(runs))
        return Inputs(
            data, data.data_hash, runs, runs.steps, "recall", sizes, n_repeated=n_repeated
        )

    def prepare(
        self, inputs: Inputs, split: Split, folder: Path, progress: Progress
    ) -> EmbeddingSetup:
        """The teacher is taken as it is."""
        from transformers import AutoTokenizer

        runs = self.runs_on(inputs, split)
        base, data = base_model(runs), inputs.data
        tokenizer = AutoTokenizer.from_pretrained(base)
        pad_id = tokenizer.pad_token_id
        teacher = SentenceEncoder(load_base(runs), pooling_of(base)).eval().to(default_device())
        train, test = tokenized_splits(data, runs, tokenizer, progress)
        width, layers = student_dims(runs, teacher.config, tokenizer, None)
        depths = uniform_layer_map(teacher.config.num_hidden_layers, layers)
        progress(f"running the teacher on {len(train)} train and {len(test)} {split} texts")
        outputs, layers_of = folder / "outputs", {"train": (runs.teacher_layer,), split: depths}
        train_cache, test_cache = (
            cache_outputs(teacher, rows, (name,), pad_id, layers_of[name], progress, outputs)
            for name, rows in (("train", train), (split, test))
        )
        return EmbeddingSetup(
            runs, teacher, pad_id, data.text_columns, train, test, train_cache, test_cache,
            data.data_hash, "recall", 0, width, layers,
        )  # fmt: skip

    def make_run(self, setup: ClassificationSetup, method: str, seed: int, keep: OnTrained) -> Run:
        """A student, the untrained one, the teacher, or words weighted by their rarity."""
        started = time.perf_counter()
        if method == "teacher":
            metrics, items = neighbour_scores(setup, _teacher_embeddings(setup))
        elif method == "tfidf":
            metrics, items = neighbour_scores(setup, _weighted_words(setup))
        elif method == "start":
            metrics, items = evaluate_student(setup, setup.build_student(seed), neighbour_scores)
        else:
            student, trainer = train_student(setup, method, seed, setup.train)
            metrics, items = evaluate_student(setup, student, neighbour_scores)
            metrics |= trainer.term_weights()
            if keep:
                keep(trainer)
        return Run(
            "your_model", setup.settings.task, method, seed, run_config(setup.settings, method),
            setup.data_hash, metrics, items, time.perf_counter() - started,
        )  # fmt: skip

    def judge_runs(self, runs: pd.DataFrame) -> pd.DataFrame:
        """By the share of neighbours."""
        return pd.DataFrame({"score": 100 * runs["recall"], "collapsed": False})

    def teacher_row(self, setup: ClassificationSetup) -> tuple[str, str]:
        """How it makes embeddings, and whether they differ."""
        embeddings = _teacher_embeddings(setup)
        mean = float(embeddings.mean(0).square().sum())  # of the cosines of all pairs
        odd = "its embeddings hardly differ" if mean > 0.95 else ""
        return f"as it is, {setup.teacher.pooling} pooling; mean similarity {mean:.2f}", odd

    def data_row(self, inputs: Inputs, setup: ClassificationSetup) -> tuple[str, str, str]:
        """The sizes of the splits."""
        sizes = inputs.sizes
        taken = f"{sizes['train']} texts to train, {sizes['validation']} for validation"
        odd = ["few test texts: wide intervals"] if sizes["test"] < FEW_ROWS else []
        odd += [f"{inputs.n_repeated} repeated texts are left out"] if inputs.n_repeated else []
        return "data", f"{taken}, {sizes['test']} to test", "; ".join(odd)

    def save_rest(self, folder: Path, inputs: Inputs, setup: ClassificationSetup) -> str:
        """The tokenizer."""
        from transformers import AutoTokenizer

        AutoTokenizer.from_pretrained(base_model(setup.settings)).save_pretrained(folder)
        longest = {"max_seq_length": setup.settings.max_length, "do_lower_case": False}
        (folder / TRANSFORMER).write_text(json.dumps(longest), encoding="utf-8")
        pooling = {"mean": "the mean over tokens", "cls": "the first token"}[setup.teacher.pooling]
        return f" An embedding is {pooling}, scaled to length one; SentenceTransformer loads it."


def _without_repeated(data: ClassificationData) -> tuple[ClassificationData, int]:
    """The data with each text once in a split, and how many were left out.

    Which of two equal texts is nearer is chance.
    """
    (column,), splits = data.text_columns, {name: getattr(data, name) for name in SPLITS}
    first = {name: ~pd.Series(rows[column][:]).duplicated() for name, rows in splits.items()}
    distinct = {
        name: rows.select(first[name].to_numpy().nonzero()[0]) for name, rows in splits.items()
    }
    n_repeated = sum(int((~is_first).sum()) for is_first in first.values())
    return replace(data, **distinct), n_repeated


def neighbour_scores(setup: ClassificationSetup, embeddings: Tensor) -> Evaluation:
    """How well embeddings keep the teacher's neighbours among the texts of a split.

    Args:
        setup: with the teacher's embeddings of its test texts.
        embeddings: of the same texts, (n, d), of length one.

    Returns:
        `recall`, the mean share of the teacher's ten nearest other texts that are among the ten
        nearest; `agreement`, the mean correlation of a text's similarities to the others with the
        teacher's. One row per text: item, source, and score, its share.
    """
    teacher, embeddings = _teacher_embeddings(setup).double(), embeddings.double()
    n, recalls, correlations = len(teacher), [], []
    for first in range(0, n, CHUNK):
        rows = torch.arange(first, min(first + CHUNK, n))
        pair = [_similarities(x, rows) for x in (teacher, embeddings)]
        nearest = [x.topk(N_NEIGHBOURS).indices for x in pair]
        hits = (nearest[0].unsqueeze(2) == nearest[1].unsqueeze(1)).sum((1, 2))
        recalls.append(hits.double() / N_NEIGHBOURS)
        others = torch.ones(len(rows), n, dtype=torch.bool)
        others[torch.arange(len(rows)), rows] = False
        a, b = (x[others].view(len(rows), n - 1) for x in pair)
        a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
        correlations.append(torch.cosine_similarity(a, b, dim=1))
    recall = torch.cat(recalls)
    items = pd.DataFrame(
        {"item": setup.test["item"], "source": setup.test["source"], "score": recall.numpy()}
    )
    agreement = float(torch.cat(correlations).mean())
    return {"recall": float(recall.mean()), "agreement": agreement}, items


def _similarities(embeddings: Tensor, rows: Tensor) -> Tensor:
    """Cosines of some texts with all, (rows, n); a text is not its own neighbour."""
    similarities = embeddings[rows] @ embeddings.T
    similarities[torch.arange(len(rows)), rows] = -torch.inf
    return similarities


def _teacher_embeddings(setup: ClassificationSetup) -> Tensor:
    return torch.tensor(setup.test_cache.array("logits"))


def _weighted_words(setup: ClassificationSetup) -> Tensor:
    """The words of the test texts, weighted by their rarity in the training texts; (n, words)."""
    (column,) = setup.text_columns
    vectorizer = fit_tfidf(setup.train[column], max_features=20_000)
    return torch.tensor(vectorizer.transform(setup.test[column]).toarray())
