"""A classification task's teacher: fine-tuned once, found again by its folder."""

import errno
import os
import shutil
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from geodistill.errors import InputError
from geodistill.experiments.training import collate, fit, scratch, threads, training_arguments

TEACHER_THREADS = 2
_FULL = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT)]


@dataclass(frozen=True)
class TeacherSetting:
    """Fine-tuning of an encoder on the task's training part.

    Attributes:
        model: "minilm", the embedded 6-layer BERT, or a folder or hub name of another encoder.
        max_train: training sentences used, by the teacher and by students; 0 for all.
    """

    model: str = "minilm"
    epochs: float = 2.0
    batch_size: int = 32
    learning_rate: float = 1e-4
    max_train: int = 0
    seed: int = 0


def train_teacher(
    base: Path | str,
    outputs: int,
    train: Any,
    setting: TeacherSetting,
    pad_id: int,
    folder: Path,
) -> None:
    """Fine-tune `base` on tokenised examples and save it in `folder`.

    By rename, so that a killed training leaves no half teacher, and of two processes that train the
    same one either may be first.

    Raises:
        InputError: the disk is full.
    """
    from transformers import AutoModelForSequenceClassification, Trainer, set_seed

    set_seed(setting.seed)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=outputs)
    with scratch() as folder_of_run:
        arguments = training_arguments(
            Path(folder_of_run),
            seed=setting.seed,
            num_train_epochs=setting.epochs,
            per_device_train_batch_size=setting.batch_size,
            learning_rate=setting.learning_rate,
        )
        padded = partial(collate, pad_id, ("input_ids", "labels"))
        trainer = Trainer(model=model, args=arguments, train_dataset=train, data_collator=padded)
        with threads(TEACHER_THREADS):
            fit(trainer)
    _save(model, folder)


def _save(model: Any, folder: Path) -> None:
    """Write beside `folder`, then rename; InputError on a full disk, which keeps nothing."""
    partial_folder = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    try:
        model.save_pretrained(partial_folder)
        if folder.exists() and not is_teacher(folder):
            shutil.rmtree(folder)
        partial_folder.rename(folder)
    except (OSError, SafetensorError) as error:
        told = next((reason for reason in _FULL if reason in str(error)), None)
        if told:  # safetensors has no number of the error, only its words
            raise InputError(
                f"teacher {folder}: {told} while writing, nothing is kept; "
                "set GEODISTILL_CACHE to a larger disk"
            ) from error
        if not is_teacher(folder):  # else another process trained the same one: its is as good
            raise
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)


def stored_teacher(folder: Path) -> Any:
    """The classifier that `train_teacher` saved in `folder`, or None where there is none.

    A damaged one is removed, with a warning: it is trained again.
    """
    from transformers import AutoModelForSequenceClassification

    if not is_teacher(folder):
        return None
    try:
        return AutoModelForSequenceClassification.from_pretrained(folder)
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # no right to read it, a disk that fails: the teacher itself may be whole
        reason = str(error).partition("\n")[0]
        warnings.warn(f"training the teacher {folder} again, it is damaged: {reason}", stacklevel=3)
        shutil.rmtree(folder, ignore_errors=True)
        return None


def is_teacher(folder: Path) -> bool:
    """Whether a whole model is stored there."""
    return all((folder / name).is_file() for name in ("config.json", "model.safetensors"))


def check_labels(base: Path | str, outputs: int, task: str, what: str = "teacher.model") -> None:
    """A model that was fine-tuned already must have as many labels as the task."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base)
    fine_tuned = any("SequenceClassification" in name for name in config.architectures or ())
    if fine_tuned and config.num_labels != outputs:
        raise InputError(
            f"{what} {str(base)!r} was fine-tuned for {config.num_labels} labels, "
            f"the task {task!r} has {outputs}; expected as many, or a model without a head"
        )
