"""The rows of two methods that can be compared: tasks, seeds and items that both have."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import pandas as pd

from geodistill.analysis.report.format import format_range
from geodistill.analysis.score_columns import join
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

    def describe_left_out(self) -> list[str]:
        """What the pair has in common, and what it leaves out; nothing if it leaves out nothing."""
        lost = [f"{len(rows):,} {reason}" for reason, rows in self.left_out.items() if len(rows)]
        if not lost:
            return []
        by_task = self.frame.groupby("task")
        levels = [name for name in ("seed", "item") if name in self.frame]
        shared = " × ".join(f"{format_range(by_task[name].nunique())} {name}s" for name in levels)
        where = " in each task" if len(self.tasks) > 1 else ""
        return [f"{self.method}: compared on {shared}{where}; left out: {'; '.join(lost)}"]


def scored_rows(scores: ScoreTable) -> pd.DataFrame:
    """The rows of a table with the score of each; those of a metric of labels from its labels."""
    if scores.metric_from_labels:
        return score_by_influence(scores.frame, scores.metric_from_labels)
    return scores.frame


def match_pair(scores: ScoreTable, method: str, baseline: str) -> MatchedPair:
    """The rows of two methods that can be compared.

    Without items, each task counts with the seeds that both methods have in it. With items, seeds
    must be shared in every task, since the test crosses them.

    Args:
        scores: the table.
        method: to compare.
        baseline: that it is compared with.

    Raises:
        InputError: the two share no task, no seed, or no item of a task.
    """
    rows = scores.frame[scores.frame["method"].isin((method, baseline))]
    if scores.has_items:  # numbers pivot faster than names
        rows = rows.assign(item=pd.factorize(rows["item"])[0])
    n_methods = rows.groupby("task")["method"].nunique()
    in_both = rows[rows["task"].isin(n_methods.index[n_methods == 2])]
    if in_both.empty:
        raise InputError(f"{method} and {baseline} share no task")
    same_seeds = _with_shared_seeds(in_both, method, baseline, scores.has_items)
    matched = same_seeds
    if scores.has_items:
        times = same_seeds.groupby(["task", "item"])["score"].transform("size")
        matched = same_seeds[times == 2 * same_seeds["seed"].nunique()]
        _refuse_lost_tasks(same_seeds, matched, method, baseline)
    left_out = {
        "of a task that one side lacks": rows.index.difference(in_both.index),
        "of a seed that some run lacks": in_both.index.difference(same_seeds.index),
        "of an item that some run lacks": same_seeds.index.difference(matched.index),
    }
    tasks = tuple(sorted(matched["task"].unique()))
    return MatchedPair(method, baseline, matched, tasks, left_out, scores.metric_from_labels)


def _with_shared_seeds(
    rows: pd.DataFrame, method: str, baseline: str, in_all_tasks: bool
) -> pd.DataFrame:
    """The rows of seeds that both methods have, in every task or in each task by itself."""
    runs = rows[["task", "method", "seed"]].drop_duplicates()
    by_task = runs.groupby(["task", "seed"]).size()
    shared = by_task[by_task == 2].reset_index()[["task", "seed"]]
    if shared.empty:
        seeds = [
            f"{name} has {join(runs.loc[runs['method'] == name, 'seed'].drop_duplicates(), 5)}"
            for name in (method, baseline)
        ]
        raise InputError(
            f"{method} and {baseline} share no seed ({'; '.join(seeds)}), so no runs are pairs: "
            "name the column that pairs them by --column seed=NAME, such as the fold or the split"
        )
    if not in_all_tasks:
        n_seeds = shared.groupby("task").size()
        enough = n_seeds.index[n_seeds > 1] if (n_seeds > 1).any() else n_seeds.index
        shared = shared[shared["task"].isin(enough)]
        keys = pd.MultiIndex.from_frame(shared)
        return rows[pd.MultiIndex.from_frame(rows[["task", "seed"]]).isin(keys)]
    n_tasks = shared.groupby("seed").size()
    in_all = n_tasks.index[n_tasks == runs["task"].nunique()]
    if in_all.empty:
        in_each = join(f"{task} {n}" for task, n in shared.groupby("task").size().items())
        raise InputError(
            f"{method} and {baseline} share no seed that every task has (seeds shared in each: "
            f"{in_each}): choose tasks by --task"
        )
    return rows[rows["seed"].isin(in_all)]


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
    used = seen = reduce(pd.Index.union, (pair.frame.index for pair in pairs))
    counts: Counter[str] = Counter()
    for pair in pairs:
        for reason, rows in pair.left_out.items():
            new = rows.difference(seen)
            counts[reason] += len(new)
            seen = seen.union(new)
    return len(used), {reason: n for reason, n in counts.items() if n}


def tasks_as_items(scores: ScoreTable) -> ScoreTable:
    """The table with one score per method, seed and task, the task as the item.

    Seeds that some method lacks in some task are averaged over: then tasks alone vary.

    Raises:
        InputError: there is one task alone.
    """
    tasks = scores.frame["task"].unique()
    if len(tasks) < 2:
        raise InputError(
            f"a comparison over tasks needs two or more; the rows hold {join(tasks)} alone (name "
            "their column by --column task=NAME)"
        )
    keys = ["method", "task", "seed"]
    runs = scored_rows(scores).groupby(keys, sort=False)["score"].mean().reset_index()
    n_methods, n_tasks = runs["method"].nunique(), runs["task"].nunique()
    complete = runs.groupby("seed").size() == n_methods * n_tasks
    if complete.sum() > 1:
        runs = runs[runs["seed"].isin(complete.index[complete])]
    else:
        runs = runs.groupby(["method", "task"], sort=False)["score"].mean().reset_index()
        runs["seed"] = 0
    runs = runs.assign(item=runs["task"], source=runs["task"], task="tasks")
    runs = runs.assign(run_id=runs["method"] + "/" + runs["seed"].astype(str))
    return replace(scores, frame=runs, metric_from_labels="")
