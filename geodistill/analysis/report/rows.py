"""The lines of a comparison report: p-values corrected by family, verdicts, required designs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from geodistill.analysis.report.units import Scale
from geodistill.analysis.stats.compare import Comparison, adjust_family
from geodistill.analysis.stats.single_level import FoldsOnly
from geodistill.analysis.stats.verdict import INCONCLUSIVE, Verdict, required_design, verdict

PRIMARY, SECONDARY = "Holm", "BH"


@dataclass(frozen=True)
class ReportRow:
    """One comparison with its verdict.

    Attributes:
        comparison: with its unadjusted p-value.
        verdict: by the adjusted p-value.
        p_adjusted: by Holm's method over the primary family, otherwise by Benjamini and Hochberg's.
        correction: `PRIMARY` or `SECONDARY`.
        margin: smallest difference that matters, in the unit of the comparison.
        required: in words, the design that would decide an inconclusive verdict; otherwise empty.
    """

    comparison: Comparison
    verdict: Verdict
    p_adjusted: float
    correction: str
    margin: float
    required: str


def with_verdicts(
    pooled: Sequence[Comparison],
    by_task: Sequence[Comparison],
    n_primary: int,
    scale: Scale,
    over_tasks: bool,
) -> tuple[ReportRow, ...]:
    """Each method pooled and then task by task; the first pooled ones are the primary family."""
    primary = adjust_family(pooled[:n_primary], "holm")
    secondary = adjust_family([*pooled[n_primary:], *by_task], "bh")
    rows = [_row(c, scale.margin(c), over_tasks) for c in (*primary, *secondary)]
    order = {c.method: number for number, c in enumerate(pooled)}
    return tuple(sorted(rows, key=lambda row: order[row.comparison.method]))


def main_rows(rows: Sequence[ReportRow]) -> list[ReportRow]:
    """The first row of each method: pooled over tasks, or its only task."""
    by_method = groupby(rows, key=lambda row: row.comparison.method)
    return [next(of_method) for _, of_method in by_method]


def _row(corrected: Comparison, margin: float, over_tasks: bool) -> ReportRow:
    p, is_primary = corrected.p_adjusted, corrected.p_holm is not None
    family = corrected.family if is_primary else 1
    c = replace(corrected, family=1, p_holm=None, p_bh=None)
    # Required designs divide by the items; metrics of runs have none, and scale by seeds alone.
    adjusted = replace(c, p_holm=p, family=family, n_items=max(1, c.n_items))
    result = verdict(adjusted, margin)
    required = _required(adjusted, c, margin) if result.word == INCONCLUSIVE else ""
    if over_tasks:
        c = replace(c, test=c.test.replace("item", "task"))
        required = required.replace("item", "task")
    return ReportRow(c, result, p, PRIMARY if is_primary else SECONDARY, margin, required)


def _required(adjusted: Comparison, c: Comparison, margin: float) -> str:
    design = required_design(adjusted, margin)
    if not c.n_items:
        runs = "folds" if isinstance(c.components, FoldsOnly) else "seeds"
        return f"{design.seeds:,} {runs}" if design.seeds else f"more {runs} than are within reach"
    if c.n_seeds == 1:
        return f"{design.items:,} items, for these two models" if design.items else "more seeds"
    return str(design)
