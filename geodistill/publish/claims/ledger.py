"""The ledger of claims: notebooks record verdicts, the book shows them.

A record is kept in the metadata of the cell output that shows it, and is as recent as the executed
page.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from html import escape
from pathlib import Path
from typing import Any

from geodistill.publish.claims.judge import (
    NOT_YET,
    Claim,
    Judge,
    Record,
    all_claims,
    find_claim,
)
from geodistill.publish.display import read_metadata

KEY = "geodistill-claim"
_HEAD = """````{list-table}
:header-rows: 1
:class: gd-ledger
:widths: 30 22 30 18

* - Claim
  - Our test
  - Verdict
  - Where"""


def record_verdict(*args: Any, **fields: Any) -> None:
    """Record a computed verdict and show it in one line; called from a cell of a notebook.

    Args:
        *args: of `Record`: claim, verdict, value, low, high.
        **fields: of `Record`.

    Raises:
        InputError: an unknown claim or verdict, or a number that is not finite.
    """
    from IPython.display import display

    record = Record(*args, **fields)
    text = f"Claim {record.claim}: {_text(record)}"
    display(  # type: ignore[no-untyped-call]
        {
            "text/html": f'<p class="gd-claim" id="{_anchor(record)}">{escape(text)}</p>',
            "text/plain": text,
        },
        raw=True,
        metadata={KEY: asdict(record)},
    )


def read_records(executed: Path) -> list[Record]:
    """The records of an executed notebook, in order; of one part of a claim the last counts."""
    records: dict[tuple[str, str], Record] = {}
    for fields in read_metadata(executed, KEY):
        record = Record(**{**fields, "run_ids": tuple(fields["run_ids"])})
        records[record.claim, record.detail] = record
    return list(records.values())


def render(executed: Sequence[Path]) -> str:
    """The ledger as a MyST table; a claim that no page has recorded stands as "not yet tested".

    Args:
        executed: the executed notebooks of one book. Links are relative to a page in `book/`.
    """
    pages = {path.stem: read_records(path) for path in executed}
    lines = [_HEAD]
    for claim in all_claims():
        records = [r for page in pages.values() for r in page if r.claim == claim.key]
        lines += [
            f"* - **{claim.key}** ({claim.origin}) {claim.statement}",
            f"  - {claim.test_in_words}",
            f"  - {'<br>'.join(map(_markdown, records)) or f'**{NOT_YET}**'}",
            f"  - {_where(claim, records, claim.page in pages)}",
        ]
    return "\n".join([*lines, "````"])


def claims_list(executed: Sequence[Path]) -> str:
    """The paper's claims as a Markdown list: the verdict and number of each part.

    Args:
        executed: the executed notebooks of one book.
    """
    records = [record for path in executed for record in read_records(path)]
    lines = []
    for claim in all_claims():
        if claim.origin == "paper":
            parts = [_markdown(replace(r, note="")) for r in records if r.claim == claim.key]
            verdict = "; ".join(parts) or f"**{NOT_YET}**"
            lines.append(f"- **{claim.key}** {claim.statement.rstrip('.')}: {verdict}.")
    return "\n".join(lines)


def summary_list(keys: Sequence[str]) -> str:
    """The verdicts on some claims as a Markdown list, for the head of a chapter.

    Args:
        keys: of the claims.

    Raises:
        InputError: an unknown claim, or one that stored results do not decide.
    """
    judge = Judge(log=lambda line: None)
    lines = []
    for key in keys:
        records = judge.evaluate(key)
        lines.append(f"- {find_claim(key).statement}")
        lines += [f"  - {r.detail}: {_markdown(replace(r, detail=''))}" for r in records]
        lines += [f"  - {folders}" for folders in _folders(records)] or [f"  - **{NOT_YET}**"]
    return "\n".join(lines)


def _folders(records: Sequence[Record]) -> list[str]:
    """The stored results behind records, in one line; no line without records."""
    folders = dict.fromkeys(name for record in records for name in record.rows.split(", "))
    return [f"({', '.join(f'`{name}`' for name in folders)})"] if folders else []


def _text(record: Record) -> str:
    text = ", ".join(filter(None, (record.verdict, record.detail, record.number)))
    return f"{text} ({record.note})" if record.note else text


def _markdown(record: Record) -> str:
    return f"**{record.verdict}**{_text(record).removeprefix(record.verdict)}"


def _anchor(record: Record) -> str:
    return "-".join(re.findall(r"[a-z0-9]+", f"claim {record.claim} {record.detail}".lower()))


def _where(claim: Claim, records: Sequence[Record], published: bool) -> str:
    if not published:
        return f"notebook {claim.page}, not in this book"
    anchor, title = f"#{_anchor(records[0])}" if records else "", claim.page[3:].replace("_", " ")
    link = f'<a href="../notebooks/{claim.page}.html{anchor}">{title}</a>'
    run_ids = {run_id for record in records for run_id in record.run_ids}
    if not run_ids:
        return f"{link}, live"
    folders = dict.fromkeys(r.rows.replace("/", "/<wbr>") for r in records if r.rows)
    return f"{link}, {len(run_ids)} runs of <code>{', '.join(folders)}</code>"
