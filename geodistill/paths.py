"""Where the checkout is, and in it the data and the results."""

from __future__ import annotations

import os
from pathlib import Path

from geodistill.errors import InputError

SOURCE_ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds this package: the checkout, or site-packages."""


def is_checkout(folder: Path) -> bool:
    """Whether a folder is a checkout of the project: it has `_toc.yml` and `notebooks`."""
    return (folder / "_toc.yml").is_file() and (folder / "notebooks").is_dir()


def find_checkout() -> Path:
    """The checkout around the working directory, else the one that holds this package.

    Raises:
        InputError: there is neither.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, SOURCE_ROOT):
        if is_checkout(folder):
            return folder
    raise InputError(f"no checkout of geodistill at or above {here}; run this inside one")


def data_dir() -> Path:
    """The folder `data` of this package's checkout, or else of the one that `find_checkout` gives.

    Raises:
        InputError: there is none.
    """
    root = SOURCE_ROOT if (SOURCE_ROOT / "data").is_dir() else find_checkout()
    if not (root / "data").is_dir():
        raise InputError(f"no data folder at {root / 'data'}; run this inside a clone")
    return root / "data"


def results_dir() -> Path:
    """Where stored results are: `$GEODISTILL_RESULTS`, else `data/results` of the checkout.

    Raises:
        InputError: the variable names a file or a link to nothing.
    """
    value = os.environ.get("GEODISTILL_RESULTS")
    if not value:
        return data_dir() / "results"
    folder = Path(value).expanduser()
    if (folder.exists() or folder.is_symlink()) and not folder.is_dir():
        what = "a file" if folder.exists() else "a link to nothing"
        raise InputError(f"GEODISTILL_RESULTS is {value!r}, {what}; expected a folder")
    return folder


def in_project(folder: Path) -> bool:
    """Whether a folder of results is in `data/results` of the checkout, which its pages show."""
    try:
        return folder.resolve().is_relative_to((data_dir() / "results").resolve())
    except InputError:  # there is no checkout
        return False
