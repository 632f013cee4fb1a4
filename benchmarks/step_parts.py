"""Profile of a student's step: the share of each part in the processor time of a training run."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import steps
from benchmarks.students import BATCH, cached, small, student
from benchmarks.timing import Row, row
from geodistill.distill import FeatureDistillationTrainer
from geodistill.distill.training import step
from geodistill.experiments.training import fit
from geodistill.losses import ProcrustesLoss

STEPS = 30
FUNCTIONS = {  # of `training.step`, with the part of the step that each does
    "inherited_loss": "student forward, task loss",
    "outputs_of_teacher": "teacher from the cache",
    "logit_term": "KD",
    "add_feature_terms": "Procrustes term",
}


def step_parts(*, tiny: bool = False) -> list[Row]:
    """Shares of KD + Procrustes with a teacher cache, on a CPU, after a warm-up run."""
    with tempfile.TemporaryDirectory() as folder:
        size = small(tiny)
        teacher, data, cache = cached(Path(folder), "cpu", size)
        for _ in range(2):
            trainer = steps.trainer(
                student(teacher, size), data, Path(folder), STEPS, BATCH, "cpu",
                ProcrustesLoss(), teacher_cache=cache,
            )  # fmt: skip
            with _watched(trainer) as spent:
                start = time.process_time()
                fit(trainer)
                total = time.process_time() - start
    spent["batches, logs and the rest"] = total - sum(spent.values())
    return [
        row(
            f"share of a student's step: {part}",
            f"{BATCH} sentences",
            seconds / total,
            seconds={"part": seconds / STEPS, "step": total / STEPS},
        )
        for part, seconds in sorted(spent.items(), key=lambda item: -item[1])
    ]


@contextmanager
def _watched(trainer: FeatureDistillationTrainer) -> Iterator[dict[str, float]]:
    """Seconds of each part, filled during training."""
    spent: dict[str, float] = defaultdict(float)
    backward = partial(_timed, spent, "backward", trainer.accelerator.backward)
    trainer.accelerator.backward = backward
    optimizer = trainer.create_optimizer()
    starts: list[float] = []

    def end(*_: Any) -> None:
        spent["optimiser"] += time.process_time() - starts.pop()

    optimizer.register_step_pre_hook(lambda *_: starts.append(time.process_time()))
    optimizer.register_step_post_hook(end)
    with ExitStack() as stack:
        for name, part in FUNCTIONS.items():
            timed = partial(_timed, spent, part, getattr(step, name))
            stack.enter_context(mock.patch.object(step, name, timed))
        yield spent


def _timed(
    spent: dict[str, float], part: str, call: Callable[..., Any], *args: Any, **named: Any
) -> Any:
    start = time.process_time()
    try:
        return call(*args, **named)
    finally:
        spent[part] += time.process_time() - start
