"""The settings in which a Procrustes term was compared with KD: one row each of the home page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from geodistill.analysis.report.tables import as_score
from geodistill.analysis.stats.compare import Comparison, compare
from geodistill.analysis.stored_results import load_items
from geodistill.experiments.methods import BASELINES, INSTRUCTION_REFERENCES
from geodistill.paths import data_dir
from geodistill.publish.claims.judge import KD, Judge, claims_file

PROCRUSTES = "kd+procrustes"
ALTERNATIVES = ("kd+spectrum", "kd+pca", "kd+isotropy", "kd+procrustes-shuffled")
"""Controls, which ignore the pairing of teacher and student rows, and a PCA target."""
TEACHER = "teacher"
TRIVIAL = {*BASELINES, *INSTRUCTION_REFERENCES} - {TEACHER}


@dataclass(frozen=True)
class Setting:
    """One row of the answer.

    Attributes:
        label: what was trained, in words.
        score: what the levels are, in words.
        kind: "confirmatory", "descriptive", or "earlier", whose students were too weak for it to
            count as evidence.
        levels: mean score by method, in 0..1; trivial baselines and the teacher are among them.
        gain: of Procrustes over KD.
        alternatives: of `ALTERNATIVES`, over KD.
        over_best: Procrustes over the best of them, which was chosen on the same scores.
    """

    label: str
    score: str
    kind: str
    levels: dict[str, float]
    gain: Comparison
    alternatives: tuple[Comparison, ...]
    over_best: Comparison

    @property
    def best_trivial(self) -> str:
        """The trivial baseline with the highest score; empty if none is stored."""
        known = {name: self.levels[name] for name in TRIVIAL if name in self.levels}
        return max(known, key=lambda name: known[name], default="")


def read_settings(judge: Judge | None = None) -> list[Setting]:
    """The settings whose sections are complete, then those of earlier studies.

    Args:
        judge: which reads the sections; by default a new one that is silent.
    """
    judge, settings = judge or Judge(log=lambda line: None), []
    for spec in claims_file()["settings"]:
        items = _earlier_items(spec) if "earlier" in spec else _items(judge, spec)
        if items is not None:
            settings.append(_setting(spec, items))
    return settings


def _items(judge: Judge, spec: dict[str, Any]) -> pd.DataFrame | None:
    sections = judge.sections(spec["study"])
    if not sections.is_complete(spec["section"], spec["levels"]):
        return None
    items, levels = sections[spec["section"]].pooled, sections[spec["levels"]].pooled
    for column, value in spec.get("where", {}).items():
        items = items[items[column] == value]
    tables = [items, levels[levels["task"].isin(items["task"].unique())]]
    if "others" in spec and sections.is_complete(spec["others"]):
        tables.append(sections[spec["others"]].pooled)
    return pd.concat(tables)


def _earlier_items(spec: dict[str, Any]) -> pd.DataFrame:
    folder = data_dir() / "results" / "earlier"
    tables = []
    for name in spec["earlier"]:
        items = load_items(folder / name, vary=["weight"] if "weight" in spec else []).frame
        tables.append(items[items["weight"] == spec["weight"]] if "weight" in spec else items)
    return as_score(pd.concat(tables, ignore_index=True), spec["score"])


def _setting(spec: dict[str, Any], items: pd.DataFrame) -> Setting:
    by_task = items.groupby(["method", "task"])["score"].mean()
    means = by_task.groupby("method").mean()  # tasks count equally, as in `compare`
    levels = {str(method): float(score) for method, score in means.items()}
    alternatives = [compare(items, method, KD) for method in ALTERNATIVES if method in levels]
    best = max(alternatives, key=lambda comparison: comparison.estimate).method
    kind = "confirmatory" if spec.get("section") == "full" else "descriptive"
    return Setting(
        spec["label"],
        spec["scored"],
        "earlier" if "earlier" in spec else kind,
        levels,
        compare(items, PROCRUSTES, KD),
        tuple(alternatives),
        compare(items, PROCRUSTES, best),
    )
