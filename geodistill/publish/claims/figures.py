"""Figures that chapters draw from comparisons on stored rows, in the unit and margin of a claim."""

from collections.abc import Mapping, Sequence
from typing import Any

from geodistill.analysis.figures.style import geodistill_style
from geodistill.analysis.report import format
from geodistill.analysis.report.gain_tables import grouped
from geodistill.analysis.stats.compare import Comparison
from geodistill.publish.claims.judge import StoredTest
from geodistill.publish.provenance import show


def show_forest(
    answers: Sequence[Comparison], test: StoredTest, name: str, source: Mapping[str, Any]
) -> None:
    """Comparisons as a figure.

    Args:
        answers: the comparisons, a line each.
        test: whose unit and margin count.
        name: of the figure.
        source: provenance of the rows, as `Sections.source` gives it.
    """
    from matplotlib import pyplot

    from geodistill.analysis.figures import common

    with geodistill_style():
        fig, ax = pyplot.subplots(figsize=(7, 0.42 * len(answers) + 1))
        margin = test.margin * test.unit.factor
        common.forest(ax, format.tidy(answers, test.unit), test.unit.name, margin)
    told = format.in_words(answers, test.unit)
    show(fig, alt=f"Forest plot. {told}.", name=name, **source)


def show_groups(
    groups: Mapping[str, Sequence[Comparison]],
    test: StoredTest,
    name: str,
    source: Mapping[str, Any],
    over: str = "KD",
    along: str = "",
) -> None:
    """Gains in groups, side by side, as a figure; each group says how many seeds it has.

    Args:
        groups: comparisons by name of their group.
        test: whose unit and margin count.
        name: of the figure.
        source: provenance of the rows, as `Sections.source` gives it.
        over: what the gains are over, for the axis label.
        along: what the groups are, for the other axis.
    """
    from matplotlib import pyplot

    from geodistill.analysis.figures.instruction import gains_in_groups

    groups = {f"{n}\n({min(a.n_seeds for a in g)} seeds)": g for n, g in groups.items()}
    table, unit = grouped(groups, test.unit), f"{test.unit.name} over {over}"
    with geodistill_style():
        fig, ax = pyplot.subplots(figsize=(7.5, 3.4))
        gains_in_groups(ax, table, unit, test.margin * test.unit.factor)
        ax.set_xlabel(along)
    words = [f"{' '.join(n.split())}: {format.in_words(a, test.unit)}" for n, a in groups.items()]
    alt = f"Gain over {over}, by group. {'; '.join(words)}."
    show(fig, alt=alt, name=name, **source)
