"""geometry and losses load torch alone, checked in a fresh interpreter; and the check can fail."""

import importlib
import subprocess
import sys

import pytest

HEAVY = ("transformers", "datasets", "pandas", "matplotlib", "sklearn", "statsmodels")


def loaded_after(statement: str) -> set[str]:
    """Which of the heavy packages a fresh interpreter has after the statement."""
    report = f"{statement}\nimport sys\nprint(*(m for m in {HEAVY} if m in sys.modules))"
    run = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize("module", ["geodistill.geometry", "geodistill.losses"])
def test_importing_loads_no_heavy_package(module: str) -> None:
    assert loaded_after(f"import {module}") == set()


def test_the_check_can_fail() -> None:
    assert loaded_after("import geodistill.losses, pandas") >= {"pandas"}


@pytest.mark.parametrize("module", ["geodistill.geometry", "geodistill.losses"])
def test_all_names_exist_and_are_documented(module: str) -> None:
    package = importlib.import_module(module)
    assert len(package.__all__) > 5
    undocumented = [
        name
        for name in package.__all__
        if callable(getattr(package, name)) and not getattr(package, name).__doc__
    ]
    assert undocumented == []
