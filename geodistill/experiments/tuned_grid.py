"""How settings and weights are chosen, and tasks gated, by the rows of tuning sections.

One rule for both studies: the best mean score on validation; no choice at the edge of what was
tried, none at which a run collapsed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from geodistill.analysis.stored_results import load_rows
from geodistill.experiments.methods import term_of
from geodistill.experiments.protocol_grid import (
    ProtocolGrid,
    UnplannedError,
    complete_runs,
    expand_settings,
)

BASE, POINTS_OVER = "kd", "points_over_"
"""The method whose settings are tuned, and what precedes a baseline's name in the gate's keys."""


class TunedGrid(ProtocolGrid):
    """A grid whose tuning sections choose settings, weights and tasks."""

    @abstractmethod
    def judge_runs(self, metrics: pd.DataFrame) -> pd.DataFrame:
        """Columns `score`, in points, and `collapsed`: whether the run learned nothing.

        Args:
            metrics: one row per run, a column for each metric.
        """

    def run_scores(self, rows: pd.DataFrame) -> pd.DataFrame:
        """One row per run: its columns, `score` and `collapsed` (`judge_runs`).

        Args:
            rows: task, method, seed, metric, value, run_id; one row per run and metric.
        """
        metrics = rows.pivot(index="run_id", columns="metric", values="value")
        runs = rows.drop(columns=["metric", "value"]).drop_duplicates("run_id").set_index("run_id")
        return runs.join(self.judge_runs(metrics)).reset_index()

    def choose_weights(self, *sections: str) -> dict[str, float]:
        """The weight of each term with the best mean score over tasks and seeds.

        A term has none if runs collapsed at all weights.

        Args:
            *sections: names of tuning sections, judged as one.

        Raises:
            UnplannedError: a section is not complete, or the best weight lies at the edge
                (`best_settings`).
        """
        runs = self.run_scores(self.tuning_rows(*sections)).rename(columns={"factor": "weight"})
        runs = runs[runs["method"].map(term_of) != ""]
        best = {
            term_of(str(method)): best_settings(
                tried, ["weight"], self._limits(), f"{method} in {_named(sections)}"
            )
            for method, tried in runs.groupby("method")
        }
        return {term: values["weight"] for term, values in best.items() if values}

    def choose_settings(self, *sections: str) -> dict[str, dict[str, Any]]:
        """By task, the settings at which logit distillation alone has the best mean score.

        A task has none if runs collapsed at all settings.

        Args:
            *sections: names of tuning sections, judged as one.

        Raises:
            UnplannedError: a section is not complete, or the best value of a setting lies at the
                edge (`best_settings`).
        """
        return self._best_by_task(self.run_scores(self.tuning_rows(*sections)), sections)

    def _best_by_task(
        self, runs: pd.DataFrame, sections: Sequence[str]
    ) -> dict[str, dict[str, Any]]:
        varied, settings = self._varied(*sections), {}
        for task, tried in runs[runs["method"] == BASE].groupby("task"):
            if not tried.groupby(varied)["collapsed"].any().all():
                where = f"{BASE} on {task} in {_named(sections)}"
                settings[str(task)] = best_settings(tried, varied, self._limits(), where)
        return settings

    def gated_tasks(self, tasks: Sequence[str]) -> list[str]:
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
        """Mean validation scores in points by task: each baseline, KD; and whether KD passed.

        Args:
            tasks: names of tasks.

        Raises:
            UnplannedError: a section that the gate rests on is not complete.
        """
        gate = self.protocol()["gate"]
        points = {
            key.removeprefix(POINTS_OVER): value
            for key, value in gate.items()
            if key.startswith(POINTS_OVER)
        }
        baselines, students = (
            [name for name in gate[kind] if set(tasks) & set(self.tasks(name))]
            for kind in ("baselines", "students")
        )
        trivial = self.run_scores(self.tuning_rows(*baselines))
        runs = self.run_scores(self.tuning_rows(*students))
        best = pd.DataFrame.from_dict(self._best_by_task(runs, students), orient="index")
        runs = runs.merge(best.rename_axis("task").reset_index())
        means = pd.concat([trivial, runs]).groupby(["task", "method"])["score"].mean().unstack()
        table = means.reindex(index=list(tasks), columns=[*points, BASE])
        over = table.rsub(table[BASE], axis=0).round(9)
        table["passed"] = (over[list(points)] >= pd.Series(points)).all(axis=1)
        return table

    def _limits(self) -> Mapping[str, Sequence[float]]:
        limits: Mapping[str, Sequence[float]] = self.protocol()["limits"]
        return limits

    def tuning_rows(self, *sections: str) -> pd.DataFrame:
        """The rows of sections on which others rest, each with the settings that they varied.

        Args:
            *sections: their names.

        Raises:
            InputError: no such section.
            UnplannedError: one of them is not complete.
        """
        varied = self._varied(*sections)
        tables = [self._tuning_rows(name, varied) for name in sections]
        return pd.concat(tables, ignore_index=True)

    def _tuning_rows(self, name: str, varied: Sequence[str]) -> pd.DataFrame:
        planned = {run.run_id: run.settings for run in self.runs(name)}
        folder = self.section_dir(name)
        n_missing = len(planned) - len(complete_runs(folder, planned))
        if n_missing:
            raise UnplannedError(
                f"section {name} lacks {n_missing} runs, and others rest on it; make them with "
                f"`geodistill experiments {self.study} --section {name}`"
            )
        rows = load_rows(folder, runs=planned).frame
        return rows.assign(
            **{key: [getattr(planned[run], key) for run in rows["run_id"]] for key in varied}
        )

    def _varied(self, *sections: str) -> list[str]:
        """The settings that any of these sections varied."""
        specs = (expand_settings({"vary": self.section(n).get("vary", {})}) for n in sections)
        return list(dict.fromkeys(key for spec in specs for values in spec for key in values))


def _named(sections: Sequence[str]) -> str:
    return f"section{'s' * (len(sections) > 1)} {', '.join(sections)}"


def best_settings(
    runs: pd.DataFrame, columns: list[str], limits: Mapping[str, Sequence[float]], where: str
) -> dict[str, Any]:
    """The values at which the mean score is best; of ties the smaller ones.

    Values at which any run collapsed are not eligible; there are none if that leaves no value.

    Args:
        runs: of one method: the columns, score, collapsed.
        columns: names of what was varied.
        limits: by column, values beyond which there is nothing to try.
        where: names method and section in the message.

    Raises:
        UnplannedError: the best value of a column is the smallest or largest tried and no limit.
    """
    groups = runs.groupby(columns)
    means = groups["score"].mean().round(9)[~groups["collapsed"].any()]
    if means.empty:
        return {}
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
