"""Tables and captions, made from the same answers that the figures draw."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from geodistill.analysis.figures.style import versus
from geodistill.analysis.stats.compare import Comparison
from geodistill.analysis.stats.verdict import Verdict, verdict
from geodistill.analysis.stored_results import digest


@dataclass(frozen=True)
class Unit:
    """How a score's differences are printed: times `factor`, with `digits` decimals, in `name`."""

    name: str
    factor: float = 1.0
    digits: int = 2

    def show(self, value: float) -> str:
        return f"{value * self.factor:+.{self.digits}f}"

    def interval(self, answer: Comparison) -> str:
        return f"{self.show(answer.low)} to {self.show(answer.high)}"


POINTS = Unit("points", factor=100, digits=1)
NATS = Unit("nats per token", digits=3)


def tidy(answers: Sequence[Comparison], unit: Unit) -> pd.DataFrame:
    """One row an answer, for figures: `method, baseline, task, estimate, low, high` in the unit."""
    return pd.DataFrame(
        [
            {
                "method": a.method,
                "baseline": a.baseline,
                "task": a.task,
                "estimate": a.estimate * unit.factor,
                "low": a.low * unit.factor,
                "high": a.high * unit.factor,
            }
            for a in answers
        ]
    )


def comparison_table(answers: Sequence[Comparison], margin: float, unit: Unit) -> pd.DataFrame:
    """The answers as a table for a page, with verdicts at `margin` (in the score's unit)."""
    p_name = "p" if all(answer.family == 1 for answer in answers) else "p (Holm)"
    return pd.DataFrame([_line(a, verdict(a, margin), unit, p_name) for a in answers])


def in_words(answers: Sequence[Comparison], unit: Unit) -> str:
    """The numbers of a figure as a sentence, for its alternative text."""
    return "; ".join(
        f"{versus(a.method, a.baseline)}, {a.task}: {unit.show(a.estimate)} "
        f"({unit.interval(a)}) {unit.name}"
        for a in answers
    )


def caption(answers: Sequence[Comparison], margin: float, unit: Unit) -> str:
    """What a reader must know beside the table: n, test, correction, margin, and the rows' hash."""
    seeds = _span([a.n_seeds for a in answers])
    items = _span([a.n_items for a in answers])
    sources = _span([a.n_sources for a in answers])
    tests = "; ".join(dict.fromkeys(a.test for a in answers))
    corrections = "; ".join(dict.fromkeys(a.correction for a in answers))
    ids = [run_id for a in answers for run_id in a.run_ids]
    return (
        f"{seeds} seeds; {items} test items from {sources} sources. Test: {tests}. "
        f"Correction: {corrections}. Intervals: {answers[0].level:.0%}, not adjusted. "
        f"Margin: {margin * unit.factor:g} ({unit.name}). "
        f"Rows: {len(set(ids))} runs, {digest(ids)}."
    )


def _line(answer: Comparison, given: Verdict, unit: Unit, p_name: str) -> dict[str, str]:
    return {
        "comparison": versus(answer.method, answer.baseline),
        "task": answer.task,
        f"{unit.name} ({answer.level:.0%} interval)": (
            f"{unit.show(answer.estimate)} ({unit.interval(answer)})"
        ),
        p_name: show_p(answer.p_decisive),
        "P(better)": f"{answer.p_better:.2f}",
        "verdict": given.word,
    }


def show_p(value: float) -> str:
    """A p-value to two digits."""
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def say_p(value: float) -> str:
    """The same in a sentence: "p = 0.03", "p < 0.0001"."""
    shown = show_p(value)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
