"""Notebook sources: read from py:percent, their parameters checked before anything runs.

papermill only warns of an unknown parameter or a missing `parameters` cell: here both are errors.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

import jupytext
from nbformat import NotebookNode
from nbformat.validator import NotebookValidationError

from geodistill.errors import InputError
from geodistill.publish.paths import check_profile

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def read_source(path: Path) -> NotebookNode:
    """The notebook of a py:percent file, without outputs, its kernel set (papermill needs one).

    Raises InputError if the header does not make a valid notebook.
    """
    try:
        notebook: NotebookNode = jupytext.read(path)
    except NotebookValidationError as error:
        raise InputError(f"notebook {path.name} has an invalid header: {error.message}") from error
    notebook.metadata["kernelspec"] = dict(KERNEL)
    return notebook


def declared_parameters(notebook: NotebookNode, name: str) -> dict[str, object]:
    """Names and defaults in the one cell tagged `parameters`; None for a computed default."""
    cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    if len(cells) != 1:
        raise InputError(f"notebook {name} has {len(cells)} cells tagged `parameters`, needs one")
    defaults: dict[str, object] = {}
    for line in ast.parse(cells[0].source).body:
        if isinstance(line, ast.Assign):
            defaults |= {t.id: _value(line.value) for t in line.targets if isinstance(t, ast.Name)}
        elif isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            defaults[line.target.id] = _value(line.value)
    return defaults


def _value(node: ast.expr | None) -> object:
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


def check_parameters(notebook: NotebookNode, name: str, given: Mapping[str, object]) -> None:
    """Raise InputError for a parameter that notebook `name` lacks, or a value of another type."""
    declared = declared_parameters(notebook, name)
    for key, value in given.items():
        if key not in declared:
            known = ", ".join(declared) or "none"
            raise InputError(f"notebook {name} has no parameter {key!r}; it has: {known}")
        wanted = type(declared[key])
        number = wanted is float and type(value) is int
        if declared[key] is not None and type(value) is not wanted and not number:
            raise InputError(
                f"parameter {key} of {name}: got {value!r}, expected {wanted.__name__}"
            )
    if "profile" in given:
        check_profile(given["profile"])
