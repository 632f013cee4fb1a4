"""What `geodistill compare` prints."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from geodistill.analysis.report.comparison_report import Answer, answer, shared
from geodistill.analysis.report.export import answer_table, counts, to_settle, write
from geodistill.analysis.score_tables import Scores, read_scores
from geodistill.cli.tables import rich_table, wide_console
from geodistill.errors import InputError


def ask(
    rows: Path,
    baseline: str,
    *,
    columns: Sequence[str] = (),
    metric: str | None = None,
    higher: bool | None = None,
    tasks: Sequence[str] = (),
    primary: Sequence[str] = (),
    margin: float | None = None,
    second: bool = False,
    out: Path | None = None,
) -> Answer:
    """Read, compare, print and, where `out` names a folder, write; arguments as the command's.

    Raises:
        InputError: as `read_scores` and `answer`, or a column that is not given as OURS=THEIRS.
    """
    console = wide_console()
    scores = read_scores(rows, baseline, _mapping(columns), metric, higher, tasks)
    found = answer(scores, baseline, primary, margin)
    direction = "lower is better, so signs are turned" if scores.flipped else "higher is better"
    console.print(
        rich_table(answer_table(found), f"{scores.metric} against {baseline} ({direction})")
    )
    for line in [*to_settle(found), counts(found), *found.notes]:
        console.print(line, highlight=False)
    if second:
        _second(console, scores, found)
    if out:
        console.print("written: " + ", ".join(str(path) for path in write(found, out)))
    return found


def _mapping(columns: Sequence[str]) -> dict[str, str]:
    pairs = [column.partition("=") for column in columns]
    bad = [column for column, pair in zip(columns, pairs, strict=True) if not (pair[0] and pair[2])]
    if bad:
        raise InputError(f"--column {bad[0]!r}: expected OURS=THEIRS, such as method=model")
    return {ours: theirs for ours, _, theirs in pairs}


def _second(console: Console, scores: Scores, found: Answer) -> None:
    from geodistill.analysis.report.sensitivity_table import second_opinions

    if not scores.has_items:
        console.print("second opinions need items; these rows have none")
        return
    for method, one in {one.method: one for one in found.comparisons}.items():
        table = second_opinions(shared(scores, method, one.baseline), method, one.baseline)
        shown = table.map(lambda cell: f"{cell:.3g}" if isinstance(cell, float) else str(cell))
        console.print(rich_table(shown, f"second opinions: {method} vs {one.baseline}"))
