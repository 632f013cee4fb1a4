"""The runs of the classification study: how settings and weights are chosen, and tasks gated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from geodistill.analysis.stats.collapse import ONE_ANSWER, PEARSON, WITHIN
from geodistill.experiments.classification.settings import ClassificationSettings
from geodistill.experiments.methods import CLASSIFICATION_METHODS, term_of
from geodistill.experiments.protocol_grid import ProtocolGrid, UnplannedError

BASE = "kd"


class ClassificationGrid(ProtocolGrid):
    """The sections of `data/protocol/classification.yaml`."""

    study = "classification"
    settings_type = ClassificationSettings
    weight_field = "weight_multiplier"
    known_methods = CLASSIFICATION_METHODS

    def choose_weights(self, section: str) -> dict[str, float]:
        """The weight of each term with the best mean score over tasks and seeds.

        Raises:
            UnplannedError: the section is not complete, or a term has no eligible weight
                (`best_settings`).
        """
        runs = run_scores(self.tuning_rows(section)).rename(columns={"factor": "weight"})
        runs = runs[runs["method"].map(term_of) != ""]
        limits = self.protocol()["limits"]
        return {
            term_of(str(method)): best_settings(
                tried, ["weight"], limits, f"{method} in section {section}"
            )["weight"]
            for method, tried in runs.groupby("method")
        }

    def choose_settings(self, section: str) -> dict[str, dict[str, Any]]:
        """By task, the settings at which logit distillation alone has the best mean score.

        A task has none if runs collapsed at all settings.

        Raises:
            UnplannedError: the section is not complete, or the best value of a setting lies at the
                edge (`best_settings`).
        """
        runs = run_scores(self.tuning_rows(section))
        varied, limits = list(self.section(section)["vary"]), self.protocol()["limits"]
        settings = {}
        for task, tried in runs[runs["method"] == BASE].groupby("task"):
            if not tried.groupby(varied)["collapsed"].any().all():
                where = f"{BASE} on {task} in section {section}"
                settings[str(task)] = best_settings(tried, varied, limits, where)
        return settings

    def gated_tasks(self, tasks: list[str]) -> list[str]:
        """The tasks where KD, at its best settings, clears the baselines by the protocol's `gate`.

        Where runs collapsed at all settings, it does not.

        Raises:
            UnplannedError: a section that the gate rests on is not complete, or no task passes.
        """
        table = self.gate_table(tasks)
        passed = [task for task in tasks if table.loc[task, "passed"]]
        if not passed:
            raise UnplannedError(
                f"no task of {', '.join(tasks)} passes the gate: students can't do these tasks"
            )
        return passed

    def gate_table(self, tasks: Sequence[str]) -> pd.DataFrame:
        """Mean validation scores in points by task: majority, tfidf, kd; and whether it passed.

        Args:
            tasks: names of tasks.

        Raises:
            UnplannedError: a section that the gate rests on is not complete.
        """
        gate, scores = self.protocol()["gate"], []
        for section in (*gate["baselines"], *gate["students"]):
            if set(tasks) & set(self.section(section)["tasks"]):
                runs = run_scores(self.tuning_rows(section))
                if section in gate["students"]:
                    best = pd.DataFrame.from_dict(self.choose_settings(section), orient="index")
                    runs = runs.merge(best.rename_axis("task").reset_index())
                scores.append(runs)
        columns = ["majority", "tfidf", BASE]
        means = pd.concat(scores).groupby(["task", "method"])["score"].mean().unstack()
        table = means.reindex(index=list(tasks), columns=columns)
        over = table.rsub(table[BASE], axis=0).round(9)
        table["passed"] = (over["majority"] >= gate["points_over_majority"]) & (
            over["tfidf"] >= gate["points_over_tfidf"]
        )
        return table


def run_scores(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per run: its columns, `score` in points, and whether it `collapsed`.

    The collapse rule is that of `analysis.find_collapsed`. The score is 100 times the accuracy, or
    Pearson's correlation where labels are scores; of a constant prediction that is 0.

    Args:
        rows: task, method, seed, metric, value, run_id; one row per run and metric.
    """
    metrics = rows.pivot(index="run_id", columns="metric", values="value")
    metrics = metrics.reindex(columns=["accuracy", "majority_accuracy", "largest_class", "pearson"])
    over = (metrics["accuracy"] - metrics["majority_accuracy"]).round(9)
    by_class = (over <= WITHIN) | (metrics["largest_class"] >= ONE_ANSWER)
    collapsed = by_class.where(metrics["accuracy"].notna(), ~(metrics["pearson"] > PEARSON))
    score = 100 * metrics["accuracy"].fillna(metrics["pearson"]).fillna(0.0)
    runs = rows.drop(columns=["metric", "value"]).drop_duplicates("run_id").set_index("run_id")
    return runs.assign(score=score, collapsed=collapsed.astype(bool)).reset_index()


def best_settings(
    runs: pd.DataFrame, columns: list[str], limits: Mapping[str, Sequence[float]], where: str
) -> dict[str, Any]:
    """The values at which the mean score is best; of ties the smaller ones.

    Values at which any run collapsed are not eligible.

    Args:
        runs: of one method: the columns, score, collapsed.
        columns: names of what was varied.
        limits: by column, values beyond which there is nothing to try.
        where: names method and section in the message.

    Raises:
        UnplannedError: runs collapsed at all values, or the best value of a column is the smallest
            or largest tried and no limit.
    """
    groups = runs.groupby(columns)
    means = groups["score"].mean().round(9)[~groups["collapsed"].any()]
    if means.empty:
        raise UnplannedError(f"{where} has collapsed runs at all values of {', '.join(columns)}")
    table = means.reset_index().sort_values("score", ascending=False, kind="stable")
    best = {column: table[column].iloc[0].item() for column in columns}
    for column, value in best.items():
        tried = sorted(runs[column].unique())
        if value in (tried[0], tried[-1]) and value not in limits.get(column, ()):
            raise UnplannedError(
                f"the best {column} of {where} is {value:g}, at the edge of "
                f"{', '.join(f'{v:g}' for v in tried)}; add a value beyond it to the protocol"
            )
    return best
