"""Students of the classification study: layers of the teacher's base model, or a given encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from geodistill.distill.models.layer_selection import check_blocks, check_layers, take_layers
from geodistill.distill.pretrained import load_pretrained
from geodistill.distill.students import pca_init_embeddings
from geodistill.errors import InputError
from geodistill.experiments.classification.settings import FIRST, UNIFORM, ClassificationSettings
from geodistill.experiments.classification.teacher import check_max_length, check_n_labels
from geodistill.files import first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def student_dims(
    settings: ClassificationSettings,
    teacher: Any,
    tokenizer: PreTrainedTokenizerBase,
    n_labels: int | None,
) -> tuple[int, int]:
    """Width and number of layers of a student, checked before a teacher is trained.

    Args:
        settings: name the student.
        teacher: configuration of the teacher.
        tokenizer: of the teacher.
        n_labels: of the task; 1 for a score, None for a student without a head.

    Raises:
        InputError: a number of layers that the teacher lacks; a model that cannot be found, has
            other tokens, or was fine-tuned for another number of labels.
    """
    name = settings.student
    if name in (FIRST, UNIFORM):
        check_layers(settings.layers, teacher.num_hidden_layers)
        check_blocks(teacher)
        return teacher.hidden_size, settings.layers
    config = load_config(name)
    if config.vocab_size != teacher.vocab_size or not _same_tokens(name, tokenizer):
        raise InputError(
            f"student {name!r} (vocabulary: {config.vocab_size}) has other tokens than "
            f"the teacher (vocabulary: {teacher.vocab_size}); expected the same"
        )
    if _has_no_weights(name) and config.hidden_size > teacher.hidden_size:
        raise InputError(
            f"student {name!r} is {config.hidden_size} wide and has no weights; expected at most "
            f"{teacher.hidden_size}, the teacher's width, from whose embeddings its own are made"
        )
    check_max_length(settings.max_length, config, f"student {name!r}")
    if n_labels is not None and not _has_no_weights(name):
        check_n_labels(name, n_labels, settings.task, role="student")
    return config.hidden_size, config.num_hidden_layers


def build_student(
    settings: ClassificationSettings, base: str, teacher: Any, seed: int, *, with_head: bool = True
) -> Any:
    """An untrained student, once `student_dims` has checked it.

    Args:
        settings: name the student.
        base: folder or hub name of the model that the teacher was fine-tuned from.
        teacher: a classifier, whose labels the student has, or an encoder.
        seed: of the weights that start at random: the head, and all of a random start.
        with_head: whether the student classifies, or is an encoder.
    """
    from transformers import AutoModel, AutoModelForSequenceClassification, set_seed

    name, n_labels = settings.student, teacher.config.num_labels
    auto: Any = AutoModelForSequenceClassification if with_head else AutoModel
    options: dict[str, Any] = {"dtype": torch.float32}  # a half-precision step would be rounded off
    options |= {"new_head": True, "num_labels": n_labels} if with_head else {}
    set_seed(seed)
    if name in (FIRST, UNIFORM):
        full_model = load_pretrained(auto, base, **options)
        first = range(1, settings.layers + 1)
        student = take_layers(full_model, first if name == FIRST else settings.layers)
        student.get_input_embeddings().requires_grad_(False)
        return student
    if not _has_no_weights(name):
        return load_pretrained(auto, name, **options)
    config = load_config(name)
    if with_head:
        config.num_labels, config.problem_type = n_labels, teacher.config.problem_type
    student = auto.from_config(config, dtype=torch.float32)
    pca_init_embeddings(student, teacher)
    return student


def _has_no_weights(name: str) -> bool:
    """Whether it is a folder with a configuration alone."""
    folder = Path(name)
    return folder.is_dir() and not [*folder.glob("*.safetensors"), *folder.glob("*.bin")]


def _same_tokens(name: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the student's tokenizer, if its folder has one, has the teacher's vocabulary."""
    from transformers import AutoTokenizer

    if Path(name).is_dir() and not list(Path(name).glob("tokenizer*")):
        return True
    same: bool = AutoTokenizer.from_pretrained(name).get_vocab() == tokenizer.get_vocab()
    return same


def load_config(name: str) -> Any:
    """The configuration of a student that is a folder or a name of the hub."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:  # no such folder, offline, no configuration
        raise InputError(
            f"student is {name!r}; expected {FIRST}, {UNIFORM}, a folder with a model or "
            f"its configuration, or a name of the hub ({first_line(error)})"
        ) from error
