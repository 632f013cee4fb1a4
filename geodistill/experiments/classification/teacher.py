"""The teacher of a classification task: fine-tuned once, then loaded from its folder."""

from __future__ import annotations

import shutil
import warnings
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from geodistill.distill.collate import pad
from geodistill.distill.pretrained import load_pretrained
from geodistill.errors import InputError
from geodistill.experiments.classification.settings import INPUTS, TeacherSettings
from geodistill.experiments.training import fit, torch_threads, training_arguments
from geodistill.files import atomic_folder, disk_full, first_line
from geodistill.positions import max_tokens_of

if TYPE_CHECKING:
    from datasets import Dataset

TEACHER_THREADS = 2


def train_teacher(
    base: str, n_labels: int, train: Dataset, settings: TeacherSettings, pad_id: int, folder: Path
) -> None:
    """Fine-tune an encoder and save it whole or not at all; two processes may do it at once.

    Args:
        base: folder or hub name of the encoder.
        n_labels: of the task; 1 for a score.
        train: examples with input_ids and labels.
        settings: of the training.
        pad_id: token for padding.
        folder: where the teacher is saved.

    Raises:
        InputError: the disk is full.
    """
    from transformers import AutoModelForSequenceClassification, Trainer, set_seed

    set_seed(settings.seed)
    model = load_pretrained(
        AutoModelForSequenceClassification, base, new_head=True, num_labels=n_labels,
        dtype=torch.float32,
    )  # fmt: skip
    with TemporaryDirectory(prefix="geodistill-") as scratch, torch_threads(TEACHER_THREADS):
        arguments = training_arguments(
            Path(scratch),
            seed=settings.seed,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
        )
        read = (*INPUTS, "labels")
        examples = train.select_columns([name for name in read if name in train.column_names])
        collate = partial(pad, pad_id=pad_id)
        fit(Trainer(model=model, args=arguments, train_dataset=examples, data_collator=collate))
    try:
        with atomic_folder(folder) as partial_folder:
            model.save_pretrained(partial_folder)
    except (OSError, SafetensorError) as error:
        if reason := disk_full(error):
            raise InputError(
                f"teacher {folder}: {reason} while writing, nothing is kept; "
                "set GEODISTILL_CACHE to a larger disk"
            ) from error
        if not is_complete(folder):  # else another process has just saved the same teacher
            raise


def load_teacher(folder: Path) -> Any:
    """The classifier that `train_teacher` saved, or None if there is none.

    A damaged one is removed with a warning.
    """
    from transformers import AutoModelForSequenceClassification

    if not is_complete(folder):
        return None
    try:
        return load_pretrained(AutoModelForSequenceClassification, folder)
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # no permission or a failing disk: the teacher itself may be intact
        reason = first_line(error)
        warnings.warn(f"training the teacher {folder} again, it is damaged: {reason}", stacklevel=3)
        shutil.rmtree(folder, ignore_errors=True)
        return None


def is_complete(folder: Path) -> bool:
    """Whether a folder holds both files of a saved model."""
    return all((folder / name).is_file() for name in ("config.json", "model.safetensors"))


def check_n_labels(model: str, n_labels: int, task: str, role: str = "teacher.model") -> None:
    """Check that a fine-tuned model has as many labels as the task.

    Args:
        model: folder or hub name.
        n_labels: of the task.
        task: its name.
        role: the setting that names the model.

    Raises:
        InputError: it has another number of labels.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model)
    fine_tuned = any("SequenceClassification" in name for name in config.architectures or ())
    if fine_tuned and config.num_labels != n_labels:
        raise InputError(
            f"{role} {model!r} was fine-tuned for {config.num_labels} labels, "
            f"the task {task!r} has {n_labels}; expected as many, or a model without a head"
        )


def check_max_length(max_length: int, config: Any, model: str) -> None:
    """Raise InputError for texts that are longer than a model's positions.

    Args:
        max_length: longest text, in tokens.
        config: of the model.
        model: what and which it is, in words.
    """
    positions = max_tokens_of(config)
    if max_length > positions:
        raise InputError(
            f"max_length is {max_length}; expected at most {positions}, which is what the {model} "
            "takes"
        )
