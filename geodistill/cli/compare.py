"""What `geodistill compare` does: read a score table, compare its methods, print, write."""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from geodistill.analysis.report.comparison_report import (
    ComparisonReport,
    compare_all,
    matched_rows,
    task_means,
)
from geodistill.analysis.report.export import (
    levels_table,
    report_table,
    required_designs,
    row_counts,
    to_json,
    write_report,
)
from geodistill.analysis.report.rows import main_rows
from geodistill.analysis.score_tables import read_scores
from geodistill.analysis.stats.verdict import BETTER, WORSE
from geodistill.cli.tables import parse_columns, print_taken, rich_table, wide_console
from geodistill.errors import InputError


def run_compare(
    table: Path,
    baselines: Sequence[str],
    *,
    columns: Sequence[str],
    metric: str | None,
    higher_is_better: bool | None,
    tasks: Sequence[str],
    methods: Sequence[str],
    primary: Sequence[str],
    margins: Sequence[str],
    unit: str | None,
    over: str,
    collapsed_at: Sequence[str],
    sensitivity: bool,
    as_json: bool,
    out: Path | None,
) -> list[ComparisonReport]:
    """Compare the methods of a table with each baseline and print the reports.

    Args:
        table: a file of scores or a results folder.
        baselines: names of methods; each has a report and a family of its own.
        columns: names in the file as "OURS=THEIRS"; "OURS=" for none.
        metric: name of the metric, if the table has several.
        higher_is_better: by default known from the metric's name.
        tasks: to include; all by default.
        methods: to compare with the baseline, also separated by commas; all by default.
        primary: methods of the primary family; all by default.
        margins: smallest difference that matters, as `infer_scale` takes it.
        unit: of the scores; by default inferred.
        over: "tasks" if tasks are a sample of tasks like these.
        collapsed_at: scores at which a run has collapsed, as `with_collapse_rule` takes them.
        sensitivity: print other tests too.
        as_json: print the report as JSON instead of tables.
        out: folder for the report; of several baselines, one folder in it for each.

    Raises:
        InputError: as `parse_columns`, `read_scores` and `compare_all`, or another `over`.
    """
    if over not in ("", "tasks"):
        raise InputError(f"--over {over!r}: expected tasks")
    console, reports = wide_console(), []
    names = parse_columns(columns)
    listed = [name.strip() for text in methods for name in text.split(",")]
    for number, baseline in enumerate(dict.fromkeys(baselines)):
        scores = read_scores(table, baseline, names, metric, higher_is_better, tasks, listed)
        report = compare_all(
            scores, baseline, primary, margins, unit=unit, over_tasks=bool(over),
            collapsed_at=collapsed_at,
        )  # fmt: skip
        reports.append(report)
        if as_json:
            print(to_json(report), end="")
        else:
            _print(console, report, baseline, taken=number == 0)
            if sensitivity:
                _print_sensitivity(console, report)
        if out:
            folder = out / _folder_name(baseline) if len(set(baselines)) > 1 else out
            paths = ", ".join(str(path) for path in write_report(report, folder))
            if not as_json:
                console.print(f"written: {paths}", soft_wrap=True)
    return reports


def _folder_name(baseline: str) -> str:
    """The name of a method as that of a folder directly inside the output folder."""
    return re.sub(r"[^\w+.=-]+|^\.+", "-", baseline)[:100]


def _print(console: Console, report: ComparisonReport, baseline: str, *, taken: bool) -> None:
    scores = report.scores
    if taken:
        print_taken(console, scores.taken)
    console.print(f"margin: {report.scale.words}", soft_wrap=True)
    direction = (
        "lower is better, so signs are reversed" if scores.sign_flipped else "higher is better"
    )
    title = f"{scores.metric} against {baseline} ({direction})"
    console.print(rich_table(report_table(report), title))
    averaged = "runs of all tasks" if report.over_tasks else "runs"
    console.print(rich_table(levels_table(report), f"levels of {scores.metric}, over {averaged}"))
    for line in [*required_designs(report), row_counts(report), *report.notes]:
        console.print(line)


def _print_sensitivity(console: Console, report: ComparisonReport) -> None:
    from geodistill.analysis.stats.ranks import MIN_TASKS
    from geodistill.analysis.stats.sensitivity import sensitivity_table

    baseline = report.rows[0].comparison.baseline
    n_tasks = report.scores.frame["task"].nunique()
    if n_tasks >= MIN_TASKS:
        _print_ranks(console, report, baseline)
    if not report.scores.has_items:
        ranks = "" if n_tasks >= MIN_TASKS else f", rank tests {MIN_TASKS} or more tasks"
        console.print(f"sensitivity analyses need items{ranks}; these scores have none")
        return
    for method in dict.fromkeys(c.method for c in report.comparisons):
        table = sensitivity_table(matched_rows(report, method, baseline), method, baseline)
        console.print(rich_table(_text(table), f"sensitivity analyses: {method} vs {baseline}"))


def _print_ranks(console: Console, report: ComparisonReport, baseline: str) -> None:
    """Rank tests over tasks, and whether they agree with the verdicts."""
    from geodistill.analysis.stats.ranks import rank_table

    table = rank_table(task_means(report), baseline, report.margin)
    console.print(rich_table(_text(table), f"rank tests over tasks, against {baseline}"))
    pooled = {row.comparison.method: row for row in main_rows(report.rows)}
    for ranks in table.to_dict("records"):
        if not (row := pooled.get(ranks["method"])):
            continue
        word, by_ranks = row.verdict.word, ""
        if ranks["p_wilcoxon"] <= 0.05:
            by_ranks = BETTER if ranks["wins"] > ranks["losses"] else WORSE
        by_verdict = next((known for known in (BETTER, WORSE) if word.startswith(known)), "")
        agrees = "agrees" if by_ranks == by_verdict else "disagrees"
        console.print(
            f"{ranks['method']}: the signed-rank test over tasks {agrees} with the verdict, {word}"
        )


def _text(table: pd.DataFrame) -> pd.DataFrame:
    return table.map(lambda cell: f"{cell:.3g}" if isinstance(cell, float) else str(cell))
