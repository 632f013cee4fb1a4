"""Texts with a class or a number: a student classifies as its teacher does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from geodistill.distill.collate import pad
from geodistill.errors import InputError
from geodistill.experiments.classification.baselines import FOLDS
from geodistill.experiments.classification.cached_outputs import cached_features
from geodistill.experiments.classification.evaluate import task_scores
from geodistill.experiments.classification.grid import ClassificationGrid
from geodistill.experiments.classification.run import run_classification
from geodistill.experiments.classification.settings import INPUTS, ClassificationSettings
from geodistill.experiments.classification.setup import (
    ClassificationSetup,
    prepare_classification,
)
from geodistill.experiments.run_store import Run
from geodistill.experiments.your_model.settings import YourModelSettings
from geodistill.experiments.your_model.task import (
    FEW_ROWS,
    DistillationTask,
    Inputs,
    OnTrained,
    PlanRow,
    Split,
    batch_row,
)
from geodistill.experiments.your_model.text_inputs import read_inputs
from geodistill.files import Progress
from geodistill.tasks.base import SPLITS

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
        sizes = {split: settings.rows_used(len(getattr(data, split))) for split in SPLITS}
        least = FOLDS * max(len(data.label_names), 1)
        if sizes["train"] < least:
            raise InputError(
                f"{settings.data} has {sizes['train']} training rows (max_rows is "
                f"{settings.max_rows}); expected at least {least}, {FOLDS} for each class"
            )
        return Inputs(data, data.data_hash, runs, runs.steps, data.metric, sizes, data.label_names)

    def prepare(
        self, inputs: Inputs, split: Split, folder: Path, progress: Progress
    ) -> ClassificationSetup:
        """A teacher without a head is fine-tuned first."""
        return prepare_classification(self.runs_on(inputs, split), progress, inputs.data, folder)

    def runs_on(self, inputs: Inputs, split: Split) -> ClassificationSettings:
        """The settings of runs that are scored on a split."""
        n_rows = inputs.sizes[split]
        max_test = n_rows if n_rows < len(getattr(inputs.data, split)) else 0
        runs: ClassificationSettings = replace(inputs.runs, split=split, max_test=max_test)
        return runs

    def make_run(self, setup: ClassificationSetup, method: str, seed: int, keep: OnTrained) -> Run:
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
            self.data_row(inputs, setup),
            (
                "texts",
                f"{lengths.mean():.0f} tokens on average, at most {runs.max_length}",
                f"{cut:.0%} are cut or just as long" if cut > MANY_CUT else "",
            ),
            batch_row(lengths.mean() * runs.batch_size, "token", setup.teacher),
        ]

    def data_row(self, inputs: Inputs, setup: ClassificationSetup) -> PlanRow:
        """The sizes of the splits, and rows by class."""
        sizes, classes, odd = inputs.sizes, "numbers", []
        if sizes["validation"] < FEW_ROWS:
            odd += ["few validation rows: the learning rate is chosen on little"]
        if sizes["test"] < FEW_ROWS:
            odd += ["few test rows: wide intervals"]
        if setup.n_classes:
            labels = torch.tensor(setup.train["labels"])
            counts = labels.bincount(minlength=setup.n_classes).tolist()
            pairs = zip(counts, inputs.label_names, strict=True)
            classes = ", ".join(f"{count} {name}" for count, name in pairs)
            if max(counts) >= DOMINANT_CLASS * sizes["train"]:
                odd += ["one class has most rows"]
            if min(counts) < FEW_OF_A_CLASS:
                odd += [f"a class has {min(counts)} training rows"]
        taken = f"{sizes['train']} rows to train ({classes}), {sizes['validation']} for validation"
        return "data", f"{taken}, {sizes['test']} to test", "; ".join(odd)

    def features(self, setup: ClassificationSetup) -> Tensor:
        """Of all tokens of some rows."""
        sample = setup.train.select(range(min(N_SAMPLE, len(setup.train))))
        return cached_features(setup.train_cache, sample, setup.pad_id).float()

    def build(self, setup: ClassificationSetup) -> tuple[Any, dict[str, Any]]:
        """A batch of texts."""
        rows = setup.train.select(range(min(setup.settings.batch_size, len(setup.train))))
        columns = [name for name in (*INPUTS, "labels") if name in rows.column_names]
        return setup.build_student(0), pad(list(rows.select_columns(columns)), setup.pad_id)

    def test_seconds(
        self, inputs: Inputs, setup: ClassificationSetup, student: Any, step: float
    ) -> float:
        """A batch costs a third of its training."""
        return inputs.sizes["test"] / setup.settings.batch_size / 3 * step

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
