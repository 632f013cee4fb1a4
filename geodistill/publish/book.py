"""The HTML book: executed notebooks staged beside the prose, then Jupyter Book in `off` mode."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from geodistill.errors import InputError
from geodistill.publish.console import say
from geodistill.publish.execute import run_all
from geodistill.publish.paths import Project, check_profile, find_project

LEDGER = "<!-- ledger -->"
REPOSITORY_KEYS = ("repository", "launch_buttons")  # shown only where repository.url is set
SMOKE = "Built with the profile smoke: tiny models, a few steps. No number means much."
JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"  # it has no `python -m`


def build_book(
    profile: str = "laptop",
    *,
    clean: bool = False,
    warnings_as_errors: bool = True,
    only: Sequence[str] | None = None,
    project: Project | None = None,
) -> Path:
    """Run what changed of the notebooks under `profile`, build the book, return its first page.

    `clean` removes the former HTML and Sphinx's cache first (checks must: incremental builds keep
    deleted pages). `only` names the notebooks to run and publish; the other notebooks' pages are
    left out. Raises InputError: unknown profile or notebook, a failed notebook, a failed build.
    """
    check_profile(profile)
    project = project or find_project()
    sources = [project.find(name) for name in only] if only is not None else project.sources()
    executed = run_all(project, profile, sources)
    if clean:
        _forget(project)
    stage(project, profile, executed)
    _jupyter_book(project, warnings_as_errors)
    index = project.html / "index.html"
    say(f"The book is built. Open {index}")
    return index


def _forget(project: Project) -> None:
    for folder in (project.html, project.html.parent / ".doctrees"):
        shutil.rmtree(folder, ignore_errors=True)


def stage(project: Project, profile: str, executed: Sequence[Path]) -> None:
    """Lay out `_build/src` anew; its paths mirror the repository's, or launch links break."""
    source, target = project.root, project.staged
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source / "book", target / "book", ignore=shutil.ignore_patterns("_build"))
    if (target / "book" / "_static").is_dir():
        shutil.move(target / "book" / "_static", target / "_static")
    for path in (source / "geodistill").rglob("*.py"):  # pages include the code that runs
        listed = target / path.relative_to(source)
        listed.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, listed)
    (target / "notebooks").mkdir()
    for path in executed:
        shutil.copy2(path, target / "notebooks" / path.name)  # keeps the time: Sphinx's cache
    pages = {f"notebooks/{path.stem}" for path in executed}
    toc = _without(yaml.safe_load((source / "_toc.yml").read_text()), project, pages)
    (target / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False))
    config = with_launch_links(yaml.safe_load((source / "_config.yml").read_text()))
    if profile == "smoke":
        config["html"]["announcement"] = SMOKE
    (target / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False))
    _write_ledger(target / "book" / "index.md", executed)


def _without(toc: dict[str, Any], project: Project, pages: set[str]) -> dict[str, Any]:
    """The table of contents less the notebooks that are not part of this build."""
    left_out = {f"notebooks/{path.stem}" for path in project.sources()} - pages
    for part in toc.get("parts", [toc]):
        part["chapters"] = [c for c in part["chapters"] if c.get("file") not in left_out]
    return toc


def with_launch_links(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration for Jupyter Book: without `repository.url` no buttons, said in a line."""
    if (config.get("repository") or {}).get("url"):
        return {**config, "html": {**config["html"], "use_repository_button": True}}
    say("repository.url is not set in _config.yml: the pages get no Binder or Colab button")
    return {key: value for key, value in config.items() if key not in REPOSITORY_KEYS}


def _write_ledger(index: Path, executed: Sequence[Path]) -> None:
    text = index.read_text()
    if LEDGER not in text:
        return
    from geodistill.publish.claims.ledger import (
        render,
    )  # pandas: only where there is a ledger to write

    index.write_text(text.replace(LEDGER, render(executed)))


def _jupyter_book(project: Project, warnings_as_errors: bool) -> None:
    say("building the HTML pages")
    strict = ["-W", "-n", "--keep-going"] if warnings_as_errors else []
    command = [sys.executable, "-c", JUPYTER_BOOK, "build", str(project.staged), "-q"]
    done = subprocess.run(
        [*command, "--path-output", str(project.output), *strict],
        check=False,
        stdout=subprocess.PIPE,  # banners; warnings come by standard error, as they happen
        text=True,
    )
    if done.returncode:
        say(done.stdout)
        # a second, incremental build would not repeat this one's warnings and pass
        _forget(project)
        raise InputError("Jupyter Book found the faults printed above: no book was built")
