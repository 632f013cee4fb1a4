"""From someone's scores to the one object that table, figure and methods paragraph are made of."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from geodistill.analysis.report.format import POINTS, Unit
from geodistill.analysis.score_tables import Scores, is_bounded
from geodistill.analysis.stats.bootstrap import with_influence
from geodistill.analysis.stats.compare import Comparison, compare, corrected
from geodistill.analysis.stats.single_level import by_item, by_seed
from geodistill.analysis.stats.verdict import CANNOT_TELL, Verdict, verdict
from geodistill.errors import InputError

PRIMARY, SECONDARY = "Holm", "BH"


@dataclass(frozen=True)
class Line:
    """One comparison with its word; p_adjusted by Holm over the primary family, else by BH."""

    comparison: Comparison
    verdict: Verdict
    p_adjusted: float
    correction: str

    @property
    def settles(self) -> str:
        """What would settle it, for "cannot tell"; else nothing."""
        if self.verdict.settle is None or self.verdict.word != CANNOT_TELL:
            return ""
        plan, answer = self.verdict.settle, self.comparison
        if not answer.n_items:
            return f"{plan.seeds:,} seeds" if plan.seeds else "more seeds than are in reach"
        if answer.n_seeds == 1:
            return f"{plan.items:,} items, for these two models" if plan.items else "more seeds"
        return str(plan)


@dataclass(frozen=True)
class Answer:
    """lines: pooled before its tasks, the primary family first; margin in the file's unit;
    used: rows of the file that some comparison used; left_out: reason -> rows; notes: sentences.
    """

    lines: tuple[Line, ...]
    scores: Scores
    unit: Unit
    margin: float
    used: int
    left_out: dict[str, int]
    notes: tuple[str, ...]

    @property
    def comparisons(self) -> list[Comparison]:
        return [line.comparison for line in self.lines]


def answer(
    scores: Scores,
    baseline: str,
    primary: Sequence[str] = (),
    margin: float | None = None,
) -> Answer:
    """Every other method against `baseline`, pooled over tasks and task by task.

    The pooled tests of the `primary` methods (all by default) are one family under Holm; all other
    lines are secondary, under Benjamini and Hochberg's false discovery rate.

    Raises:
        InputError: an unknown method, a margin that is not above 0, or rows that allow no answer.
    """
    methods = _methods(scores.frame, baseline, primary)
    first = list(primary) or methods
    pairs = [_pair(scores, m, baseline) for m in [*first, *_rest(methods, first)]]
    whole = [pair.compare() for pair in pairs]
    parts, lost = zip(*(pair.by_task() for pair in pairs), strict=True)
    unit, usual, how = scale(scores, baseline)
    least = usual if margin is None else margin
    main = whole[: len(first)]
    other = [*whole[len(first) :], *(a for some in parts for a in some)]
    lines = {
        id(a): _line(a, fixed.p_decisive, least, PRIMARY, len(first))
        for a, fixed in zip(main, corrected(main, "holm"), strict=True)
    }
    lines |= {
        id(a): _line(a, fixed.p_decisive, least, SECONDARY, 1)
        for a, fixed in zip(other, corrected(other, "bh"), strict=True)
    }
    ordered = [one for a, some in zip(whole, parts, strict=True) for one in (a, *some)]
    used, left_out = _counted(pairs)
    notes = [*scores.notes, *([how] if margin is None else []), *_fallbacks(ordered)]
    return Answer(
        tuple(lines[id(a)] for a in ordered),
        scores,
        unit,
        least,
        used,
        {**scores.left_out, **left_out},
        tuple(dict.fromkeys([*notes, *(note for some in lost for note in some)])),
    )


def pooled(scores: Scores, method: str, baseline: str) -> Comparison:
    """One comparison over all shared tasks, as `answer` makes it."""
    _methods(scores.frame, baseline, [method])
    return _pair(scores, method, baseline).compare()


def shared(scores: Scores, method: str, baseline: str) -> pd.DataFrame:
    """The rows that `answer` compares: tasks, seeds and items that both sides have."""
    pair = _pair(scores, method, baseline)
    return with_influence(pair.frame, pair.metric) if pair.metric else pair.frame


def _pair(scores: Scores, method: str, baseline: str) -> "_Pair":
    frame = scores.frame
    if scores.has_items:  # numbers pivot faster than names
        frame = frame.assign(item=pd.factorize(frame["item"])[0])
    return _Pair.of(frame, method, baseline, scores.recomputed)


def scale(scores: Scores, baseline: str) -> tuple[Unit, float, str]:
    """How differences are printed, the margin where none was given, and that margin in words.

    Raises:
        InputError: tasks of a bounded metric on scales too unlike for a mean over them.
    """
    values = scores.frame["score"].abs()
    bounded = is_bounded(scores.metric)
    if bounded:
        _refuse_unlike_tasks(scores.frame, scores.metric)
    if bounded and values.max() <= 1:
        return POINTS, 0.01, "margin: 1 point, by default; choose yours by --margin"
    if bounded and values.max() <= 100 and scores.frame["score"].min() >= 0:
        return (
            Unit("points", digits=1),
            1.0,
            "margin: 1 point, by default; choose yours by --margin",
        )
    mean = float(values[scores.frame["method"] == baseline].mean())
    name = scores.metric if scores.metric != "value" else "value"
    how = "margin: 1 % of the baseline's mean, by default; choose yours by --margin"
    return Unit(name, digits=3), 0.01 * mean or 0.01, how


def _refuse_unlike_tasks(frame: pd.DataFrame, metric: str) -> None:
    """Where one task is scored in 0..1 and another is not, the second would drown the first."""
    ends = frame.groupby("task")["score"].agg(["min", "max"])
    most = ends.abs().max(axis=1)
    small, large = ends[(most <= 1) & (most > 0)], ends[most > 1]
    if len(small) and len(large):
        first = pd.concat([large[:1], small[:1]]) + 0.0  # no minus zero
        told = "; ".join(
            f"{task} from {low:.3g} to {high:.3g}" for task, low, high in first.to_records()
        )
        raise InputError(
            f"{metric} lies on one scale in some tasks and on another in others ({told}): expected "
            "one; choose tasks by --task"
        )


@dataclass(frozen=True)
class _Pair:
    """The rows of two methods that can be compared; tasks, seeds and items that one lacks are out.

    left_out: reason -> row numbers; metric: one that is recomputed from labels and predictions.
    """

    method: str
    baseline: str
    frame: pd.DataFrame
    tasks: tuple[str, ...]
    left_out: dict[str, pd.Index]
    metric: str = ""

    @classmethod
    def of(cls, frame: pd.DataFrame, method: str, baseline: str, metric: str = "") -> "_Pair":
        rows = frame[frame["method"].isin((method, baseline))]
        sides = rows.groupby("task")["method"].nunique()
        both = rows[rows["task"].isin(sides.index[sides == 2])]
        if both.empty:
            raise InputError(f"{method} and {baseline} share no task")
        runs = both[["task", "method", "seed"]].drop_duplicates()
        count = runs.groupby("seed").size()
        full = count.index[count == 2 * runs["task"].nunique()]
        whole = shared = both[both["seed"].isin(full)]
        if "item" in frame and len(full):
            times = shared.groupby(["task", "item"])["score"].transform("size")
            whole = shared[times == 2 * len(full)]
            _refuse_lost_tasks(shared, whole, method, baseline)
        left_out = {
            "of a task that one side lacks": rows.index.difference(both.index),
            "of a seed that some run lacks": both.index.difference(shared.index),
            "of an item that some run lacks": shared.index.difference(whole.index),
        }
        tasks = tuple(sorted(both["task"].unique()))
        return cls(method, baseline, whole, tasks, left_out, metric)

    def compare(self, task: str | None = None) -> Comparison:
        """Pooled, or one task."""
        rows = self.frame if task is None else self.frame[self.frame["task"] == task]
        one_seed = self.frame["seed"].nunique() == 1
        how = by_seed if "item" not in rows else by_item if one_seed else compare
        if not self.metric:
            return how(rows, self.method, self.baseline)
        found = how(with_influence(rows, self.metric), self.method, self.baseline)
        return replace(found, test=f"{self.metric} by the items' influence; {found.test}")

    def by_task(self) -> tuple[list[Comparison], list[str]]:
        """One comparison a task, where there are several; and why a task has none."""
        found, lost = [], []
        for task in self.tasks if len(self.tasks) > 1 else ():
            try:
                found.append(self.compare(task))
            except InputError as error:
                lost.append(f"{self.method}, {task}: no line of its own, {error}")
        return found, lost


def _counted(pairs: Sequence[_Pair]) -> tuple[int, dict[str, int]]:
    """Rows that some comparison used, and rows that none did, by the first reason against them."""
    reasons: dict[int, str] = {}
    for pair in pairs:
        for reason, rows in pair.left_out.items():
            reasons |= dict.fromkeys(rows.difference(list(reasons)), reason)
    used = pairs[0].frame.index
    for pair in pairs[1:]:
        used = used.union(pair.frame.index)
    left = pd.Series(reasons, dtype=object).drop(labels=used, errors="ignore")
    return len(used), {str(reason): int(n) for reason, n in left.value_counts().items()}


def _methods(frame: pd.DataFrame, baseline: str, primary: Sequence[str]) -> list[str]:
    known = list(dict.fromkeys(frame["method"]))
    for name, value in (("baseline", baseline), *(("primary", one) for one in primary)):
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


def _rest(methods: Sequence[str], first: Sequence[str]) -> list[str]:
    return [method for method in methods if method not in first]


def _refuse_lost_tasks(
    shared: pd.DataFrame, whole: pd.DataFrame, method: str, baseline: str
) -> None:
    lost = set(shared["task"].unique()) - set(whole["task"].unique())
    if lost:
        task = min(lost)
        sizes = shared[shared["task"] == task].groupby("run_id").size()
        raise InputError(
            f"{method} and {baseline} share no item of {task} that every run has; "
            f"{sizes.idxmin()} has the fewest, {sizes.min()}"
        )


def _line(found: Comparison, p: float, margin: float, correction: str, family: int) -> Line:
    # A verdict's plan divides by the items; a table of metrics has none, and scales by seeds alone.
    judged = replace(found, p_holm=p, family=family, n_items=max(1, found.n_items))
    return Line(found, verdict(judged, margin), p, correction)


def _fallbacks(found: Sequence[Comparison]) -> list[str]:
    """What is not the primary analysis, said plainly."""
    notes = []
    if not found[0].n_items:
        notes.append("no items: seeds alone are compared, the test items are held fixed")
    elif any(one.n_seeds == 1 for one in found):
        notes.append(
            "one seed: this speaks of these trained models, not of the methods; only more seeds "
            "can say whether a new training run would repeat it"
        )
    return notes
