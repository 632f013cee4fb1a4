"""What is measured of free students, and the study `geodistill grid synthetic`.

One run trains a block of seeds as one batch (`synthetic.descend`): its items are a row a seed and
checkpoint. Methods of a seed share teacher and start, so their differences are paired.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from itertools import product
from typing import Any

import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from geodistill.analysis.stored_results import read_stored
from geodistill.errors import InputError
from geodistill.experiments.run_store import Run, results_dir, run_id
from geodistill.experiments.runner import Job, Study
from geodistill.experiments.synthetic.optimize import (
    LEARNING_RATES,
    OBJECTIVES,
    STARTS,
    TEACHERS,
    Setting,
    descend,
    evaluate,
    floor,
    make_start,
    make_teachers,
)
from geodistill.geometry import (
    Calibration,
    calibrate,
    cka,
    epsilon_orthogonal_subset,
    feature_gram_distance,
    orthogonality,
    participation_ratio,
    procrustes_distance,
    procrustes_parts,
    projection_distance,
)

STUDY = "synthetic"
WIDTHS, SEEDS = (8, 32, 48), tuple(range(6))
COMPONENTS = (1, 2, 4, 8, 16, 32)
DECIMALS = 5  # of stored items: what is past them is rounding of float32, and does not compress


@dataclass(frozen=True)
class Bench:
    """The teachers of one cell, a seed each, and all that is measured of students of them."""

    teachers: Tensor  # (s, n, d_teacher)
    seeds: tuple[int, ...]
    setting: Setting
    procrustes: tuple[Calibration, ...]
    gram: tuple[Calibration, ...]

    @classmethod
    def of(cls, teacher: str, setting: Setting, seeds: Sequence[int]) -> Bench:
        """Teachers of `seeds` and their calibration; InputError for an unknown teacher."""
        teachers = make_teachers(teacher, setting, seeds)
        procrustes, gram = (
            tuple(calibrate(measure, x, setting.d_student) for x in teachers)
            for measure in (procrustes_distance, feature_gram_distance)
        )
        return cls(teachers, tuple(seeds), setting, procrustes, gram)

    def measure(self, students: Tensor) -> dict[str, Tensor]:
        """Every diagnostic, (c, s), of students (c, s, n, d_student).

        `kept`, `kept_gram`: geometry kept; `spectrum`, `alignment`: the parts of D_P²; `r2`: the
        teacher's variance a linear map finds; `vectors`, `pairs`: ε-orthogonal; `pc<k>`: the
        variance along the teacher's k-th component, as a multiple of the teacher's.
        """
        x, y = self.teachers.expand(len(students), -1, -1, -1).double(), students.double()
        unit: dict[str, Any] = {"center": True, "scale": "frobenius"}
        distance, gram = procrustes_distance(x, y, **unit), feature_gram_distance(x, y, **unit)
        spectrum, alignment = procrustes_parts(x, y)
        return {
            "procrustes": distance,
            "gram": gram,
            "cka": cka(x, y),
            "kept": _kept(self.procrustes, distance),
            "kept_gram": _kept(self.gram, gram),
            "spectrum": spectrum,
            "alignment": alignment,
            "participation": participation_ratio(y),
            "r2": 1 - projection_distance(x, y, **unit) ** 2,
            "pairs": orthogonality(y, self.setting.eps),
            "vectors": epsilon_orthogonal_subset(y, self.setting.eps).sum(-1).double(),
            **_components(x, y),
        }


def _kept(calibrations: Sequence[Calibration], value: Tensor) -> Tensor:
    null, best = (
        torch.tensor([getattr(c, name) for c in calibrations]).to(value)
        for name in ("null", "best")
    )
    return (null - value) / (null - best)


def _components(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """‖Yᵀu_k‖²/λ_k of the teacher's components u_k, both sides centred and of unit norm."""
    x, y = (f - f.mean(-2, keepdim=True) for f in (x, y))
    x, y = (f / torch.linalg.matrix_norm(f)[..., None, None] for f in (x, y))
    u, s, _ = torch.linalg.svd(x[0], full_matrices=False)
    found = (u.mT @ y).square().sum(-1) / s.square().clamp_min(1e-12)
    rank = s.square().gt(1e-9).sum(-1)
    kept = torch.arange(s.shape[-1]) < rank[:, None]
    found = torch.where(kept, found, torch.nan)
    return {f"pc{k}": found[..., k - 1] for k in COMPONENTS if k <= s.shape[-1]}


def trial(objective: str, start: str, bench: Bench) -> pd.DataFrame:
    """Train a block of seeds: a row a seed and checkpoint.

    `left` is the share of the reducible loss that is left, 1 for the random student of that seed.
    Raises InputError for an unknown objective or start.
    """
    setting, teachers, seeds = bench.setting, bench.teachers, bench.seeds
    students = make_start(start, teachers, setting.d_student, seeds)
    path = descend(objective, teachers, students, steps=setting.steps)
    random = make_start("random", teachers, setting.d_student, seeds)
    lowest = torch.tensor([floor(objective, x, setting.d_student) for x in teachers])
    left = (path.loss - lowest) / (evaluate(objective, teachers, random) - lowest)
    found = {"loss": path.loss, "left": left, **bench.measure(path.students)}
    shape = path.loss.shape
    columns = {
        "step": torch.tensor(path.steps)[:, None].expand(shape).flatten().numpy(),
        "start_seed": torch.tensor(seeds).expand(shape).flatten().numpy(),
    }
    return pd.DataFrame(columns | {k: v.flatten().float().numpy() for k, v in found.items()})


def study(
    setting: Setting,
    teachers: Sequence[str],
    seeds: Sequence[int],
    objectives: Sequence[str] = tuple(OBJECTIVES),
    start: str = "random",
) -> pd.DataFrame:
    """The trials of every teacher × objective, live; columns teacher, objective beside theirs.

    Raises InputError for an unknown teacher, objective or start.
    """
    frames = []
    for name in teachers:
        bench = Bench.of(name, setting, seeds)
        for objective in objectives:
            keys = {"teacher": name, "objective": objective}
            frames.append(trial(objective, start, bench).assign(**keys))
    return pd.concat(frames, ignore_index=True)


# --- the grid ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One teacher, width and start: a task of the study."""

    teacher: str
    width: int
    start: str

    @property
    def task(self) -> str:
        return f"{self.teacher}, d {self.width}, {self.start}"


def synthetic_study() -> Study:
    """Every teacher, width, start and objective; a run is a block of seeds."""
    setting = Setting()
    cells = [Cell(*c) for c in product(TEACHERS, WIDTHS, STARTS)]
    jobs = [
        Job(
            run_id=run_id(cell.task, objective, SEEDS[0], config(cell, objective, setting)),
            label=f"{cell.task} {objective}",
            minutes=0.04,
            work=partial(run_cell, cell, objective, setting),
        )
        for cell in cells
        for objective in OBJECTIVES
    ]
    return Study(STUDY, jobs, lambda _jobs, _report: None)


def config(cell: Cell, objective: str, setting: Setting) -> dict[str, Any]:
    """Everything a run depends on besides its first seed."""
    return {
        **asdict(replace(setting, d_student=cell.width)),
        **asdict(cell),
        "method": objective,
        "learning_rate": LEARNING_RATES[objective],
        "seeds": list(SEEDS),
        "n_train": setting.n,
    }


_bench: Callable[..., Bench] = cache(Bench.of)


def run_cell(cell: Cell, objective: str, setting: Setting) -> Run:
    """One run: the block of seeds of a cell under one objective."""
    started = time.perf_counter()
    bench = _bench(cell.teacher, replace(setting, d_student=cell.width), SEEDS)
    items = trial(objective, cell.start, bench)
    names = [f"seed {s} step {t}" for s, t in zip(items["start_seed"], items["step"], strict=True)]
    end = items[items["step"] == setting.steps]
    means = end.drop(columns=["step", "start_seed"]).mean().dropna()
    metrics = {str(name): float(value) for name, value in means.items()}
    return Run(
        study=STUDY,
        task=cell.task,
        method=objective,
        seed=SEEDS[0],
        config=config(cell, objective, setting),
        data_hash=hashlib.sha256(bench.teachers.numpy().tobytes()).hexdigest()[:16],
        metrics=metrics,
        items=items.round(DECIMALS).assign(item=names),
        wall_seconds=time.perf_counter() - started,
    )


def stored() -> pd.DataFrame:
    """The committed rows, a row a seed and checkpoint, with teacher, width, start, objective.

    In the order of the steps: the tables are in that of their ids' letters.

    Raises InputError where there are none.
    """
    path = results_dir() / STUDY / "items.parquet"
    if not path.is_file():
        raise InputError(f"no stored rows at {path}: make them with `geodistill grid {STUDY}`")
    items = read_stored(path)
    cells = items["task"].str.extract(r"^(?P<teacher>.*), d (?P<width>\d+), (?P<start>\w+)$")
    cells["width"] = cells["width"].astype(int)
    items = items.drop(columns=["seed", "task"]).rename(
        columns={"method": "objective", "start_seed": "seed"}
    )
    return pd.concat([items, cells], axis=1).sort_values("step", kind="stable", ignore_index=True)


# --- means over seeds ----------------------------------------------------------------------------


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean and Student's t interval of independent values; raises InputError for fewer than two."""
    n = len(values)
    if n < 2:
        raise InputError(f"values has {n}: expected at least two for an interval")
    mean = math.fsum(values) / n
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * spread
    return mean, mean - half, mean + half


def by_seed(frame: pd.DataFrame, column: str, by: Sequence[str]) -> pd.DataFrame:
    """Mean and interval of `column` over seeds: columns by…, mean, low, high, n."""
    rows = []
    for key, group in frame.groupby(list(by), sort=False):
        mean, low, high = mean_interval(group.groupby("seed")[column].mean().tolist())
        n = group["seed"].nunique()
        rows.append(
            dict(zip(by, key, strict=True)) | {"mean": mean, "low": low, "high": high, "n": n}
        )
    return pd.DataFrame(rows)
