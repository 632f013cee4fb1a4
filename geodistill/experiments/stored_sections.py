"""The stored sections of a study, read back once and only if they are complete.

A section is complete when every run that its protocol asks for is stored with its items. Pages,
README and the claims use this one rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import pandas as pd

from geodistill.analysis.stored_results import load_items, load_rows, pivot_metrics
from geodistill.errors import InputError, check_choice
from geodistill.experiments.protocol_grid import PlannedRun, UnplannedError, complete_runs
from geodistill.experiments.registry import GRIDS


@dataclass(frozen=True)
class Section:
    """A complete section.

    Attributes:
        name: of the section.
        rows: one row per run and metric; `weight` is that of the method's term, and a setting that
            differs between the runs has a column of its name.
        items: one row per run and test item.
        pooled_tasks: the tasks that the protocol pools.
    """

    name: str
    rows: pd.DataFrame
    items: pd.DataFrame
    pooled_tasks: tuple[str, ...]

    @cached_property
    def pooled(self) -> pd.DataFrame:
        """The items of the pooled tasks."""
        return self.items[self.items["task"].isin(self.pooled_tasks)].reset_index(drop=True)

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The ids of all runs, sorted."""
        return tuple(sorted(self.rows["run_id"].unique()))

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row per run: a column for each metric, beside task, method, seed, weight and such."""
        settings = self.rows.drop_duplicates("run_id")
        settings = settings.drop(columns=["task", "method", "seed", "metric", "value"])
        return pivot_metrics(self.rows).merge(settings, on="run_id")

    @property
    def devices(self) -> set[str]:
        """Kinds of device that made the runs: "cpu", "cuda"."""
        return set(self.rows["device"].str.partition(":")[0])


class StoredSections:
    """The sections of one study.

    Args:
        study: name of the protocol and of the results folder.
        log: takes the line that says why a section is not used.

    Raises:
        InputError: no such study.
    """

    def __init__(self, study: str, log: Callable[[str], None] = print) -> None:
        check_choice("study", study, GRIDS)
        self.study, self._grid, self._log = study, GRIDS[study], log
        self._read_sections: dict[str, Section | str] = {}
        self._logged: set[str] = set()

    def is_complete(self, *names: str) -> bool:
        """Whether these sections are all complete and comparable; where not, a line says why.

        Each reason is logged once.

        Sections made on different devices are not comparable: dropout draws other numbers there.

        Args:
            *names: of sections.

        Raises:
            InputError: no such section, or damaged results.
        """
        reasons = [section for section in map(self._section, names) if isinstance(section, str)]
        for reason in reasons:
            if reason not in self._logged:
                self._logged.add(reason)
                self._log(f"{reason}; not used")
        devices = {} if reasons else {name: self[name].devices for name in names}
        kinds = set().union(*devices.values())
        if len(kinds) > 1:
            self._log(f"sections made on {' and '.join(sorted(kinds))} are not compared: {devices}")
        return not reasons and len(kinds) <= 1

    def __getitem__(self, name: str) -> Section:
        """A complete section.

        Raises:
            InputError: it is not complete; ask `is_complete` first.
        """
        section = self._section(name)
        if isinstance(section, str):
            raise InputError(section)
        return section

    def provenance(self, *names: str) -> dict[str, Any]:
        """Where a figure or a table of these sections comes from, for `publish.display.show`.

        Args:
            *names: of complete sections.

        Raises:
            InputError: no such section, or one that is not complete.
        """
        command, folders = f"geodistill experiments {self.study} --section", names[0]
        made_by = f"{command} {names[0]}"
        if len(names) > 1:
            made_by = f"for name in {' '.join(names)}; do {command} $name; done"
            folders = f"{{{','.join(names)}}}"
        return {
            "source": "stored",
            "made_by": made_by,
            "results": f"data/results/{self.study}/{folders}",
            "run_ids": tuple(sorted({run for name in names for run in self[name].run_ids})),
        }

    def _section(self, name: str) -> Section | str:
        if name not in self._read_sections:
            self._read_sections[name] = self._read(name)
        return self._read_sections[name]

    def _read(self, name: str) -> Section | str:
        """The section, or how much of it is stored."""
        folder = self._grid.section_dir(name)
        try:
            planned = {run.run_id: run for run in self._grid.runs(name)}
        except UnplannedError as error:
            return f"section {name}: {self._grid.n_planned(name)} runs are planned ({error})"
        n_complete = len(complete_runs(folder, planned))
        if n_complete < len(planned):
            return f"section {name}: {n_complete} of {len(planned)} runs are stored"
        rows = load_rows(folder, runs=planned).frame
        items = load_items(folder, runs=planned).frame
        settings = self._settings(planned)
        rows = rows.drop(columns="factor", errors="ignore").merge(settings, on="run_id")
        items = items.merge(settings, on="run_id")
        return Section(name, rows, items, tuple(self._grid.protocol()["pooled"]))

    def _settings(self, planned: Mapping[str, PlannedRun]) -> pd.DataFrame:
        """One row per planned run: its id, the weight of its term, and the settings that vary."""
        first, *others = (run.settings for run in planned.values())
        varied = [
            field.name
            for field in fields(self._grid.settings_type)
            if field.name not in ("task", self._grid.weight_field)
            and any(getattr(run, field.name) != getattr(first, field.name) for run in others)
        ]
        columns = {"weight": self._grid.weight_field, **dict(zip(varied, varied, strict=True))}
        values = [
            [run_id, *(getattr(run.settings, name) for name in columns.values())]
            for run_id, run in planned.items()
        ]
        return pd.DataFrame(values, columns=["run_id", *columns])
