"""The runs of a study's sections; settings, weights and tasks chosen by rows of tuning sections.

One rule for both studies: the best mean score on validation; no choice at the edge of what was
tried, none at which a run collapsed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from geodistill.analysis.stored_results import load_rows
from geodistill.errors import check_choice
from geodistill.experiments.methods import FEATURE_TERMS, term_of
from geodistill.experiments.protocol_grid import (
    PlannedRun,
    UnplannedError,
    best_settings,
    complete_runs,
    expand_settings,
    load_protocol,
    weights_for,
)
from geodistill.experiments.settings import from_names
from geodistill.paths import results_dir

BASE, POINTS_OVER = "kd", "points_over_"
"""The method whose settings are tuned, and what precedes a baseline's name in the gate's keys."""


class TunedGrid(ABC):
    """The sections of one study; tuning sections choose settings, weights and tasks of the others.

    Attributes:
        study: name of the protocol file and of the results folder.
        settings_type: dataclass of a run's settings.
        weight_field: the setting that holds the weight of a method's term.
        known_methods: names of the methods that the study can run.
    """

    study: str
    settings_type: type[Any]
    weight_field: str
    known_methods: tuple[str, ...]

    @abstractmethod
    def judge_runs(self, metrics: pd.DataFrame) -> pd.DataFrame:
        """Columns `score`, in points, and `collapsed`: whether the run learned nothing.

        Args:
            metrics: one row per run, a column for each metric.
        """

    def tasks(self, name: str) -> list[str]:
        """The tasks of a section before any is dropped.

        Args:
            name: of the section.
        """
        tasks: list[str] = self.section(name).get("tasks", self.protocol()["tasks"])
        return tasks

    def protocol(self) -> dict[str, Any]:
        """The blocks of the protocol file, as `load_protocol` gives them."""
        return load_protocol(self.study)

    def section(self, name: str) -> dict[str, Any]:
        """What the protocol says of one section.

        Raises:
            InputError: no such section, or a method that the study lacks; the message lists the
                known ones.
        """
        grid = self.protocol()["grid"]
        check_choice("section", name, grid)
        spec: dict[str, Any] = grid[name]
        for method in spec["methods"]:
            check_choice("method", method, self.known_methods)
        return spec

    def runs(self, name: str) -> list[PlannedRun]:
        """Every run of a section, seeds outermost.

        Raises:
            InputError: no such section, or an unknown setting or method in it.
            UnplannedError: tuning sections have still to give its tasks, weights or settings.
        """
        spec, tasks = self.section(name), self.tasks(name)
        if spec.get("gated"):
            tasks = self.gated_tasks(tasks)
        weights = spec["weights"]
        tuned = self.choose_weights(*_split_names(weights)) if isinstance(weights, str) else None
        tuning = _split_names(spec.get("settings_from", ""))
        settings = self.choose_settings(*tuning) if tuning else {}
        untuned = [task for task in tasks if task not in settings] if tuning else []
        if untuned:
            raise UnplannedError(
                f"section {name} has no settings for {', '.join(untuned)}: {_named(tuning)} did "
                f"not tune {BASE} there, or its runs collapsed at every setting; leave the task out"
            )
        return list(self._cross(name, spec, tasks, tuned, settings))

    def n_planned(self, name: str) -> int:
        """How many runs a section has, before any task is dropped.

        Args:
            name: of the section.

        Raises:
            InputError: no such section, or an unknown setting in it.
        """
        spec, tasks = self.section(name), self.tasks(name)
        return len(list(self._cross(name, spec, tasks, dict.fromkeys(FEATURE_TERMS, 1.0), {})))

    def section_dir(self, name: str) -> Path:
        """The folder of a section's stored results."""
        return results_dir() / self.study / name

    def _cross(
        self,
        name: str,
        spec: Mapping[str, Any],
        tasks: list[str],
        tuned: Mapping[str, float] | None,
        settings_from: Mapping[str, Mapping[str, Any]],
    ) -> Iterator[PlannedRun]:
        where = f"section {name} of the protocol {self.study}"
        protocol = self.protocol()
        shared, by_task = protocol.get("setting", {}), protocol.get("task_settings", {})
        for seed, task, varied in product(spec["seeds"], tasks, expand_settings(spec)):
            for method in spec["methods"]:
                for weight in weights_for(spec["weights"], method, tuned):
                    values = {"task": task, self.weight_field: weight}
                    values |= {**shared, **by_task.get(task, {}), **settings_from.get(task, {})}
                    values |= varied
                    settings = from_names(self.settings_type, values, where)
                    yield PlannedRun(settings, method, seed)

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
        limits = self.protocol()["limits"]
        best = {
            term_of(str(method)): best_settings(
                tried, ["weight"], limits, f"{method} in {_named(sections)}"
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
        varied, limits, where = self._varied(*sections), self.protocol()["limits"], _named(sections)
        best = {
            str(task): best_settings(tried, varied, limits, f"{BASE} on {task} in {where}")
            for task, tried in runs[runs["method"] == BASE].groupby("task")
        }
        return {task: values for task, values in best.items() if values}

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

    def gate_sections(self, tasks: Sequence[str]) -> tuple[list[str], list[str]]:
        """The sections on which the gate of these tasks rests: of baselines, and of students."""
        gate = self.protocol()["gate"]
        baselines, students = (
            [name for name in gate[kind] if set(tasks) & set(self.tasks(name))]
            for kind in ("baselines", "students")
        )
        return baselines, students

    def gate_table(self, tasks: Sequence[str]) -> pd.DataFrame:
        """Mean validation scores in points by task: each baseline, KD; and whether KD passed.

        Where runs of KD collapsed at all settings, the score is that of its best run.

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
        baselines, students = self.gate_sections(tasks)
        trivial = self.run_scores(self.tuning_rows(*baselines))
        runs = self.run_scores(self.tuning_rows(*students))
        runs = runs[runs["task"].isin(tasks)]
        best = pd.DataFrame.from_dict(self._best_by_task(runs, students), orient="index")
        collapsed = (
            runs[~runs["task"].isin(best.index)].sort_values("score").groupby("task").tail(1)
        )
        tuned = runs.merge(best.rename_axis("task").reset_index())
        scores = pd.concat([trivial, tuned, collapsed])
        means = scores.groupby(["task", "method"])["score"].mean().unstack()
        table = means.reindex(index=list(tasks), columns=[*points, BASE])
        over = table.rsub(table[BASE], axis=0).round(9)
        clears = (over[list(points)] >= pd.Series(points)).all(axis=1)
        table["passed"] = clears & table.index.isin(best.index)
        return table

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


def _split_names(text: str) -> list[str]:
    """The names in a text that separates them by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _named(sections: Sequence[str]) -> str:
    return f"section{'s' * (len(sections) > 1)} {', '.join(sections)}"
