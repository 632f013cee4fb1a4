"""Imports run downward only, in no circle, and load no heavy package; each check can fail."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from support.tiny_project import REPOSITORY

LEVELS = (
    {"__main__"},
    {"cli"},
    {"publish"},
    {"experiments"},
    {"distill"},
    {"losses", "layers"},
    {"geometry", "tasks", "analysis"},
    {"paths", "positions"},
    {"files"},
    {"errors"},
)
"""Packages and top-level modules, from the top down: each may import what is below it."""
ANALYSIS = ("report", "figures", "stats")
"""The same for the folders of `analysis`."""
HEAVY = ("transformers", "datasets", "pandas", "matplotlib", "sklearn", "statsmodels")
MOST_MODULES = 16  # a folder, without its __init__

Imports = dict[str, set[str]]


def imports_of(library: Path) -> Imports:
    """The modules of the library that each module imports, at the top or inside a function."""
    files = {".".join(path.relative_to(library).with_suffix("").parts): path
             for path in library.rglob("*.py")}  # fmt: skip
    files = {name.removesuffix("__init__").rstrip("."): path for name, path in files.items()}
    return {name: set(_imports(path, files)) - {name} for name, path in files.items()}


def _imports(path: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            named = [f"{node.module}.{alias.name}" for alias in node.names]
            named = [n if within(n) in modules else str(node.module) for n in named]
        elif isinstance(node, ast.ImportFrom):
            raise AssertionError(f"{path}: a relative import, which this check does not follow")
        else:
            continue
        yield from (within(name) for name in named if name.partition(".")[0] == "geodistill")


def within(name: str) -> str:
    """`geodistill.losses.base` -> `losses.base`."""
    return name.partition("geodistill")[2].lstrip(".")


def upward(imports: Imports) -> list[str]:
    """Imports that do not run downward between packages, or between the folders of `analysis`."""
    levels = {name: i for i, names in enumerate(LEVELS) for name in names}
    return [
        f"{module} imports {imported}"
        for module, all_imported in imports.items()
        for imported in all_imported
        if not _is_downward(module, imported, levels)
    ]


def _is_downward(module: str, imported: str, levels: Mapping[str, int]) -> bool:
    package, other = module.partition(".")[0], imported.partition(".")[0]
    if not package or not other:
        return not package or imported == ""  # the lazy top level; its version
    if package != other:
        return levels[package] < levels[other]
    folders = [name.split(".")[1] for name in (module, imported) if name.count(".") > 1]
    if package != "analysis" or len(folders) < 2:
        return True
    return ANALYSIS.index(folders[0]) <= ANALYSIS.index(folders[1])


def circle(imports: Imports) -> list[str]:
    """The modules of one circle of imports; none if there is no circle."""
    try:
        TopologicalSorter({m: i - {""} for m, i in imports.items() if m}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


IMPORTS = imports_of(REPOSITORY / "geodistill")


def test_imports_run_downward_only() -> None:
    packages = {name.partition(".")[0] for name in IMPORTS} - {""}
    assert packages == set().union(*LEVELS)
    assert upward(IMPORTS) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(IMPORTS) == []


def test_the_checks_see_an_import_upward_and_a_circle(tmp_path: Path) -> None:
    sources = {
        "__init__": "",
        "geometry/__init__": "from geodistill.geometry.measures import cka\n",
        "geometry/measures": "def cka():\n    from geodistill.losses import base\n",
        "losses/__init__": "",
        "losses/base": "import geodistill.geometry.measures\n",
        "analysis/stats/power": "from geodistill.analysis.report import tables\n",
        "analysis/report/tables": "from geodistill.errors import InputError\n",
        "errors": "class InputError(ValueError): ...\n",
    }
    for name, source in sources.items():
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    imports = imports_of(tmp_path)
    assert imports["geometry"] == {"geometry.measures"}
    assert upward(imports) == [
        "geometry.measures imports losses.base",
        "analysis.stats.power imports analysis.report.tables",
    ]
    assert set(circle(imports)) == {"geometry.measures", "losses.base"}


def test_no_folder_holds_too_many_modules() -> None:
    folders = [path.parent for path in (REPOSITORY / "geodistill").rglob("__init__.py")]
    modules = {folder: len(list(folder.glob("[!_]*.py"))) for folder in folders}
    assert len(modules) > 10
    assert [str(folder) for folder, count in modules.items() if count > MOST_MODULES] == []


def test_no_module_is_longer_than_three_hundred_lines() -> None:
    lines = {
        str(path.relative_to(REPOSITORY)): len(path.read_text().splitlines())
        for path in (REPOSITORY / "geodistill").rglob("*.py")
    }
    assert {path: count for path, count in lines.items() if count > 300} == {}


def test_tests_mirror_the_library() -> None:
    """A folder of unit tests has a folder of the library with its name."""
    others = {"docs", "end_to_end", "gpu", "montecarlo", "support"}
    tests = REPOSITORY / "tests"
    folders = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")}
    unit = {folder for folder in folders if not others & set(folder.parts)}
    assert len(unit) > 8
    assert [str(f) for f in unit if not (REPOSITORY / "geodistill" / f).is_dir()] == []


def loaded_after(statement: str, packages: tuple[str, ...] = HEAVY) -> set[str]:
    """Which of the packages a fresh interpreter has loaded after the statement."""
    report = f"{statement}\nimport sys\nprint(*(m for m in {packages} if m in sys.modules))"
    run = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_geometry_and_losses_load_torch_alone() -> None:
    assert loaded_after("import geodistill.geometry, geodistill.losses") == set()
    assert loaded_after("import geodistill.losses, pandas") >= {"pandas"}  # the check can fail


def test_analysis_loads_its_modules_when_their_names_are_used() -> None:
    assert loaded_after("import geodistill.analysis", (*HEAVY, "torch", "scipy")) == set()


def test_analysis_publishing_and_planning_load_no_torch() -> None:
    modules = sorted(
        f"geodistill.{name}"
        for name in IMPORTS
        if name.partition(".")[0] in ("analysis", "publish") and name != "publish.measures_table"
    )
    assert len(modules) > 30
    statement = f"import geodistill.experiments.registry, {', '.join(modules)}"
    assert loaded_after(statement, ("torch", "transformers")) == set()


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
