"""A training run of a few steps, for `students` and `language`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from geodistill.distill import FeatureDistillationTrainer, FeatureTerm
from geodistill.distill.collate import pad
from geodistill.experiments.training import fit, training_arguments
from geodistill.losses import KLDivergenceLoss


def trainer(
    student: Any,
    data: list[dict[str, Any]],
    folder: Path,
    steps: int,
    batch: int,
    device: str,
    *losses: Any,
    **source: Any,
) -> FeatureDistillationTrainer:
    """A trainer of KD with feature losses on the last layers.

    Args:
        student: the model to train.
        data: training examples.
        folder: for checkpoints.
        steps: number of updates.
        batch: examples per step.
        device: "cpu" or "cuda".
        *losses: feature losses.
        **source: the teacher or its cache, as for `FeatureDistillationTrainer`.
    """
    return FeatureDistillationTrainer(
        model=student,
        args=training_arguments(
            folder,
            seed=0,
            max_steps=steps,
            per_device_train_batch_size=batch,
            use_cpu=device == "cpu",
        ),
        train_dataset=data,
        data_collator=partial(pad, pad_id=0),
        terms=[FeatureTerm(-1, -1, loss) for loss in losses],
        logit_loss=KLDivergenceLoss(),
        **source,
    )


def train(*args: Any, **source: Any) -> None:
    """Build a `trainer` and run it."""
    fit(trainer(*args, **source))
