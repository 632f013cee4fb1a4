"""The confirmatory classification study: the runs that its protocol file asks for.

`data/protocol/classification.yaml` is the grid. A section crosses tasks, methods, seeds, numbers of
labelled sentences and weight factors; `factors: chosen` takes each method's factor from the rows of
the tuning section (or of the one it names as `tuned_by`), and every section but those leaves out
the tasks that nothing learns.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pandas as pd

from geodistill.experiments import protocol_grid
from geodistill.experiments.classification.setup import ClassificationSetting
from geodistill.experiments.methods import FEATURE_LOSSES

FOLDER = "classification"
TUNING = "tuning"
SEEN, FEWEST = 7_500, 3.0
"""Sentences seen in a training, as long as that means at least so many epochs."""

Planned = tuple[ClassificationSetting, str, int]


def protocol() -> dict[str, Any]:
    """The blocks of the study's protocol file."""
    return protocol_grid.protocol(FOLDER)


def epochs_for(n_train: int) -> float:
    """15 epochs of 500 sentences; n_train = 0, all, stands for three epochs."""
    return max(FEWEST, SEEN / n_train) if n_train else FEWEST


def runs(section: str) -> list[Planned]:
    """Setting, method and seed of every run of a section, seeds outermost.

    Raises:
        InputError: no such section; factors or tasks that the unfinished tuning has to give.
    """
    asked = protocol()
    spec = protocol_grid.section(asked, section)
    tasks, chosen = spec["tasks"], None
    if spec["seeds"] != asked["seeds"]["tuning"]:
        rows = tuning_rows()
        left_out = dropped(rows, asked["drop"])
        tasks = [task for task in tasks if task not in left_out]
        chosen = chosen_factors(tuning_rows(spec.get("tuned_by", TUNING)))
    return list(dict.fromkeys(_cross(spec, tasks, chosen)))


def _cross(
    spec: dict[str, Any], tasks: list[str], chosen: dict[str, float] | None
) -> Iterator[Planned]:
    cells = product(
        spec["seeds"], tasks, spec["n_train"], protocol_grid.shapes(spec), spec["methods"]
    )
    for seed, task, n_train, shape, method in cells:
        for factor in protocol_grid.weights(spec["factors"], method, chosen):
            given = {"epochs": epochs_for(n_train), "factor": factor, **shape}
            yield ClassificationSetting(task, n_train=n_train, **given), method, seed


def progress() -> pd.DataFrame:
    """A line a section: runs planned (before any task is dropped) and runs stored."""
    return protocol_grid.progress(FOLDER, size)


def size(spec: dict[str, Any]) -> int:
    """How many runs a section has before any task is dropped."""
    any_factor = dict.fromkeys(FEATURE_LOSSES, 1.0)
    return len(set(_cross(spec, spec["tasks"], any_factor)))


def tuning_rows(section: str = TUNING) -> pd.DataFrame:
    """The rows of a finished tuning section: task, method, seed, factor, metric, value.

    Raises:
        InputError: it is not finished.
    """
    return protocol_grid.finished_rows(FOLDER, section, len(runs(section)))


def chosen_factors(rows: pd.DataFrame) -> dict[str, float]:
    """By term, the factor of the best mean score over tasks and seeds; the smaller one of equals.

    The score of a task with classes is its accuracy, of one with scores the Pearson correlation.
    """
    scores = rows[rows["metric"].isin(("accuracy", "pearson"))]
    return protocol_grid.best(scores, "factor", highest=True)


def dropped(rows: pd.DataFrame, rule: dict[str, float]) -> list[str]:
    """Tasks where neither cross-entropy nor KD clears the baseline on validation.

    Args:
        rows: of the tuning section.
        rule: `points` above the majority's accuracy, or the least `pearson`.
    """
    mean = rows.groupby(["task", "method", "metric"])["value"].mean().unstack()
    base = mean[mean.index.get_level_values("method").isin(("ce", "kd"))]
    gain = 100 * (base["accuracy"] - base["majority_accuracy"]) - rule["points"]
    clears = gain.fillna(base["pearson"] - rule["pearson"] if "pearson" in base else -1.0) >= 0
    best = clears.groupby("task").any()
    return sorted(best.index[~best])
