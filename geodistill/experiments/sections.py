"""The confirmatory classification study: the runs that its protocol file asks for.

`data/protocol/classification.yaml` is the grid. A section crosses tasks, methods, seeds, numbers of
labelled sentences and weight factors; `factors: chosen` takes each method's factor from the rows of
the tuning section (or of the one it names as `tuned_by`), and every section but those leaves out
the tasks that nothing learns.
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from geodistill.analysis.protocol import read_protocol
from geodistill.errors import InputError
from geodistill.experiments.classroom import ClassificationSetting
from geodistill.experiments.protocol import FEATURE_LOSSES
from geodistill.experiments.store import data_dir, results_dir

FOLDER = "classification"
TUNING = "tuning"
SEEN, FEWEST = 7_500, 3.0
"""Sentences seen in a training, as long as that means at least so many epochs."""

Planned = tuple[ClassificationSetting, str, int]


def protocol() -> dict[str, Any]:
    """The blocks of the study's protocol file."""
    return read_protocol(data_dir() / "protocol" / "classification.yaml")


def epochs_for(n_train: int) -> float:
    """15 epochs of 500 sentences; n_train = 0, all, stands for three epochs."""
    return max(FEWEST, SEEN / n_train) if n_train else FEWEST


def runs(section: str) -> list[Planned]:
    """Setting, method and seed of every run of a section, seeds outermost.

    Raises:
        InputError: no such section; factors or tasks that the unfinished tuning has to give.
    """
    plan = protocol()
    if section not in plan["grid"]:
        raise InputError(f"section is {section!r}; expected one of {', '.join(plan['grid'])}")
    spec = plan["grid"][section]
    tasks, chosen = spec["tasks"], None
    if spec["seeds"] != plan["seeds"]["tuning"]:
        rows = tuning_rows()
        left_out = dropped(rows, plan["drop"])
        tasks = [task for task in tasks if task not in left_out]
        chosen = chosen_factors(tuning_rows(spec.get("tuned_by", TUNING)))
    found: dict[Planned, None] = {}
    for setting, method, seed in _cross(spec, tasks, chosen):
        found[setting, method, seed] = None  # a method without a term has one run, not one a factor
    return list(found)


def _cross(
    spec: dict[str, Any], tasks: list[str], chosen: dict[str, float] | None
) -> Iterator[Planned]:
    cells = product(spec["seeds"], tasks, spec["n_train"], shapes(spec), spec["methods"])
    for seed, task, n_train, shape, method in cells:
        for factor in _factors(spec, method, chosen):
            given = {"epochs": epochs_for(n_train), "factor": factor, **shape}
            yield ClassificationSetting(task, n_train=n_train, **given), method, seed


def shapes(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """What a section sets besides: its `setting`, crossed with every value that it `vary`s."""
    varied = spec.get("vary", {})
    values = [dict(zip(varied, some, strict=True)) for some in product(*varied.values())]
    fixed = {k: tuple(v) if isinstance(v, list) else v for k, v in spec.get("setting", {}).items()}
    return [{**fixed, **some} for some in values]


def _factors(spec: dict[str, Any], method: str, chosen: dict[str, float] | None) -> list[float]:
    term = method.partition("+")[2]
    if not term:
        return [1.0]
    if spec["factors"] != "chosen":
        return [float(factor) for factor in spec["factors"]]
    assert chosen is not None
    if term not in chosen:
        raise InputError(f"no factor was tuned for {method}; the protocol must give it one")
    return [chosen[term]]


def progress() -> pd.DataFrame:
    """A line a section: runs planned (before any task is dropped) and runs stored."""
    any_factor = dict.fromkeys(FEATURE_LOSSES, 1.0)
    lines = []
    for name, spec in protocol()["grid"].items():
        path = results_dir() / FOLDER / name / "rows.parquet"
        stored = 0
        if path.is_file():
            stored = pd.read_parquet(path, columns=["run_id"])["run_id"].nunique()
        lines.append((name, len(set(_cross(spec, spec["tasks"], any_factor))), stored))
    return pd.DataFrame(lines, columns=["section", "planned", "stored"])


def tuning_rows(section: str = TUNING) -> pd.DataFrame:
    """The rows of a finished tuning section: task, method, seed, factor, metric, value.

    Raises:
        InputError: it is not finished.
    """
    path: Path = results_dir() / FOLDER / section / "rows.parquet"
    rows = pd.read_parquet(path) if path.is_file() else pd.DataFrame({"run_id": []})
    missing = len(runs(section)) - rows["run_id"].nunique()
    if missing:
        raise InputError(
            f"the {section} section lacks {missing} runs, and it sets the weights: finish it with "
            f"`geodistill grid classification --section {section}`"
        )
    return rows


def chosen_factors(rows: pd.DataFrame) -> dict[str, float]:
    """By term, the factor of the best mean score over tasks and seeds; the smaller one of equals.

    The score of a task with classes is its accuracy, of one with scores the Pearson correlation.
    """
    scores = rows[rows["metric"].isin(("accuracy", "pearson"))]
    scores = scores[scores["method"].str.contains("+", regex=False)]
    means = scores.groupby(["method", "factor"])["value"].mean().round(12)
    best = means.groupby("method").idxmax()
    return {method.partition("+")[2]: float(factor) for method, factor in best}


def dropped(rows: pd.DataFrame, rule: dict[str, float]) -> list[str]:
    """Tasks where neither cross-entropy nor KD clears the baseline on validation.

    Args:
        rows: of the tuning section.
        rule: `points` above the majority's accuracy, or the least `pearson`.
    """
    mean = rows.groupby(["task", "method", "metric"])["value"].mean().unstack()
    base = mean[mean.index.get_level_values("method").isin(("ce", "kd"))]
    gain = 100 * (base["accuracy"] - base["majority_accuracy"]) - rule["points"]
    clears = gain.fillna(base["pearson"] - rule["pearson"] if "pearson" in base else -1.0) >= 0
    best = clears.groupby("task").any()
    return sorted(best.index[~best])
