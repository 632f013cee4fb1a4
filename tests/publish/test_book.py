"""The real book under the profile `smoke`: every notebook runs, every page is complete.

Its pages are opened in a browser too: they load without a network, with their mathematics. All in
one file, so that `--dist loadfile` builds the book once.
"""

import re
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
import yaml
from filelock import FileLock
from support.tiny_project import REPOSITORY

from geodistill.publish.book import MARKS, build_book
from geodistill.publish.budgets import read_budgets
from geodistill.publish.claims.home import read_settings
from geodistill.publish.claims.judge import all_claims
from geodistill.publish.display import describe_figure, iter_figures
from geodistill.publish.execute import NotebookError, NotebookRun, run_notebook
from geodistill.publish.project import PROFILES, Project

pytestmark = pytest.mark.smoke
TOC = yaml.safe_load((REPOSITORY / "_toc.yml").read_text())
PAGES = [TOC["root"], *(page["file"] for part in TOC["parts"] for page in part["chapters"])]
CHAPTERS = [page.partition("/")[2] for page in PAGES if page.startswith("notebooks/")]
WITH_FORMULAS = {
    "book/procrustes_loss",
    "book/notation",
    "notebooks/01_theory",
    "notebooks/02_finite_samples",
    "notebooks/03_synthetic",
}


@pytest.fixture(scope="module")
def smoke_book(tmp_path_factory):
    """This repository's book, warnings as errors; executed notebooks stay in `_build/test`."""
    build = REPOSITORY / "_build" / "test"
    build.mkdir(parents=True, exist_ok=True)
    project = Project.at(REPOSITORY, build, tmp_path_factory.mktemp("book"))
    with FileLock(build / "lock"):  # where two sessions, or workers without loadfile, meet
        build_book("smoke", clean=True, project=project)
    return project


def test_every_chapter_ran_under_smoke(smoke_book):
    assert [source.stem for source in smoke_book.sources()] == sorted(CHAPTERS)
    for name in CHAPTERS:
        run = nbformat.read(smoke_book.executed("smoke") / f"{name}.ipynb", as_version=4)
        assert run.metadata.geodistill.parameters == {"profile": "smoke"}


def test_a_second_build_would_run_nothing(smoke_book):
    """A chapter that changes what its own key covers would run again for ever."""
    for source in smoke_book.sources():
        target = smoke_book.executed("smoke") / f"{source.stem}.ipynb"
        assert NotebookRun(smoke_book, source, {"profile": "smoke"}, target).is_up_to_date(), (
            source.stem
        )


def test_every_page_of_the_contents_is_there_and_no_link_is_dead(smoke_book):
    assert len(PAGES) > 10
    for page in PAGES:
        path = smoke_book.html / f"{page}.html"
        for link in re.findall(
            r'<(?:a|img|script|link|iframe)\b[^>]*(?:href|src)="([^"]*)"', path.read_text()
        ):
            target = unquote(re.split("[?#]", link)[0])
            if target and not re.match(r"(https?|data|mailto):", target):
                assert (path.parent / target).exists(), f"{page}: {link}"


def test_every_image_has_alternative_text(smoke_book):
    images = [
        (path.name, image)
        for path in (smoke_book.html / "notebooks").glob("*.html")
        for image in re.findall(r"<img[^>]*>", path.read_text())
    ]
    assert len(images) >= len(CHAPTERS)
    for name, image in images:
        alt = re.search(r'alt="([^"]*)"', image)
        assert alt, (name, image[:100])
        assert len(alt[1].split()) > 2, (name, alt[1])


def test_every_figure_can_be_traced(smoke_book):
    found = list(iter_figures(smoke_book))
    assert {figure["notebook"] for figure in found} == set(CHAPTERS)
    assert {figure["source"] for figure in found} == {"live", "stored"}
    names = [figure["name"] for figure in found]
    assert len(names) == len(set(names)), "two figures of one name"
    for figure in found:
        text = describe_figure(figure["name"], smoke_book)
        assert figure["made_by"] in text
        if figure["source"] == "stored":
            earlier = figure["results"].startswith("data/results/earlier")
            made_by = "" if earlier else r"geodistill experiments \w+|python -m geodistill\."
            assert re.search(made_by, figure["made_by"])
            assert ("earlier version" in figure["made_by"]) == earlier
            assert len(figure["run_ids"]) > 1


@pytest.mark.parametrize("name", ["01_theory", "02_finite_samples"])
def test_live_chapters_need_no_stored_rows(name, tmp_path, monkeypatch):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path / "none"))
    project = Project.at(REPOSITORY, tmp_path / "build")
    assert run_notebook(name, {"profile": "smoke"}, project).exists()


def test_a_chapter_of_stored_rows_says_what_makes_them(tmp_path, monkeypatch):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path / "none"))
    project = Project.at(REPOSITORY, tmp_path / "build")
    with pytest.raises(NotebookError, match=r"make them with `geodistill experiments \w+"):
        run_notebook("03_synthetic", {"profile": "smoke"}, project)


def test_budgets_add_up_to_what_is_promised():
    project = Project.at(REPOSITORY)
    for profile in PROFILES:
        assert set(read_budgets(project, profile)) == set(CHAPTERS)
    assert sum(read_budgets(project, "laptop").values()) <= 20
    assert sum(read_budgets(project, "smoke").values()) <= 5


def test_the_first_page_answers_and_the_ledger_has_every_claim(smoke_book):
    pages = {n: (smoke_book.html / "book" / f"{n}.html").read_text() for n in ("index", "ledger")}
    assert not any(f"<!-- {mark} -->" in page for page in pages.values() for mark in MARKS)
    ledger = pages["ledger"].partition('id="ledger-of-claims"')[2]
    assert ledger.partition('id="how-to-read-a-page"')[0].count("<tr") == len(all_claims()) + 1
    for score in ("accuracy", "exact match"):
        assert f"a Procrustes term takes {score} from" in pages["index"]
    rows = {"tests": 4, "settings": len(read_settings()), "questions": 4}
    assert pages["index"].count("<tr") == sum(1 + n for n in rows.values())
    assert "answer.svg" in pages["index"]
    papers = [claim for claim in all_claims() if claim.origin == "paper"]
    assert all(f"<strong>{claim.key}</strong>" in pages["index"] for claim in papers)


def test_the_readers_own_book_is_left_alone(smoke_book):
    assert not smoke_book.html.is_relative_to(Path(REPOSITORY / "book"))


@pytest.fixture
def page(browser):
    """A fresh page; `page.faults` collects console errors, failed and outside requests."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(120_000)  # milliseconds
    faults: list[str] = []
    page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("requestfailed", lambda request: faults.append(f"failed: {request.url}"))
    page.on("request", lambda r: faults.append(f"outside: {r.url}") if outside(r.url) else None)
    yield page, faults
    page.close()


def outside(url: str) -> bool:
    return not url.startswith(("file:", "data:", "blob:"))


def test_the_collector_sees_outside_requests_and_errors(page, tmp_path):
    """The contrast: a page at fault is found out."""
    tab, faults = page
    bad = tmp_path / "bad.html"
    bad.write_text('<img src="http://localhost:9/x.png"><script>undefined_name()</script>')
    tab.goto(bad.as_uri(), wait_until="load")
    assert any(fault.startswith("outside: http://localhost:9") for fault in faults)
    assert any("undefined_name" in fault for fault in faults)


@pytest.mark.parametrize("name", ["index", *PAGES])
def test_page_is_complete(name, page, smoke_book):
    tab, faults = page
    tab.goto((smoke_book.html / f"{name}.html").as_uri(), wait_until="load")
    tab.wait_for_selector("article h1")
    if name in WITH_FORMULAS:
        tab.wait_for_selector("mjx-container", state="attached")
    tab.wait_for_load_state("networkidle")
    assert faults == []
    assert tab.locator("mjx-merror").count() == 0
    assert tab.locator(".math.notranslate:not(:has(mjx-container))").count() == 0
    images = tab.locator("article img").evaluate_all(
        "all => all.map(i => [i.alt, i.complete && i.naturalWidth > 0])"
    )
    assert all(len(alt.split()) > 2 and loaded for alt, loaded in images), images
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert tab.evaluate(wide) <= 0
    tab.set_viewport_size({"width": 400, "height": 800})
    assert tab.evaluate(wide) <= 0


def test_figures_stay_readable_in_the_dark(browser, smoke_book):
    tab = browser.new_page(color_scheme="dark")
    tab.set_default_timeout(120_000)  # milliseconds
    tab.goto((smoke_book.html / "notebooks" / "01_theory.html").as_uri())
    figure = tab.locator("img.gd-figure").first
    assert figure.evaluate("i => getComputedStyle(i).backgroundColor") == "rgb(255, 255, 255)"
    dark = "getComputedStyle(document.body).backgroundColor"
    assert tab.evaluate(dark) not in ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0)")
    tab.close()
