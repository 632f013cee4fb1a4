"""The claims ledger: notebooks record verdicts, the home page and README show them.

A record lives in the metadata of the cell output that shows it, so it is as fresh as the executed
page and needs no store of its own. `python -m geodistill.publish.claims.ledger` prints README's block.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from html import escape
from pathlib import Path
from typing import Any

from geodistill.analysis.stored_results import digest
from geodistill.publish.claims.judge import (
    CLAIMS,
    EXPLORATORY,
    HARM,
    YET,
    Claim,
    Record,
    StoredTest,
    claim,
    decided_by,
    judge,
)

KEY = "geodistill-claim"


def record(
    claim: str,
    verdict: str,
    value: float | None = None,
    low: float | None = None,
    high: float | None = None,
    unit: str = "",
    detail: str = "",
    rows: str = "",
    run_ids: Sequence[str] = (),
    note: str = "",
) -> None:
    """Record a computed verdict for the ledger and show it in one line; call it from a cell.

    Args:
        claim: key of one of `CLAIMS`.
        verdict: "better", "worse", "equivalent", "cannot tell", "holds" or "does not hold".
        value: the measured number, in `unit`, with its interval `low` to `high`.
        low: lower end of the interval.
        high: upper end of the interval.
        unit: of the three numbers.
        detail: which part of the claim this is, where it has several.
        rows: the stored table behind it; nothing for what the page computes live.
        run_ids: of those rows.
        note: what a reader has to know beside it.

    Raises:
        InputError: an unknown claim or verdict, or a number that is not finite.
    """
    from IPython.display import display

    found = Record(claim, verdict, value, low, high, unit, detail, rows, tuple(run_ids), note)
    text = f"Claim {claim}: {_plain(found)}"
    display(  # type: ignore[no-untyped-call]
        {
            "text/html": f'<p class="gd-claim" id="{_anchor(found)}">{escape(text)}</p>',
            "text/plain": text,
        },
        raw=True,
        metadata={KEY: asdict(found)},
    )


def read(executed: Path) -> list[Record]:
    """The records in an executed notebook, in order; a later one of the same part replaces."""
    found: dict[tuple[str, str], Record] = {}
    for cell in json.loads(executed.read_text())["cells"]:
        for output in cell.get("outputs", []):
            if KEY in output.get("metadata", {}):
                one = _record(output["metadata"][KEY])
                found[one.claim, one.detail] = one
    return list(found.values())


def render(executed: Sequence[Path]) -> str:
    """The ledger as a MyST table, from the executed notebooks of one book.

    A claim that no page has recorded stands there as "cannot tell yet". Links are relative to a
    page in `book/`.
    """
    pages = {path.stem: read(path) for path in executed}
    lines = [
        "````{list-table}",
        ":header-rows: 1",
        ":class: gd-ledger",
        ":widths: 30 22 30 18",
        "",
        "* - Claim",
        "  - Our test",
        "  - Verdict",
        "  - Where",
    ]
    for one in CLAIMS:
        records = [r for found in pages.values() for r in found if r.claim == one.key]
        lines += [
            f"* - **{one.key}** ({one.whose}) {one.statement}",
            f"  - {one.test}",
            f"  - {'<br>'.join(map(_verdict, records)) or f'**{YET}**'}",
            f"  - {_where(one, records, one.page in pages)}",
        ]
    return "\n".join([*lines, "````"])


def verdict_block(results: Path) -> str:
    """README's lines: the verdict words of the claims that the committed rows decide.

    The line says whether rows made by a protocol decide, or exploratory ones stand in for them.
    """
    lines = ["| claim | verdict on the committed rows |", "|---|---|"]
    for one in CLAIMS:
        if one.stored is not None:
            records, rows = _standing(one, one.stored, results)
            words = [_words(r) for r in records] or [f"**{YET}**"]
            told = f"{one.key}: {one.statement}<br>*{one.test}*"
            lines.append(f"| {told} | {'<br>'.join([*words, *rows])} |")
    return "\n".join(lines)


def in_short(keys: Sequence[str], results: Path) -> str:
    """What a chapter's rows say on some claims, as a Markdown list: for the head of its page.

    Raises:
        InputError: an unknown claim, or one that stored rows do not decide.
    """
    lines = []
    for one in map(claim, keys):
        records, rows = _standing(one, decided_by(one.key), results)
        lines.append(f"- {one.statement}")
        lines += [f"  - {r.detail}: {_verdict(replace(r, detail=''))}" for r in records]
        lines += [f"  - {told}" for told in rows] if records else [f"  - **{YET}**"]
    return "\n".join(lines)


def _standing(one: Claim, test: StoredTest, results: Path) -> tuple[list[Record], list[str]]:
    """A claim's records from the committed rows, none where there are none, and what rows."""
    rows = test.rows(results)
    if not rows:
        return [], []
    folders = ", ".join(f"`data/results/{folder}`" for folder in rows)
    if not rows[0].startswith(EXPLORATORY):
        return list(judge(one.key, results)), [f"(by the protocol's rows, {folders})"]
    if (results / rows[0] / "rows.parquet").is_file():
        told = f"(exploratory, {folders}: the protocol's rows are not whole)"
        return list(judge(one.key, results)), [told]
    return [], []


def _record(facts: dict[str, Any]) -> Record:
    return Record(**{**facts, "run_ids": tuple(facts["run_ids"])})


def _plain(found: Record) -> str:
    told = ", ".join(part for part in (found.verdict, found.detail, found.number) if part)
    return f"{told} ({found.note})" if found.note else told


def _words(found: Record) -> str:
    """Without numbers, which README does not type; but a control that does harm is told."""
    harm = " (the control does harm of its own)" if HARM in found.note else ""
    return f"{found.detail}: **{found.verdict}**{harm}"


def _anchor(found: Record) -> str:
    words = f"claim {found.claim} {found.detail}".lower()
    return "-".join(re.findall(r"[a-z0-9]+", words))


def _verdict(found: Record) -> str:
    return f"**{found.verdict}**{_plain(found).removeprefix(found.verdict)}"


def _where(one: Claim, records: Sequence[Record], published: bool) -> str:
    if not published:
        return f"notebook {one.page}, not in this book"
    anchor = f"#{_anchor(records[0])}" if records else ""
    link = f'<a href="../notebooks/{one.page}.html{anchor}">{one.page[3:].replace("_", " ")}</a>'
    ids = [run_id for found in records for run_id in found.run_ids]
    if not ids:
        return f"{link}, live"
    folders = dict.fromkeys(found.rows.replace("/", "/<wbr>") for found in records if found.rows)
    return f"{link}, stored rows <code>{', '.join(folders)}</code>, hash `{digest(ids)}`"


def main() -> None:
    """Print README's verdict block."""
    from geodistill.experiments.run_store import results_dir

    print(verdict_block(results_dir()))


if __name__ == "__main__":
    main()
