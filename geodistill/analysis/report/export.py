"""A comparison report as a table, a methods paragraph and a figure; Markdown, LaTeX, HTML, JSON.

All are made from the same numbers, so they agree.
"""

import json
import math
import re
from html import escape
from pathlib import Path

import pandas as pd

from geodistill.analysis.report.comparison_report import ComparisonReport
from geodistill.analysis.report.format import estimates_table, format_p, markdown_rows
from geodistill.analysis.report.levels import format_levels, score_levels
from geodistill.analysis.report.matching import tasks_as_items
from geodistill.analysis.report.rows import PRIMARY, ReportRow, main_rows
from geodistill.analysis.stats.compare import Comparison

_LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$",
    ">": "$>$", "±": r"$\pm$", "×": r"$\times$", "−": "$-$", "α": r"$\alpha$",
})  # fmt: skip

_JSON_FIELDS = (
    "method", "baseline", "task", "tasks", "estimate", "low", "high", "level", "se", "df", "p",
    "p_better", "n_seeds", "n_items", "n_clusters", "test",
)  # fmt: skip


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
                "method": c.method,
                "task": c.task,
                f"{unit.name} ({100 * c.level:g} % interval)": unit.format_difference(c),
                "n": f"{c.n_seeds} × {c.n_items:,}" if c.n_items else f"{c.n_seeds}",
                "p": format_p(c.p),
                "adjusted p": f"{format_p(row.p_adjusted)} {row.correction}",
                "P(better)": "–" if math.isnan(c.p_better) else f"{c.p_better:.2f}",
                "verdict": row.verdict.word,
            }
            for row, c in zip(report.rows, report.comparisons, strict=True)
        ]
    )


def levels_table(report: ComparisonReport) -> pd.DataFrame:
    """The level of every method, the baseline included, as text: mean, median, collapsed runs."""
    if report.over_tasks:
        scores = tasks_as_items(report.scale.divide(report.scores))
        return format_levels(score_levels(scores), report.unit)
    return format_levels(score_levels(report.scores), report.scale.level_unit)


def required_designs(report: ComparisonReport) -> list[str]:
    """For each inconclusive pooled row, a sentence on the design that would decide it."""
    return [
        f"{row.comparison.method} needs {row.required} for a verdict."
        for row in main_rows(report.rows)
        if row.required
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
    first = report.rows[0].comparison
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
        *_sizes(report),
        f"{pooling}Test: {'; '.join(dict.fromkeys(c.test for c in report.comparisons))}.",
        f"{_corrections(n_primary, len(report.rows) - n_primary)} Intervals are unadjusted 95 % "
        "intervals.",
        "A difference whose corrected test rejects zero at α = 0.05 is called better or worse; "
        "by less than the margin, if two one-sided tests also put it inside "
        "the margin; otherwise equivalent, if they do; otherwise inconclusive. "
        f"Margin: {report.scale.words.partition(' (default')[0]}.",
        *_p_better(report),
        *(_describe(row, report) for row in main_rows(report.rows)),
        row_counts(report),
        *(f"{note[0].upper()}{note[1:]}." for note in report.notes),
    ]


def main_sentences(report: ComparisonReport) -> list[str]:
    """The first comparison: difference and verdict, what was run, and what would decide it."""
    return [
        _describe(report.rows[0], report),
        *_sizes(report),
        *required_designs(report)[:1],
    ]


def markdown(report: ComparisonReport) -> str:
    """Tables and paragraph in Markdown."""
    tables = [markdown_table(report_table(report)), markdown_table(levels_table(report))]
    return "\n\n".join([*tables, _md(" ".join(_sentences(report)))]) + "\n"


def markdown_table(table: pd.DataFrame) -> str:
    """A table of texts in Markdown."""
    cells = ([_md(cell) for cell in row] for row in table.to_numpy().tolist())
    return markdown_rows([str(name) for name in table.columns], cells)


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
    """Write `comparison.md`, `.tex`, `.html`, `.json`, `forest.svg` and `.png`; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    texts = (("md", markdown), ("tex", latex), ("html", html), ("json", to_json))
    for ending, to_text in texts:
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
        margins = [row.margin * unit.factor for row in report.rows]
        metric = report.scores.metric
        label = metric if unit.name == metric else f"{metric}, {unit.name}"
        forest(figure.subplots(), estimates, f"{label}, right: better", margins)
        for path in paths:
            figure.savefig(path, dpi=200)
    return paths


def _sentences(report: ComparisonReport) -> list[str]:
    return [*methods_paragraph(report), *required_designs(report)]


def _sizes(report: ComparisonReport) -> list[str]:
    """What both methods of each pair ran: one sentence for all pairs, or for each size."""
    by_size: dict[str, list[str]] = {}
    for row in main_rows(report.rows):
        by_size.setdefault(_ran(row.comparison), []).append(row.comparison.method)
    if len(by_size) == 1:
        return [f"Both methods of each pair ran {next(iter(by_size))}."]
    baseline = report.rows[0].comparison.baseline
    return [f"{', '.join(names)} and {baseline} ran {size}." for size, names in by_size.items()]


def _corrections(n_primary: int, n_secondary: int) -> str:
    primary = "There is one primary test, which needs no correction."
    if n_primary > 1:
        primary = f"The {n_primary} primary tests were corrected by Holm's method."
    if n_secondary == 0:
        return primary
    return f"{primary} The other {n_secondary} were corrected by Benjamini and Hochberg's."


def _p_better(report: ComparisonReport) -> list[str]:
    if all(math.isnan(c.p_better) for c in report.comparisons):
        return []
    return ["P(better) is the probability that a new run of the method beats one of the baseline."]


def _ran(c: Comparison) -> str:
    tasks = f" in {len(c.tasks)} tasks" if len(c.tasks) > 1 else ""
    seeds = f"{c.n_seeds} seed{'s' if c.n_seeds > 1 else ''}"
    if not c.n_items:
        least = "at least " if c.seeds_left_out and tasks else ""
        return f"{least}the same {seeds}{tasks}"
    clusters = f" from {c.n_clusters:,} sources" if c.n_clusters != c.n_items else ""
    unit = "tasks" if "over tasks" in c.test or "× tasks" in c.test else "items"
    return f"the same {seeds} on the same {c.n_items:,} {unit}{clusters}{tasks}"


def to_json(report: ComparisonReport) -> str:
    """The numbers of the report, unrounded, in the unit of the table or of its scale."""
    rows = [
        {
            **{name: getattr(row.comparison, name) for name in _JSON_FIELDS},
            "p_adjusted": row.p_adjusted,
            "correction": row.correction,
            "margin": row.margin,
            "verdict": row.verdict.word,
            "p_equivalent": row.verdict.p_equivalent,
            "required": row.required,
        }
        for row in report.rows
    ]
    content = {
        "metric": report.scores.metric,
        "higher_is_better": not report.scores.sign_flipped,
        "unit": {"name": report.unit.name, "factor": report.unit.factor},
        "margin": report.scale.words,
        "taken": report.scores.taken,
        "rows": [
            {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
            for row in rows
        ],
        "rows_used": report.n_used,
        "rows_of_table": report.scores.n_rows,
        "left_out": report.left_out,
        "notes": report.notes,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _describe(row: ReportRow, report: ComparisonReport) -> str:
    c, unit = row.comparison, report.unit
    return (
        f"{c.method} vs {c.baseline}: {unit.format(c.estimate)} {unit.name} (interval "
        f"{unit.format_interval(c)}; adjusted p {format_p(row.p_adjusted)}): {row.verdict.word}."
    )


def _md(text: object) -> str:
    return re.sub(r"([\\`*_\[\]|]|<(?=[A-Za-z/!]))", r"\\\1", str(text))


def _tex(text: object) -> str:
    return str(text).translate(_LATEX)
