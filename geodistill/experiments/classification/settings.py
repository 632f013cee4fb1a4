"""The settings of a classification run. Loads neither torch nor transformers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from geodistill.experiments.settings import setting

EMBEDDED = ("minilm", "mpnet")
"""Teachers that come with the project as assets."""
INPUTS = ("input_ids", "token_type_ids")
"""Columns that models read: the tokens, and to which text of a pair each belongs."""
FIRST, UNIFORM = "first", "uniform"
"""Students cut out of what the teacher was before fine-tuning: its first layers, or evenly spaced
ones; any other name is a folder or a name of the hub."""
INIT_SEED_OFFSET, ORDER_SEED_OFFSET = 1_000, 2_000
"""Added to a run's seed: the seeds of subsample, initialisation and data order never coincide."""


@dataclass(frozen=True)
class TeacherSettings:
    """Fine-tuning of an encoder on the task's training split.

    Attributes:
        model: "minilm" (6 layers, width 384) or "mpnet" (12 layers, width 768), or a folder or hub
            name of another encoder.
        epochs: passes over the training split; 0 takes a fine-tuned classifier as it is.
        batch_size: sentences per step.
        learning_rate: peak of the linear schedule.
        max_train: training sentences used, by the teacher and by students; 0 for all.
        seed: of the head's initialisation and of the data order.
    """

    model: str = "minilm"
    epochs: float = 2.0
    batch_size: int = 32
    learning_rate: float = 1e-4
    max_train: int = 0
    seed: int = 0


@dataclass(frozen=True)
class ClassificationSettings:
    """The settings of one run; runs of equal settings, method and seed are the same run.

    Attributes:
        task: name of a classification task.
        n_train: labelled sentences that the student sees; 0 for all.
        steps: of training, one batch each.
        batch_size: sentences per step.
        learning_rate: peak of the linear schedule.
        student: "first" or "uniform", that many layers of what the teacher was before fine-tuning,
            with its word embeddings frozen; or a folder or hub name of an encoder with the
            teacher's tokenizer. A folder that holds a configuration alone gives a random start.
        layers: of the student, if it is cut.
        temperature: of the logit distillation.
        kd_weight: share of the logit distillation in the loss; the labels have the rest.
        weight_multiplier: weight of the feature term, as a multiple of the gradient-norm ratio.
        weight_warmup_batches: batches over which that ratio is measured.
        teacher_layer: that the feature term compares, as in `FeatureTerm`.
        student_layer: that the feature term compares with it.
        max_length: longest text in tokens; longer texts are cut.
        max_test: test items used; 0 for all.
        n_probe_items: test items on whose token features the geometry is measured.
        split: what the student is scored on; "validation" serves to choose settings.
        teacher: how the teacher is fine-tuned.
    """

    task: str
    n_train: int = 500
    steps: int = 192
    batch_size: int = 32
    learning_rate: float = 3e-4
    student: str = FIRST
    layers: int = 3
    temperature: float = 2.0
    kd_weight: float = 0.9
    weight_multiplier: float = setting(1.0, stored_as="factor")
    weight_warmup_batches: int = 16
    teacher_layer: int = setting(-1, added_later=True)
    student_layer: int = setting(-1, added_later=True)
    max_length: int = 96
    max_test: int = 0
    n_probe_items: int = 200
    split: Literal["test", "validation"] = "test"
    teacher: TeacherSettings = field(default_factory=TeacherSettings)

    SETUP_FIELDS: ClassVar[tuple[str, ...]] = (
        "task", "student", "layers", "teacher_layer", "max_length", "max_test", "n_probe_items",
        "split", "teacher",
    )  # fmt: skip
    """Texts, teacher's outputs and probe depend on these; runs of one setup differ in the rest."""


def smoke_settings(task: str) -> ClassificationSettings:
    """The smallest settings that run every line, in seconds."""
    return ClassificationSettings(
        task,
        n_train=48,
        steps=4,
        layers=1,
        weight_warmup_batches=2,
        max_test=64,
        n_probe_items=16,
        teacher=TeacherSettings(epochs=1.0, max_train=64, batch_size=16),
    )
