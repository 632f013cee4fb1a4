"""Minutes that each notebook may take: `notebooks/budgets.toml`, kept by `overruns`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from geodistill.errors import InputError
from geodistill.publish.paths import Project


def read_budgets(project: Project, profile: str) -> dict[str, float]:
    """Minutes by notebook stem under `profile`. A source without a budget is an InputError."""
    budgets = _file(project).get(profile, {})
    missing = [source.stem for source in project.sources() if source.stem not in budgets]
    if missing:
        raise InputError(f"budgets.toml has no minutes for {', '.join(missing)} under [{profile}]")
    return {stem: float(minutes) for stem, minutes in budgets.items()}


def _file(project: Project) -> dict[str, Any]:
    path = project.root / "notebooks" / "budgets.toml"
    if not path.is_file():
        raise InputError(f"{path} is missing: it gives the minutes of each notebook and profile")
    return tomllib.loads(path.read_text())


def overruns(project: Project, profile: str, taken: Mapping[str, float]) -> list[str]:
    """One line for each notebook of `taken` (minutes by stem) that went past budget x tolerance."""
    budgets = read_budgets(project, profile)
    tolerance = float(_file(project)["tolerance"])
    return [
        f"{stem}, {profile}: {minutes:.1f} min of {budgets[stem]:g} (x{tolerance:g} is allowed)"
        for stem, minutes in taken.items()
        if minutes > budgets[stem] * tolerance
    ]


def minutes_left(
    budgets: Mapping[str, float], waiting: Sequence[str], done: Mapping[str, float]
) -> float:
    """Budgets of the notebooks `waiting`, scaled by how those `done` (minutes) kept theirs."""
    planned = sum(budgets[stem] for stem in done)
    pace = sum(done.values()) / planned if planned else 1.0
    return pace * sum(budgets[stem] for stem in waiting)
