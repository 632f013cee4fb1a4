"""Teacher, data and folder of a distillation, checked before any work."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from geodistill.distill.feature_term import resolve_layer
from geodistill.errors import InputError
from geodistill.experiments.classification.settings import (
    FIRST,
    ClassificationSettings,
    TeacherSettings,
)
from geodistill.experiments.classification.setup import base_model
from geodistill.experiments.classification.students import student_dims
from geodistill.experiments.your_model.settings import YourModelSettings
from geodistill.files import atomic_file, first_line, sha256_once
from geodistill.tasks import (
    CLASSIFICATION_TASKS,
    ClassificationData,
    load_classification,
    load_table,
)
from geodistill.tasks.base import SPLITS

BASE_MODELS = ("Model", "ForMaskedLM", "ForPreTraining")
"""How the class of an encoder ends that can be given a classifier's head."""
DEFAULT_STEPS = 120


def check_all(settings: YourModelSettings) -> tuple[ClassificationSettings, ClassificationData]:
    """The settings of the runs and the data, once all is checked that needs no training.

    Raises:
        InputError: unusable data, teacher, student or layers.
    """
    data = load_data(settings)
    config, base, tokenizer = check_teacher(settings)
    if has_head(config):
        data = order_labels(data, config.id2label, settings.teacher)
    n_rows = min(settings.max_rows or len(data.train), len(data.train))
    runs = run_settings(settings, n_rows, base, fine_tune=not has_head(config))
    _, n_layers = student_dims(runs, config, tokenizer, len(data.label_names))
    resolve_layer(runs.teacher_layer, config.num_hidden_layers, "teacher")
    resolve_layer(runs.student_layer, n_layers, "student")
    return runs, data


def load_data(settings: YourModelSettings) -> ClassificationData:
    """The data, split; with `max_rows` at most as many as there are.

    Raises:
        InputError: as `load_table`; scores instead of classes.
    """
    if settings.data in CLASSIFICATION_TASKS:
        data = load_classification(settings.data)
    else:
        texts = [name.strip() for name in settings.text.split(",")]
        data = load_table(
            settings.data, texts=texts, label=settings.label, group=settings.group or None
        )
    if not data.label_names:
        raise InputError(
            f"{settings.label} of {settings.data} holds decimal numbers; expected classes: words "
            "or integers"
        )
    return data


def order_labels(
    data: ClassificationData, names: dict[int, str], teacher: str
) -> ClassificationData:
    """The data with its labels numbered as the teacher numbers them.

    Args:
        data: with its own numbers.
        names: of the teacher's labels.
        teacher: its name, for messages.

    Raises:
        InputError: other labels, or names such as LABEL_0 that do not tell which is which.
    """
    labels, of_teacher = list(data.label_names), [names[index] for index in sorted(names)]
    number_of = {name.casefold(): index for index, name in enumerate(of_teacher)}
    if {name.casefold() for name in labels} != set(number_of) or len(of_teacher) != len(labels):
        if labels == [str(number) for number in range(len(of_teacher))]:
            return data  # the numbers themselves
        raise InputError(
            f"teacher {teacher!r} has the labels {', '.join(of_teacher)}, the data "
            f"{', '.join(labels)}; expected the same: rename them in the data or in id2label of "
            "its config.json"
        )
    number = [number_of[name.casefold()] for name in labels]
    splits = {
        name: getattr(data, name).map(lambda row: {"label": number[row["label"]]})
        for name in SPLITS
    }
    by_number = sorted(labels, key=lambda name: number_of[name.casefold()])
    return replace(data, **splits, label_names=tuple(by_number))


def check_teacher(settings: YourModelSettings) -> tuple[Any, str, Any]:
    """The teacher's configuration, its folder or hub name, and its tokenizer.

    Raises:
        InputError: no such model, one with a head for another task or without tokenizer, an encoder
            without a head where `teacher_epochs` is 0.
    """
    from transformers import AutoConfig, AutoTokenizer

    name = settings.teacher
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
    kinds = config.architectures or ["Model"]
    if not has_head(config) and not any(kind.endswith(BASE_MODELS) for kind in kinds):
        raise InputError(
            f"teacher {name!r} is a {kinds[0]}, which has no head for text classification; "
            "expected a classifier, or an encoder to fine-tune"
        )
    if not has_head(config) and settings.teacher_epochs == 0:
        raise InputError(
            f"teacher {name!r} is a {kinds[0]}, without a head for text classification; expected a "
            "classifier, or teacher_epochs of fine-tuning above 0"
        )
    return config, base, tokenizer


def has_head(config: Any) -> bool:
    """Whether a model is a text classifier already."""
    return any(kind.endswith("ForSequenceClassification") for kind in config.architectures or ())


def run_settings(
    settings: YourModelSettings, n_rows: int, base: str, fine_tune: bool
) -> ClassificationSettings:
    """The settings of the runs; the learning rate is still to be chosen.

    Args:
        settings: of the distillation.
        n_rows: training rows.
        base: folder or hub name of the teacher.
        fine_tune: whether it has no head.
    """
    steps = settings.epochs * math.ceil(n_rows / settings.batch_size) or DEFAULT_STEPS
    teacher_layer, student_layer = settings.layer_pair()
    n_layers = settings.n_student_layers()
    epochs = settings.teacher_epochs if fine_tune else 0.0
    return ClassificationSettings(
        task=settings.data if settings.data in CLASSIFICATION_TASKS else Path(settings.data).stem,
        n_train=n_rows,
        steps=steps,
        batch_size=settings.batch_size,
        student=FIRST if n_layers else settings.student,
        layers=n_layers or ClassificationSettings.layers,
        weight_multiplier=settings.weight,
        weight_warmup_batches=max(1, min(16, steps // 4)),
        teacher_layer=teacher_layer,
        student_layer=student_layer,
        max_length=settings.max_length,
        teacher=TeacherSettings(model=base, epochs=epochs, max_train=n_rows),
    )


def claim_folder(settings: YourModelSettings, data_hash: str) -> None:
    """Make the folder of the runs, or recognise it as that of the same distillation.

    Raises:
        InputError: it is of another one, the student's folder holds other files, or they can't be
            written.
    """
    out, folder = Path(settings.out), settings.runs_folder
    identity = asdict(settings) | {
        "data": data_hash,
        "teacher": _content(settings.teacher),
        "student": _content(settings.student),
        "version": version("geodistill"),
    }
    identity = {
        name: identity[name] for name in identity if name not in ("out", "seeds", "workers")
    }
    identity = json.loads(json.dumps(identity))
    record = folder / "distillation.json"
    has_begun = record.is_file() and len([*folder.glob("[!.]*")]) > 1  # more than the record
    if not record.is_file():
        for path in (out, folder):
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise InputError(f"out: {path} holds other files; expected a new or empty folder")
    elif has_begun:
        stored = json.loads(record.read_text(encoding="utf-8"))
        for name, value in identity.items():
            if stored.get(name) != value:
                raise InputError(
                    f"out: {folder} holds runs of another distillation: its {name} was "
                    f"{stored.get(name)}, now it is {value}; expected the same, or another out"
                )
    try:
        with atomic_file(record) as partial:
            partial.write_text(json.dumps(identity, indent=1), encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"out: {folder} can't be written ({error.strerror}); expected a folder of yours"
        ) from error


def _content(model: str) -> str:
    """The name of a model, or the hash of its files if it is a folder."""
    if not Path(model).is_dir():
        return model
    files = sorted(path for path in Path(model).iterdir() if path.is_file())
    return sha256("".join(f"{p.name} {sha256_once(p)}" for p in files).encode()).hexdigest()[:12]
