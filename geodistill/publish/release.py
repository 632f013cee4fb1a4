"""The notebooks that Colab and Binder open: one `.ipynb` without outputs per source.

They exist on the release branch only (`make release-notebooks`). The address of the repository is
that of the book's buttons (`Project.repository_url`).
"""

from __future__ import annotations

import jupytext
import nbformat

from geodistill.errors import InputError
from geodistill.publish.console import log
from geodistill.publish.notebook_source import read_source
from geodistill.publish.project import Project, find_project

# torch and numpy stay as Colab has them: its GPU build of torch must not be replaced.
COLAB_SETUP = """\
# Google Colab: fetch the library and the stored results. Elsewhere this cell does nothing.
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


def release_notebooks(project: Project) -> list[str]:
    """Write `_build/release/notebooks/NAME.ipynb` for every source; the first cell prepares Colab.

    Returns:
        The paths written, relative to `_build/release`.

    Raises:
        InputError: the address of the repository is not known.
    """
    url = project.repository_url()
    if not url:
        raise InputError(
            "the address of the repository is not known: git's remote is not on GitHub or GitLab; "
            "set repository.url in _config.yml"
        )
    folder = project.build / "release"
    (folder / "notebooks").mkdir(parents=True, exist_ok=True)
    written = []
    for source in project.sources():
        notebook = read_source(source)
        first = nbformat.v4.new_code_cell(COLAB_SETUP.format(url=url))  # type: ignore[no-untyped-call]
        notebook.cells.insert(0, first)
        name = f"notebooks/{source.stem}.ipynb"
        jupytext.write(notebook, folder / name)
        written.append(name)
    log(f"{len(written)} notebooks in {folder}: push it as the branch that the buttons open")
    return written


if __name__ == "__main__":
    release_notebooks(find_project())
