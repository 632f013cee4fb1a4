"""The classification study: how its runs are scored when settings and weights are chosen."""

from __future__ import annotations

import pandas as pd

from geodistill.analysis.stats.collapse import ONE_ANSWER, PEARSON, WITHIN
from geodistill.experiments.classification.settings import ClassificationSettings
from geodistill.experiments.methods import CLASSIFICATION_METHODS
from geodistill.experiments.tuned_grid import TunedGrid


class ClassificationGrid(TunedGrid):
    """The sections of `data/protocol/classification.yaml`."""

    study = "classification"
    settings_type = ClassificationSettings
    weight_field = "weight_multiplier"
    known_methods = CLASSIFICATION_METHODS

    def judge_runs(self, metrics: pd.DataFrame) -> pd.DataFrame:
        """Columns `score` and `collapsed`, by the rule of `analysis.find_collapsed`.

        The score is 100 times the accuracy, or Pearson's correlation where labels are scores; of a
        constant prediction that is 0.

        Args:
            metrics: one row per run, a column for each metric.
        """
        names = ["accuracy", "majority_accuracy", "largest_class", "pearson"]
        metrics = metrics.reindex(columns=names)
        over = (metrics["accuracy"] - metrics["majority_accuracy"]).round(9)
        by_class = (over <= WITHIN) | (metrics["largest_class"] >= ONE_ANSWER)
        collapsed = by_class.where(metrics["accuracy"].notna(), ~(metrics["pearson"] > PEARSON))
        score = 100 * metrics["accuracy"].fillna(metrics["pearson"]).fillna(0.0)
        return pd.DataFrame({"score": score, "collapsed": collapsed.astype(bool)})
