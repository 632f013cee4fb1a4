"""Figures and tables of comparisons on stored results, in the unit and margin of a claim."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from geodistill.analysis.figures.style import geodistill_style
from geodistill.analysis.report import format
from geodistill.analysis.stats.compare import Comparison
from geodistill.publish.claims.judge import ClaimTest, Judge, find_claim, find_test
from geodistill.publish.display import show, show_table


def show_claim(judge: Judge, key: str, name: str) -> None:
    """The comparisons of a claim as a table with verdicts; a line if its section is incomplete.

    Args:
        judge: which evaluates the claim.
        key: of the claim.
        name: of the table.
    """
    comparisons, test = judge.comparisons(key), find_test(key)
    if not comparisons:
        return print(f"{key} is not yet tested: its section is incomplete")
    show_table(
        format.comparison_table(comparisons, test.margin, test.unit),
        caption=f"{find_claim(key).statement} "
        f"{format.comparison_caption(comparisons, test.margin, test.unit)}",
        name=name,
        **judge.provenance(key),
    )


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
    from matplotlib import pyplot

    from geodistill.analysis.figures import comparison_plots

    with geodistill_style():
        fig, ax = pyplot.subplots(figsize=(7, 0.42 * len(comparisons) + 1))
        margin = test.margin * test.unit.factor
        comparison_plots.forest(
            ax, format.estimates_table(comparisons, test.unit), test.unit.name, margin
        )
    text = format.describe_comparisons(comparisons, test.unit)
    show(fig, alt=f"Forest plot. {text}.", name=name, **provenance)


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
    from matplotlib import pyplot

    from geodistill.analysis.figures import comparison_plots

    labels = {
        label: f"{label}\n({min(c.n_seeds for c in group)} seeds)"
        for label, group in groups.items()
    }
    table = pd.concat(
        format.estimates_table(group, test.unit).assign(group=labels[label])
        for label, group in groups.items()
    )
    by_method = {method: table[table["method"] == method] for method in table["method"].unique()}
    margin = test.margin * test.unit.factor
    with geodistill_style():
        fig, ax = pyplot.subplots(figsize=(7.5, 3.4))
        ax.axhspan(-margin, margin, color="#EFEFEF", zorder=0)
        ax.axhline(0, color="black", linewidth=0.8)
        comparison_plots.grouped_errorbars(ax, by_method, "group", list(labels.values()), 0.14)
        ax.set_xlim(-0.6, len(groups) - 0.4)
        ax.set_ylabel(f"gain over KD, {test.unit.name}\n(line: 95 % interval)")
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    texts = [
        f"{' '.join(label.split())}: {format.describe_comparisons(group, test.unit)}"
        for label, group in groups.items()
    ]
    alt = f"Gain over KD, by group. {'; '.join(texts)}."
    show(fig, alt=alt, name=name, **provenance)
