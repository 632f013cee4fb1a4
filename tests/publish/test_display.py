"""Figures and tables carry a description and their provenance."""

import base64
import io
import re

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
from support.tiny_project import FIGURE, notebook, tiny_project

from geodistill.errors import InputError
from geodistill.publish.display import describe_figure, show, show_table
from geodistill.publish.execute import run_notebooks

ALT = "Two bars, the second twice the first"


@pytest.fixture
def displayed(monkeypatch):
    """What `show` hands to Jupyter: (html, facts) pairs."""
    seen = []

    def display(data, raw, metadata):
        assert raw
        seen.append((data["text/html"], metadata["geodistill"]))

    monkeypatch.setattr("IPython.display.display", display)
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
        caption="Bars are means of n < 3.",
        source="stored",
        made_by="geodistill experiments classification",
        results="data/results/rows.parquet",
        run_ids=["b", "a", "b"],
        name="bars",
    )
    html, facts = displayed[0]
    assert 'alt="Two bars, the second twice the first &amp; &quot;more&quot;"' in html
    assert "data:image/png;base64," in html
    assert "<figcaption>Bars are means of n &lt; 3.<br>" in html
    for part in (
        "stored</b>",
        "geodistill experiments classification",
        "data/results/rows.parquet",
    ):
        assert part in html
    assert " · 2 runs · " in html
    assert "<code>geodistill provenance bars</code>" in html
    assert facts["run_ids"] == ["a", "b"]
    assert figure.number not in plt.get_fignums()  # else the inline backend shows it again


@pytest.mark.parametrize(("inches", "width"), [(4, 400), (10, 680)])
def test_an_image_has_twice_the_pixels_and_fits_the_text_column(displayed, inches, width):
    figure, _ = plt.subplots(figsize=(inches, 2), dpi=100)
    show(figure, alt=ALT, source="live")
    html, _ = displayed[0]
    assert f'width="{width}"' in html
    png = base64.b64decode(re.search(r"base64,([^\"]+)", html)[1])
    pixels = int.from_bytes(png[16:20], "big")
    assert 150 * inches < pixels <= 200 * inches  # the margins are cut off


def test_a_live_figure_says_so_and_gets_a_name(displayed, figure):
    show(figure, alt=ALT, source="live")
    show(figure, alt="Three words suffice", source="live")
    assert displayed[1][1]["name"] == "three-words-suffice"
    html, facts = displayed[0]
    assert "live</b> · made by the cell above" in html
    assert "<figcaption><small" in html
    assert facts["name"] == "two-bars-the-second-twice-the"


def csv_of(html: str) -> pd.DataFrame:
    link = re.search(r'<a download="(.*?).csv" href="data:text/csv;base64,(.*?)">', html)
    assert link
    return pd.read_csv(io.BytesIO(base64.b64decode(link[2])))


def test_the_points_of_a_figure_can_be_downloaded(displayed):
    figure, (left, right) = plt.subplots(1, 2)
    left.plot([1, 2, 3], [0.5, float("nan"), 1.5], label="line")
    right.scatter([4], [5e-7])
    show(figure, alt=ALT, source="live", name="two-panels")
    html, _ = displayed[0]
    assert 'download="two-panels.csv"' in html
    points = csv_of(html).fillna("")
    assert points.columns.tolist() == ["panel", "series", "x", "y"]
    expected = [[1, "line", 1, 0.5], [1, "line", 3, 1.5], [2, "", 4, 5e-7]]
    assert points.to_numpy().tolist() == expected


def test_the_numbers_given_with_a_figure_are_downloaded_and_unfolded(displayed, figure):
    data = pd.DataFrame({"method": ["kd", "<b>"], "gain": [1 / 3, 2]})
    show(figure, alt=ALT, source="live", data=data)
    html, _ = displayed[0]
    assert csv_of(html)["gain"].tolist() == [0.333333, 2]
    folded = html[html.index("<details") : html.index("</details>")]
    assert cells(folded) == ["method", "gain", "kd", "0.3333", "&lt;b&gt;", "2"]


@pytest.mark.parametrize(("rows", "folded", "linked"), [(41, False, True), (5001, False, False)])
def test_long_tables_behind_a_figure_do_not_fill_the_page(displayed, figure, rows, folded, linked):
    show(figure, alt=ALT, source="live", data=pd.DataFrame({"x": range(rows)}))
    html, _ = displayed[0]
    assert ("<details" in html, "data:text/csv" in html) == (folded, linked)


def cells(html: str) -> list[str]:
    return re.findall(r"<t[hd]>(.*?)</t[hd]>", html)


def test_a_table_has_caption_numbers_and_provenance_and_no_index(displayed):
    text = "kd <x>" + "long" * 30
    frame = pd.DataFrame({"method": [text], "gain": [0.123456]}, index=["never shown"])
    show_table(frame, caption="Gain over <KD> by method", source="live")
    html, facts = displayed[0]
    assert "<figcaption>Gain over &lt;KD&gt; by method<br>" in html
    assert cells(html) == ["method", "gain", "kd &lt;x&gt;" + "long" * 30, "0.1235"]
    assert 'class="dataframe gd-table"' in html
    assert '<figure class="gd-table" tabindex="0">' in html  # scrolls by the keyboard
    assert "live</b>" in html
    assert facts["name"] == "gain-over-kd-by-method"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alt": "", "source": "live"}, "expected a sentence"),
        ({"alt": "figure", "source": "live"}, "expected a sentence"),
        ({"alt": "two words", "source": "live"}, "expected a sentence"),
        ({"alt": "../one two three.png", "source": "live"}, "expected a sentence"),
        ({"alt": ALT, "source": "fresh"}, "source 'fresh' is unknown; .* 'live' or 'stored'"),
        ({"alt": ALT, "source": "stored"}, "needs made_by .* and run_ids"),
        ({"alt": ALT, "source": "stored", "made_by": "geodistill experiments"}, "needs made_by"),
        ({"alt": ALT, "source": "stored", "made_by": "x", "run_ids": []}, "needs made_by"),
    ],
)
def test_incomplete_provenance_is_refused(displayed, figure, options, message):
    with pytest.raises(InputError, match=message):
        show(figure, **options)
    assert displayed == []


def test_the_provenance_is_read_from_the_executed_notebooks(tmp_path):
    project = tiny_project(tmp_path, _01_one=notebook("One", FIGURE))
    with pytest.raises(InputError, match="none yet, run `make book` first"):
        describe_figure("rising", project)
    (path,) = run_notebooks(project, "smoke", project.sources())
    assert describe_figure("rising", project) == (
        "rising (live): A line that rises from one to two\n"
        "  page: notebooks/01_one.py, profile smoke\n"
        "  made by: the cell above, run with this page"
    )
    with pytest.raises(InputError, match="'falling' is unknown; the figures are: rising"):
        describe_figure("falling", project)
    with pytest.raises(InputError, match="'ris' is unknown"):  # a part of a name is not enough
        describe_figure("ris", project)
    outputs = [o for cell in nbformat.read(path, 4).cells for o in cell.get("outputs", [])]
    assert len(outputs) == 1  # once, and without the inline backend's own image
    assert set(outputs[0].data) == {"text/html", "text/plain"}
