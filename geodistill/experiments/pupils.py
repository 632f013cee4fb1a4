"""The students of a classification study: a small BERT, the teacher cut short, or a given model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from geodistill.distill.students import bert_student, check_width, principal_start, truncate
from geodistill.errors import InputError
from geodistill.experiments.teachers import check_labels

if TYPE_CHECKING:
    from geodistill.experiments.classroom import ClassificationSetting

SMALL, CUT = "bert", "truncate"
"""Students made from the teacher; any other name is a folder or one of the hub."""


def student_size(
    setting: ClassificationSetting, teacher: Any, tokenizer: Any, outputs: int
) -> tuple[int, int]:
    """Width and number of layers of the students, checked before a teacher is trained.

    Args:
        setting: says which students.
        teacher: its configuration.
        tokenizer: the teacher's.
        outputs: the task's number of labels, 1 for a score.

    Raises:
        InputError: a size that cannot be made; a model that cannot be found, has other tokens, or
            was fine-tuned for another number of labels.
    """
    name, width, layers = setting.student, setting.width, setting.layers
    if name == SMALL:
        check_width(width, 32, getattr(teacher, "embedding_size", teacher.hidden_size))
        if layers < 1:
            raise InputError(f"layers is {layers}; expected at least 1")
        return width, layers
    if name == CUT:
        if not 1 <= layers <= teacher.num_hidden_layers:
            raise InputError(
                f"layers is {layers}; expected 1 to {teacher.num_hidden_layers}, the teacher's"
            )
        return teacher.hidden_size, layers
    config = _config(name)
    if config.vocab_size != teacher.vocab_size or not _reads(name, tokenizer):
        raise InputError(
            f"student {name!r} (vocabulary: {config.vocab_size}) has other tokens than the teacher "
            f"(vocabulary: {teacher.vocab_size}); expected the same, since both read one input"
        )
    if not _weightless(name):
        check_labels(name, outputs, setting.task, what="student")
    return config.hidden_size, config.num_hidden_layers


def make_student(setting: ClassificationSetting, teacher: Any, seed: int) -> Any:
    """An untrained student of `teacher`, a classifier, as `setting` says.

    Args:
        setting: one that `student_size` has checked.
        teacher: gives its labels, its embeddings or its layers.
        seed: of the weights that start at random.
    """
    from transformers import AutoModelForSequenceClassification, set_seed

    name, labels = setting.student, teacher.config.num_labels
    if name == SMALL:
        return bert_student(teacher, width=setting.width, layers=setting.layers, seed=seed)
    if name == CUT:
        return truncate(teacher, setting.layers)
    auto: Any = AutoModelForSequenceClassification
    set_seed(seed)
    if not _weightless(name):
        return auto.from_pretrained(name, num_labels=labels)
    config = _config(name)
    config.num_labels, config.problem_type = labels, teacher.config.problem_type
    student = auto.from_config(config)
    principal_start(student, teacher)
    return student


def _weightless(name: str) -> bool:
    """Whether it is a folder with a configuration and no weights."""
    folder = Path(name)
    return folder.is_dir() and not [*folder.glob("*.safetensors"), *folder.glob("*.bin")]


def _reads(name: str, tokenizer: Any) -> bool:
    """Whether the student's tokenizer has the words of `tokenizer`; a folder may have none."""
    from transformers import AutoTokenizer

    if Path(name).is_dir() and not list(Path(name).glob("tokenizer*")):
        return True
    same: bool = AutoTokenizer.from_pretrained(name).get_vocab() == tokenizer.get_vocab()
    return same


def _config(name: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:  # no such folder, offline, no configuration
        raise InputError(
            f"student is {name!r}; expected {SMALL}, {CUT}, a folder with a model or its "
            f"configuration, or a name of the hub ({str(error).splitlines()[0]})"
        ) from error
