"""Every public name has an example in its docstring, and every example in the library runs."""

import doctest
import importlib
import inspect
from types import ModuleType

import pytest
from support.tiny_project import REPOSITORY

PACKAGES = [
    "geodistill",
    "geodistill.geometry",
    "geodistill.losses",
    "geodistill.layers",
    "geodistill.distill",
    "geodistill.tasks",
    "geodistill.analysis",
]
LIBRARY = REPOSITORY / "geodistill"
MODULES = [
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(LIBRARY.rglob("*.py"))
    if ">>> " in path.read_text()
]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.REPORT_NDIFF


def without_example(package: ModuleType) -> list[str]:
    """Public functions and classes whose docstring has no example."""
    public = {name: getattr(package, name) for name in package.__all__}
    return [
        name
        for name, value in public.items()
        if (inspect.isfunction(value) or inspect.isclass(value))
        and ">>> " not in (value.__doc__ or "")
    ]


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_has_an_example(name: str) -> None:
    package = importlib.import_module(name)
    assert len(package.__all__) > 1
    assert without_example(package) == []


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # for examples that write files
    report = failures(importlib.import_module(name))
    assert not report, report


def failures(module: ModuleType) -> str:
    """What doctest prints of the examples that fail; an empty string if all pass."""
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    for test in doctest.DocTestFinder().find(module):
        runner.run(test, out=report.append)
    return "".join(report)


def test_the_checks_can_fail() -> None:
    module = ModuleType("module")
    source = 'def right():\n    """>>> 1 + 1\n    2"""\ndef wrong():\n    """>>> 1 + 1\n    3"""\n'
    exec(source + "def bare():\n    'No example.'\n", module.__dict__)
    for name in ("right", "wrong", "bare"):
        getattr(module, name).__module__ = "module"
    module.__all__ = ["right", "wrong", "bare"]  # type: ignore[attr-defined]
    assert without_example(module) == ["bare"]
    assert "module.wrong" in failures(module)
    assert "module.right" not in failures(module)
