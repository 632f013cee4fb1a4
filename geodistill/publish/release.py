"""The notebooks that Colab and Binder open: a `.ipynb` without outputs beside each source.

They exist on the release branch only (`make release-notebooks`); the py:percent file stays the one
source. The repository's address comes from `repository.url` in `_config.yml`, as the buttons' does.
"""

from __future__ import annotations

import jupytext
import nbformat
import yaml

from geodistill.errors import InputError
from geodistill.publish.console import say
from geodistill.publish.notebook_source import read_source
from geodistill.publish.paths import Project, find_project

# torch and numpy stay as Colab has them: its GPU build of torch must not be replaced.
COLAB = """\
# Google Colab: fetch the library and the committed results. Elsewhere this cell does nothing.
import sys

if "google.colab" in sys.modules:
    import os
    import subprocess

    subprocess.run(["git", "clone", "--depth", "1", "{url}", "geodistill-repo"], check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "./geodistill-repo[train,analysis]"],
        check=True,
    )
    os.environ["GEODISTILL_RESULTS"] = os.path.abspath("geodistill-repo/data/results")"""


def repository(project: Project) -> tuple[str, str]:
    """`repository.url` and `repository.branch` of `_config.yml`; InputError if there is no url."""
    config = yaml.safe_load((project.root / "_config.yml").read_text())
    place = config.get("repository") or {}
    if not place.get("url"):
        raise InputError("repository.url is not set in _config.yml: set it to the public address")
    return str(place["url"]).rstrip("/"), str(place.get("branch", "main"))


def release_notebooks(project: Project) -> list[str]:
    """Write `_build/release/notebooks/NAME.ipynb` for every source; return their paths in there.

    The first cell prepares Colab. Raises InputError if `repository.url` is not set.
    """
    url, _ = repository(project)
    folder = project.build / "release"
    (folder / "notebooks").mkdir(parents=True, exist_ok=True)
    written = []
    for source in project.sources():
        notebook = read_source(source)
        notebook.cells.insert(0, nbformat.v4.new_code_cell(COLAB.format(url=url)))  # type: ignore[no-untyped-call]
        name = f"notebooks/{source.stem}.ipynb"
        jupytext.write(notebook, folder / name)
        written.append(name)
    say(f"{len(written)} notebooks in {folder}: push it as the branch that the buttons open")
    return written


if __name__ == "__main__":
    release_notebooks(find_project())
