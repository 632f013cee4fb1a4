"""One table of the earlier studies: each section, its question, its gains, its collapsed runs."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from geodistill.analysis.figures.style import method_style
from geodistill.analysis.report.format import NATS, POINTS, Unit
from geodistill.analysis.stats.collapse import find_collapsed
from geodistill.analysis.stats.compare import compare
from geodistill.analysis.stored_results import load_items, load_rows, read_stored
from geodistill.errors import InputError

KD = "kd"
SQUARED_ERROR = Unit("squared error, sign reversed", digits=3)
UNITS = {unit.name: unit for unit in (POINTS, NATS, SQUARED_ERROR)}


def earlier_sections(results: Path) -> pd.DataFrame:
    """Every section of the earlier studies, read from `results/earlier`.

    Args:
        results: the folder of all stored results.

    Returns:
        One row per section, setting and method: `study, section, question, tasks, seeds, setting,
        method, runs`, how many have `collapsed` (None for a task without classes), the mean `score`
        per item and the `gain` over KD with the ends `low` and `high` of its 95 % interval, pooled
        over tasks, their `unit`, the `reason` where there is no gain, and `run_ids`.

    Raises:
        InputError: `sections.yaml` does not list exactly the stored sections, or damaged results.
    """
    earlier = results / "earlier"
    listed = yaml.safe_load((earlier / "sections.yaml").read_text(encoding="utf-8"))
    names = {f"{study}/{name}" for study, sections in listed.items() for name in sections}
    stored = {path.parent.relative_to(earlier).as_posix() for path in earlier.rglob("rows.parquet")}
    if names != stored:
        raise InputError(f"sections.yaml and the folders differ in {sorted(names ^ stored)}")
    lines = [
        {"study": study, "section": name, "question": spec["question"], **line}
        for study, sections in listed.items()
        for name, spec in sections.items()
        for line in _lines(results, study, name, spec)
    ]
    return pd.DataFrame(lines)


def format_earlier(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `earlier_sections` as text for a page; what a section repeats is left out."""
    text = table[["study", "section", "question", "tasks", "seeds", "setting"]].astype(str)
    repeated = ["study", "section", "question", "tasks", "seeds"]
    text.loc[table.duplicated(["study", "section"]), repeated] = ""
    return text.join(pd.DataFrame([_texts(row) for row in table.to_dict("records")]))


def _texts(row: Mapping[Any, Any]) -> dict[str, str]:
    unit = UNITS[row["unit"]]
    score = f"{row['score'] * unit.factor:.{unit.digits}f}"
    gain, low, high = (unit.format(row[name]) for name in ("gain", "low", "high"))
    collapsed = f"{row['collapsed']:g} of {row['runs']}"
    return {
        "method": method_style(row["method"]).label,
        "score": score,
        "gain over KD": row["reason"] or f"{gain} ({low} to {high}) {unit.name}",
        "collapsed": "not defined" if pd.isna(row["collapsed"]) else collapsed,
    }


def _lines(
    results: Path, study: str, name: str, spec: Mapping[str, Any]
) -> Iterator[dict[str, object]]:
    """The table's rows of one section: first the pooled tasks, then those of another unit."""
    varied: dict[str, str] = spec.get("varied", {})
    items, device = _load(results / "earlier" / study / name, list(varied))
    kd, kd_device = items[items["method"] == KD], device
    if "kd_from" in spec:
        other, kd_device = _load(results / "earlier" / study / spec["kd_from"], list(varied))
        kd = other[other["method"] == KD]
    matched = [key for key in varied if kd[key].nunique() > 1]  # KD has no weight to vary
    elsewhere = f"KD ran on another device ({kd_device}, not {device})"
    facts = {"tasks": ", ".join(sorted(items["task"].unique())), "seeds": items["seed"].nunique()}
    binary = items["score"].isin((0, 1)).groupby(items["task"]).all()
    pooled = items["task"].map(binary) | (study != "classification")
    units = POINTS if study == "classification" else NATS, SQUARED_ERROR
    for part, unit in zip((items[pooled], items[~pooled]), units, strict=True):
        note = [f"{task}, not pooled" for task in part["task"].unique() if unit is SQUARED_ERROR]
        for values, rows in part.groupby([*varied, "method"]):
            setting, method = dict(zip(varied, values[:-1], strict=True)), str(values[-1])
            labels = [f"{label} {_plain(setting[key])}" for key, label in varied.items()]
            reason = "the baseline" if method == KD else elsewhere if device != kd_device else ""
            if not reason and len({*rows["seed"]} & {*kd["seed"]}) < 2:
                reason = "one run, no interval"
            line = {**facts, "setting": ", ".join([*labels, *note]), "method": method}
            line |= {**_level(rows, unit), "unit": unit.name, "reason": reason}
            if not reason:
                same = kd["task"].isin(rows["task"].unique())
                for key in matched:
                    same &= kd[key] == setting[key]
                gain = compare(pd.concat([rows, kd[same]], ignore_index=True), method, KD)
                line |= {"gain": gain.estimate, "low": gain.low, "high": gain.high}
            yield line


def _load(folder: Path, varied: list[str]) -> tuple[pd.DataFrame, str]:
    """The items of a section, with a column for each setting varied, and its kind of device."""
    runs = tuple(read_stored(folder / "rows.parquet", ["run_id"])["run_id"].unique())
    settings = [name for name in varied if name != "task"]
    (device,) = set(load_rows(folder, runs=runs).frame["device"].str.partition(":")[0])
    return load_items(folder, vary=settings, runs=runs).frame, {"cuda": "GPU", "cpu": "CPU"}[device]


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def _level(items: pd.DataFrame, unit: Unit) -> dict[str, object]:
    """The runs of one method and setting: how many, how many have collapsed, their mean score."""
    by_run = items.groupby(["run_id", "task"])
    score = by_run["score"].mean()
    ids = tuple(sorted(items["run_id"].unique()))
    level = {"run_ids": ids, "runs": len(ids), "score": score.groupby("task").mean().mean()}
    if unit is SQUARED_ERROR:
        return {**level, "collapsed": None}
    # Of instructions the trivial answer is never right: the floor of exact match is 0.
    floors = {} if "label" in items else dict.fromkeys(items["task"].unique(), 0.0)
    collapsed = find_collapsed(items, floors=floors)
    return {**level, "collapsed": int(collapsed.groupby("run_id")["collapsed"].any().sum())}
