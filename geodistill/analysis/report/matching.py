"""The rows of two methods that can be compared: tasks, seeds and items that both have."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from geodistill.analysis.score_tables import ScoreTable
from geodistill.analysis.stats.compare import Comparison, compare
from geodistill.analysis.stats.metric_influence import score_by_influence
from geodistill.analysis.stats.single_level import compare_over_items, compare_over_seeds
from geodistill.errors import InputError


@dataclass(frozen=True)
class MatchedPair:
    """The rows of two methods without the tasks, seeds and items that one of them lacks.

    Attributes:
        method: to compare.
        baseline: that it is compared with.
        frame: the rows.
        tasks: shared by both.
        left_out: index of the rows left out, by reason.
        metric: computed from labels and predictions; "" if items have scores.
    """

    method: str
    baseline: str
    frame: pd.DataFrame
    tasks: tuple[str, ...]
    left_out: dict[str, pd.Index]
    metric: str

    def scored(self, task: str | None = None) -> pd.DataFrame:
        """The rows of one task or of all, with the score of each item."""
        rows = self.frame if task is None else self.frame[self.frame["task"] == task]
        return score_by_influence(rows, self.metric) if self.metric else rows

    def compare(self, task: str | None = None) -> Comparison:
        """The comparison of one task, or pooled."""
        single_seed = self.frame["seed"].nunique() == 1
        rows = self.scored(task)
        if "item" not in rows:
            return compare_over_seeds(rows, self.method, self.baseline)
        result = (compare_over_items if single_seed else compare)(rows, self.method, self.baseline)
        if not self.metric:
            return result
        return replace(result, test=f"{self.metric} by the items' influence; {result.test}")

    def compare_by_task(self) -> tuple[list[Comparison], list[str]]:
        """One comparison per task, if there are several; and why a task has none."""
        comparisons, failed = [], []
        for task in self.tasks if len(self.tasks) > 1 else ():
            try:
                comparisons.append(self.compare(task))
            except InputError as error:
                failed.append(f"{self.method}, {task}: not compared, {error}")
        return comparisons, failed


def match_pair(scores: ScoreTable, method: str, baseline: str) -> MatchedPair:
    """The rows of two methods that can be compared.

    Args:
        scores: the table.
        method: to compare.
        baseline: that it is compared with.

    Raises:
        InputError: the two share no task, or no item of a task.
    """
    frame = scores.frame
    if scores.has_items:  # numbers pivot faster than names
        frame = frame.assign(item=pd.factorize(frame["item"])[0])
    rows = frame[frame["method"].isin((method, baseline))]
    n_methods = rows.groupby("task")["method"].nunique()
    in_both = rows[rows["task"].isin(n_methods.index[n_methods == 2])]
    if in_both.empty:
        raise InputError(f"{method} and {baseline} share no task")
    runs = in_both[["task", "method", "seed"]].drop_duplicates()
    n_runs = runs.groupby("seed").size()
    seeds = n_runs.index[n_runs == 2 * runs["task"].nunique()]
    matched = same_seeds = in_both[in_both["seed"].isin(seeds)]
    if scores.has_items and len(seeds):
        times = same_seeds.groupby(["task", "item"])["score"].transform("size")
        matched = same_seeds[times == 2 * len(seeds)]
        _refuse_lost_tasks(same_seeds, matched, method, baseline)
    left_out = {
        "of a task that one side lacks": rows.index.difference(in_both.index),
        "of a seed that some run lacks": in_both.index.difference(same_seeds.index),
        "of an item that some run lacks": same_seeds.index.difference(matched.index),
    }
    tasks = tuple(sorted(in_both["task"].unique()))
    return MatchedPair(method, baseline, matched, tasks, left_out, scores.metric_from_labels)


def _refuse_lost_tasks(
    rows: pd.DataFrame, matched: pd.DataFrame, method: str, baseline: str
) -> None:
    lost = set(rows["task"].unique()) - set(matched["task"].unique())
    if lost:
        task = min(lost)
        sizes = rows[rows["task"] == task].groupby("run_id").size()
        raise InputError(
            f"{method} and {baseline} share no item of {task} that every run has; "
            f"{sizes.idxmin()} has the fewest, {sizes.min()}"
        )


def count_rows(pairs: Sequence[MatchedPair]) -> tuple[int, dict[str, int]]:
    """Rows that some comparison used, and rows that none did, by the first reason against them."""
    reasons: dict[int, str] = {}
    used = pairs[0].frame.index
    for pair in pairs:
        used = used.union(pair.frame.index)
        for reason, rows in pair.left_out.items():
            reasons |= dict.fromkeys(rows.difference(list(reasons)), reason)
    left = pd.Series(reasons, dtype=object).drop(labels=used, errors="ignore")
    return len(used), {str(reason): int(n) for reason, n in left.value_counts().items()}
