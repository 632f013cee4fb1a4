"""Texts with a class or a number: a student classifies as its teacher does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from geodistill.distill import FeatureDistillationTrainer
from geodistill.distill.collate import pad
from geodistill.distill.feature_term import resolve_layer
from geodistill.errors import InputError, first_names
from geodistill.experiments.classification.evaluate import task_scores
from geodistill.experiments.classification.grid import ClassificationGrid
from geodistill.experiments.classification.run import run_classification
from geodistill.experiments.classification.settings import ClassificationSettings, TeacherSettings
from geodistill.experiments.classification.setup import (
    ClassificationSetup,
    base_model,
    cached_features,
    prepare_classification,
)
from geodistill.experiments.classification.students import student_dims
from geodistill.experiments.classification.teacher import check_max_length
from geodistill.experiments.run_store import Run
from geodistill.experiments.your_model.settings import YourModelSettings
from geodistill.experiments.your_model.task import (
    FEW_ROWS,
    DistillationTask,
    Inputs,
    PlanRow,
    Split,
    batch_row,
)
from geodistill.files import Progress, first_line
from geodistill.tasks import (
    CLASSIFICATION_TASKS,
    ClassificationData,
    load_classification,
    load_table,
)
from geodistill.tasks.base import SPLITS

_HEAD, _BODIES = "ForSequenceClassification", ("Model", "ForMaskedLM", "ForPreTraining")
"""How the class of a classifier ends, and that of an encoder that can be given a head."""


N_SAMPLE = 200
"""Training rows on whose features the teacher's directions are measured."""
DOMINANT_CLASS, FEW_OF_A_CLASS, MANY_CUT = 0.8, 10, 0.05


class TextClassification(DistillationTask):
    """Accuracy, or Pearson's correlation of numbers; the references know words alone."""

    pipeline = "text-classification"
    trivial = ("majority", "tfidf")

    def read(self, settings: YourModelSettings) -> Inputs:
        """Read data, tokenizer and configurations."""
        data, runs = read_inputs(settings)
        return Inputs(
            data, data.data_hash, runs, runs.steps, data.metric, settings.max_rows, data.label_names
        )

    def prepare(
        self, inputs: Inputs, split: Split, folder: Path, progress: Progress
    ) -> ClassificationSetup:
        """A teacher without a head is fine-tuned first."""
        most = inputs.max_rows if inputs.max_rows < len(getattr(inputs.data, split)) else 0
        runs = replace(inputs.runs, split=split, max_test=most)
        return prepare_classification(runs, progress, inputs.data, folder)

    def make_run(
        self,
        setup: ClassificationSetup,
        method: str,
        seed: int,
        keep: Callable[[FeatureDistillationTrainer], None] | None,
    ) -> Run:
        """A run of the classification study."""
        return run_classification(setup, method, seed, "your_model", keep)[0]

    def judge_runs(self, runs: pd.DataFrame) -> pd.DataFrame:
        """By the rules of the classification study."""
        return ClassificationGrid().judge_runs(runs)

    def teacher_row(self, setup: ClassificationSetup) -> tuple[str, str]:
        """By the metric of the task."""
        epochs = setup.settings.teacher.epochs
        logits = torch.tensor(setup.test_cache.array("logits"))
        score = self.judge_runs(pd.DataFrame([task_scores(setup, logits)[0]])).iloc[0]
        origin = f"fine-tuned {epochs:g} epochs" if epochs else "as it is"
        odd = "it has learned nothing" if score["collapsed"] else ""
        return f"{origin}; validation {setup.metric} {score['score'] / 100:.3f}", odd

    def data_rows(self, inputs: Inputs, setup: ClassificationSetup) -> list[PlanRow]:
        """Rows by class, lengths of the texts, tokens of a batch against the teacher's width."""
        runs = setup.settings
        lengths = pd.Series([len(ids) for ids in setup.train["input_ids"]])
        cut = (lengths >= runs.max_length).mean()
        return [
            _data_row(inputs, setup),
            (
                "texts",
                f"{lengths.mean():.0f} tokens on average, at most {runs.max_length}",
                f"{cut:.0%} are cut or just as long" if cut > MANY_CUT else "",
            ),
            batch_row(lengths.mean() * runs.batch_size, "token", setup.teacher),
        ]

    def features(self, setup: ClassificationSetup) -> Tensor:
        """Of all tokens of some rows."""
        sample = setup.train.select(range(min(N_SAMPLE, len(setup.train))))
        return cached_features(setup.train_cache, sample, setup.pad_id).float()

    def build(self, setup: ClassificationSetup) -> tuple[Any, dict[str, Any]]:
        """A batch of texts."""
        rows = setup.train.select(range(min(setup.settings.batch_size, len(setup.train))))
        batch = pad(list(rows.select_columns(["input_ids", "labels"])), setup.pad_id)
        return setup.build_student(0), batch

    def test_seconds(
        self, inputs: Inputs, setup: ClassificationSetup, student: Any, step: float
    ) -> float:
        """A batch costs a third of its training."""
        return len(inputs.data.test) / setup.settings.batch_size / 3 * step

    def save_rest(self, folder: Path, inputs: Inputs, setup: ClassificationSetup) -> str:
        """The tokenizer and the names of the classes; of numbers the scale."""
        from transformers import AutoConfig, AutoTokenizer

        AutoTokenizer.from_pretrained(setup.settings.teacher.model).save_pretrained(folder)
        if inputs.label_names:
            config = AutoConfig.from_pretrained(folder)
            config.id2label = dict(enumerate(inputs.label_names))
            config.label2id = {name: index for index, name in config.id2label.items()}
            config.save_pretrained(folder)
            return ""
        labels = pd.Series(setup.train["label"], dtype="float64")
        return f" It predicts (number - {labels.mean():.6g}) / {labels.std():.6g}."


def _data_row(inputs: Inputs, setup: ClassificationSetup) -> PlanRow:
    n_test, classes = len(inputs.data.test), "numbers"
    n_test = min(inputs.max_rows or n_test, n_test)
    checks = {
        "few validation rows: the learning rate is chosen on little": len(setup.test) < FEW_ROWS,
        "few test rows: wide intervals": n_test < FEW_ROWS,
    }
    if setup.n_classes:
        counts = torch.tensor(setup.train["labels"]).bincount(minlength=setup.n_classes).tolist()
        pairs = zip(counts, inputs.label_names, strict=True)
        classes = ", ".join(f"{count} {name}" for count, name in pairs)
        checks["one class has most rows"] = max(counts) >= DOMINANT_CLASS * len(setup.train)
        checks[f"a class has {min(counts)} training rows"] = min(counts) < FEW_OF_A_CLASS
    taken = f"{len(setup.train)} rows to train ({classes}), {len(setup.test)} for validation"
    return "data", f"{taken}, {n_test} to test", "; ".join(text for text in checks if checks[text])


def read_inputs(settings: YourModelSettings) -> tuple[ClassificationData, ClassificationSettings]:
    """The data, and the settings of the runs.

    Raises:
        InputError: unusable data, teacher, student or layers.
    """
    if settings.data in CLASSIFICATION_TASKS:
        data = load_classification(settings.data)
    else:
        texts, group = [name.strip() for name in settings.text.split(",")], settings.group or None
        data = load_table(settings.data, texts=texts, label=settings.label, group=group)
    base, config, tokenizer = _load_teacher(settings.teacher)
    has_head = _kind(config).endswith(_HEAD)
    if has_head:
        data = number_labels(data, config.id2label, settings.teacher)
    n_rows = min(settings.max_rows or len(data.train), len(data.train))
    steps = math.ceil(settings.epochs * n_rows / settings.batch_size)
    same = ("student", "layers", "teacher_layer", "student_layer", "batch_size", "max_length")
    runs = ClassificationSettings(
        task=data.name,
        n_train=n_rows,
        steps=steps,
        weight_multiplier=settings.weight,
        weight_warmup_batches=max(1, min(16, steps // 4)),
        teacher=TeacherSettings(
            base, 0.0 if has_head else settings.teacher_epochs, max_train=n_rows
        ),
        **{name: getattr(settings, name) for name in same},
    )
    check_max_length(runs, config)
    _, n_layers = student_dims(runs, config, tokenizer, max(len(data.label_names), 1))
    resolve_layer(runs.teacher_layer, config.num_hidden_layers, "teacher")
    resolve_layer(runs.student_layer, n_layers, "student")
    return data, runs


def _load_teacher(name: str) -> tuple[str, Any, Any]:
    """Folder or hub name, configuration and tokenizer of a classifier or of an encoder."""
    from transformers import AutoConfig, AutoTokenizer

    base = base_model(ClassificationSettings("", teacher=TeacherSettings(model=name)))
    try:
        config, tokenizer = AutoConfig.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    except (OSError, ValueError) as error:
        raise InputError(
            f"teacher is {name!r}; expected minilm, mpnet, a folder with model and tokenizer, or a "
            f"name of the hub ({first_line(error)})"
        ) from error
    # A folder without tokenizer gives an empty one; models may have some spare rows.
    fits = config.vocab_size / 2 < len(tokenizer) <= config.vocab_size
    if tokenizer.pad_token_id is None or not fits:
        raise InputError(
            f"teacher {name!r} has a tokenizer of {len(tokenizer)} tokens, its model takes "
            f"{config.vocab_size}; expected a tokenizer of this model, with a padding token"
        )
    if not _kind(config).endswith((_HEAD, *_BODIES)):
        raise InputError(
            f"teacher {name!r} is a {_kind(config)}, which has no head for text classification; "
            "expected a classifier, or an encoder to fine-tune"
        )
    return base, config, tokenizer


def _kind(config: Any) -> str:
    return str((config.architectures or ["Model"])[0])


def number_labels(
    data: ClassificationData, names: dict[int, str], teacher: str
) -> ClassificationData:
    """The data with its labels numbered as a fine-tuned teacher numbers them.

    Args:
        data: with its own numbers.
        names: of the teacher's labels.
        teacher: its name, for messages.

    Raises:
        InputError: other labels, or names such as LABEL_0 that do not tell which is which.
    """
    labels, of_teacher = data.label_names, [names[index] for index in sorted(names)]
    if labels == tuple(map(str, range(len(of_teacher)))) and not {*labels} & {*of_teacher}:
        return data  # the numbers themselves
    number_of = {name.casefold(): index for index, name in enumerate(of_teacher)}
    numbers = [number_of.get(name.casefold(), -1) for name in labels]
    if not labels or sorted(numbers) != list(range(len(of_teacher))):
        raise InputError(
            f"teacher {teacher!r} has the labels {first_names(of_teacher)}, the data "
            f"{first_names(labels) or 'decimal numbers'}; expected the same (rename them in the "
            "data or in id2label of its config.json), or an encoder without a head, which is "
            "fine-tuned"
        )
    splits = {
        name: getattr(data, name).map(lambda row: {"label": numbers[row["label"]]})
        for name in SPLITS
    }
    ordered = tuple(labels[numbers.index(index)] for index in range(len(labels)))
    return replace(data, **splits, label_names=ordered)
