"""Comparisons as numbers in text, tables and captions, from the values that the figures draw."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from geodistill.analysis.figures.style import comparison_label
from geodistill.analysis.stats.compare import Comparison
from geodistill.analysis.stats.verdict import verdict


@dataclass(frozen=True)
class Unit:
    """How differences of a score are printed.

    Attributes:
        name: such as "points".
        factor: by which differences are multiplied.
        digits: decimals.
    """

    name: str
    factor: float = 1.0
    digits: int = 2

    def format(self, value: float) -> str:
        """A number with its sign."""
        return f"{value * self.factor:+z.{self.digits}f}"

    def format_interval(self, comparison: Comparison) -> str:
        """The ends of the interval."""
        return f"{self.format(comparison.low)} to {self.format(comparison.high)}"

    def format_difference(self, comparison: Comparison) -> str:
        """The difference with its interval."""
        return f"{self.format(comparison.estimate)} ({self.format_interval(comparison)})"


POINTS = Unit("points", factor=100, digits=1)
NATS = Unit("nats per token", digits=3)


def estimates_table(comparisons: Sequence[Comparison], unit: Unit) -> pd.DataFrame:
    """`method, baseline, task, estimate, low, high` in the unit, one row per comparison."""
    names, numbers = ["method", "baseline", "task"], ["estimate", "low", "high"]
    rows = [{name: getattr(c, name) for name in (*names, *numbers)} for c in comparisons]
    table = pd.DataFrame(rows, columns=[*names, *numbers])
    return table.assign(**{name: table[name] * unit.factor for name in numbers})


def comparison_table(comparisons: Sequence[Comparison], margin: float, unit: Unit) -> pd.DataFrame:
    """The comparisons with their verdicts, as text for a page; tasks only if they differ.

    Args:
        comparisons: one per row.
        margin: smallest difference that matters, in the unit of the score.
        unit: in which differences are printed.
    """
    p_name = "p" if all(c.family == 1 for c in comparisons) else "p (Holm)"
    table = pd.DataFrame(
        [
            {
                "comparison": comparison_label(c.method, c.baseline),
                "task": c.task,
                f"{unit.name} ({100 * c.level:g} % interval)": unit.format_difference(c),
                p_name: format_p(c.p_adjusted),
                "P(better)": f"{c.p_better:.2f}",
                "verdict": verdict(c, margin).word,
            }
            for c in comparisons
        ]
    )
    return table if len({c.task for c in comparisons}) > 1 else table.drop(columns="task")


def comparison_caption(comparisons: Sequence[Comparison], margin: float, unit: Unit) -> str:
    """What a reader must know beside the table: n, test, correction, margin, runs.

    Args:
        comparisons: of the table.
        margin: smallest difference that matters, in the unit of the score.
        unit: in which differences are printed.
    """
    seeds = format_range([c.n_seeds for c in comparisons])
    items = format_range([c.n_items for c in comparisons])
    clusters = format_range([c.n_clusters for c in comparisons])
    tasks = {task for c in comparisons for task in c.tasks}
    where = "" if len(tasks) == 1 else f" of {len(tasks)} tasks"
    tests = "; ".join(dict.fromkeys(c.test for c in comparisons))
    corrections = dict.fromkeys(c.correction for c in comparisons)
    if len(comparisons) > 1 and all(c.family == 1 for c in comparisons):
        corrections = {"none": None}
    runs = {run_id for c in comparisons for run_id in c.run_ids}
    return (
        f"{seeds} seeds; {items} test items{where} from {clusters} sources. Test: {tests}. "
        f"Correction: {'; '.join(corrections)}. Intervals: {100 * comparisons[0].level:g} %, not "
        f"adjusted. Margin: {margin * unit.factor:g} ({unit.name}). {len(runs)} runs."
    )


def markdown_rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, whose cells may hold markup."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def format_p(value: float) -> str:
    """A p-value to two digits."""
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def format_range(values: Iterable[int]) -> str:
    """The smallest and the largest number, or the only one."""
    values = list(values)
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
