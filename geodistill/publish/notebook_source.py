"""Read notebooks from py:percent files and check their parameters before anything runs.

papermill only warns of an unknown parameter or a missing `parameters` cell; here both are errors.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

import jupytext
from nbformat import NotebookNode
from nbformat.validator import NotebookValidationError

from geodistill.errors import InputError
from geodistill.publish.project import check_profile

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def read_source(path: Path) -> NotebookNode:
    """Read a py:percent file as a notebook without outputs, with the kernel that papermill needs.

    Raises:
        InputError: the header does not make a valid notebook.
    """
    try:
        notebook: NotebookNode = jupytext.read(path)
    except NotebookValidationError as error:
        raise InputError(f"notebook {path.name} has an invalid header: {error.message}") from error
    notebook.metadata["kernelspec"] = dict(KERNEL)
    return notebook


def declared_parameters(notebook: NotebookNode, name: str) -> dict[str, object]:
    """Defaults by name in the cell tagged `parameters`; None if computed or of type `object`.

    Raises:
        InputError: not exactly one cell has the tag.
    """
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise InputError(f"notebook {name} has {len(cells)} cells tagged `parameters`, needs one")
    defaults: dict[str, object] = {}
    for statement in ast.parse(cells[0].source).body:
        if isinstance(statement, ast.Assign):
            names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
            defaults |= dict.fromkeys(names, _literal(statement.value))
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            any_type = ast.unparse(statement.annotation) == "object"
            defaults[statement.target.id] = None if any_type else _literal(statement.value)
    return defaults


def _literal(node: ast.expr | None) -> object:
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


def check_parameters(notebook: NotebookNode, name: str, values: Mapping[str, object]) -> None:
    """Check parameter values against the declared ones.

    Args:
        notebook: the source, without outputs.
        name: name of the notebook, for error messages.
        values: by parameter name.

    Raises:
        InputError: an undeclared parameter, a value of another type, an unknown profile.
    """
    declared = declared_parameters(notebook, name)
    for key, value in values.items():
        if key not in declared:
            known = ", ".join(declared) or "none"
            raise InputError(f"notebook {name} has no parameter {key!r}; it has: {known}")
        expected = type(declared[key])
        int_for_float = expected is float and type(value) is int
        if declared[key] is not None and type(value) is not expected and not int_for_float:
            remedy = f""" (a text in two pairs of quotes: "'{value}'")""" if expected is str else ""
            raise InputError(
                f"parameter {key} of {name}: got {value!r}, expected {expected.__name__}{remedy}"
            )
    if "profile" in values:
        check_profile(values["profile"])
