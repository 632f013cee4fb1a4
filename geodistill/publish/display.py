"""Show figures and tables with a description, their provenance, and how to make them again.

`show` and `show_table` write the provenance into the metadata of the notebook's output, from which
`describe_figure` reads it.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geodistill.errors import InputError
from geodistill.publish.project import PROFILES, Project, find_project

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Source = Literal["live", "stored"]
LIVE = "the cell above, run with this page"
WIDTH = 680  # pixels at most; the book's text column
LONGEST_TABLE, LONGEST_CSV = 40, 5_000  # rows


def show(
    fig: Figure,
    *,
    alt: str,
    caption: str = "",
    data: pd.DataFrame | None = None,
    source: Source,
    made_by: str | None = None,
    results: str | None = None,
    run_ids: Sequence[str] | None = None,
    name: str | None = None,
) -> None:
    """Display a matplotlib figure with alternative text and a line of provenance, and close it.

    Under the figure is a link to its data as CSV; a short table of them can be unfolded.

    Args:
        fig: the figure.
        alt: a sentence for readers who cannot see the figure.
        caption: what is shown: how many, and what bars and bands are.
        data: the numbers of the figure; by default the points that are drawn.
        source: "live" if this page computes what is shown, "stored" if it reads stored results.
        made_by: the command that makes the stored results.
        results: the stored tables.
        run_ids: the runs shown.
        name: argument of `geodistill provenance NAME`; by default the first words of `alt`.

    Raises:
        InputError: `alt` is empty or a file name, unknown `source`, or stored results without
            `made_by` and `run_ids`.
    """
    from matplotlib import pyplot

    facts = _facts(name, alt, source, made_by, results, run_ids)
    numbers = "" if data is None else _folded(data)
    link = _csv_link(drawn_points(fig) if data is None else data, facts["name"])
    image = io.BytesIO()
    fig.savefig(image, format="png", dpi=2 * fig.dpi, bbox_inches="tight")
    pyplot.close(fig)  # else the inline backend shows it again, without alternative text
    width = min(WIDTH, round(fig.get_figwidth() * fig.dpi))
    png = base64.b64encode(image.getvalue()).decode()
    body = (
        f'<img class="gd-figure" width="{width}" alt="{escape(alt)}" '
        f'src="data:image/png;base64,{png}">'
    )
    text = f"{escape(caption)}<br>" if caption else ""
    text = f"<figcaption>{text}{_caption(facts, link)}</figcaption>"
    _display(f"<figure>{body}{text}{numbers}</figure>", facts)


def show_table(
    frame: pd.DataFrame,
    *,
    caption: str,
    source: Source,
    made_by: str | None = None,
    results: str | None = None,
    run_ids: Sequence[str] | None = None,
    name: str | None = None,
) -> None:
    """Display a data frame without its index, with a caption and a line of provenance.

    Args:
        frame: the table; numbers are printed with four significant digits, texts uncut.
        caption: a sentence on what the table holds.
        source: "live" or "stored", as for `show`.
        made_by: the command that makes the stored results.
        results: the stored tables.
        run_ids: the runs shown.
        name: argument of `geodistill provenance NAME`; by default the first words of `caption`.

    Raises:
        InputError: as for `show`.
    """
    facts = _facts(name, caption, source, made_by, results, run_ids)
    head = f"<figcaption>{escape(caption)}<br>{_caption(facts)}</figcaption>"
    # A wide table scrolls, by the keyboard too.
    _display(f'<figure class="gd-table" tabindex="0">{head}{_to_html(frame)}</figure>', facts)


def _folded(data: pd.DataFrame) -> str:
    if len(data) > LONGEST_TABLE:
        return ""
    table = _to_html(data)
    return f'<details class="gd-numbers"><summary>Numbers of the figure</summary>{table}</details>'


def _csv_link(data: pd.DataFrame, name: str) -> str:
    """A link that contains the file itself, so that it needs no server."""
    if not 0 < len(data) <= LONGEST_CSV:
        return ""
    text = base64.b64encode(data.to_csv(index=False, float_format="%.6g").encode()).decode()
    return f'<a download="{escape(name)}.csv" href="data:text/csv;base64,{text}">data (CSV)</a>'


def drawn_points(fig: Figure) -> pd.DataFrame:
    """The points of all lines and scatter plots of a figure: `panel, series, x, y`.

    Args:
        fig: the figure; panels are numbered from 1, series have the labels of the legend.
    """
    import numpy as np
    import pandas as pd

    columns = ["panel", "series", "x", "y"]
    tables = [pd.DataFrame(columns=columns)]
    for panel, ax in enumerate(fig.axes, 1):
        artists: list[tuple[Any, Any]] = [(line, line.get_xydata()) for line in ax.lines]
        artists += [(marks, marks.get_offsets()) for marks in ax.collections]
        for artist, points in artists:
            label = str(artist.get_label())
            series = "" if label.startswith("_") else label
            points = np.asarray(points, dtype=float)
            points = points[np.isfinite(points).all(axis=1)]
            x_and_y = {"x": points[:, 0], "y": points[:, 1]}
            tables.append(pd.DataFrame({"panel": panel, "series": series, **x_and_y}))
    return pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)


def _to_html(frame: pd.DataFrame) -> str:
    return frame.to_html(index=False, border=0, classes="gd-table", float_format="{:.4g}".format)


def _facts(
    name: str | None,
    text: str,
    source: str,
    made_by: str | None,
    results: str | None,
    run_ids: Sequence[str] | None,
) -> dict[str, Any]:
    if source not in ("live", "stored"):
        raise InputError(f"source {source!r} is unknown; a figure is 'live' or 'stored'")
    if len(text.split()) < 3 or re.search(r"\.(png|svg|jpe?g|pdf)$", text.strip()):
        raise InputError(f"alt or caption {text!r}: expected a sentence on what is shown")
    if source == "stored" and not (made_by and run_ids):
        raise InputError("a stored figure needs made_by (a command) and run_ids (the runs shown)")
    return {
        "name": name or "-".join(re.findall(r"[a-z0-9]+", text.lower())[:6]),
        "text": text,
        "source": source,
        "made_by": made_by or LIVE,
        "results": results,
        "run_ids": sorted(set(run_ids or [])),
    }


def _caption(facts: Mapping[str, Any], link: str = "") -> str:
    """One line of HTML: live or stored, command, stored tables, number of runs, data."""
    is_live = facts["made_by"] == LIVE
    made_by = escape(facts["made_by"])
    made_by = made_by if is_live else f"<code>{made_by}</code>"
    parts = [f'<b class="gd-{facts["source"]}">{facts["source"]}</b> · made by {made_by}']
    if facts["results"]:
        parts.append(f"results <code>{escape(facts['results'])}</code>")
    if facts["run_ids"]:
        parts.append(f"{len(facts['run_ids'])} runs")
    if not is_live:  # the page of a single run is unknown to the command
        parts.append(f"<code>geodistill provenance {escape(facts['name'])}</code>")
    if link:
        parts.append(link)
    return f'<small class="gd-made-by">{" · ".join(parts)}</small>'


def _display(html: str, facts: Mapping[str, Any]) -> None:
    from IPython.display import display

    plain = f"[{facts['source']}] {facts['text']}"
    display(  # type: ignore[no-untyped-call]
        {"text/html": html, "text/plain": plain}, raw=True, metadata={"geodistill": dict(facts)}
    )


def iter_figures(project: Project) -> Iterator[dict[str, Any]]:
    """Yield the provenance of each executed figure and table, with its `notebook` and `profile`.

    A damaged notebook is skipped: the next build of the book replaces it.
    """
    for profile in PROFILES:
        for path in sorted(project.executed(profile).glob("*.ipynb")):
            try:
                figures = read_metadata(path, "geodistill")
            except (ValueError, KeyError, TypeError):
                continue
            for facts in figures:
                yield {**facts, "notebook": path.stem, "profile": profile}


def read_metadata(executed: Path, key: str) -> list[dict[str, Any]]:
    """The metadata that cells of an executed notebook recorded under a key, in order."""
    cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    outputs = (output for cell in cells for output in cell.get("outputs", []))
    return [facts for output in outputs if (facts := output.get("metadata", {}).get(key))]


def describe_figure(name: str, project: Project | None = None) -> str:
    """Describe the provenance of a figure or table: page, command, stored tables and run ids.

    Args:
        name: as printed under the figure.
        project: the checkout; by default the one around the working directory.

    Returns:
        One block of lines for each executed notebook that shows it.

    Raises:
        InputError: no executed notebook shows it; the message lists the names.
    """
    figures = list(iter_figures(project or find_project()))
    blocks = [_block(facts) for facts in figures if facts["name"] == name]
    if not blocks:
        known = ", ".join(sorted({facts["name"] for facts in figures}))
        known = known or "none yet, run `make book` first"
        raise InputError(f"figure {name!r} is unknown; the figures are: {known}")
    return "\n\n".join(blocks)


def _block(facts: Mapping[str, Any]) -> str:
    ids = facts["run_ids"]
    lines = [
        f"{facts['name']} ({facts['source']}): {facts['text']}",
        f"  page: notebooks/{facts['notebook']}.py, profile {facts['profile']}",
        f"  made by: {facts['made_by']}",
    ]
    if facts["results"]:
        lines.append(f"  results: {facts['results']}")
    if ids:
        lines.append(f"  run ids ({len(ids)}): {' '.join(ids)}")
    return "\n".join(lines)
