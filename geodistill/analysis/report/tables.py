"""Tables of gains by method and outcome, and of mean metrics by method, as text for a page."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
from scipy import stats

from geodistill.analysis.figures.style import comparison_label, method_style
from geodistill.analysis.report.format import Unit
from geodistill.analysis.stats.compare import compare
from geodistill.analysis.stats.pairing import paired_differences
from geodistill.errors import InputError

Outcome = Callable[[pd.DataFrame], pd.DataFrame]
"""Maps items to the items that have an outcome, with it as their `score`."""


def as_score(items: pd.DataFrame, column: str) -> pd.DataFrame:
    """The items that have a value in `column`, with it as their `score`.

    Raises:
        InputError: no such column.
    """
    if column not in items:
        names = ", ".join(map(str, items))
        raise InputError(f"items have no score {column!r}; their columns are {names}")
    scored = items[items[column].notna()]
    return scored.assign(score=scored[column].astype(float))


def gain_table(
    items: pd.DataFrame,
    pairs: Sequence[tuple[str, str]],
    outcomes: Mapping[str, Outcome],
    unit: Unit,
) -> pd.DataFrame:
    """The difference of each (method, baseline) with its interval, one column per outcome.

    Args:
        items: `run_id, task, method, seed, item, source` and the columns that the outcomes need.
        pairs: the comparisons, one per row.
        outcomes: by the name of their column.
        unit: of all outcomes.
    """
    names = [comparison_label(*pair) for pair in pairs]
    columns = {}
    for name, outcome in outcomes.items():
        scored = outcome(items)
        columns[name] = [_format_gain(scored, pair, unit) for pair in pairs]
    return pd.DataFrame({f"difference, {unit.name}": names, **columns})


def _format_gain(items: pd.DataFrame, pair: tuple[str, str], unit: Unit) -> str:
    tables = paired_differences(items, *pair).tables.values()
    if all((table == 0).all(axis=None) for table in tables):
        return "equal on every item"
    return unit.format_difference(compare(items, *pair))


def mean_table(runs: pd.DataFrame, metrics: Mapping[str, str]) -> pd.DataFrame:
    """The mean of each metric by method, with a 95 % t interval over seeds if there are several.

    Args:
        runs: one row per run.
        metrics: title of the column by name of the metric.
    """
    table = {"student": [method_style(method).label for method in dict.fromkeys(runs["method"])]}
    for metric, title in metrics.items():
        by_method = runs.groupby("method", sort=False)[metric]
        table[title] = [_format_mean(values.dropna()) for _, values in by_method]
    return pd.DataFrame(table)


def _format_mean(values: "pd.Series[float]") -> str:
    if values.empty:
        return "–"
    mean, n = values.mean(), len(values)
    if n == 1 or values.nunique() == 1:
        return f"{mean:.3f}"
    low, high = stats.t.interval(0.95, n - 1, mean, values.sem())
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"
