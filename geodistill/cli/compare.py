"""What `geodistill compare` does: read a score table, compare its methods, print, write."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from geodistill.analysis.report.comparison_report import (
    ComparisonReport,
    compare_all,
    matched_rows,
)
from geodistill.analysis.report.export import (
    levels_table,
    report_table,
    required_designs,
    row_counts,
    write_report,
)
from geodistill.analysis.score_tables import ScoreTable, read_scores
from geodistill.cli.tables import rich_table, wide_console
from geodistill.errors import InputError


def run_compare(
    table: Path,
    baseline: str,
    *,
    columns: Sequence[str] = (),
    metric: str | None = None,
    higher_is_better: bool | None = None,
    tasks: Sequence[str] = (),
    primary: Sequence[str] = (),
    margin: float | None = None,
    sensitivity: bool = False,
    out: Path | None = None,
) -> ComparisonReport:
    """Compare the methods of a table with a baseline and print the report.

    Args:
        table: a file of scores or a results folder.
        baseline: name of a method.
        columns: names in the file as "OURS=THEIRS".
        metric: name of the metric, if the table has several.
        higher_is_better: by default known from the metric's name.
        tasks: to include; all by default.
        primary: methods of the primary family; all by default.
        margin: smallest difference that matters, in the unit of the table.
        sensitivity: print other tests too.
        out: folder for the report.

    Raises:
        InputError: as `read_scores` and `compare_all`, or a column that is not "OURS=THEIRS".
    """
    console = wide_console()
    scores = read_scores(table, baseline, _parse_columns(columns), metric, higher_is_better, tasks)
    report = compare_all(scores, baseline, primary, margin)
    direction = (
        "lower is better, so signs are reversed" if scores.sign_flipped else "higher is better"
    )
    title = f"{scores.metric} against {baseline} ({direction})"
    console.print(rich_table(report_table(report), title))
    console.print(rich_table(levels_table(report), f"levels of {scores.metric}, over runs"))
    for line in [*required_designs(report), row_counts(report), *report.notes]:
        console.print(line, highlight=False)
    if sensitivity:
        _print_sensitivity(console, scores, report)
    if out:
        paths = ", ".join(str(path) for path in write_report(report, out))
        console.print(f"written: {paths}")
    return report


def _parse_columns(columns: Sequence[str]) -> dict[str, str]:
    names = {}
    for column in columns:
        role, _, name = column.partition("=")
        if not (role and name):
            raise InputError(f"--column {column!r}: expected OURS=THEIRS, such as method=model")
        names[role] = name
    return names


def _print_sensitivity(console: Console, scores: ScoreTable, report: ComparisonReport) -> None:
    from geodistill.analysis.stats.sensitivity import sensitivity_table

    if not scores.has_items:
        console.print("sensitivity analyses need items; these scores have none")
        return
    for method, baseline in dict.fromkeys((c.method, c.baseline) for c in report.comparisons):
        table = sensitivity_table(matched_rows(scores, method, baseline), method, baseline)
        text = table.map(lambda cell: f"{cell:.3g}" if isinstance(cell, float) else str(cell))
        console.print(rich_table(text, f"sensitivity analyses: {method} vs {baseline}"))
