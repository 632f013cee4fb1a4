"""The key that decides whether an executed notebook may be reused.

It covers all that a page depends on: source, parameters, library, data, pinned packages. Jupyter
Book's cache looks at the source of the notebook alone and would serve outdated numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path

from geodistill.files import sha256
from geodistill.publish.project import Project


def notebook_key(project: Project, source: Path, parameters: Mapping[str, object]) -> str:
    """Hash everything that an executed notebook depends on.

    Args:
        project: the checkout.
        source: the py:percent file.
        parameters: values passed to the notebook.

    Returns:
        64 hexadecimal digits; equal keys mean equal pages.
    """
    environment = {
        "parameters": dict(parameters),
        "python": platform.python_version(),
        "data_dir": os.environ.get("GEODISTILL_DATA_DIR"),
    }
    key = hashlib.sha256(json.dumps(environment, sort_keys=True, default=str).encode())
    inputs = {source, project.root / "constraints.txt"}
    inputs |= _files(project.root / "geodistill", skip="__pycache__")
    for folder in (project.root / "data", project.results):
        inputs |= _files(folder, skip="runs")  # single runs: only the merged tables are read
    for path in sorted(inputs):
        if path.is_file():
            key.update(os.path.relpath(path, project.root).encode())
            key.update(sha256(path).encode())
    return key.hexdigest()


def _files(folder: Path, skip: str) -> set[Path]:
    return {path for path in folder.rglob("*") if skip not in path.relative_to(folder).parts}
