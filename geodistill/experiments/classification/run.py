"""Classification: a fine-tuned BERT teaches a small one from few labelled sentences.

The teacher of a task is trained once on the task's training part and runs once; each student then
learns from `n_train` of those sentences. Methods of one seed share the subsample, the student's
start and the order of the batches: their difference is paired.
"""

import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geodistill.distill import FeatureDistillationTrainer, FeatureTerm
from geodistill.experiments.classification.evaluate import score
from geodistill.experiments.classification.setup import (
    ClassificationSetting,
    ClassificationSetup,
    cached_rows,
    open_classroom,
    smoke,
)
from geodistill.experiments.classification.teacher import TeacherSetting
from geodistill.experiments.methods import (
    CLASSIFICATION_METHODS,
    Geometry,
    check_method,
    feature_loss,
    uses_teacher_logits,
)
from geodistill.experiments.run_store import Run, run_config
from geodistill.experiments.training import (
    beside,
    collate,
    fit,
    in_batches,
    scratch,
    threads,
    training_arguments,
)
from geodistill.losses import KLDivergenceLoss
from geodistill.tasks import stratified_subsample

__all__ = [
    "STUDY",
    "ClassificationSetting",
    "TeacherSetting",
    "classification_config",
    "open_classroom",
    "run_classification",
    "smoke",
]
STUDY = "exploratory/classification"
INIT, ORDER = 1_000, 2_000
"""Added to a run's seed: its seeds of subsample, start and order never coincide."""
LATER = {
    "rows": "all", "part": "test", "memory": 0.0, "teacher_layers": (-1,), "start_seed": None,
    "student": "bert",
}  # fmt: skip


def run_classification(
    room: ClassificationSetup, method: str, seed: int, study: str = STUDY
) -> tuple[Run, Any]:
    """Train and score one student.

    Args:
        room: the task and its teacher.
        method: one of `CLASSIFICATION_METHODS`.
        seed: of the subsample, the start and the order.
        study: under whose name the run is stored.

    Returns:
        The run, and the trained student.

    Raises:
        InputError: unknown method, more sentences asked for than there are.
    """
    check_method(method, CLASSIFICATION_METHODS)
    started = time.perf_counter()
    setting = room.setting
    shots = stratified_subsample(room.train, setting.n_train or len(room.train), seed)
    start = seed if setting.start_seed is None else setting.start_seed
    student = room.student(INIT + start)
    with scratch() as folder, threads(1):
        trainer = FeatureDistillationTrainer(
            model=student,
            args=training_arguments(
                Path(folder),
                seed=ORDER + start,
                num_train_epochs=setting.epochs,
                per_device_train_batch_size=setting.batch_size,
                learning_rate=setting.learning_rate,
            ),
            train_dataset=shots,
            data_collator=partial(collate, room.pad_id, ("input_ids", "labels", "row")),
            **_distillation(room, method, seed, shots),
        )
        fit(trainer)
    metrics, items = score(room, student)
    metrics |= trainer.term_weights()
    config = classification_config(setting, method)
    run = Run(
        study, setting.task, method, seed, config, room.data_hash, metrics, items,
        wall_seconds=time.perf_counter() - started,
    )  # fmt: skip
    return run, student


def _distillation(room: ClassificationSetup, method: str, seed: int, shots: Any) -> dict[str, Any]:
    """Arguments of the mixin for one method; none for learning from labels alone."""
    setting = room.setting
    terms = _terms(room, method, seed, shots)
    given: dict[str, Any] = {"teacher_cache": room.train_cache, "terms": terms}
    if uses_teacher_logits(method):
        given |= {
            "logit_loss": KLDivergenceLoss(temperature=setting.temperature)
            if room.classes
            else SquaredError(),
            "task_weight": 1 - setting.kd_share,
            "logit_weight": setting.kd_share,
        }
    return given if terms or uses_teacher_logits(method) else {}


def _terms(room: ClassificationSetup, method: str, seed: int, shots: Any) -> list[FeatureTerm]:
    """One feature term for each of the matched layers, or none."""
    setting = room.setting
    layers = setting.teacher_layers
    terms = []
    for place, layer in enumerate(layers):
        geometry = Geometry(
            room.width,
            room.teacher.config.hidden_size,
            partial(cached_rows, room.train_cache, shots, room.pad_id, place),
            seed,
            setting.memory,
            partial(teacher_gradients, room, shots, layer),
        )
        loss = feature_loss(method, geometry)
        if loss is not None:
            student_layer = place - len(layers)
            terms.append(
                FeatureTerm(
                    layer, student_layer, loss, weight=setting.factor / len(layers),
                    rows=setting.rows, balance=setting.balance,
                )
            )  # fmt: skip
    return terms


def teacher_gradients(room: ClassificationSetup, shots: Any, layer: int) -> Tensor:
    """Gradients of the teacher's own loss at its features of the tokens of `shots`, (tokens, d)."""
    found = []
    for batch in in_batches(list(shots.select_columns(["input_ids", "labels"])), 32, room.pad_id):
        del batch["row"]
        batch = beside(room.teacher, batch)
        mask = batch["attention_mask"].bool()
        out = room.teacher(**batch, output_hidden_states=True)
        found.append(torch.autograd.grad(out.loss, out.hidden_states[layer])[0][mask].cpu())
    return torch.cat(found)


class SquaredError(nn.Module):
    """The logit loss of a score: mean squared difference of student and teacher."""

    requires_hidden_states = False
    temperature = 1.0

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return nn.functional.mse_loss(student, teacher)


def classification_config(setting: ClassificationSetting, method: str) -> dict[str, Any]:
    """Everything that a run of `method` depends on besides its seed and the data."""
    return run_config(setting, method, LATER)
