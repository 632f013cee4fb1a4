"""Students of a classification study: a small BERT, a larger one cut short, or a given model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geodistill.distill.students import (
    bert_student,
    check_layers,
    check_width,
    principal_start,
    truncate,
)
from geodistill.errors import InputError
from geodistill.experiments.classification.teacher import check_labels

SMALL, CUT, PRETRAINED = "bert", "truncate", "pretrained"
"""Students made from the teacher, or from what it was fine-tuned from; any other name is that of a
folder or of the hub."""


@dataclass(frozen=True)
class Pupils:
    """Which students a setting asks for.

    Attributes:
        name: SMALL, CUT, PRETRAINED, a folder, or a name of the hub.
        width: hidden size of a small BERT.
        layers: of a small BERT, or of the teacher's that stay.
        base: the model that the teacher was fine-tuned from.
    """

    name: str
    width: int
    layers: int
    base: str

    def size(self, teacher: Any, tokenizer: Any, outputs: int, task: str) -> tuple[int, int]:
        """Their width and number of layers, checked before a teacher is trained.

        Args:
            teacher: its configuration.
            tokenizer: the teacher's.
            outputs: the task's number of labels, 1 for a score.
            task: its name, for messages.

        Raises:
            InputError: a size that cannot be made; a model that cannot be found, has other tokens,
                or was fine-tuned for another number of labels.
        """
        if self.name == SMALL:
            check_width(self.width, 32, getattr(teacher, "embedding_size", teacher.hidden_size))
            if self.layers < 1:
                raise InputError(f"layers is {self.layers}; expected at least 1")
            return self.width, self.layers
        if self.name in (CUT, PRETRAINED):
            check_layers(self.layers, teacher.num_hidden_layers)
            return teacher.hidden_size, self.layers
        config = _config(self.name)
        if config.vocab_size != teacher.vocab_size or not _reads(self.name, tokenizer):
            raise InputError(
                f"student {self.name!r} (vocabulary: {config.vocab_size}) has other tokens than "
                f"the teacher (vocabulary: {teacher.vocab_size}); expected the same"
            )
        if not _weightless(self.name):
            check_labels(self.name, outputs, task, what="student")
        return config.hidden_size, config.num_hidden_layers

    def make(self, teacher: Any, seed: int) -> Any:
        """An untrained student, once `size` has checked it.

        Args:
            teacher: a classifier; gives its labels, its embeddings or its layers.
            seed: of the weights that start at random.
        """
        from transformers import AutoModelForSequenceClassification, set_seed

        if self.name == SMALL:
            return bert_student(teacher, width=self.width, layers=self.layers, seed=seed)
        if self.name == CUT:
            return truncate(teacher, self.layers)
        auto: Any = AutoModelForSequenceClassification
        set_seed(seed)
        if self.name == PRETRAINED:
            whole = auto.from_pretrained(self.base, num_labels=teacher.config.num_labels)
            return truncate(whole, self.layers)
        if not _weightless(self.name):
            return auto.from_pretrained(self.name, num_labels=teacher.config.num_labels)
        config = _config(self.name)
        config.num_labels = teacher.config.num_labels
        config.problem_type = teacher.config.problem_type
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
            f"student is {name!r}; expected {SMALL}, {CUT}, {PRETRAINED}, a folder with a model or "
            f"its configuration, or a name of the hub ({str(error).splitlines()[0]})"
        ) from error
