"""Figures and tables of comparisons on stored results, in the unit and margin of a claim."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import pandas as pd
from matplotlib import pyplot

from geodistill.analysis.figures import comparison_plots
from geodistill.analysis.figures.style import comparison_label, geodistill_style
from geodistill.analysis.report.format import Unit, comparison_caption, estimates_table
from geodistill.analysis.stats.compare import Comparison
from geodistill.publish.claims.judge import ClaimTest
from geodistill.publish.display import show


def show_forest(
    comparisons: Sequence[Comparison], test: ClaimTest, name: str, provenance: Mapping[str, Any]
) -> None:
    """Comparisons as a forest plot.

    Args:
        comparisons: one row each.
        test: whose unit and margin count.
        name: of the figure.
        provenance: of the results, as `StoredSections.provenance` gives it.
    """
    first = comparisons[0]
    difference = f"{test.unit.format(first.estimate)} {test.unit.name}"
    label = comparison_label(first.method, first.baseline)
    finding = f"{label}: {difference}; {_finding(comparisons)}"
    table = estimates_table(comparisons, test.unit)
    marks = "Filled: pooled over tasks; hollow: one task. " if table["task"].nunique() > 1 else ""
    with geodistill_style():
        fig, ax = pyplot.subplots(figsize=(5.2, 0.42 * len(comparisons) + 1.2))
        comparison_plots.forest(ax, table, test.unit.name, test.margin * test.unit.factor)
        fig.suptitle(fill(finding, 60), fontsize="medium")
    show(
        fig,
        alt=f"Forest plot: {finding}. {_largest(comparisons, test.unit)}",
        caption=f"{marks}Line: 95 % interval; grey: less than the margin. "
        f"{comparison_caption(comparisons, test.margin, test.unit)}",
        data=table,
        name=name,
        **provenance,
    )


def _finding(comparisons: Sequence[Comparison]) -> str:
    """How many intervals lie above and below zero, for the title of their figure."""
    above, below = sum(c.low > 0 for c in comparisons), sum(c.high < 0 for c in comparisons)
    count = f"{above} of {len(comparisons)} intervals lie above zero"
    return f"{count}, {below} below" if below else count


def _largest(comparisons: Sequence[Comparison], unit: Unit) -> str:
    """The largest difference as a sentence of the alternative text."""
    largest = max(comparisons, key=lambda comparison: comparison.estimate)
    label = comparison_label(largest.method, largest.baseline)
    return f"Largest: {label}, {largest.task}: {unit.format_difference(largest)} {unit.name}."


def show_groups(
    groups: Mapping[str, Sequence[Comparison]],
    test: ClaimTest,
    name: str,
    provenance: Mapping[str, Any],
) -> None:
    """Gains over KD in groups, side by side; each group is labelled with its number of seeds.

    Args:
        groups: comparisons by name of their group.
        test: whose unit and margin count.
        name: of the figure.
        provenance: of the results, as `StoredSections.provenance` gives it.
    """
    labels = {
        label: f"{label}\n({min(c.n_seeds for c in group)} seeds)"
        for label, group in groups.items()
    }
    table = pd.concat(
        estimates_table(group, test.unit).assign(group=labels[label])
        for label, group in groups.items()
    )
    margin = test.margin * test.unit.factor
    comparisons = [comparison for group in groups.values() for comparison in group]
    finding = _finding(comparisons)
    with geodistill_style():
        fig, ax = pyplot.subplots(figsize=(5.2, 3.8))
        ax.axhspan(-margin, margin, color="#EFEFEF", zorder=0)
        ax.axhline(0, color="black", linewidth=0.8)
        comparison_plots.grouped_errorbars(ax, table)
        ax.set_xlim(-0.6, len(groups) - 0.4)
        ax.set_ylabel(f"gain over KD, {test.unit.name}")
        ax.set_title(finding)
        fig.legend(loc="outside lower center", ncols=2)
    show(
        fig,
        alt=f"Gain over KD, by group: {finding}. {_largest(comparisons, test.unit)}",
        caption="Line: 95 % interval; grey: less than the margin. "
        f"{comparison_caption(comparisons, test.margin, test.unit)}",
        data=table.assign(group=table["group"].str.replace("\n", " ")),
        name=name,
        **provenance,
    )
