"""The settings of a classification run. Loads neither torch nor transformers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from geodistill.experiments.settings import setting

SMALL, CUT, PRETRAINED = "bert", "truncate", "pretrained"
"""Students made from the teacher, or from the model that the teacher was fine-tuned from; any other
name is a folder or a name of the hub."""
INIT_SEED_OFFSET, ORDER_SEED_OFFSET = 1_000, 2_000
"""Added to a run's seed: the seeds of subsample, initialisation and data order never coincide."""


@dataclass(frozen=True)
class TeacherSettings:
    """Fine-tuning of an encoder on the task's training split.

    Attributes:
        model: "minilm", the embedded 6-layer BERT, or a folder or hub name of another encoder.
        epochs: passes over the training split.
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
        epochs: passes over these sentences.
        batch_size: sentences per step.
        learning_rate: peak of the linear schedule.
        width: hidden size of a small BERT student.
        layers: of the student.
        temperature: of the logit distillation.
        kd_weight: share of the logit distillation in the loss; the labels have the rest.
        weight_multiplier: weight of the feature term, as a multiple of the gradient-norm ratio.
        weight_warmup_batches: batches over which that ratio is measured.
        max_length: longest text in tokens; longer texts are cut.
        max_test: test items used; 0 for all.
        n_probe_items: test items on whose token features the geometry is measured.
        teacher: how the teacher is fine-tuned.
        pooling: rows of the feature term: "all" tokens, or the "first" of each sentence.
        split: what the student is scored on; "validation" serves to choose settings.
        decay: of the moving average of moments in a geometry loss; 0 for the batch alone.
        teacher_layers: matched with the student's last ones, in order, one feature term each.
        start_seed: of initialisation and data order, if the run's seed sets the subsample alone.
        student: "bert", a small one of `layers` x `width`; "truncate", the teacher cut to `layers`;
            "pretrained", the same of the model that the teacher was fine-tuned from; or a folder or
            hub name of an encoder with the teacher's tokenizer. A folder that holds a configuration
            alone gives a random start.
    """

    task: str
    n_train: int = 500
    epochs: float = 15.0
    batch_size: int = 32
    learning_rate: float = 1e-3
    width: int = 128
    layers: int = 3
    temperature: float = 2.0
    kd_weight: float = setting(0.9, stored_as="kd_share")
    weight_multiplier: float = setting(20.0, stored_as="factor")
    weight_warmup_batches: int = setting(32, stored_as="balance")
    max_length: int = 96
    max_test: int = 0
    n_probe_items: int = setting(200, stored_as="probe")
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    pooling: Literal["all", "first"] = setting("all", stored_as="rows", added_later=True)
    split: Literal["test", "validation"] = setting("test", stored_as="part", added_later=True)
    decay: float = setting(0.0, stored_as="memory", added_later=True)
    teacher_layers: tuple[int, ...] = setting((-1,), added_later=True)
    start_seed: int | None = setting(None, added_later=True)
    student: str = setting(SMALL, added_later=True)


def smoke(task: str) -> ClassificationSettings:
    """The smallest settings that run every line, in seconds."""
    return ClassificationSettings(
        task,
        n_train=48,
        epochs=2.0,
        width=64,
        layers=1,
        weight_warmup_batches=2,
        max_test=64,
        n_probe_items=16,
        teacher=TeacherSettings(epochs=1.0, max_train=64, batch_size=16),
    )
