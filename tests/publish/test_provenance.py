"""Figures and tables say what they show and where they come from."""

import subprocess
import sys

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
from support.tiny_project import FIGURE, notebook, tiny_project

from geodistill.errors import InputError
from geodistill.publish import provenance
from geodistill.publish.execute import run_all
from geodistill.publish.provenance import ids_hash, show, show_pages, show_table, why

ALT = "Two bars, the second twice the first"


@pytest.fixture
def displayed(monkeypatch):
    """What `show` hands to Jupyter: (html, facts) pairs."""
    seen = []
    monkeypatch.setattr(provenance, "_display", lambda html, facts: seen.append((html, facts)))
    return seen


@pytest.fixture
def figure():
    figure, ax = plt.subplots()
    ax.bar([0, 1], [1, 2])
    yield figure
    plt.close(figure)


def test_a_stored_figure_names_command_rows_and_runs(displayed, figure):
    show(
        figure,
        alt=ALT + ' & "more"',
        source="stored",
        made_by="geodistill grid classification",
        rows="data/results/rows.parquet",
        run_ids=["b", "a", "b"],
        name="bars",
    )
    html, facts = displayed[0]
    assert 'alt="Two bars, the second twice the first &amp; &quot;more&quot;"' in html
    assert "data:image/png;base64," in html
    for part in ("stored</b>", "geodistill grid classification", "data/results/rows.parquet"):
        assert part in html
    assert f"2 runs, ids' hash <code>{ids_hash(['a', 'b'])}</code>" in html
    assert facts["run_ids"] == ["a", "b"]
    assert figure.number not in plt.get_fignums()  # else the inline backend shows it again


def test_a_live_figure_says_so_and_gets_a_name(displayed, figure):
    show(figure, alt=ALT, source="live")
    html, facts = displayed[0]
    assert "live</b> · made by the cell above" in html
    assert facts["name"] == "two-bars-the-second-twice-the"


def test_a_table_has_caption_numbers_and_provenance(displayed):
    frame = pd.DataFrame({"method": ["kd <x>"], "gain": [0.123456]})
    show_table(frame, caption="Gain over KD by method", source="live")
    html, _ = displayed[0]
    assert "Gain over KD by method" in html
    assert "0.1235" in html
    assert "kd &lt;x&gt;" in html
    assert "live</b>" in html


def test_a_long_table_is_paged_and_its_texts_are_whole(displayed):
    frame = pd.DataFrame({"item": range(7), "answer": ["<b>" + "long" * 30] * 7})
    show_pages(frame, caption="Answers of two students", per_page=3, source="live", name="pages")
    html, facts = displayed[0]
    assert html.count("<details>") == 3
    assert "<summary>7 to 7 of 7</summary>" in html
    assert html.count("&lt;b&gt;" + "long" * 30) == 7
    assert "<b>long" not in html
    assert facts["name"] == "pages"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alt": "", "source": "live"}, "say in a sentence"),
        ({"alt": "figure", "source": "live"}, "say in a sentence"),
        ({"alt": "../one two three.png", "source": "live"}, "say in a sentence"),
        ({"alt": ALT, "source": "fresh"}, "source 'fresh' is unknown; .* 'live' or 'stored'"),
        ({"alt": ALT, "source": "stored"}, "needs made_by .* and run_ids"),
        ({"alt": ALT, "source": "stored", "made_by": "geodistill grid"}, "needs made_by"),
        ({"alt": ALT, "source": "stored", "made_by": "x", "run_ids": []}, "needs made_by"),
    ],
)
def test_incomplete_provenance_is_refused(displayed, figure, options, message):
    with pytest.raises(InputError, match=message):
        show(figure, **options)
    assert displayed == []


def test_hash_of_run_ids_ignores_order_and_repeats_only():
    assert ids_hash(["a", "b"]) == ids_hash(["b", "a", "a"])
    assert ids_hash(["a", "b"]) != ids_hash(["ab"])


def test_why_reads_the_executed_notebooks(tmp_path):
    project = tiny_project(tmp_path, _01_one=notebook("One", FIGURE))
    with pytest.raises(InputError, match="none yet, run `make book` first"):
        why("rising", project)
    (path,) = run_all(project, "smoke", project.sources())
    assert why("rising", project) == (
        "rising (live): A line that rises from one to two\n"
        "  page: notebooks/01_one.py, profile smoke\n"
        "  made by: the cell above, run with this page"
    )
    with pytest.raises(InputError, match="'falling' is unknown; the figures are: rising"):
        why("falling", project)
    outputs = [o for cell in nbformat.read(path, 4).cells for o in cell.get("outputs", [])]
    assert len(outputs) == 1  # once, and without the inline backend's own image
    assert set(outputs[0].data) == {"text/html", "text/plain"}


@pytest.mark.parametrize("heavy", ["torch", "transformers"])
def test_publishing_does_not_load_torch(heavy):
    modules = "geodistill.publish.provenance, geodistill.publish.book"
    probe = f"import sys, {modules}; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0
    contrast = f"import sys, {heavy}; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", contrast], check=False).returncode == 1
