"""When an executed notebook may be used again.

The key covers everything a page depends on: source, parameters, library, data, pinned packages.
Jupyter Book's own cache looks at the notebook's source alone and would serve stale numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path

from geodistill.publish.paths import Project


def reuse_key(project: Project, source: Path, parameters: Mapping[str, object]) -> str:
    """A hash (hex) of all that the executed `source` depends on; equal keys mean an equal page."""
    surroundings = {
        "parameters": dict(parameters),
        "python": platform.python_version(),
        "data_dir": os.environ.get("GEODISTILL_DATA_DIR"),
    }
    digest = hashlib.sha256(json.dumps(surroundings, sort_keys=True, default=str).encode())
    for path in (source, project.root / "constraints.txt", *_library(project), *_data(project)):
        if path.is_file():
            digest.update(os.path.relpath(path, project.root).encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _library(project: Project) -> Iterable[Path]:
    return sorted((project.root / "geodistill").rglob("*.py"))


def _data(project: Project) -> list[Path]:
    """Data files; `runs/` holds single runs of which only the finished tables are read."""
    return sorted(
        {
            path
            for folder in (project.root / "data", project.results)
            for path in folder.rglob("*")
            if "runs" not in path.relative_to(folder).parts
        }
    )
