"""Texts, teacher and student of a classification or an embedding, read and checked."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from geodistill.distill.feature_term import Layer, resolve_layer
from geodistill.distill.hooks import record_outputs
from geodistill.errors import InputError, first_names
from geodistill.experiments.classification.settings import (
    FIRST,
    UNIFORM,
    ClassificationSettings,
    TeacherSettings,
)
from geodistill.experiments.classification.setup import base_model
from geodistill.experiments.classification.students import load_config, student_dims
from geodistill.experiments.classification.teacher import check_max_length
from geodistill.experiments.your_model.settings import YourModelSettings
from geodistill.experiments.your_model.task import warmup_batches
from geodistill.files import first_line
from geodistill.tasks import (
    CLASSIFICATION_TASKS,
    ClassificationData,
    load_classification,
    load_table,
)
from geodistill.tasks.base import SPLITS
from geodistill.tasks.own_data import EXPECTED, is_hub_name

_HEAD, _BODIES = "ForSequenceClassification", ("Model", "ForMaskedLM", "ForPreTraining")
"""How the class of a classifier ends, and that of an encoder that can be given a head."""
_GENERATORS = ("LMHeadModel", "DoubleHeadsModel")


def read_inputs(settings: YourModelSettings) -> tuple[ClassificationData, ClassificationSettings]:
    """The data, and the settings of the runs.

    Raises:
        InputError: unusable data, teacher, student or layers.
    """
    data = load_texts(settings)
    runs, config, _, has_head = read_runs(settings, data, max(len(data.label_names), 1))
    if has_head:
        data = number_labels(data, config.id2label, settings.teacher)
    return data, runs


def load_texts(settings: YourModelSettings, *, with_labels: bool = True) -> ClassificationData:
    """The data.

    Args:
        settings: name it and its columns.
        with_labels: whether a label is read.

    Raises:
        InputError: unusable data.
    """
    if settings.data in CLASSIFICATION_TASKS:
        for name in settings.named_columns:
            raise InputError(
                f"{name} is {getattr(settings, name)!r}, but data {settings.data!r} has its own "
                "columns; leave it out"
            )
        data = load_classification(settings.data)
        if with_labels:
            return data
        splits = {name: getattr(data, name).remove_columns("label") for name in SPLITS}
        return replace(data, **splits, label_names=())
    if not (Path(settings.data).exists() or is_hub_name(settings.data)):
        raise InputError(
            f"data is {settings.data!r}: there is no such file; expected {EXPECTED}, or one of "
            f"{', '.join(CLASSIFICATION_TASKS)}"
        )
    label = settings.label if with_labels else None
    return load_table(settings.data, texts=settings.text, label=label, group=settings.group or None)


def read_runs(
    settings: YourModelSettings, data: ClassificationData, n_labels: int | None
) -> tuple[ClassificationSettings, Any, int, bool]:
    """The settings of the runs, the teacher's configuration, students' width, a teacher with head.

    Args:
        settings: name teacher and student.
        data: of the students.
        n_labels: of the data; None for students without a head.

    Raises:
        InputError: unusable teacher, student or layers.
    """
    base, config, tokenizer = _load_teacher(settings.teacher)
    has_head = _kind(config).endswith(_HEAD)
    n_rows = settings.rows_used(len(data.train))
    steps = math.ceil(settings.epochs * math.ceil(n_rows / settings.batch_size))
    same = ("student", "layers", "batch_size", "max_length")
    runs = ClassificationSettings(
        task=data.name,
        n_train=n_rows,
        steps=steps,
        weight_multiplier=settings.weight,
        weight_warmup_batches=warmup_batches(steps),
        teacher=TeacherSettings(
            base, 0.0 if has_head else settings.teacher_epochs, max_train=n_rows
        ),
        **{name: getattr(settings, name) for name in same},
    )
    check_max_length(runs.max_length, config, f"teacher {base!r}")
    width, n_layers = student_dims(runs, config, tokenizer, n_labels)
    teacher_layer = _layer_number(settings.teacher_layer, config, "teacher")
    student_config = config if settings.student in (FIRST, UNIFORM) else load_config(runs.student)
    _check_padding(f"student {runs.student!r}", student_config, config.pad_token_id)
    student_config = copy.deepcopy(student_config)
    student_config.num_hidden_layers = n_layers
    student_layer = _layer_number(settings.student_layer, student_config, "student")
    runs = replace(runs, teacher_layer=teacher_layer, student_layer=student_layer)
    return runs, config, width, has_head


def _layer_number(layer: Layer, config: Any, role: str) -> int:
    """The number in `hidden_states` of a layer, which may be the path of a module."""
    from transformers import AutoModel

    if isinstance(layer, int):
        resolve_layer(layer, config.num_hidden_layers, role)
        return layer
    auto: Any = AutoModel
    with torch.random.fork_rng(devices=[]):
        model = auto.from_config(config).eval()
    path = layer.removeprefix(f"{model.base_model_prefix}.")  # as in a classifier
    with record_outputs(model, [path], grad=False, role=role) as recording, torch.no_grad():
        hidden = model(torch.arange(8)[None], output_hidden_states=True).hidden_states
    numbers = [i for i, x in enumerate(hidden) if torch.equal(x, recording.features(path))]
    if not numbers:
        raise InputError(
            f"{role}_layer is {layer!r}, whose output is none of the {role}'s hidden states (that "
            "of the last block is not, if a norm follows it); expected the path of a block, such "
            "as 'encoder.layer.5', or a number, -1 for the last"
        )
    return numbers[0]


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
    kind = _kind(config)
    if not kind.endswith((_HEAD, *_BODIES)) or kind.endswith(_GENERATORS):
        raise InputError(
            f"teacher {name!r} is a {kind}, which has no head for text classification; "
            "expected a classifier, or an encoder to fine-tune"
        )
    _check_head(name, config, tokenizer)
    return base, config, tokenizer


def _check_head(name: str, config: Any, tokenizer: Any) -> None:
    """Raise InputError for a classifier whose outputs on a padded batch are not its labels'."""
    _check_padding(f"teacher {name!r}", config, tokenizer.pad_token_id)
    if getattr(config, "summary_type", None) == "last":
        raise InputError(
            f"teacher {name!r} is a {_kind(config)}, which reads the last position of a padded "
            "text; expected another model"
        )
    if not _kind(config).endswith(_HEAD):
        return
    if config.problem_type == "multi_label_classification":
        raise InputError(
            f"teacher {name!r} has problem_type multi_label_classification; expected one label per "
            "text (FeatureDistillationTrainer takes several, with BernoulliKLLoss)"
        )


def _check_padding(model: str, config: Any, pad_id: int) -> None:
    """Raise InputError for a model that would take padding for text, or text for padding."""
    if config.pad_token_id != pad_id:
        raise InputError(
            f"{model} has the pad_token_id {config.pad_token_id} in its config.json; expected "
            f"{pad_id}, its tokenizer's"
        )


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
    if len(of_teacher) == 1:
        raise InputError(
            f"teacher {teacher!r} predicts a number, on a scale that its folder does not tell; "
            "expected a classifier, or an encoder without a head, which is fine-tuned"
        )
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
