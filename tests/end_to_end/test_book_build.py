"""The book's build on a project in miniature: each way in which Jupyter Book fails silently."""

import os
import re

import pytest
import yaml
from support.tiny_project import FIGURE, notebook, tiny_project, write_toc

from geodistill.errors import InputError
from geodistill.publish import budgets
from geodistill.publish.book import build_book, stage_sources
from geodistill.publish.claims import ledger
from geodistill.publish.execute import NotebookError
from geodistill.publish.release import release_notebooks

URL = "https://github.com/someone/geodistill"


def page(project, name: str) -> str:
    return (project.html / f"{name}.html").read_text()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A book of two notebooks, and its project."""
    project = tiny_project(
        tmp_path_factory.mktemp("book"),
        _01_one=notebook("One", FIGURE),
        _02_two=notebook("Two", 'print("two")'),
    )
    build_book("smoke", clean=True, project=project)
    return project


def test_pages_mirror_the_repository(built):
    assert (built.html / "index.html").exists()
    assert "notebooks/01_one.html" in page(built, "book/index")
    staged = sorted(str(p.relative_to(built.staged)) for p in built.staged.rglob("*.ipynb"))
    assert staged == ["notebooks/01_one.ipynb", "notebooks/02_two.ipynb"]


def test_a_smoke_book_says_so(built):
    for name in ("book/index", "notebooks/01_one"):
        assert "No number means much" in page(built, name)


def test_images_have_alternative_text_not_a_path(built):
    images = re.findall(r"<img[^>]*>", page(built, "notebooks/01_one"))
    assert images
    for image in images:
        alt = re.search(r'alt="([^"]*)"', image)
        assert alt, image
        assert len(alt[1].split()) > 2, image
        assert not re.search(r"\.(png|svg|jpe?g)$", alt[1]), image


def test_nothing_is_fetched_from_another_server(built):
    for path in built.html.rglob("*.html"):
        scripts = re.findall(
            r'<(?:script|link|img|iframe)\b[^>]*(?:src|href)="(https?:[^"]*)"', path.read_text()
        )
        assert scripts == [], path
    (script,) = re.findall(r'src="([^"]*mathjax/[^"]*)"', page(built, "notebooks/01_one"))
    local = (built.html / "notebooks" / script.partition("?")[0]).resolve()
    assert local.is_file()
    assert "svg" in local.name  # web fonts do not load from file:// in every browser


def test_without_an_address_there_is_no_button(tmp_path, capsys):
    project = tiny_project(tmp_path, _01_one=notebook("One"))
    build_book("smoke", project=project)
    logged = [line for line in capsys.readouterr().out.splitlines() if "repository.url" in line]
    assert len(logged) == 1
    assert logged[0].endswith("the pages get no Binder or Colab button")
    assert not re.search("mybinder|colab", page(project, "notebooks/01_one"))


def set_address(project) -> str:
    path = project.root / "_config.yml"
    config = yaml.safe_load(path.read_text())
    config["repository"]["url"] = URL
    path.write_text(yaml.safe_dump(config))
    return str(config["repository"]["branch"])


def test_launch_links_lead_to_files_of_the_release_branch(tmp_path, capsys):
    project = tiny_project(tmp_path, _01_one=notebook("One"), _02_two=notebook("Two"))
    branch = set_address(project)
    build_book("smoke", project=project)
    assert "repository.url" not in capsys.readouterr().out
    release_notebooks(project)
    released = project.build / "release"
    for name in ("01_one", "02_two"):
        html = page(project, f"notebooks/{name}")
        (colab,) = re.findall(r'href="(https://colab\.research\.google\.com/[^"]*)"', html)
        (binder,) = re.findall(r'href="(https://mybinder\.org/[^"]*)"', html)
        colab_path = colab.partition(f"/github/someone/geodistill/blob/{branch}/")[2]
        binder_path = binder.partition(f"/gh/someone/geodistill/{branch}?urlpath=lab/tree/")[2]
        assert colab_path == binder_path == f"notebooks/{name}.ipynb"
        assert (released / colab_path).is_file()


def test_clean_removes_pages_that_are_no_more(tmp_path):
    project = tiny_project(tmp_path, _01_one=notebook("One"), _02_two=notebook("Two"))
    build_book("smoke", project=project)
    (tmp_path / "notebooks" / "02_two.py").unlink()
    write_toc(tmp_path, ["01_one"])
    build_book("smoke", project=project)
    stale = project.html / "notebooks" / "02_two.html"
    assert stale.exists()  # the contrast: an incremental build keeps it
    build_book("smoke", clean=True, project=project)
    assert not stale.exists()
    assert (project.html / "notebooks" / "01_one.html").exists()


def test_a_warning_is_an_error_each_time(tmp_path):
    """Sphinx repeats no warning of an unchanged page, so a second try would pass."""
    project = tiny_project(
        tmp_path, _01_one=notebook("One") + "# %% [markdown]\n# {ref}`nowhere`\n"
    )
    for _ in range(2):
        with pytest.raises(InputError, match="no book was built"):
            build_book("smoke", project=project)
        assert not project.html.exists()


def test_a_failed_notebook_stops_the_build(tmp_path):
    project = tiny_project(tmp_path, _01_one=notebook("One", "1 / 0"), _02_two=notebook("Two"))
    with pytest.raises(NotebookError, match="01_one, cell 3: ZeroDivisionError"):
        build_book("smoke", project=project)
    assert not project.html.exists()


def test_the_ledger_is_written_into_the_first_page(tmp_path, monkeypatch):
    def render(executed):
        return f"| claim | verdict |\n|---|---|\n| {executed[0].stem} | cannot tell yet |\n"

    monkeypatch.setattr(ledger, "render", render)
    project = tiny_project(tmp_path, _01_one=notebook("One"))
    index = tmp_path / "book" / "index.md"
    index.write_text("# Home\n\n<!-- ledger -->\n")
    build_book("smoke", project=project)
    assert re.search(r"01_one</p></td>\s*<td><p>cannot tell yet", page(project, "book/index"))
    assert "<!-- ledger -->" in index.read_text()  # the source keeps its mark


def test_a_page_without_computed_parts_keeps_its_time(tmp_path):
    """Sphinx would read it again in every build."""
    project = tiny_project(tmp_path, _01_one=notebook("One"))
    os.utime(tmp_path / "book" / "index.md", (1e9, 1e9))
    stage_sources(project, "smoke", [])
    assert (project.staged / "book" / "index.md").stat().st_mtime == 1e9


def test_budgets(tmp_path):
    project = tiny_project(tmp_path, _01_one=notebook("One"), _02_two=notebook("Two"))
    assert budgets.read_budgets(project, "smoke") == {"01_one": 0.5, "02_two": 0.5}
    with pytest.raises(InputError, match=r"budgets.toml has no minutes for .* under \[paper\]"):
        budgets.read_budgets(project, "paper")
    (tmp_path / "notebooks" / "03_new.py").write_text(notebook("New"))
    with pytest.raises(InputError, match=r"no minutes for 03_new under \[smoke\]"):
        build_book("smoke", project=project)
    (tmp_path / "notebooks" / "budgets.toml").unlink()
    with pytest.raises(InputError, match=r"budgets.toml is missing"):
        build_book("smoke", project=project)
