"""A classification task ready for its students: the data, the fine-tuned teacher, its outputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from geodistill.distill import TeacherCache
from geodistill.distill.pretrained import load_pretrained
from geodistill.distill.students import uniform_layer_map
from geodistill.distill.teacher_cache import cache_key
from geodistill.errors import check_choice
from geodistill.experiments.classification.cached_outputs import cache_outputs, cached_features
from geodistill.experiments.classification.settings import EMBEDDED, INPUTS, ClassificationSettings
from geodistill.experiments.classification.students import build_student, student_dims
from geodistill.experiments.classification.teacher import (
    check_max_length,
    check_n_labels,
    load_teacher,
    train_teacher,
)
from geodistill.experiments.feature_scores import score_ranges
from geodistill.experiments.settings import setup_settings
from geodistill.experiments.training import default_device, silence_libraries
from geodistill.files import Progress, no_progress
from geodistill.geometry import procrustes_distance
from geodistill.geometry.normalized_score import ScoreRange, score_range
from geodistill.tasks import ClassificationData, assets, load_classification, stratified_subsample

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")


@dataclass(frozen=True)
class ClassificationSetup:
    """A task with its trained teacher, tokenised, and the teacher's outputs cached.

    Attributes:
        settings: of the runs.
        teacher: the fine-tuned classifier.
        pad_id: token for padding.
        text_columns: names of the columns with the texts: one, or two for a task of pairs.
        train: training examples with texts, input_ids, labels, item, source and row, their index.
        test: the same of the split that students are scored on.
        train_cache: features of the teacher's layer in the term, and its logits, by row of `train`.
        test_cache: the same of `test`, with one layer per student layer, at the same depth.
        data_hash: of the task's texts and labels.
        metric: name of the task's own metric.
        n_classes: 0 for a task whose labels are scores; these are standardised over `train`.
        width: hidden size of the students.
        layers: of the students.
    """

    settings: ClassificationSettings
    teacher: Any
    pad_id: int
    text_columns: tuple[str, ...]
    train: Dataset
    test: Dataset
    train_cache: TeacherCache
    test_cache: TeacherCache
    data_hash: str
    metric: str
    n_classes: int
    width: int
    layers: int
    _shared: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What `make` gives, made once for all runs whose settings have the same `setup_settings`.

        Copies with other settings (`dataclasses.replace`) share it.

        Args:
            name: of the result.
            make: is called if there is no such result yet.
        """
        key = (name, setup_settings(self.settings))
        if key not in self._shared:
            self._shared[key] = make()
        result: T = self._shared[key]
        return result

    @property
    def score_ranges(self) -> dict[str, ScoreRange]:
        """By measure: chance level and ceiling on the probe's tokens, the same for all students."""
        return self.once("scores", lambda: score_ranges(self.probe_features(), self.width))

    @property
    def layer_score_ranges(self) -> dict[int, ScoreRange]:
        """By student layer but the last: Procrustes to the teacher's layer at the same depth."""
        return self.once(
            "layer scores",
            lambda: {
                layer: score_range(procrustes_distance, self.probe_features(layer - 1), self.width)
                for layer in range(1, self.layers)
            },
        )

    @property
    def base_features_cache(self) -> TeacherCache:
        """Logits of the teacher, and last-layer features of what it was before fine-tuning."""
        owner = (self.train_cache.folder.name, "features before fine-tuning")
        return self.once(
            "base features",
            lambda: cache_outputs(
                _LogitsAndFeatures(self.teacher, load_base(self.settings)),
                self.train, owner, self.pad_id, (-1,), no_progress, self.train_cache.folder.parent,
            ),
        )  # fmt: skip

    def build_student(self, seed: int) -> Any:
        """An untrained student whose random weights are drawn by `seed`."""
        return build_student(self.settings, base_model(self.settings), self.teacher, seed)

    def probe_features(self, index: int = -1) -> Tensor:
        """Teacher features of all tokens of the first `n_probe_items` test items, (tokens, d).

        Args:
            index: of the student layer whose depth the teacher's has, counted from 0.
        """
        items = self.test.select(range(min(self.settings.n_probe_items, len(self.test))))
        return cached_features(self.test_cache, items, self.pad_id, index)


class _LogitsAndFeatures(nn.Module):
    """A model with the logits of a classifier and the hidden states of another encoder."""

    def __init__(self, classifier: Any, encoder: nn.Module) -> None:
        super().__init__()
        self.classifier, self.encoder, self.config = classifier, encoder, classifier.config
        self.device = classifier.device

    def forward(self, **inputs: Any) -> Any:
        outputs = self.classifier(**inputs)
        outputs.hidden_states = self.encoder(**inputs).hidden_states
        return outputs


def prepare_classification(
    settings: ClassificationSettings,
    progress: Progress = no_progress,
    data: ClassificationData | None = None,
    folder: Path | None = None,
) -> ClassificationSetup:
    """Load a task, train its teacher unless it is stored, and cache the teacher's outputs.

    Args:
        settings: of the runs.
        progress: called with a line for each stage.
        data: the task, if it is your own (`geodistill.tasks.load_table`).
        folder: where the teacher and its outputs are kept; by default the cache of assets.

    Raises:
        InputError: unknown task or split, a fine-tuned teacher with another number of labels, a
            student that cannot be made, a full disk.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    silence_libraries()
    check_choice("split", settings.split, ("test", "validation"))
    task, base = settings.task, base_model(settings)
    data = data or load_classification(task)
    n_labels = max(len(data.label_names), 1)
    tokenizer, config = AutoTokenizer.from_pretrained(base), AutoConfig.from_pretrained(base)
    check_n_labels(base, n_labels, task)
    check_max_length(settings.max_length, config, f"teacher {settings.teacher.model!r}")
    width, layers = student_dims(settings, config, tokenizer, n_labels)
    train, test = tokenized_splits(data, settings, tokenizer, progress)
    pad_id = tokenizer.pad_token_id
    recipe = json.dumps([asdict(settings.teacher), settings.max_length, data.data_hash])
    root = folder or assets.cache_dir()
    stored = root / "teachers" / f"{task}-{cache_key(recipe)}"
    if settings.teacher.epochs == 0:
        teacher = load_pretrained(AutoModelForSequenceClassification, base, dtype=torch.float32)
    elif (teacher := load_teacher(stored)) is None:
        progress(f"training the {task} teacher")
        train_teacher(base, n_labels, train, settings.teacher, pad_id, stored)
        teacher = AutoModelForSequenceClassification.from_pretrained(stored)
    teacher.eval().to(default_device())

    def cache(name: str, examples: Dataset, layers: Sequence[int]) -> TeacherCache:
        progress(f"running the {task} teacher on {len(examples)} {name} sentences")
        owner, outputs = (stored.name, name), root / "outputs"
        return cache_outputs(teacher, examples, owner, pad_id, layers, progress, outputs)

    train_cache = cache("train", train, (settings.teacher_layer,))
    test_cache = cache("test", test, uniform_layer_map(teacher.config.num_hidden_layers, layers))
    return ClassificationSetup(
        settings, teacher, pad_id, data.text_columns, train, test, train_cache, test_cache,
        data.data_hash, data.metric, len(data.label_names), width, layers,
    )  # fmt: skip


def base_model(settings: ClassificationSettings) -> str:
    """Folder or hub name of the model that the teacher is fine-tuned from."""
    name = settings.teacher.model
    return str(assets.path(name)) if name in EMBEDDED else name


def load_base(settings: ClassificationSettings) -> Any:
    """The encoder that the teacher is fine-tuned from, without a head, in evaluation mode."""
    from transformers import AutoModel

    base = load_pretrained(AutoModel, base_model(settings), dtype=torch.float32)
    return base.eval().to(default_device())


def tokenized_splits(
    data: ClassificationData,
    settings: ClassificationSettings,
    tokenizer: PreTrainedTokenizerBase,
    progress: Progress,
) -> tuple[Dataset, Dataset]:
    """The training examples and those to score; labels that are scores are standardised."""
    train, test = data.train, data.test if settings.split == "test" else data.validation
    if settings.teacher.max_train:
        train = stratified_subsample(train, settings.teacher.max_train, settings.teacher.seed)
    if settings.max_test:
        test = stratified_subsample(test, settings.max_test, seed=0)
    columns, max_length, standardise = data.text_columns, settings.max_length, None
    if "label" in train.column_names and not data.label_names:
        scores = torch.tensor(train["label"], dtype=torch.float64)
        standardise = float(scores.mean()), float(scores.std())

    # The embedded models are fine-tuned here, and read pairs without segments in all stored runs.
    names = INPUTS[:1] if settings.teacher.model in EMBEDDED else INPUTS

    def tokenize(batch: dict[str, list[Any]], rows: list[int]) -> dict[str, Any]:
        texts = [batch[column] for column in columns]
        encoded = tokenizer(*texts, truncation=True, max_length=max_length)
        labels = batch.get("label")
        if labels and standardise:
            labels = [(label - standardise[0]) / standardise[1] for label in labels]
        inputs = {name: encoded[name] for name in names if name in encoded}
        return {**inputs, "row": rows} | ({"labels": labels} if labels else {})

    train, test = (split.map(tokenize, batched=True, with_indices=True) for split in (train, test))
    for name, split in (("train", train), (settings.split, test)):
        if n_cut := _count_cut(split, columns, tokenizer, max_length):
            progress(
                f"{settings.task}: {n_cut} of {len(split)} {name} texts are longer than "
                f"{max_length} tokens and are cut there"
            )
    return train, test


def _count_cut(
    split: Dataset, columns: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> int:
    """How many tokenized examples have lost tokens; one of `max_length` may just fit."""
    longest = split.filter(lambda example: len(example["input_ids"]) == max_length)
    texts = [list(longest[column]) for column in columns]
    uncut = tokenizer(*texts)["input_ids"] if len(longest) else []
    return sum(len(ids) > max_length for ids in uncut)
