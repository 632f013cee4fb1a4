"""Where the sources, executed notebooks and pages of a checkout are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from geodistill.errors import InputError
from geodistill.paths import find_checkout, results_dir

PROFILES = ("smoke", "laptop", "paper")
_FORGE = r"(?:https://|ssh://)?(?:[^@/]+@)?(github\.com|gitlab\.com)[:/](.+?)(?:\.git)?/?"
"""A remote of git; a name or token before the @ is not published."""


@dataclass(frozen=True)
class Project:
    """A checkout and the folders that builds are written to.

    Attributes:
        root: the checkout; holds `_toc.yml`, `notebooks/` and `book/`.
        build: takes the executed notebooks and the staged book.
        output: takes `_build/html`.
    """

    root: Path
    build: Path
    output: Path

    @classmethod
    def at(cls, root: Path, build: Path | None = None, output: Path | None = None) -> Project:
        """The project at `root`, built into `root/_build` and `root/book` by default."""
        return cls(root, build or root / "_build", output or root / "book")

    @property
    def html(self) -> Path:
        """The pages of the built book."""
        return self.output / "_build" / "html"

    @property
    def staged(self) -> Path:
        """The sources as Jupyter Book gets them."""
        return self.build / "src"

    @property
    def results(self) -> Path:
        """The stored results: `$GEODISTILL_RESULTS`, else `data/results` of the checkout."""
        if os.environ.get("GEODISTILL_RESULTS"):
            return results_dir()
        return self.root / "data" / "results"

    def repository_url(self) -> str:
        """`repository.url` of `_config.yml`, else git's remote on GitHub or GitLab; else empty."""
        config = yaml.safe_load((self.root / "_config.yml").read_text(encoding="utf-8"))
        if url := (config.get("repository") or {}).get("url"):
            return str(url).rstrip("/")
        if not (self.root / ".git").exists():  # else git answers for a checkout further up
            return ""
        command = ["git", "-C", str(self.root), "config", "--get", "remote.origin.url"]
        try:
            remote = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        except FileNotFoundError:  # no git here
            return ""
        match = re.fullmatch(_FORGE, remote.strip())
        return f"https://{match[1]}/{match[2]}" if match else ""

    def executed(self, profile: str) -> Path:
        """The notebooks executed under a profile."""
        return self.build / "executed" / profile

    def sources(self) -> list[Path]:
        """All notebook sources, in the order of their numbers."""
        return sorted((self.root / "notebooks").glob("[0-9]*.py"))

    def find_notebook(self, name: str) -> Path:
        """Find a notebook source by its name, with or without number, or by a unique part of it.

        Raises:
            InputError: none or several match; the message lists them.
        """
        stems = {path.stem: path for path in self.sources()}
        name = name.removesuffix(".py")
        exact = [stem for stem in stems if name in (stem, stem.partition("_")[2])]
        matches = exact or [stem for stem in stems if name and name in stem]
        if len(matches) == 1:
            return stems[matches[0]]
        problem = f"matches {', '.join(matches)}" if matches else "is unknown"
        raise InputError(f"notebook {name!r} {problem}; the notebooks are: {', '.join(stems)}")


def find_project() -> Project:
    """The checkout around the working directory, else the one that holds this package.

    Raises:
        InputError: there is neither.
    """
    return Project.at(find_checkout())


def project_of_notebook(name: str) -> Project:
    """The checkout, or the notebooks that a wheel installs, whose runs go below the working folder.

    Args:
        name: of the notebook, for the message.

    Raises:
        InputError: no checkout, and a wheel has no such notebook.
    """
    try:
        return find_project()
    except InputError as error:
        here, root = Path.cwd(), Path(sys.prefix) / "share" / "geodistill"
        installed = Project.at(root, here / "_build", here / "book")
        try:
            installed.find_notebook(name)
        except InputError:
            names = ", ".join(path.stem for path in installed.sources()) or "none"
            raise InputError(f"{error} (notebooks without a checkout: {names})") from error
        return installed


def check_profile(profile: object) -> None:
    """Check the name of a profile.

    Raises:
        InputError: it is not one of `PROFILES`.
    """
    if profile not in PROFILES:
        raise InputError(f"profile {profile!r} is unknown; the profiles are: {', '.join(PROFILES)}")
