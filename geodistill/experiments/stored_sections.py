"""The stored sections of a study by protocol that a page may show: whole, and beside their like.

A section decides nothing before all its runs are stored. Which rows a classification section
without `kd` of its own is compared with, the protocol says (`device:`): those of `gpu` if it was
made on one, those of `primary` if on CPUs; never the other's, whose dropout drew other numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import pandas as pd

from geodistill.analysis.stored_results import load_items, load_rows, read_stored, wide
from geodistill.errors import InputError
from geodistill.experiments import protocol_grid
from geodistill.experiments.classification import grid as classification_grid
from geodistill.experiments.classification.run import classification_config
from geodistill.experiments.instruction import grid as instruction_grid
from geodistill.experiments.instruction.run import instruction_config
from geodistill.experiments.run_store import run_id


@dataclass(frozen=True)
class _Study:
    """What tells one study's sections from another's.

    grid: its module of sections; config: of a run; settings: what tells runs apart besides task,
    method and seed, attribute of the setting by column; references: the section that others are
    compared with, by their device.
    """

    grid: Any
    config: Callable[[Any, str], dict[str, Any]]
    settings: dict[str, str]
    references: dict[str, str]


_VARIED = (
    "n_train", "factor", "rows", "width", "layers", "batch_size", "epochs", "memory", "start_seed",
)  # fmt: skip
_STUDIES = {
    classification_grid.FOLDER: _Study(
        classification_grid,
        classification_config,
        {name: name for name in _VARIED},
        {"cuda": "gpu", "cpu": "primary"},
    ),
    instruction_grid.FOLDER: _Study(
        instruction_grid,
        instruction_config,
        {"factor": "weight", "start_seed": "start_seed"},
        {},
    ),
}


@dataclass(frozen=True)
class Section:
    """A whole section, with a column for each setting in which its runs may differ.

    rows: a row a metric; items: a row a test item, of tasks that may be pooled; apart: the same of
    the others; reference: the section that it is compared with, None for those and where it is not
    whole.
    """

    name: str
    rows: pd.DataFrame
    items: pd.DataFrame
    apart: pd.DataFrame
    settings: pd.DataFrame
    reference: "Section | None" = None

    @property
    def run_ids(self) -> tuple[str, ...]:
        return tuple(sorted(self.rows["run_id"].unique()))

    @cached_property
    def runs(self) -> pd.DataFrame:
        """A row a run, a column a metric, beside `run_id, task, method, seed` and the settings."""
        return wide(self.rows).merge(self.settings, on="run_id")

    @property
    def device(self) -> str:
        """ "cpu" or "cuda".

        Raises:
            InputError: rows of both.
        """
        devices = self.rows["device"].drop_duplicates()
        kinds = set(devices.str.partition(":")[0])
        if len(kinds) != 1:
            raise InputError(
                f"section {self.name} mixes devices ({', '.join(sorted(devices))}): dropout draws "
                "other numbers on each; make it again on one"
            )
        return str(kinds.pop())

    def compared_with(self) -> pd.DataFrame:
        """The items of the reference, of this section's tasks and seeds.

        Raises:
            InputError: there is none.
        """
        if self.reference is None:
            raise InputError(f"section {self.name} has no whole section to be compared with")
        return self.of_same_runs(self.reference)

    def of_same_runs(self, other: "Section") -> pd.DataFrame:
        """Another section's items, of this one's tasks and seeds."""
        theirs = other.items
        tasks, seeds = self.rows["task"].unique(), self.rows["seed"].unique()
        here = theirs["task"].isin(tasks) & theirs["seed"].isin(seeds)
        return theirs[here].reset_index(drop=True)

    def beside_its_like(self) -> pd.DataFrame:
        """The section's items, and those of the same tasks, seeds and methods in its reference."""
        if self.reference is None:
            return self.items
        theirs = self.compared_with()
        theirs = theirs[theirs["method"].isin(self.items["method"].unique())]
        return pd.concat([self.items, theirs], ignore_index=True)


class Sections:
    """The sections of one study: which are whole, and their rows. Each is read once.

    Args:
        study: name of the protocol and of its results folder.
        say: takes the line that says why a section is not shown.
    """

    def __init__(self, study: str, say: Callable[[str], None] = print) -> None:
        self.study, self._say, self._parts = study, say, _STUDIES[study]
        self._stored, self._shown = cache(self._read), cache(self._find)

    def whole(self, *names: str) -> bool:
        """Whether these sections may all be shown together; where not, a line says why.

        Raises:
            InputError: no such section; rows that are unfit, or of both a GPU and a CPU.
        """
        lacking = [name for name in names if self._shown(name)[0] is None]
        for name in lacking:
            self._say(f"section {name}{self._shown(name)[1]}")
        return not lacking and self.alike(*names)

    def alike(self, *names: str) -> bool:
        """Whether these whole sections come from one kind of device: else they are not compared.

        Another device rounds otherwise, and draws other numbers from the same seed.
        """
        devices = {name: self[name].device for name in names}
        if len(set(devices.values())) > 1:
            told = ", ".join(f"{name} {device}" for name, device in devices.items())
            self._say(f"sections of different devices are not compared ({told})")
        return len(set(devices.values())) <= 1

    def __getitem__(self, name: str) -> Section:
        """A whole section.

        Raises:
            InputError: it is not whole; ask `whole` first.
        """
        found, line = self._shown(name)
        if found is None:
            raise InputError(f"section {name}{line}")
        return found

    def source(self, *names: str) -> dict[str, Any]:
        """The provenance of what is drawn from these sections and those they are compared with."""
        used: dict[str, Section] = {}
        for one in (self[name] for name in names):
            used |= {part.name: part for part in (one, one.reference) if part}
        command = f"geodistill grid {self.study} --section"
        return {
            "source": "stored",
            "made_by": " && ".join(f"{command} {name}" for name in used),
            "rows": ", ".join(f"data/results/{self.study}/{name}" for name in used),
            "run_ids": tuple(sorted({run for part in used.values() for run in part.run_ids})),
        }

    def _find(self, name: str) -> tuple[Section | None, str]:
        """The section with its reference, or None and what is to be said of it."""
        spec = protocol_grid.section(self._parts.grid.protocol(), name)
        found, line = self._stored(name)
        if found is None:
            return None, f": {line}; not shown"
        like = self._parts.references.get(found.device)
        if like is None or "part" in spec.get("setting", {}):
            return found, ""
        if name in self._parts.references.values():
            if name != like:
                raise InputError(f"section {name} has rows of the device that {like} is made on")
            return found, ""
        reference, line = self._stored(like)
        if reference is None and "kd" not in spec["methods"]:
            return None, f" is whole, but {like}, which it is compared with, is not: {line}"
        if reference is not None and reference.device != found.device:
            raise InputError(
                f"section {like} has rows of a {reference.device}; {name}, which is compared with "
                f"it, of a {found.device}"
            )
        return replace(found, reference=reference), ""

    def _read(self, name: str) -> tuple[Section | None, str]:
        """The section, or None, and how much of it is stored."""
        asked, path = self._parts.grid.protocol(), protocol_grid.rows_file(self.study, name)
        any_stored = path.is_file()
        try:
            settings = self._planned(name)
        except InputError as error:  # what its weights are tuned by is not whole
            stored = read_stored(path, ["run_id"])["run_id"].nunique() if any_stored else 0
            why = f" ({error})" if stored else ""
            size = self._parts.grid.size(protocol_grid.section(asked, name))
            return None, f"{stored} of {size} runs are stored{why}"
        if not any_stored:
            return None, f"0 of {len(settings)} runs are stored"
        table = load_rows(path.parent, runs=settings["run_id"])
        line = f"{len(table.run_ids)} of {len(settings)} runs are stored"
        if len(table.run_ids) < len(settings):
            return None, line
        items = load_items(path.parent, runs=settings["run_id"]).frame
        theirs = [column for column in self._parts.settings if column in table.frame]
        rows = table.frame.drop(columns=theirs).merge(settings, on="run_id")
        items = items.merge(settings, on="run_id")
        pooled = items["task"].isin(asked["pooled"])
        items, apart = (items[kept].reset_index(drop=True) for kept in (pooled, ~pooled))
        return Section(name, rows, items, apart, settings), line

    def _planned(self, name: str) -> pd.DataFrame:
        """`run_id` and settings of every planned run."""
        lines = []
        for setting, method, seed in self._parts.grid.runs(name):
            own = run_id(setting.task, method, seed, self._parts.config(setting, method))
            varied = [getattr(setting, attribute) for attribute in self._parts.settings.values()]
            lines.append((own, *varied))
        return pd.DataFrame(lines, columns=["run_id", *self._parts.settings])
