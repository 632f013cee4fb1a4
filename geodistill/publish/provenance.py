"""Figures and tables that say what they show, where they come from, and how to make them again.

Used in notebooks: `show(figure, alt=...)`, `show_table(frame, caption=...)` and `show_pages`, for
tables that are too long. They write their provenance into the output's metadata, from which `why`
reads it back.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Literal, Protocol

from geodistill.errors import InputError
from geodistill.publish.paths import PROFILES, Project, find_project

Source = Literal["live", "stored"]
LIVE = "the cell above, run with this page"
WIDTH = 680  # pixels at most; the book's text column


class Frame(Protocol):
    """What `show_table` needs of a pandas DataFrame."""

    def to_html(self, **options: Any) -> str: ...


def show(
    fig: Any,
    *,
    alt: str,
    source: Source,
    made_by: str | None = None,
    rows: str | Path | None = None,
    run_ids: Sequence[str] | None = None,
    name: str | None = None,
) -> None:
    """Display a matplotlib figure with alternative text and a line of provenance, and close it.

    `alt` says in a sentence what a reader who cannot see the figure should know. `source` is
    "live" (computed by this page) or "stored" (drawn from committed rows: `made_by`, the command
    that makes them, and `run_ids` are then required). `rows` is the table they lie in. `name` is
    what `geodistill why NAME` asks for (default: the first words of `alt`).
    Raises InputError for an empty or file-like `alt`, an unknown source, missing provenance.
    """
    facts = _facts(name, alt, source, made_by, rows, run_ids)
    image = io.BytesIO()
    fig.savefig(image, format="png", dpi=2 * fig.dpi, bbox_inches="tight")
    _close(fig)
    width = min(WIDTH, round(fig.get_figwidth() * fig.dpi))
    data = base64.b64encode(image.getvalue()).decode()
    body = (
        f'<img class="gd-figure" width="{width}" alt="{escape(alt)}" '
        f'src="data:image/png;base64,{data}">'
    )
    _display(f"<figure>{body}<figcaption>{_line(facts)}</figcaption></figure>", facts)


def show_table(
    frame: Frame,
    *,
    caption: str,
    source: Source,
    made_by: str | None = None,
    rows: str | Path | None = None,
    run_ids: Sequence[str] | None = None,
    name: str | None = None,
) -> None:
    """Display a data frame with a caption and its provenance; arguments as in `show`.

    Floats are printed with four significant digits; the index is not shown.
    """
    facts = _facts(name, caption, source, made_by, rows, run_ids)
    table = frame.to_html(
        index=False, border=0, classes="gd-table", float_format=lambda value: f"{value:.4g}"
    )
    head = f"<figcaption>{escape(caption)}<br>{_line(facts)}</figcaption>"
    _display(f'<figure class="gd-table">{head}{table}</figure>', facts)


def show_pages(
    frame: Any,
    *,
    caption: str,
    per_page: int = 6,
    source: Source,
    made_by: str | None = None,
    rows: str | Path | None = None,
    run_ids: Sequence[str] | None = None,
    name: str | None = None,
) -> None:
    """Display a long data frame to page through, `per_page` rows behind each line that opens.

    Other arguments as in `show_table`.
    """
    import pandas as pd

    facts = _facts(name, caption, source, made_by, rows, run_ids)
    pages = []
    for first in range(0, len(frame), per_page):
        part = frame[first : first + per_page]
        summary = f"<summary>{first + 1} to {first + len(part)} of {len(frame)}</summary>"
        with pd.option_context("display.max_colwidth", None):  # else texts are cut at 50 letters
            table = part.to_html(index=False, border=0, classes="gd-table gd-texts")
        pages.append(f"<details>{summary}{table}</details>")
    head = f"<figcaption>{escape(caption)}<br>{_line(facts)}</figcaption>"
    _display(f'<figure class="gd-table">{head}{"".join(pages)}</figure>', facts)


def _facts(
    name: str | None,
    text: str,
    source: str,
    made_by: str | None,
    rows: str | Path | None,
    run_ids: Sequence[str] | None,
) -> dict[str, Any]:
    if source not in ("live", "stored"):
        raise InputError(f"source {source!r} is unknown; a figure is 'live' or 'stored'")
    if len(text.split()) < 3 or re.search(r"\.(png|svg|jpe?g|pdf)$", text.strip()):
        raise InputError(f"alt or caption {text!r}: say in a sentence what is to be seen")
    if source == "stored" and not (made_by and run_ids):
        raise InputError("a stored figure needs made_by (the command) and run_ids (of its rows)")
    return {
        "name": name or "-".join(re.findall(r"[a-z0-9]+", text.lower())[:6]),
        "text": text,
        "source": source,
        "made_by": made_by or LIVE,
        "rows": str(rows) if rows is not None else None,
        "run_ids": sorted(set(run_ids or [])),
    }


def _line(facts: Mapping[str, Any]) -> str:
    """One line of HTML: live or stored, made by command, rows, run ids."""
    made_by = escape(facts["made_by"])
    if facts["made_by"] != LIVE:
        made_by = f"<code>{made_by}</code>"
    parts = [f'<b class="gd-{facts["source"]}">{facts["source"]}</b> · made by {made_by}']
    if facts["rows"]:
        parts.append(f"rows <code>{escape(facts['rows'])}</code>")
    if facts["run_ids"]:
        ids = facts["run_ids"]
        parts.append(f"{len(ids)} runs, ids' hash <code>{ids_hash(ids)}</code>")
    parts.append(f"<code>geodistill why {escape(facts['name'])}</code>")
    return f'<small class="gd-made-by">{" · ".join(parts)}</small>'


def ids_hash(run_ids: Iterable[str]) -> str:
    """Eight hex digits that stand for a set of run ids, whatever their order."""
    return hashlib.sha256("\n".join(sorted(set(run_ids))).encode()).hexdigest()[:8]


def _close(fig: Any) -> None:
    """Else the inline backend shows the figure once more, without alternative text."""
    from matplotlib import pyplot

    pyplot.close(fig)


def _display(html: str, facts: Mapping[str, Any]) -> None:
    from IPython.display import display

    plain = f"[{facts['source']}] {facts['text']}"
    display(  # type: ignore[no-untyped-call]
        {"text/html": html, "text/plain": plain}, raw=True, metadata={"geodistill": dict(facts)}
    )


def figures(project: Project) -> Iterator[dict[str, Any]]:
    """Provenance of each figure and table executed so far, with its `notebook` and `profile`."""
    for profile in PROFILES:
        for path in sorted(project.executed(profile).glob("*.ipynb")):
            for cell in json.loads(path.read_text())["cells"]:
                for output in cell.get("outputs", []):
                    facts = output.get("metadata", {}).get("geodistill")
                    if facts:
                        yield {**facts, "notebook": path.stem, "profile": profile}


def why(name: str, project: Project | None = None) -> str:
    """Where figure `name` comes from: one block of lines for each executed notebook that has it.

    Raises InputError with the known names if none has.
    """
    found = list(figures(project or find_project()))
    blocks = [_block(facts) for facts in found if facts["name"] == name]
    if not blocks:
        known = ", ".join(sorted({f["name"] for f in found})) or "none yet, run `make book` first"
        raise InputError(f"figure {name!r} is unknown; the figures are: {known}")
    return "\n\n".join(blocks)


def _block(facts: Mapping[str, Any]) -> str:
    ids = facts["run_ids"]
    lines = [
        f"{facts['name']} ({facts['source']}): {facts['text']}",
        f"  page: notebooks/{facts['notebook']}.py, profile {facts['profile']}",
        f"  made by: {facts['made_by']}",
    ]
    if facts["rows"]:
        lines.append(f"  rows: {facts['rows']}")
    if ids:
        lines.append(f"  run ids ({len(ids)}, hash {ids_hash(ids)}): {' '.join(ids)}")
    return "\n".join(lines)
