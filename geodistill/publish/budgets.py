"""Expected minutes per notebook and profile, from `notebooks/budgets.toml`."""

from __future__ import annotations

import tomllib

from geodistill.errors import InputError
from geodistill.publish.project import Project

TOLERANCE = 3  # times the expected minutes: a busy machine is slower


def read_budgets(project: Project, profile: str) -> dict[str, float]:
    """The expected minutes of every notebook under a profile, on two idle cores.

    Raises:
        InputError: the file is missing, or has no minutes for one of the notebooks.
    """
    path = project.root / "notebooks" / "budgets.toml"
    if not path.is_file():
        raise InputError(f"{path} is missing; it gives the minutes of each notebook and profile")
    budgets = tomllib.loads(path.read_text(encoding="utf-8")).get(profile, {})
    missing = [source.stem for source in project.sources() if source.stem not in budgets]
    if missing:
        raise InputError(f"budgets.toml has no minutes for {', '.join(missing)} under [{profile}]")
    return {name: float(minutes) for name, minutes in budgets.items()}
