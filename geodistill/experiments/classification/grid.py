"""The runs of the classification study: how weights are chosen and tasks dropped."""

from __future__ import annotations

import pandas as pd

from geodistill.errors import InputError
from geodistill.experiments.classification.settings import ClassificationSettings
from geodistill.experiments.methods import CLASSIFICATION_METHODS
from geodistill.experiments.protocol_grid import ProtocolGrid, best_weights


class ClassificationGrid(ProtocolGrid):
    """The sections of `data/protocol/classification.yaml`."""

    study = "classification"
    settings_type = ClassificationSettings
    weight_field = "weight_multiplier"
    known_methods = CLASSIFICATION_METHODS

    def choose_weights(self, rows: pd.DataFrame) -> dict[str, float]:
        """The weight of each term with the best mean accuracy (Pearson where labels are scores)."""
        scores = rows[rows["metric"].isin(("accuracy", "pearson"))]
        return best_weights(scores, higher_is_better=True)

    def tasks_with_signal(self, rows: pd.DataFrame, tasks: list[str]) -> list[str]:
        """The tasks where cross-entropy or KD clears the trivial baseline by the protocol's `drop`.

        Raises:
            InputError: there is none.
        """
        dropped = tasks_without_signal(rows, **self.protocol()["drop"])
        remaining = [task for task in tasks if task not in dropped]
        if not remaining:
            raise InputError(f"no student learns any of the tasks {', '.join(tasks)}")
        return remaining


def tasks_without_signal(rows: pd.DataFrame, points: float, pearson: float) -> list[str]:
    """Tasks where neither cross-entropy nor KD clears the trivial baseline on validation.

    Args:
        rows: of the tuning section: task, method, metric, value.
        points: of accuracy above the majority class, for tasks with classes.
        pearson: correlation, for tasks with scores.
    """
    means = rows.groupby(["task", "method", "metric"])["value"].mean().unstack()
    base = means[means.index.get_level_values("method").isin(("ce", "kd"))]
    margin = 100 * (base["accuracy"] - base["majority_accuracy"]) - points
    clears = margin.fillna(base["pearson"] - pearson if "pearson" in base else -1.0) >= 0
    by_task = clears.groupby("task").any()
    return sorted(by_task.index[~by_task])
