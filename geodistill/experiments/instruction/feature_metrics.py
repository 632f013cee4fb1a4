"""Geometry of a student's answer tokens: against the teacher's, and in the course of training."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from geodistill.distill import TeacherCache
from geodistill.distill.collate import batches_by_length, to_device
from geodistill.distill.feature_term import loss_mask
from geodistill.experiments.feature_scores import normalized_scores, score_ranges
from geodistill.experiments.instruction.generate import BATCH_SIZE, Example
from geodistill.experiments.instruction.setup import InstructionSetup
from geodistill.geometry import cka, participation_ratio, procrustes_parts
from geodistill.geometry.normalized_score import ScoreRange

CHECKPOINT_FRACTIONS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
"""Fractions of a training after which the participation ratio is measured."""
N_PROBE_EXAMPLES = 100
"""Test prompts that it is measured on."""


@torch.no_grad()
def answer_features(model: Any, examples: list[Example], pad_id: int) -> Tensor:
    """Last-layer features of all answer tokens, in the order of the examples.

    Args:
        model: a causal language model.
        examples: with `input_ids` and `labels`.
        pad_id: token for padding.

    Returns:
        The features that predict the answer tokens, (tokens, d) in float32.
    """
    model.eval()
    by_example: dict[int, Tensor] = {}
    for batch in batches_by_length(examples, BATCH_SIZE, pad_id):
        indices = batch.pop("row").tolist()
        batch = to_device(model, batch)
        masks = loss_mask(batch)
        del batch["labels"]
        out = model.base_model(**batch, output_hidden_states=True)
        for index, features, mask in zip(indices, out.hidden_states[-1], masks, strict=True):
            by_example[index] = features[mask].float().cpu()
    return torch.cat([by_example[i] for i in range(len(examples))])


def teacher_features(cache: TeacherCache) -> Tensor:
    """The teacher's features of all answer tokens, from a cache of one layer, (tokens, d)."""
    (layer,) = cache.manifest["layers"]
    return torch.tensor(cache.array(f"features_{layer}")).float()


def feature_metrics(setup: InstructionSetup, student: Any) -> dict[str, float]:
    """Measures of the student's and the teacher's geometry on the test set's answer tokens.

    Returns:
        `geometry_kept/<measure>` (0 at chance level, 1 at the best of that width), `cka`, the two
        parts of the squared Procrustes distance, and the participation ratios of both.
    """
    teacher = teacher_features(setup.test_cache)
    features = answer_features(student, setup.test, setup.tokenizer.pad_token_id)
    spectrum, alignment = procrustes_parts(teacher, features)
    return {
        **normalized_scores(_score_ranges(setup.test_cache, features.shape[1]), features),
        "cka": float(cka(teacher, features)),
        "procrustes/spectrum": float(spectrum),
        "procrustes/alignment": float(alignment),
        "participation_ratio": float(participation_ratio(features)),
        "participation_ratio/teacher": float(participation_ratio(teacher)),
    }


@functools.cache
def _score_ranges(cache: TeacherCache, d_student: int) -> dict[str, ScoreRange]:
    """Computed once for all students of a width: it takes seconds."""
    return score_ranges(teacher_features(cache), d_student)


class ParticipationRatioCallback(TrainerCallback):
    """Measures the participation ratio of the student's answer tokens during training.

    Args:
        setup: whose first test prompts it is measured on.
    """

    def __init__(self, setup: InstructionSetup) -> None:
        self.examples = setup.test[:N_PROBE_EXAMPLES]
        self.pad_id = setup.tokenizer.pad_token_id
        self.values: dict[str, float] = {}
        self.remaining = list(CHECKPOINT_FRACTIONS)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._measure(0.0, kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._measure(state.global_step / state.max_steps, kwargs["model"])

    def _measure(self, fraction: float, model: Any) -> None:
        due = [x for x in self.remaining if x <= fraction + 1e-9]
        if not due:
            return
        training = model.training
        features = answer_features(model, self.examples, self.pad_id)
        model.train(training)
        if not bool(features.isfinite().all()):  # the trainer reports it with the next loss
            return
        ratio = float(participation_ratio(features))
        self.values |= {f"participation_ratio/at{round(100 * x):03d}": ratio for x in due}
        self.remaining = self.remaining[len(due) :]
