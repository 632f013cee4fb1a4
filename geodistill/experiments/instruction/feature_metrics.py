"""The geometry of a student's answer tokens: at the end against the teacher, and on the way."""

import functools
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from geodistill.distill import TeacherCache
from geodistill.distill.feature_term import kept_rows
from geodistill.experiments.classification.setup import MEASURES, geometry_kept
from geodistill.experiments.instruction.evaluate import Example, model_inputs
from geodistill.experiments.instruction.setup import InstructionRoom
from geodistill.experiments.training import beside, in_batches
from geodistill.geometry import cka, participation_ratio, procrustes_parts
from geodistill.geometry.normalized_score import Calibration, calibrate

MARKS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
"""Shares of a training after which the participation ratio is taken."""
PROBE = 100
"""Test prompts that it is taken on."""


@torch.no_grad()
def response_features(model: Any, examples: list[Example], pad_id: int) -> Tensor:
    """Last-layer features of all answer positions, in the order of the examples, (tokens, d)."""
    model.eval()
    found: dict[int, Tensor] = {}
    for batch in in_batches([model_inputs(e) for e in examples], 32, pad_id):
        rows = batch.pop("row").tolist()
        batch = beside(model, batch)
        mask = kept_rows(batch)
        del batch["labels"]
        out = model.base_model(**batch, output_hidden_states=True)
        for row, features, kept in zip(rows, out.hidden_states[-1], mask, strict=True):
            found[row] = features[kept].float().cpu()
    return torch.cat([found[i] for i in range(len(examples))])


def geometry(room: InstructionRoom, student: Any) -> dict[str, float]:
    """What the student has of the teacher's geometry on the test part's answer tokens.

    `geometry_kept/<measure>` (1 at the best of that width, 0 where that one is shuffled), `cka`,
    the two parts of the squared Procrustes distance, and the participation ratios of both.
    """
    teacher = stored_rows(room.test_cache)
    rows = response_features(student, room.test, room.tokenizer.pad_token_id)
    width = rows.shape[1]
    spectrum, alignment = procrustes_parts(teacher, rows)
    return {
        **geometry_kept(_calibrations(room.test_cache, width), rows),
        "cka": float(cka(teacher, rows)),
        "procrustes/spectrum": float(spectrum),
        "procrustes/alignment": float(alignment),
        "participation_ratio": float(participation_ratio(rows)),
        "participation_ratio/teacher": float(participation_ratio(teacher)),
    }


def stored_rows(cache: TeacherCache) -> Tensor:
    """Teacher features of all answer tokens of a cache of one layer, (tokens, d_teacher)."""
    (layer,) = cache.manifest["layers"]
    return torch.tensor(cache.array(f"features_{layer}")).float()


@functools.cache
def _calibrations(cache: TeacherCache, width: int) -> dict[str, Calibration]:
    """Null and best of each measure, the same for all students of a width; seconds each."""
    rows = stored_rows(cache)
    return {name: calibrate(measure, rows, width) for name, measure in MEASURES.items()}


class SpreadOnTheWay(TrainerCallback):
    """The participation ratio of the student's answer tokens at fixed shares of its training.

    Args:
        room: whose first test prompts are the probe.
        stages: trainings that follow one another; the shares are of all.
    """

    def __init__(self, room: InstructionRoom, stages: int) -> None:
        self.examples = room.test[:PROBE]
        self.pad_id = room.tokenizer.pad_token_id
        self.stages, self.finished = stages, 0
        self.values: dict[str, float] = {}
        self.left = list(MARKS)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._take(self.finished / self.stages, kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        share = state.global_step / state.max_steps
        self._take((self.finished + share) / self.stages, kwargs["model"])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.finished += 1

    def _take(self, share: float, model: Any) -> None:
        if not self.left or share < self.left[0] - 1e-9:
            return
        training = model.training
        features = response_features(model, self.examples, self.pad_id)
        model.train(training)
        if not bool(features.isfinite().all()):  # the trainer's next loss tells it, with its batch
            return
        ratio = float(participation_ratio(features))
        while self.left and share >= self.left[0] - 1e-9:
            self.values[f"participation_ratio/at{round(100 * self.left.pop(0)):03d}"] = ratio
