"""Build the HTML book: executed notebooks staged with the prose, rendered by Jupyter Book."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from geodistill.errors import InputError
from geodistill.publish.console import log
from geodistill.publish.execute import run_notebooks
from geodistill.publish.project import Project, check_profile, find_project

MARKS = ("answer", "claims", "ledger")
"""`<!-- answer -->` and so on in a page of the book is replaced by what is computed."""
REPOSITORY_KEYS = ("repository", "launch_buttons")  # only where the repository has a public address
SMOKE_NOTICE = "Built with the profile smoke: tiny models, a few steps. No number means much."
JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"  # it has no `python -m`


def build_book(
    profile: str = "laptop",
    *,
    clean: bool = False,
    project: Project | None = None,
) -> Path:
    """Execute the notebooks that changed and build the book; a warning of Sphinx is an error.

    Args:
        profile: one of `PROFILES`.
        clean: whether to remove the former pages and Sphinx's cache first. An incremental build
            keeps deleted pages and repeats no warnings.
        project: the checkout; by default the one around the working directory.

    Returns:
        The first page.

    Raises:
        InputError: unknown profile, a failed notebook, a failed build.
    """
    check_profile(profile)
    project = project or find_project()
    executed = run_notebooks(project, profile, project.sources())
    if clean:
        _clean_html(project)
    stage_sources(project, profile, executed)
    _run_jupyter_book(project)
    index = project.html / "index.html"
    log(f"The book is built. Open {index}")
    return index


def _clean_html(project: Project) -> None:
    for folder in (project.html, project.html.parent / ".doctrees"):
        shutil.rmtree(folder, ignore_errors=True)


def stage_sources(project: Project, profile: str, executed: Sequence[Path]) -> None:
    """Lay out `_build/src` anew. Its paths mirror those of the repository, as launch links need.

    Args:
        project: the checkout.
        profile: of the build; `smoke` puts a notice on every page.
        executed: the notebooks to publish.
    """
    source, target = project.root, project.staged
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source / "book", target / "book", ignore=shutil.ignore_patterns("_build"))
    for folder in ("_static", "_extra"):
        if (target / "book" / folder).is_dir():
            shutil.move(target / "book" / folder, target / folder)
    included = [*(source / "geodistill").rglob("*.py"), *(source / "examples").glob("*.py")]
    for path in included:  # pages include the code that runs
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    (target / "notebooks").mkdir()
    for path in executed:
        shutil.copy2(path, target / "notebooks" / path.name)  # keeps the time, for Sphinx's cache
    shutil.copy2(source / "_toc.yml", target / "_toc.yml")
    config = yaml.safe_load((source / "_config.yml").read_text(encoding="utf-8"))
    config = with_launch_links(config, project.repository_url())
    if profile == "smoke":
        config["html"]["announcement"] = SMOKE_NOTICE
    (target / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    _write_computed(target, executed)


def with_launch_links(config: Mapping[str, Any], url: str) -> dict[str, Any]:
    """The configuration for Jupyter Book, without buttons if the repository has no public address.

    Args:
        config: as in `_config.yml`.
        url: of the repository; may be empty.
    """
    if url:
        repository = {**config["repository"], "url": url}
        html = {**config["html"], "use_repository_button": True, "use_issues_button": True}
        return {**config, "repository": repository, "html": html}
    log(
        "the repository has no address on GitHub or GitLab (git remote, or repository.url in "
        "_config.yml): the pages get no Binder or Colab button"
    )
    return {key: value for key, value in config.items() if key not in REPOSITORY_KEYS}


def _write_computed(staged: Path, executed: Sequence[Path]) -> None:
    """Replace the marks in the pages; the answer comes with its figure."""
    for path in (staged / "book").glob("*.md"):  # other pages keep their time, for Sphinx's cache
        text = path.read_text(encoding="utf-8")
        for mark in [name for name in MARKS if f"<!-- {name} -->" in text]:
            from geodistill.publish.claims import home, ledger  # load pandas

            if mark == "answer":
                words = home.write_answer(staged / "_static" / home.FIGURE.name)
            else:
                words = {"claims": ledger.claims_list, "ledger": ledger.render}[mark](executed)
            text = text.replace(f"<!-- {mark} -->", words)
            path.write_text(text, encoding="utf-8")


def _run_jupyter_book(project: Project) -> None:
    log("building the HTML pages")
    command = [sys.executable, "-c", JUPYTER_BOOK, "build", str(project.staged), "-q"]
    warnings_as_errors = ["-W", "-n", "--keep-going"]
    done = subprocess.run(
        [*command, "--path-output", str(project.output), *warnings_as_errors],
        check=False,
        stdout=subprocess.PIPE,  # banners; warnings go to standard error as they happen
        text=True,
    )
    if done.returncode:
        log(done.stdout)
        _clean_html(project)  # an incremental build would not repeat the warnings, and pass
        raise InputError("Jupyter Book reported the problems printed above: no book was built")
