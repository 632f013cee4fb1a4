"""One `Answer` as a table, a methods paragraph and a figure, in Markdown, LaTeX and HTML.

All are made from the same strings, so no two of them can disagree.
"""

from html import escape
from pathlib import Path

import pandas as pd

from geodistill.analysis.report.comparison_report import PRIMARY, Answer, Line
from geodistill.analysis.report.format import show_p, tidy

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$",
    ">": "$>$", "±": r"$\pm$", "×": r"$\times$", "−": "$-$", "α": r"$\alpha$",
}  # fmt: skip


def answer_table(answer: Answer) -> pd.DataFrame:
    """The answer in words and rounded numbers, one row a line."""
    unit = answer.unit
    return pd.DataFrame(
        [
            {
                "method": one.method,
                "task": one.task,
                f"{unit.name} ({one.level:.0%} interval)": (
                    f"{unit.show(one.estimate)} ({unit.interval(one)})"
                ),
                "p": show_p(one.p),
                "adjusted p": f"{show_p(line.p_adjusted)} {line.correction}",
                "P(better)": f"{one.p_better:.2f}",
                "verdict": line.verdict.word,
            }
            for line in answer.lines
            for one in (line.comparison,)
        ]
    )


def to_settle(answer: Answer) -> list[str]:
    """For each pooled "cannot tell", what would settle it, in a sentence."""
    seen = [line for line in answer.lines if line.settles and _is_whole(answer, line)]
    return [f"{line.comparison.method} would be settled by {line.settles}." for line in seen]


def counts(answer: Answer) -> str:
    """Rows used and left out, by reason."""
    left = "; ".join(f"{n:,} {reason}" for reason, n in answer.left_out.items() if n)
    rest = answer.scores.rows - answer.used - sum(answer.left_out.values())
    alone = f"; {rest:,} of methods not compared" if rest else ""
    return (
        f"{answer.used:,} of {answer.scores.rows:,} rows used; left out: {left or 'none'}{alone}."
    )


def paragraph(answer: Answer) -> list[str]:
    """The methods paragraph, sentence by sentence, ready for a paper."""
    first, unit = answer.lines[0].comparison, answer.unit
    primary = [line for line in answer.lines if line.correction == PRIMARY]
    turned = ", where lower is better, so signs are turned" if answer.scores.flipped else ""
    several = (
        "Tasks are weighted equally and held fixed: the pooled claim is about these tasks. "
        if len(first.tasks) > 1
        else ""
    )
    return [
        f"Each method was compared with {first.baseline} by {answer.scores.metric}{turned}; "
        "a positive difference is an improvement.",
        *_sizes(answer),
        f"{several}Test: {first.test}.",
        f"The {len(primary)} primary tests were corrected by Holm's method, the other tests by "
        "Benjamini and Hochberg's; intervals are unadjusted 95 % intervals.",
        "A difference whose corrected test rejects zero at α = 0.05 is called better or worse; "
        "else equivalent, if two one-sided tests put it inside "
        f"±{answer.margin * unit.factor:g} {unit.name}; else undecided (cannot tell).",
        "P(better) is the probability that a new run of the method beats one of the baseline.",
        *(_says(line, answer) for line in answer.lines if _is_whole(answer, line)),
        counts(answer),
        *(f"{note[0].upper()}{note[1:]}." for note in answer.notes),
    ]


def markdown(answer: Answer) -> str:
    """Table and paragraph in Markdown."""
    table = answer_table(answer)
    rows = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    lines = [
        "| " + " | ".join(str(cell).replace("|", r"\|") for cell in row) + " |" for row in rows
    ]
    return "\n".join([*lines, "", " ".join([*paragraph(answer), *to_settle(answer)])]) + "\n"


def latex(answer: Answer) -> str:
    """Table (tabular, no package needed) and paragraph in LaTeX."""
    table = answer_table(answer)
    rows = [" & ".join(map(_tex, row)) + r" \\" for row in table.to_numpy().tolist()]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{ll{'r' * (table.shape[1] - 3)}l}}",
            r"\hline",
            " & ".join(map(_tex, table.columns)) + r" \\",
            r"\hline",
            *rows,
            r"\hline",
            r"\end{tabular}",
            "",
            *map(_tex, [*paragraph(answer), *to_settle(answer)]),
            "",
        ]
    )


def html(answer: Answer) -> str:
    """Table and paragraph in HTML."""
    text = escape(" ".join([*paragraph(answer), *to_settle(answer)]))
    return f"{answer_table(answer).to_html(index=False, border=0)}\n<p>{text}</p>\n"


def write(answer: Answer, folder: Path) -> list[Path]:
    """Write `answer.md`, `.tex`, `.html`, `forest.svg` and `.png`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for ending, text in (("md", markdown), ("tex", latex), ("html", html)):
        path = folder / f"answer.{ending}"
        path.write_text(text(answer), encoding="utf-8")
        written.append(path)
    return written + _draw(answer, folder)


def _draw(answer: Answer, folder: Path) -> list[Path]:
    from matplotlib.figure import Figure

    from geodistill.analysis.figures.common import forest
    from geodistill.analysis.figures.style import geodistill_style

    paths = [folder / "forest.svg", folder / "forest.png"]
    with geodistill_style():
        figure = Figure(figsize=(6.4, 1.2 + 0.45 * len(answer.lines)), layout="constrained")
        margin = answer.margin * answer.unit.factor
        forest(figure.subplots(), tidy(answer.comparisons, answer.unit), answer.unit.name, margin)
        for path in paths:
            figure.savefig(path, dpi=200)
    return paths


def _is_whole(answer: Answer, line: Line) -> bool:
    """Whether a line is a comparison's main one: pooled, or the only task."""
    tasks = max(
        len(one.tasks) for one in answer.comparisons if one.method == line.comparison.method
    )
    return len(line.comparison.tasks) == tasks


def _sizes(answer: Answer) -> list[str]:
    one = answer.lines[0].comparison
    if not one.n_items:
        return [f"Both sides of each pair ran the same {one.n_seeds} seeds."]
    shared = f" from {one.n_sources:,} sources" if one.n_sources != one.n_items else ""
    seeds = f"{one.n_seeds} seed{'s' if one.n_seeds > 1 else ''}"
    return [
        f"Both sides of each pair ran the same {seeds} on the same {one.n_items:,} items{shared}."
    ]


def _says(line: Line, answer: Answer) -> str:
    one, unit = line.comparison, answer.unit
    return (
        f"{one.method} vs {one.baseline}: {unit.show(one.estimate)} {unit.name} (interval "
        f"{unit.interval(one)}; adjusted p {show_p(line.p_adjusted)}): {line.verdict}."
    )


def _tex(text: object) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in str(text))
