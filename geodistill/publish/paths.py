"""Where the checkout is and where its builds go."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from geodistill.errors import InputError

PROFILES = ("smoke", "laptop", "paper")


@dataclass(frozen=True)
class Project:
    """A checkout: `root` holds `_toc.yml`, `notebooks/` and `book/`.

    `build` (default `root/_build`) takes executed notebooks and the staged book, `output`
    (default `root/book`) takes `_build/html`.
    """

    root: Path
    build: Path
    output: Path

    @classmethod
    def at(cls, root: Path, build: Path | None = None, output: Path | None = None) -> Project:
        return cls(root, build or root / "_build", output or root / "book")

    @property
    def html(self) -> Path:
        return self.output / "_build" / "html"

    @property
    def staged(self) -> Path:
        return self.build / "src"

    @property
    def results(self) -> Path:
        """The measured rows: `$GEODISTILL_RESULTS`, else `data/results` of the checkout."""
        return Path(os.environ.get("GEODISTILL_RESULTS", self.root / "data" / "results"))

    def executed(self, profile: str) -> Path:
        return self.build / "executed" / profile

    def sources(self) -> list[Path]:
        """Every notebook source, in the order of its number."""
        return sorted((self.root / "notebooks").glob("[0-9]*.py"))

    def find(self, name: str) -> Path:
        """The notebook `name`: `04_bert_classification`, `bert_classification` or a unique part.

        Raises InputError when none or several match; the message lists them.
        """
        stems = {path.stem: path for path in self.sources()}
        wanted = name.removesuffix(".py")
        exact = [s for s in stems if s == wanted or s.partition("_")[2] == wanted]
        matches = exact or [s for s in stems if wanted and wanted in s]
        if len(matches) == 1:
            return stems[matches[0]]
        what = f"matches {', '.join(matches)}" if matches else "is unknown"
        raise InputError(f"notebook {name!r} {what}; the notebooks are: {', '.join(stems)}")


def find_project() -> Project:
    """The checkout around the working directory, else the one this package lies in."""
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[2]):
        if (folder / "_toc.yml").is_file() and (folder / "notebooks").is_dir():
            return Project.at(folder)
    raise InputError(f"no checkout of geodistill at or above {here}: run this inside one")


def check_profile(profile: object) -> None:
    """Raise InputError for anything that is not one of `PROFILES`."""
    if profile not in PROFILES:
        raise InputError(f"profile {profile!r} is unknown; the profiles are: {', '.join(PROFILES)}")
