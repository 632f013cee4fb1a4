"""What the grids of protocol files have in common: sections, what they cross, and chosen weights.

`data/protocol/<study>.yaml` has a `grid` of named sections in the order in which they are made; the
rows of a section go to `data/results/<study>/<section>`.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from geodistill.analysis.protocol_file import read_protocol
from geodistill.analysis.stored_results import read_stored
from geodistill.errors import InputError
from geodistill.experiments.run_store import data_dir, results_dir

CHOSEN = "chosen"
"""Stands for the weights that the tuning section gives."""


def protocol(study: str) -> dict[str, Any]:
    """The blocks of a study's protocol file."""
    path = data_dir() / "protocol" / f"{study}.yaml"
    return deepcopy(_read(path, path.stat().st_mtime_ns if path.is_file() else 0))


@cache
def _read(path: Path, changed_at: int) -> dict[str, Any]:
    """A page asks for the protocol a hundred times; parsing it takes a tenth of a second."""
    return read_protocol(path)


def section(plan: dict[str, Any], name: str) -> dict[str, Any]:
    """What a section asks for.

    Raises:
        InputError: no such section.
    """
    if name not in plan["grid"]:
        raise InputError(f"section is {name!r}; expected one of {', '.join(plan['grid'])}")
    spec: dict[str, Any] = plan["grid"][name]
    return spec


def shapes(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """What a section sets besides: its `setting`, crossed with every value that it `vary`s.

    A list under `vary` is the settings themselves, where some go together.
    """
    varied = spec.get("vary", {})
    values = varied
    if isinstance(varied, dict):
        values = [dict(zip(varied, some, strict=True)) for some in product(*varied.values())]
    fixed = {k: tuple(v) if isinstance(v, list) else v for k, v in spec.get("setting", {}).items()}
    return [{**fixed, **some} for some in values]


def weights(given: Any, method: str, chosen: dict[str, float] | None) -> list[float]:
    """The weights at which a method is run: those given, or the chosen one of its term.

    A method without a term has one run, not one a weight.

    Raises:
        InputError: no weight was tuned for its term.
    """
    term = method.partition("+")[2]
    if not term:
        return [1.0]
    if given != CHOSEN:
        return [float(weight) for weight in given]
    assert chosen is not None
    if term not in chosen:
        raise InputError(f"no factor was tuned for {method}; the protocol must give it one")
    return [chosen[term]]


def rows_file(study: str, name: str) -> Path:
    """Where the rows of a section are."""
    return results_dir() / study / name / "rows.parquet"


def finished_rows(study: str, name: str, planned: int) -> pd.DataFrame:
    """The rows of a finished section.

    Raises:
        InputError: it lacks some of its `planned` runs.
    """
    path = rows_file(study, name)
    rows = read_stored(path) if path.is_file() else pd.DataFrame({"run_id": []})
    missing = planned - rows["run_id"].nunique()
    if missing:
        raise InputError(
            f"the {name} section lacks {missing} runs, and it sets the weights: finish it with "
            f"`geodistill grid {study} --section {name}`"
        )
    return rows


def best(scores: pd.DataFrame, by: str, *, highest: bool) -> dict[str, float]:
    """By term, the `by` of the best mean value over tasks and seeds; the smaller one of equals.

    Args:
        scores: method, `by` and value; one row a run.
        by: the column of weights.
        highest: whether a larger value is better.
    """
    scores = scores[scores["method"].str.contains("+", regex=False)]
    means = scores.groupby(["method", by])["value"].mean().round(12).groupby("method")
    found = means.idxmax() if highest else means.idxmin()
    return {method.partition("+")[2]: float(weight) for method, weight in found}


def progress(study: str, planned: Callable[[dict[str, Any]], int]) -> pd.DataFrame:
    """A line a section: runs planned, runs stored, and the hours of one core that these took.

    Args:
        study: name of the protocol file and the results folder.
        planned: how many runs a section has.
    """
    lines = []
    for name, spec in protocol(study)["grid"].items():
        path = rows_file(study, name)
        seconds: pd.Series[float] = pd.Series(dtype=float)
        if path.is_file():
            rows = read_stored(path, ["run_id", "wall_seconds"])
            seconds = rows.drop_duplicates("run_id")["wall_seconds"]
        lines.append((name, planned(spec), len(seconds), round(seconds.sum() / 3600, 1)))
    return pd.DataFrame(lines, columns=["section", "planned", "stored", "core-hours"])
