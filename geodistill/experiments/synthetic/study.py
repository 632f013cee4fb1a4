"""The study `geodistill experiments synthetic`. Loads no torch before a run is made.

One run optimises a block of seeds as one batch; its items are one row per seed and checkpoint.
Objectives share teacher and start of a seed, so that their differences are paired.
"""

from __future__ import annotations

import hashlib
import time
from functools import partial
from itertools import product

from geodistill.experiments.run_store import Run
from geodistill.experiments.runner import Job, Study
from geodistill.experiments.settings import run_id
from geodistill.experiments.synthetic.settings import (
    OBJECTIVES,
    STARTS,
    TEACHERS,
    WIDTHS,
    SyntheticSettings,
    synthetic_config,
)

STUDY = "synthetic"
STORED_COLUMNS = {
    "seed": "start_seed",
    "loss_remaining": "left",
    "geometry_kept": "kept",
    "geometry_kept_gram": "kept_gram",
}
"""The names under which runs store the columns of a block."""
_DECIMALS = 5  # of stored items: beyond them is rounding of float32, and does not compress
_MINUTES = 0.04


def synthetic_study() -> Study:
    """Every teacher, width, start and objective."""
    blocks = [
        SyntheticSettings(teacher=teacher, d_student=width, start=start)
        for teacher, width, start in product(TEACHERS, WIDTHS, STARTS)
    ]
    jobs = [
        Job(
            run_id=run_id(
                settings.task, objective, settings.seeds[0], synthetic_config(settings, objective)
            ),
            label=f"{settings.task} {objective}",
            minutes=_MINUTES,
            work=partial(run_block, settings, objective),
            settings=settings,
            method=objective,
        )
        for settings in blocks
        for objective in OBJECTIVES
    ]
    return Study(STUDY, jobs, lambda jobs, progress: None)


def run_block(settings: SyntheticSettings, objective: str) -> Run:
    """One run: the students of all seeds of a block under one objective.

    Args:
        settings: of the block.
        objective: one of `OBJECTIVES`.
    """
    from geodistill.experiments.synthetic.evaluate import make_batch, train_block

    started = time.perf_counter()
    teachers = make_batch(settings).teachers
    items = train_block(settings, objective).rename(columns=STORED_COLUMNS)
    names = [f"seed {s} step {t}" for s, t in zip(items["start_seed"], items["step"], strict=True)]
    end = items[items["step"] == settings.steps]
    means = end.drop(columns=["step", "start_seed"]).mean().dropna()
    return Run(
        study=STUDY,
        task=settings.task,
        method=objective,
        seed=settings.seeds[0],
        config=synthetic_config(settings, objective),
        data_hash=hashlib.sha256(teachers.numpy().tobytes()).hexdigest()[:16],
        metrics={str(name): float(value) for name, value in means.items()},
        items=items.round(_DECIMALS).assign(item=names),
        wall_seconds=time.perf_counter() - started,
    )
