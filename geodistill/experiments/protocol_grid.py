"""The runs that a protocol file asks for: its sections, what they cross, and the chosen weights.

`data/protocol/<study>.yaml` has a `grid` of named sections, in the order in which they are made.
The results of a section are in `data/results/<study>/<section>`. A section crosses seeds, tasks,
methods and weights with the settings that it varies. Its `weights` are a list, a list for each
term, or the names of tuning sections, separated by commas, whose results give each term its best
weight. The tuning sections named by `settings_from` give the settings that they varied, at the base
method's best. The
tasks of a section that is `gated` are those on which students clear the trivial baselines. Settings
of one task in all sections stand in `task_settings`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from geodistill.analysis.protocol_file import read_protocol
from geodistill.analysis.stored_results import load_rows, read_stored
from geodistill.errors import InputError
from geodistill.experiments.methods import FEATURE_TERMS, check_method, term_of
from geodistill.experiments.settings import RunSettings, from_names, run_config, run_id
from geodistill.paths import data_dir, results_dir

REQUIRED_KEYS = ("methods", "weights", "seeds")
SECTION_KEYS = ("minutes", "setting", "vary", "settings_from", "tasks", "gated", *REQUIRED_KEYS)


class UnplannedError(InputError):
    """Results on which a section rests are missing, or give it no task, weight or setting."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of a section.

    Attributes:
        settings: of the run.
        method: name of the method.
        seed: of the run.
    """

    settings: RunSettings
    method: str
    seed: int

    @property
    def run_id(self) -> str:
        """The name under which the run is stored."""
        config = run_config(self.settings, self.method)
        return run_id(self.settings.task, self.method, self.seed, config)


class ProtocolGrid(ABC):
    """The sections of one study; a subclass says what is particular to the study.

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
    def choose_weights(self, *sections: str) -> dict[str, float]:
        """The weight of each term, from the rows of tuning sections.

        Raises:
            UnplannedError: a section is not complete, or a term has no eligible weight.
        """

    @abstractmethod
    def choose_settings(self, *sections: str) -> dict[str, dict[str, Any]]:
        """By task, the settings that tuning sections varied, at their best for the base method.

        Raises:
            UnplannedError: a section is not complete, or a setting has no eligible value.
        """

    @abstractmethod
    def gated_tasks(self, tasks: Sequence[str]) -> list[str]:
        """The tasks that students can do, judged on validation.

        Raises:
            UnplannedError: a section that the gate rests on is not complete, or no task passes.
        """

    def tasks(self, name: str) -> list[str]:
        """The tasks of a section before any is dropped.

        Args:
            name: of the section.
        """
        tasks: list[str] = self.section(name).get("tasks", self.protocol()["tasks"])
        return tasks

    def protocol(self) -> dict[str, Any]:
        """The blocks of the protocol file.

        Raises:
            InputError: no such file, one that is not YAML, or a section with an unknown key.
        """
        path = data_dir() / "protocol" / f"{self.study}.yaml"
        return deepcopy(_read(path, path.stat().st_mtime_ns if path.is_file() else 0))

    def section(self, name: str) -> dict[str, Any]:
        """What the protocol says of one section.

        Raises:
            InputError: no such section, or a method that the study lacks; the message lists the
                known ones.
        """
        grid = self.protocol()["grid"]
        if name not in grid:
            raise InputError(f"section is {name!r}; expected one of {', '.join(grid)}")
        spec: dict[str, Any] = grid[name]
        for method in spec["methods"]:
            check_method(method, self.known_methods)
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
        tuned = self.choose_weights(*_names(weights)) if isinstance(weights, str) else None
        tuning = _names(spec.get("settings_from", ""))
        settings = self.choose_settings(*tuning) if tuning else {}
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


def _names(text: str) -> list[str]:
    """The names in a text that separates them by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


@cache
def _read(path: Path, modified_ns: int) -> dict[str, Any]:
    """The protocol of a file as it was at that time; parsing it takes a tenth of a second."""
    protocol = read_protocol(path)
    for name, spec in protocol.get("grid", {}).items():
        unknown = [key for key in spec if key not in SECTION_KEYS]
        if unknown:
            raise InputError(
                f"section {name} of {path} has the unknown key {unknown[0]!r}; expected "
                f"{', '.join(SECTION_KEYS)}"
            )
        missing = [key for key in REQUIRED_KEYS if key not in spec]
        if missing:
            raise InputError(f"section {name} of {path} lacks {missing[0]!r}")
        for key in ("methods", "seeds"):
            if not isinstance(spec[key], list):
                raise InputError(
                    f"{key} of section {name} of {path} is {spec[key]!r}; expected a list"
                )
    return protocol


def complete_runs(folder: Path, run_ids: Collection[str]) -> set[str]:
    """Those of some runs that are finished, made by committed code and stored with their items.

    Args:
        folder: of the section.
        run_ids: of the runs.

    Raises:
        InputError: a table is damaged.
    """
    items = folder / "items.parquet"
    if not (items.is_file() and (folder / "rows.parquet").is_file()):
        return set()
    rows = load_rows(folder, runs=run_ids)
    return set(rows.run_ids) & set(read_stored(items, ["run_id"])["run_id"].unique())


def expand_settings(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings of a section: its `setting`, crossed with every value that it varies.

    Args:
        spec: the section. A list under `vary` holds the settings themselves, for those that change
            together; a mapping holds a list of values for each setting.

    Example:
        >>> expand_settings({"setting": {"epochs": 5.0}, "vary": {"width": [64, 128]}})
        [{'epochs': 5.0, 'width': 64}, {'epochs': 5.0, 'width': 128}]
    """
    varied = spec.get("vary", {})
    if isinstance(varied, Mapping):
        varied = [dict(zip(varied, values, strict=True)) for values in product(*varied.values())]
    return [{**spec.get("setting", {}), **values} for values in varied]


def weights_for(weights: Any, method: str, tuned: Mapping[str, float] | None) -> list[float]:
    """The weights at which a method is run; a method without a term is run once.

    Args:
        weights: those of the section: a list, a list by term, or the name of a tuning section.
        method: name of the method.
        tuned: weight by term, from the tuning section.

    Raises:
        InputError: there is no weight for the method's term.

    Example:
        >>> weights_for([5, 20], "kd+gram", None), weights_for([5, 20], "kd", None)
        ([5.0, 20.0], [1.0])
        >>> weights_for({"gram": [3]}, "kd+gram", None)
        [3.0]
    """
    term = term_of(method)
    if not term:
        return [1.0]
    if isinstance(weights, list):
        return [float(weight) for weight in weights]
    by_term = (
        weights if isinstance(weights, Mapping) else {k: [v] for k, v in (tuned or {}).items()}
    )
    if term not in by_term:
        raise InputError(f"there is no weight for {method}; the protocol must give it one")
    return [float(weight) for weight in by_term[term]]
