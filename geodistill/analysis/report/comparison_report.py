"""All methods of a score table against a baseline: the source of table, figure and text."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from geodistill.analysis.report.format import Unit
from geodistill.analysis.report.levels import with_collapse_rule
from geodistill.analysis.report.matching import (
    MatchedPair,
    count_rows,
    match_pair,
    scored_rows,
    tasks_as_items,
)
from geodistill.analysis.report.robustness import describe_influence
from geodistill.analysis.report.rows import ReportRow, main_rows, with_verdicts
from geodistill.analysis.report.units import Margins, Scale, infer_scale
from geodistill.analysis.score_columns import as_names, join
from geodistill.analysis.score_tables import ScoreTable
from geodistill.analysis.stats.compare import Comparison
from geodistill.analysis.stats.verdict import NO_TEST
from geodistill.errors import InputError


@dataclass(frozen=True)
class ComparisonReport:
    """All methods of a table against a baseline.

    Attributes:
        rows: each method pooled over tasks and then task by task, the primary family first.
        scores: the table.
        scale: unit and margins.
        n_used: rows of the table that some comparison used.
        left_out: rows that none used, by reason.
        notes: assumptions and limits, as sentences.
        over_tasks: whether tasks are the items of one comparison.
    """

    rows: tuple[ReportRow, ...]
    scores: ScoreTable
    scale: Scale
    n_used: int
    left_out: dict[str, int]
    notes: tuple[str, ...]
    over_tasks: bool = False

    @property
    def comparisons(self) -> list[Comparison]:
        """The comparisons of the rows."""
        return [row.comparison for row in self.rows]

    @property
    def unit(self) -> Unit:
        """In which differences are printed."""
        return self.scale.unit

    @property
    def margin(self) -> float:
        """The margin of the first row, in the unit of its comparison."""
        return self.rows[0].margin


def compare_all(
    scores: ScoreTable,
    baseline: str,
    primary: str | Sequence[str] = (),
    margin: Margins = None,
    *,
    unit: str | None = None,
    over_tasks: bool = False,
    collapsed_at: str | float | Sequence[str | float] = (),
) -> ComparisonReport:
    """Every other method against `baseline`, pooled over tasks and task by task.

    The pooled tests of the `primary` methods are one family under Holm's method; all other rows are
    secondary, under Benjamini and Hochberg's false discovery rate. A method that cannot be compared
    is left out of its family and named in the notes.

    Args:
        scores: as `read_scores` gives them.
        baseline: name of a method.
        primary: methods of the primary family; all by default.
        margin: smallest difference that matters, as `infer_scale` takes it.
        unit: of the scores, if it is not to be inferred (see `infer_scale`).
        over_tasks: whether tasks are a sample: the result is then about tasks like these, each one
            an item, and not about these tasks.
        collapsed_at: scores at which a run has collapsed, as `with_collapse_rule` takes them.

    Raises:
        InputError: an unknown method, a margin or unit as in `infer_scale`, a score as in
            `with_collapse_rule`, or rows of which no method allows a comparison.

    Example:
        >>> from pathlib import Path
        >>> from geodistill.analysis import compare_all, read_scores, simulate_items
        >>> simulate_items({"kd": 0.0, "new": 0.2}).to_csv("scores.csv")
        >>> report = compare_all(read_scores(Path("scores.csv"), "kd", metric="reward"), "kd")
        >>> [(row.comparison.method, row.verdict.word) for row in report.rows]
        [('new', 'better')]
    """
    primary = list(dict.fromkeys(as_names(primary)))
    methods = _other_methods(scores, baseline, primary, "primary")
    scores = with_collapse_rule(scores, collapsed_at)
    scale = infer_scale(scores, baseline, margin, unit)
    scaled = scale.divide(scores)
    if over_tasks:
        scaled = tasks_as_items(scaled)
    ordered = [*primary, *(method for method in methods if method not in primary)]
    pairs, pooled, failed = _compare_pairs(scaled, ordered, baseline)
    by_task: list[Comparison] = []
    failed_tasks: list[str] = []
    for pair in pairs:
        comparisons, failures = pair.compare_by_task()
        by_task += comparisons
        failed_tasks += failures
    n_primary = sum(c.method in primary for c in pooled) or len(pooled)
    rows = with_verdicts(pooled, by_task, n_primary, scale, over_tasks)
    n_used, left_out = (len(scores.frame), {}) if over_tasks else count_rows(pairs)
    notes = [
        *(*scale.notes, *scores.notes, *failed),
        *_no_test_notes(rows, scores),
        *(note for pair in pairs for note in pair.describe_left_out()),
        *_influence_notes(pairs, rows),
        *failed_tasks,
        *_limits(rows, scaled, over_tasks),
    ]
    left_out = {**scores.left_out, **left_out}
    notes = list(dict.fromkeys(notes))
    return ComparisonReport(rows, scores, scale, n_used, left_out, tuple(notes), over_tasks)


def _compare_pairs(
    scores: ScoreTable, methods: Sequence[str], baseline: str
) -> tuple[list[MatchedPair], list[Comparison], list[str]]:
    """The pairs that can be compared, pooled, and why the others cannot.

    Raises:
        InputError: none can.
    """
    results: list[tuple[MatchedPair, Comparison]] = []
    failed: list[tuple[str, str]] = []
    for method in methods:
        try:
            pair = match_pair(scores, method, baseline)
            results.append((pair, pair.compare()))
        except InputError as error:
            failed.append((method, str(error)))
    if len({c.n_seeds > 1 for _, c in results}) > 1:  # two populations in one family
        reason = f"shares one seed with {baseline}, others more; choose it alone by --methods"
        failed += [(c.method, reason) for _, c in results if c.n_seeds == 1]
        results = [(pair, c) for pair, c in results if c.n_seeds > 1]
    if not results:
        reasons = "; ".join(reason for _, reason in failed[:3])
        tasks = scores.frame["task"].nunique() > 1 and "one number per method" in reasons
        raise InputError(reasons + ("; or compare over tasks, by --over tasks" if tasks else ""))
    notes = [f"{method} is left out: {reason}" for method, reason in failed]
    return [pair for pair, _ in results], [c for _, c in results], notes


def compare_pooled(scores: ScoreTable, method: str, baseline: str) -> Comparison:
    """One method against the baseline over all shared tasks, as in `compare_all`."""
    _other_methods(scores, baseline, [method], "method")
    return match_pair(scores, method, baseline).compare()


def task_means(report: ComparisonReport) -> pd.DataFrame:
    """The mean score of each task (rows) and method (columns), in the unit of the comparisons."""
    frame = scored_rows(report.scale.divide(report.scores))
    return frame.groupby(["task", "method"], sort=False)["score"].mean().unstack()


def matched_rows(report: ComparisonReport, method: str, baseline: str) -> pd.DataFrame:
    """The rows that a report compares: tasks, seeds and items that both methods have."""
    return match_pair(report.scale.divide(report.scores), method, baseline).scored()


def _other_methods(
    scores: ScoreTable, baseline: str, named: Sequence[str], option: str
) -> list[str]:
    """All methods but the baseline, after a check of those that an option names."""
    known = scores.frame["method"].unique().tolist()
    for name, value in (("baseline", baseline), *((option, method) for method in named)):
        if value not in known:
            same = [method for method in known if method.lower() == str(value).lower()]
            hint = f"; did you mean {same[0]!r}?" if same else ""
            raise InputError(
                f"{name} {value!r} is no method of the rows; they hold {join(known)}{hint}"
            )
    methods = [method for method in known if method != baseline]
    if not methods:
        lost = join(f"{n:,} {reason}" for reason, n in scores.left_out.items() if n)
        raise InputError(
            f"the rows hold {baseline} alone: nothing to compare it with; expected several methods "
            "in one column (name it by --column method=NAME) or in one column each"
            + (f"; rows left out: {lost}" if lost else "")
        )
    if baseline in named:
        raise InputError(f"{option} {baseline!r} is the baseline itself")
    return methods


def _no_test_notes(rows: Sequence[ReportRow], scores: ScoreTable) -> list[str]:
    if all(row.verdict.word != NO_TEST for row in rows):
        return []
    baseline, rule = rows[0].comparison.baseline, scores.taken["collapsed"]
    return [f"no test where more than one in ten runs of {baseline} collapsed ({rule})"]


def _influence_notes(pairs: Sequence[MatchedPair], rows: Sequence[ReportRow]) -> list[str]:
    notes: list[str] = []
    for pair, row in zip(pairs, main_rows(rows), strict=True):
        if row.comparison.n_seeds > 1:
            notes += describe_influence(pair, row.comparison, row.p_adjusted, row.margin)
    return notes


def _limits(rows: Sequence[ReportRow], scores: ScoreTable, over_tasks: bool) -> list[str]:
    """What the results generalise to, and which designs are weak."""
    first, notes = rows[0].comparison, []
    if over_tasks:
        seeds = ", trained anew" if first.n_seeds > 1 else ", these trained models or their means"
        notes.append(f"generalises to other tasks like these {first.n_items}{seeds}")
    elif first.n_items and first.n_seeds > 1:
        notes.append("generalises to new seeds and new test items of these tasks")
    elif first.n_items:
        notes.append(
            "one seed: the result is about these trained models, not about the methods; only more "
            "seeds can show whether a new training run would repeat it"
        )
    elif "fold" in scores.frame:
        notes.append(
            "generalises to new training sets of this size from the same data, as far as the "
            "correction for their overlap holds"
        )
    else:
        notes.append("no items: generalises to new seeds; the test items are held fixed")
    if any(row.comparison.n_seeds == 2 for row in rows):
        notes.append(
            "two seeds: the spread between seeds is known from one difference alone, so intervals "
            "are wide and their coverage rests on its normality; run three or more"
        )
    return notes
