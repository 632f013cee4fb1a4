"""All methods of a score table against a baseline: the source of table, figure and text."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from geodistill.analysis.report.format import POINTS, Unit
from geodistill.analysis.report.matching import count_rows, match_pair
from geodistill.analysis.score_tables import ScoreTable, is_bounded
from geodistill.analysis.stats.collapse import ONE_ANSWER, PEARSON, WITHIN
from geodistill.analysis.stats.compare import Comparison, Correction, adjust_family
from geodistill.analysis.stats.verdict import (
    INCONCLUSIVE,
    NO_TEST,
    Verdict,
    required_design,
    verdict,
)
from geodistill.errors import InputError

PRIMARY, SECONDARY = "Holm", "BH"


@dataclass(frozen=True)
class ReportRow:
    """One comparison with its verdict.

    Attributes:
        comparison: with its unadjusted p-value.
        verdict: by the adjusted p-value.
        p_adjusted: by Holm's method over the primary family, otherwise by Benjamini and Hochberg's.
        correction: `PRIMARY` or `SECONDARY`.
        required: in words, the design that would decide an inconclusive verdict; otherwise empty.
    """

    comparison: Comparison
    verdict: Verdict
    p_adjusted: float
    correction: str
    required: str


@dataclass(frozen=True)
class ComparisonReport:
    """All methods of a table against a baseline.

    Attributes:
        rows: each method pooled over tasks and then task by task, the primary family first.
        scores: the table.
        unit: in which differences are printed.
        margin: smallest difference that matters, in the unit of the table.
        n_used: rows of the table that some comparison used.
        left_out: rows that none used, by reason.
        notes: assumptions and limits, as sentences.
    """

    rows: tuple[ReportRow, ...]
    scores: ScoreTable
    unit: Unit
    margin: float
    n_used: int
    left_out: dict[str, int]
    notes: tuple[str, ...]

    @property
    def comparisons(self) -> list[Comparison]:
        """The comparisons of the rows."""
        return [row.comparison for row in self.rows]


def compare_all(
    scores: ScoreTable,
    baseline: str,
    primary: Sequence[str] = (),
    margin: float | None = None,
) -> ComparisonReport:
    """Every other method against `baseline`, pooled over tasks and task by task.

    The pooled tests of the `primary` methods are one family under Holm's method; all other rows are
    secondary, under Benjamini and Hochberg's false discovery rate.

    Args:
        scores: as `read_scores` gives them.
        baseline: name of a method.
        primary: methods of the primary family; all by default.
        margin: smallest difference that matters, above 0, in the unit of the table; by default one
            point of a bounded metric, otherwise 1 % of the baseline's mean (see `infer_unit`).

    Raises:
        InputError: an unknown method, a margin that is not above 0, or rows that allow no
            comparison.

    Example:
        >>> from pathlib import Path
        >>> from geodistill.analysis import compare_all, read_scores, simulate_items
        >>> simulate_items({"kd": 0.0, "new": 0.2}).to_csv("scores.csv")
        >>> report = compare_all(read_scores(Path("scores.csv"), "kd", metric="reward"), "kd")
        >>> [(row.comparison.method, row.verdict.word) for row in report.rows]
        [('new', 'better')]
    """
    methods = _other_methods(scores.frame, baseline, primary)
    family = list(primary) or methods
    ordered = [*family, *(method for method in methods if method not in family)]
    pairs = [match_pair(scores, method, baseline) for method in ordered]
    pooled = [pair.compare() for pair in pairs]
    by_task, failed = zip(*(pair.compare_by_task() for pair in pairs), strict=True)
    unit, default_margin, margin_note = infer_unit(scores, baseline)
    margin, notes = (default_margin, [margin_note]) if margin is None else (margin, [])
    main = pooled[: len(family)]
    other = [*pooled[len(family) :], *(c for comparisons in by_task for c in comparisons)]
    families: tuple[tuple[list[Comparison], Correction, str, int], ...]
    families = ((main, "holm", PRIMARY, len(family)), (other, "bh", SECONDARY, 1))
    rows = {
        id(c): _row(c, adjusted.p_adjusted, margin, name, n_tests)
        for comparisons, rule, name, n_tests in families
        for c, adjusted in zip(comparisons, adjust_family(comparisons, rule), strict=True)
    }
    all_comparisons = [c for p, parts in zip(pooled, by_task, strict=True) for c in (p, *parts)]
    n_used, left_out = count_rows(pairs)
    if any(row.verdict.word == NO_TEST for row in rows.values()):
        notes.append(_no_test_note(baseline))
    notes = [*scores.notes, *notes, *_limits(all_comparisons)]
    return ComparisonReport(
        tuple(rows[id(c)] for c in all_comparisons),
        scores,
        unit,
        margin,
        n_used,
        {**scores.left_out, **left_out},
        tuple(dict.fromkeys([*notes, *(note for some in failed for note in some)])),
    )


def compare_pooled(scores: ScoreTable, method: str, baseline: str) -> Comparison:
    """One method against the baseline over all shared tasks, as in `compare_all`."""
    _other_methods(scores.frame, baseline, [method])
    return match_pair(scores, method, baseline).compare()


def matched_rows(scores: ScoreTable, method: str, baseline: str) -> pd.DataFrame:
    """The rows that `compare_all` compares: tasks, seeds and items that both methods have."""
    return match_pair(scores, method, baseline).scored()


def infer_unit(scores: ScoreTable, baseline: str) -> tuple[Unit, float, str]:
    """In what unit differences are printed, and the default margin.

    A known bounded metric whose values all lie in -1..1 is a fraction, one whose values lie in
    0..100 a percentage; both are printed in points with a margin of one point. Other metrics are
    printed as they are, with a margin of 1 % of the baseline's mean.

    Args:
        scores: the table.
        baseline: name of a method.

    Returns:
        The unit, the margin in the unit of the table, and the margin in words.

    Raises:
        InputError: tasks of a bounded metric on different scales, which have no common mean.
    """
    values = scores.frame["score"].abs()
    bounded = is_bounded(scores.metric)
    if bounded:
        _refuse_different_scales(scores.frame, scores.metric)
    choose = "by default; choose yours by --margin"
    if bounded and values.max() <= 1:
        return POINTS, 0.01, f"margin: 1 point, {choose}"
    if bounded and values.max() <= 100 and scores.frame["score"].min() >= 0:
        return Unit("points", digits=1), 1.0, f"margin: 1 point, {choose}"
    mean = float(values[scores.frame["method"] == baseline].mean())
    note = f"margin: 1 % of the baseline's mean, {choose}"
    return Unit(scores.metric, digits=3), 0.01 * mean or 0.01, note


def _refuse_different_scales(frame: pd.DataFrame, metric: str) -> None:
    """If one task is scored in 0..1 and another is not, the second would dominate the mean."""
    ends = frame.groupby("task")["score"].agg(["min", "max"])
    largest = ends.abs().max(axis=1)
    small, large = ends[(largest <= 1) & (largest > 0)], ends[largest > 1]
    if len(small) and len(large):
        first = pd.concat([large[:1], small[:1]]) + 0.0  # no minus zero
        ranges = "; ".join(
            f"{task} from {low:.3g} to {high:.3g}" for task, low, high in first.to_records()
        )
        raise InputError(
            f"{metric} lies on one scale in some tasks and on another in others ({ranges}): "
            "expected one; choose tasks by --task"
        )


def _other_methods(frame: pd.DataFrame, baseline: str, primary: Sequence[str]) -> list[str]:
    known = list(dict.fromkeys(frame["method"]))
    for name, value in (("baseline", baseline), *(("primary", method) for method in primary)):
        if value not in known:
            raise InputError(
                f"{name} {value!r} is no method of the rows; they hold {', '.join(known)}"
            )
    methods = [method for method in known if method != baseline]
    if not methods:
        raise InputError(f"the rows hold {baseline} alone: nothing to compare it with")
    if baseline in primary:
        raise InputError(f"primary {baseline!r} is the baseline itself")
    return methods


def _row(c: Comparison, p: float, margin: float, correction: str, family: int) -> ReportRow:
    # Required designs divide by the items; metrics of runs have none, and scale by seeds alone.
    adjusted = replace(c, p_holm=p, family=family, n_items=max(1, c.n_items))
    result = verdict(adjusted, margin)
    required = _required(adjusted, c, margin) if result.word == INCONCLUSIVE else ""
    return ReportRow(c, result, p, correction, required)


def _required(adjusted: Comparison, c: Comparison, margin: float) -> str:
    design = required_design(adjusted, margin)
    if not c.n_items:
        return f"{design.seeds:,} seeds" if design.seeds else "more seeds than are within reach"
    if c.n_seeds == 1:
        return f"{design.items:,} items, for these two models" if design.items else "more seeds"
    return str(design)


def _no_test_note(baseline: str) -> str:
    return (
        f"no test where more than one in ten runs of {baseline} collapsed: to accuracies at most "
        f"{100 * WITHIN:g} points above that of the most frequent label (on a scale: correlations "
        f"of at most {PEARSON:g}), or to {ONE_ANSWER:.0%} or more equal predictions"
    )


def _limits(comparisons: Sequence[Comparison]) -> list[str]:
    """Notes on what is not the primary analysis."""
    if not comparisons[0].n_items:
        return ["no items: seeds alone are compared, the test items are held fixed"]
    if any(c.n_seeds == 1 for c in comparisons):
        return [
            "one seed: the result is about these trained models, not about the methods; only more "
            "seeds can show whether a new training run would repeat it"
        ]
    return []
