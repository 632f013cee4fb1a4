"""The real book under the profile `smoke`: every notebook runs, every page is whole."""

import re
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
import yaml
from tiny_project import REPOSITORY

from geodistill.publish.budgets import overruns, read_budgets
from geodistill.publish.claims import CLAIMS
from geodistill.publish.notebooks import NotebookError, Run, run_notebook
from geodistill.publish.project import PROFILES, Project
from geodistill.publish.provenance import figures, why

pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("book")]
CHAPTERS = [
    "01_theory",
    "02_synthetic",
    "03_bert_classification",
    "04_opt_instruction",
    "05_significance",
]


def test_every_chapter_ran_under_smoke(smoke_book):
    assert [source.stem for source in smoke_book.sources()] == CHAPTERS
    for name in CHAPTERS:
        run = nbformat.read(smoke_book.executed("smoke") / f"{name}.ipynb", as_version=4)
        assert run.metadata.geodistill.parameters == {"profile": "smoke"}


def test_a_second_build_would_run_nothing(smoke_book):
    """A chapter that changes what its own key covers would run again for ever."""
    for source in smoke_book.sources():
        target = smoke_book.executed("smoke") / f"{source.stem}.ipynb"
        assert Run(smoke_book, source, {"profile": "smoke"}, target).finished(), source.stem


def test_every_page_of_the_contents_is_there_and_no_link_is_dead(smoke_book):
    toc = yaml.safe_load((REPOSITORY / "_toc.yml").read_text())
    pages = [toc["root"], *(c["file"] for part in toc["parts"] for c in part["chapters"])]
    assert len(pages) == 10
    for page in pages:
        path = smoke_book.html / f"{page}.html"
        for link in re.findall(
            r'<(?:a|img|script|link)\b[^>]*(?:href|src)="([^"]*)"', path.read_text()
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
    found = list(figures(smoke_book))
    assert {figure["notebook"] for figure in found} == set(CHAPTERS)
    assert {figure["source"] for figure in found} == {"live", "stored"}
    names = [figure["name"] for figure in found]
    assert len(names) == len(set(names)), "two figures of one name"
    for figure in found:
        text = why(figure["name"], smoke_book)
        assert figure["made_by"] in text
        if figure["source"] == "stored":
            assert re.match("geodistill grid (classification|instruction)", figure["made_by"])
            assert len(figure["run_ids"]) > 1


def test_live_figures_come_before_stored_ones(smoke_book):
    """Without data/results a notebook stops at its first stored figure; no live one may be lost."""
    for name in CHAPTERS:
        sources = [f["source"] for f in figures(smoke_book) if f["notebook"] == name]
        assert sources == sorted(sources), name  # "live" < "stored"


@pytest.mark.parametrize("name", ["01_theory", "02_synthetic"])
def test_live_chapters_need_no_stored_rows(name, tmp_path, monkeypatch):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path / "none"))
    project = Project.at(REPOSITORY, tmp_path / "build")
    assert run_notebook(name, {"profile": "smoke"}, project).exists()


def test_without_stored_rows_every_live_figure_is_still_drawn(smoke_book, tmp_path, monkeypatch):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path / "none"))
    project = Project.at(REPOSITORY, tmp_path / "build")
    with pytest.raises(NotebookError, match="geodistill grid"):  # the message says what to do
        run_notebook("05_significance", {"profile": "smoke"}, project)
    (unfinished,) = (project.build / "runs" / "unfinished").glob("*.ipynb")
    cells = nbformat.read(unfinished, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    drawn = [o.metadata.geodistill.name for o in outputs if "geodistill" in o.get("metadata", {})]
    page = [f for f in figures(smoke_book) if f["notebook"] == "05_significance"]
    assert drawn == [f["name"] for f in page if f["source"] == "live"]
    assert drawn


def test_notebooks_keep_their_budgets(smoke_book):
    taken = {}
    for name in CHAPTERS:
        run = nbformat.read(smoke_book.executed("smoke") / f"{name}.ipynb", as_version=4)
        taken[name] = run.metadata.papermill.duration / 60
    assert overruns(smoke_book, "smoke", taken) == []


def test_budgets_add_up_to_what_is_promised():
    project = Project.at(REPOSITORY)
    for profile in PROFILES:
        assert set(read_budgets(project, profile)) == set(CHAPTERS)
    assert sum(read_budgets(project, "laptop").values()) <= 15
    assert sum(read_budgets(project, "smoke").values()) <= 4


def test_first_page_holds_the_ledger(smoke_book):
    html = (smoke_book.html / "book" / "index.html").read_text()
    assert "<!-- ledger -->" not in html
    ledger = html.partition('id="where-the-claims-stand"')[2]
    ledger = ledger.partition('id="how-to-read-a-page"')[0]
    assert ledger.count("<tr") == len(CLAIMS) + 1


def test_the_readers_own_book_is_left_alone(smoke_book):
    assert not smoke_book.html.is_relative_to(Path(REPOSITORY / "book"))
