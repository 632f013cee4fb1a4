"""What a protocol file says of a study's sections: what they cross, at which weights.

`data/protocol/<study>.yaml` has a `grid` of named sections, in the order in which they are made.
The results of a section are in `data/results/<study>/<section>`. A section crosses seeds, tasks,
methods and weights with the settings that it varies. Its `weights` are a list, a list for each
term, or the names of tuning sections, separated by commas, whose results give each term its best
weight. The tuning sections named by `settings_from` give the settings that they varied, at the base
method's best. The tasks of a section that is `gated` are those on which students clear the trivial
baselines. Settings of one task in all sections stand in `task_settings`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from geodistill.analysis.protocol_file import read_protocol
from geodistill.analysis.stored_results import load_rows, read_stored
from geodistill.errors import InputError
from geodistill.experiments.methods import term_of
from geodistill.experiments.settings import RunSettings, run_config, run_id
from geodistill.paths import data_dir

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


def load_protocol(study: str) -> dict[str, Any]:
    """The blocks of a study's protocol file.

    Args:
        study: name of the file.

    Raises:
        InputError: no such file, one that is not YAML, or a section with an unknown key.
    """
    path = data_dir() / "protocol" / f"{study}.yaml"
    return deepcopy(_read(path, path.stat().st_mtime_ns if path.is_file() else 0))


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
        weights: those of the section: a list, a list by term, or the names of tuning sections.
        method: name of the method.
        tuned: weight by term, from the tuning sections.

    Raises:
        InputError: the list by term has no weight for the method's term.
        UnplannedError: the tuning sections gave it none.

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
    if isinstance(weights, Mapping):
        if term not in weights:
            raise InputError(f"there is no weight for {method}; the protocol must give it one")
        return [float(weight) for weight in weights[term]]
    if tuned is None or term not in tuned:
        raise UnplannedError(
            f"there is no weight for {method}: section {weights} did not tune it, or its runs "
            "collapsed at every weight"
        )
    return [float(tuned[term])]


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
