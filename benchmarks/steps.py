"""A training of a few steps, as the rivals of `students` and `language` run it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from geodistill.distill import FeatureDistillationTrainer, FeatureTerm
from geodistill.experiments.training import fit, pad, training_arguments
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
    """KD with the feature `losses` on the last layers; `source` is the teacher or its cache."""
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
    """The training of `trainer`."""
    fit(trainer(*args, **source))
