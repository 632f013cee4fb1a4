"""The stored sections of the classification study that may be shown: whole, and beside their like.

A section decides nothing before all its runs are stored. Which rows a section without `kd` of its
own is compared with, the protocol says (`device:`): those of `gpu` if it was made on one, those of
`primary` if on CPUs; never the other's, whose dropout drew other numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from geodistill.analysis.rows import load_items, load_rows
from geodistill.errors import InputError
from geodistill.experiments import plan, sections
from geodistill.experiments.classification import classification_config
from geodistill.experiments.store import run_id

ON_GPU, ON_CPU = "gpu", "primary"
"""The section that others made on such a device are compared with."""
SETTINGS = (
    "n_train", "factor", "rows", "width", "layers", "batch_size", "memory", "start_seed",
)  # fmt: skip
"""What tells the runs of sections apart besides task, method and seed."""


@dataclass(frozen=True)
class Section:
    """A whole section. `rows` and `items` are as stored, with a column for each of `SETTINGS`.

    rows: a row a metric; items: a row a test item, of tasks with classes, which may be pooled;
    reference: the section that it is compared with, None for those and where it is not whole.
    """

    name: str
    rows: pd.DataFrame
    items: pd.DataFrame
    reference: "Section | None" = None

    @property
    def run_ids(self) -> tuple[str, ...]:
        return tuple(sorted(self.rows["run_id"].unique()))

    @property
    def device(self) -> str:
        """`ON_GPU` or `ON_CPU`: the section that such rows are compared with."""
        return device_kind(self.rows, self.name)

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


def device_kind(rows: pd.DataFrame, name: str) -> str:
    """`ON_GPU` or `ON_CPU`, by the section that such rows are compared with.

    Raises:
        InputError: rows of both.
    """
    devices = rows["device"].drop_duplicates()
    on_gpu = devices.str.startswith("cuda")
    if on_gpu.nunique() != 1:
        raise InputError(
            f"section {name} mixes devices ({', '.join(sorted(devices))}): dropout draws other "
            "numbers on each; make it again on one"
        )
    return ON_GPU if on_gpu.iloc[0] else ON_CPU


def same_device(*parts: Section) -> None:
    """Raise InputError where sections were not all made on a GPU, or all on CPUs."""
    kinds = {part.name: part.device for part in parts}
    if len(set(kinds.values())) > 1:
        told = ", ".join(f"{name} is compared with {kind}" for name, kind in kinds.items())
        raise InputError(f"sections of different devices are not compared: {told}")


def whole(name: str, say: Callable[[str], None] = print) -> Section | None:
    """A section that may be shown; else None, and one line that says why not.

    Raises:
        InputError: no such section; rows that are unfit, or of both a GPU and a CPU.
    """
    spec = plan.section(sections.protocol(), name)
    found, line = _stored(name, spec)
    if found is None:
        say(f"section {name}: {line}; not shown")
        return None
    if "part" in spec.get("setting", {}):
        return found
    like = device_kind(found.rows, name)
    if name in (ON_GPU, ON_CPU):
        if name != like:
            raise InputError(f"section {name} has rows of the device that {like} is made on")
        return found
    reference, line = _stored(like, plan.section(sections.protocol(), like))
    if reference is None and "kd" not in spec["methods"]:
        say(f"section {name} is whole, but {like}, which it is compared with, is not: {line}")
        return None
    if reference is not None:
        same_device(found, reference)
    return Section(name, found.rows, found.items, reference)


def source(*parts: Section) -> dict[str, Any]:
    """What `publish.provenance.show` asks of a figure that is drawn from these sections."""
    used = {part.name: part for one in parts for part in (one, one.reference) if part}
    command, names = f"geodistill grid {sections.FOLDER} --section", list(used)
    return {
        "source": "stored",
        "made_by": " && ".join(f"{command} {name}" for name in names),
        "rows": ", ".join(f"data/results/{sections.FOLDER}/{name}/items.parquet" for name in names),
        "run_ids": sorted({run for part in used.values() for run in part.run_ids}),
    }


def _stored(name: str, spec: dict[str, Any]) -> tuple[Section | None, str]:
    """The section, or None, and how much of it is stored."""
    path, settings = plan.rows_file(sections.FOLDER, name), _planned(name, spec)
    if not path.is_file():
        return None, f"0 of {len(settings) or sections.size(spec)} runs are stored"
    if settings.empty:
        stored = pd.read_parquet(path, columns=["run_id"])["run_id"].nunique()
        return None, f"{stored} of {sections.size(spec)} runs are stored, its tuning is not whole"
    table = load_rows(path.parent, runs=settings["run_id"])
    line = f"{len(table.run_ids)} of {len(settings)} runs are stored"
    if len(table.run_ids) < len(settings):
        return None, line
    items = load_items(path.parent, runs=settings["run_id"]).frame
    items = items[items["task"].isin(sections.protocol()["pooled"])]
    theirs = [c for c in SETTINGS if c in table.frame]
    rows = table.frame.drop(columns=theirs).merge(settings, on="run_id")
    return Section(name, rows, items.merge(settings, on="run_id").reset_index(drop=True)), line


def _planned(name: str, spec: dict[str, Any]) -> pd.DataFrame:
    """`run_id` and `SETTINGS` of every planned run; none while what it is tuned by is not whole."""
    asked = sections.protocol()
    if spec["seeds"] != asked["seeds"]["tuning"]:
        for needed in {sections.TUNING, spec.get("tuned_by", sections.TUNING)}:
            if _missing(needed):
                return pd.DataFrame({"run_id": []})
    lines = []
    for setting, method, seed in sections.runs(name):
        own = run_id(setting.task, method, seed, classification_config(setting, method))
        lines.append((own, *(getattr(setting, key) for key in SETTINGS)))
    return pd.DataFrame(lines, columns=["run_id", *SETTINGS])


def _missing(tuning: str) -> bool:
    path = plan.rows_file(sections.FOLDER, tuning)
    if not path.is_file():
        return True
    stored = pd.read_parquet(path, columns=["run_id"])["run_id"].nunique()
    return bool(stored < len(sections.runs(tuning)))
