"""A comparison report as a table, a methods paragraph and a figure, in Markdown, LaTeX and HTML.

All are made from the same strings, so their numbers agree.
"""

from html import escape
from pathlib import Path

import pandas as pd

from geodistill.analysis.report.comparison_report import PRIMARY, ComparisonReport, ReportRow
from geodistill.analysis.report.format import estimates_table, format_p
from geodistill.analysis.report.levels import format_levels, score_levels

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$",
    ">": "$>$", "±": r"$\pm$", "×": r"$\times$", "−": "$-$", "α": r"$\alpha$",
}  # fmt: skip


def report_table(report: ComparisonReport) -> pd.DataFrame:
    """The rows of a report as text with rounded numbers.

    Example:
        >>> from pathlib import Path
        >>> from geodistill.analysis import compare_all, read_scores, report_table, simulate_items
        >>> simulate_items({"kd": 0.0, "new": 0.2}).to_csv("scores.csv")
        >>> scores = read_scores(Path("scores.csv"), "kd", metric="reward")
        >>> report_table(compare_all(scores, "kd"))[["method", "adjusted p", "verdict"]]
          method     adjusted p verdict
        0    new  < 0.0001 Holm  better
    """
    unit = report.unit
    return pd.DataFrame(
        [
            {
                "method": row.comparison.method,
                "task": row.comparison.task,
                f"{unit.name} ({row.comparison.level:.0%} interval)": (
                    unit.format_difference(row.comparison)
                ),
                "p": format_p(row.comparison.p),
                "adjusted p": f"{format_p(row.p_adjusted)} {row.correction}",
                "P(better)": f"{row.comparison.p_better:.2f}",
                "verdict": row.verdict.word,
            }
            for row in report.rows
        ]
    )


def levels_table(report: ComparisonReport) -> pd.DataFrame:
    """The level of every method, the baseline included, as text: mean, median, collapsed runs."""
    return format_levels(score_levels(report.scores), report.unit)


def required_designs(report: ComparisonReport) -> list[str]:
    """For each inconclusive pooled row, a sentence on the design that would decide it."""
    return [
        f"{row.comparison.method} needs {row.required} for a verdict."
        for row in report.rows
        if row.required and _is_pooled(report, row)
    ]


def row_counts(report: ComparisonReport) -> str:
    """Rows used and left out, by reason."""
    left = "; ".join(f"{n:,} {reason}" for reason, n in report.left_out.items() if n)
    rest = report.scores.n_rows - report.n_used - sum(report.left_out.values())
    others = f"; {rest:,} of methods not compared" if rest else ""
    return (
        f"{report.n_used:,} of {report.scores.n_rows:,} rows used; left out: "
        f"{left or 'none'}{others}."
    )


def methods_paragraph(report: ComparisonReport) -> list[str]:
    """The methods paragraph of a paper, sentence by sentence."""
    first, unit = report.rows[0].comparison, report.unit
    n_primary = sum(row.correction == PRIMARY for row in report.rows)
    sign = ", where lower is better, so signs are reversed" if report.scores.sign_flipped else ""
    pooling = (
        "Tasks are weighted equally and held fixed: the pooled claim is about these tasks. "
        if len(first.tasks) > 1
        else ""
    )
    return [
        f"Each method was compared with {first.baseline} by {report.scores.metric}{sign}; "
        "a positive difference is an improvement.",
        _sizes(report),
        f"{pooling}Test: {first.test}.",
        f"The {n_primary} primary tests were corrected by Holm's method, the other tests by "
        "Benjamini and Hochberg's; intervals are unadjusted 95 % intervals.",
        "A difference whose corrected test rejects zero at α = 0.05 is called better or worse; "
        "by less than the margin, if two one-sided tests also put it inside "
        f"±{report.margin * unit.factor:g} {unit.name}; otherwise equivalent, if they do; "
        "otherwise inconclusive.",
        "P(better) is the probability that a new run of the method beats one of the baseline.",
        *(_describe(row, report) for row in report.rows if _is_pooled(report, row)),
        row_counts(report),
        *(f"{note[0].upper()}{note[1:]}." for note in report.notes),
    ]


def markdown(report: ComparisonReport) -> str:
    """Tables and paragraph in Markdown."""
    tables = [_markdown(report_table(report)), _markdown(levels_table(report))]
    return "\n\n".join([*tables, " ".join(_sentences(report))]) + "\n"


def _markdown(table: pd.DataFrame) -> str:
    rows = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", r"\|") for cell in row) + " |" for row in rows
    )


def latex(report: ComparisonReport) -> str:
    """Tables (tabular, no package needed) and paragraph in LaTeX."""
    tables = [_latex(report_table(report)), _latex(levels_table(report))]
    return "\n".join(["\n\n".join(tables), "", *map(_tex, _sentences(report)), ""])


def _latex(table: pd.DataFrame) -> str:
    rows = [" & ".join(map(_tex, row)) + r" \\" for row in table.to_numpy().tolist()]
    head = [rf"\begin{{tabular}}{{ll{'r' * (table.shape[1] - 3)}l}}", r"\hline"]
    names = " & ".join(map(_tex, table.columns)) + r" \\"
    return "\n".join([*head, names, r"\hline", *rows, r"\hline", r"\end{tabular}"])


def html(report: ComparisonReport) -> str:
    """Tables and paragraph in HTML."""
    text = escape(" ".join(_sentences(report)))
    tables = (report_table(report), levels_table(report))
    parts = [table.to_html(index=False, border=0) for table in tables]
    return "\n".join([*parts, f"<p>{text}</p>\n"])


def write_report(report: ComparisonReport, folder: Path) -> list[Path]:
    """Write `comparison.md`, `.tex`, `.html`, `forest.svg` and `.png`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for ending, to_text in (("md", markdown), ("tex", latex), ("html", html)):
        paths.append(folder / f"comparison.{ending}")
        paths[-1].write_text(to_text(report), encoding="utf-8")
    return [*paths, *_draw(report, folder)]


def _draw(report: ComparisonReport, folder: Path) -> list[Path]:
    from matplotlib.figure import Figure

    from geodistill.analysis.figures.comparison_plots import forest
    from geodistill.analysis.figures.style import geodistill_style

    paths, unit = [folder / "forest.svg", folder / "forest.png"], report.unit
    with geodistill_style():
        figure = Figure(figsize=(6.4, 1.2 + 0.45 * len(report.rows)), layout="constrained")
        estimates = estimates_table(report.comparisons, unit)
        forest(figure.subplots(), estimates, unit.name, report.margin * unit.factor)
        for path in paths:
            figure.savefig(path, dpi=200)
    return paths


def _sentences(report: ComparisonReport) -> list[str]:
    return [*methods_paragraph(report), *required_designs(report)]


def _is_pooled(report: ComparisonReport, row: ReportRow) -> bool:
    """Whether a row is a method's main one: pooled over tasks, or its only task."""
    n_tasks = [len(c.tasks) for c in report.comparisons if c.method == row.comparison.method]
    return len(row.comparison.tasks) == max(n_tasks)


def _sizes(report: ComparisonReport) -> str:
    c = report.rows[0].comparison
    if not c.n_items:
        return f"Both methods of each pair ran the same {c.n_seeds} seeds."
    clusters = f" from {c.n_clusters:,} sources" if c.n_clusters != c.n_items else ""
    seeds = f"{c.n_seeds} seed{'s' if c.n_seeds > 1 else ''}"
    return (
        f"Both methods of each pair ran the same {seeds} on the same {c.n_items:,} items{clusters}."
    )


def _describe(row: ReportRow, report: ComparisonReport) -> str:
    c, unit = row.comparison, report.unit
    return (
        f"{c.method} vs {c.baseline}: {unit.format(c.estimate)} {unit.name} (interval "
        f"{unit.format_interval(c)}; adjusted p {format_p(row.p_adjusted)}): {row.verdict.word}."
    )


def _tex(text: object) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in str(text))
