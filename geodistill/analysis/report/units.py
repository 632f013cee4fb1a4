"""In what unit differences are printed, and the smallest difference that matters in each task."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from geodistill.analysis.metric_names import is_bounded, metric_key
from geodistill.analysis.report.format import POINTS, Unit
from geodistill.analysis.score_columns import join
from geodistill.analysis.score_tables import ScoreTable
from geodistill.analysis.stats.compare import Comparison
from geodistill.errors import InputError

UNITS = ("fraction", "percent", "raw", "relative")
"""Scores in 0..1, in 0..100, on one scale of their own, or on one scale in each task."""
Margins = float | str | Sequence[str | float] | None
POOLED_RATIO = 10.0
"""Tasks whose baseline means differ by a larger factor are compared by relative differences."""
SUSPECT_RATIO = 30.0
"""A method whose mean is this many times that of the baseline may be on another scale."""
RATING = 10
"""A metric called just `score` with values up to this is a rating, not a percentage."""
_PERCENT_POINTS = Unit("points", digits=1)


@dataclass(frozen=True)
class Scale:
    """The unit of the differences and the margin of each task.

    Attributes:
        unit: in which differences are printed.
        level_unit: in which levels are printed.
        divisors: by task, what its scores are divided by before they are compared.
        margins: by task, the smallest difference that matters, in the unit of the divided scores.
        words: the margin in words, with its numbers.
        notes: on scales, as sentences.
    """

    unit: Unit
    level_unit: Unit
    divisors: Mapping[str, float]
    margins: Mapping[str, float]
    words: str
    notes: tuple[str, ...] = ()

    def margin(self, comparison: Comparison) -> float:
        """The margin of a comparison: the mean over its tasks."""
        known = [self.margins[task] for task in comparison.tasks if task in self.margins]
        known = known or list(self.margins.values())  # tasks are the items of one comparison
        return math.fsum(known) / len(known)

    def divide(self, scores: ScoreTable) -> ScoreTable:
        """The table with each task's scores divided by its divisor."""
        if set(self.divisors.values()) == {1.0}:
            return scores
        divided = scores.frame["score"] / scores.frame["task"].map(self.divisors)
        return replace(scores, frame=scores.frame.assign(score=divided))


def infer_scale(
    scores: ScoreTable,
    baseline: str,
    margins: Margins = None,
    unit: str | None = None,
) -> Scale:
    """In what unit differences are printed, and the margin of each task.

    A known bounded metric whose values all lie in -1..1 is a fraction, one whose values lie in
    0..100 a percentage (one called just `score` only above 10: others are ratings); both are
    printed in points with a margin of one point. Other metrics are printed as they are, with a
    margin of 1 % of the baseline's mean in each task; where these means differ by more than a
    factor of 10, all differences are in per cent of the task's mean, since otherwise the largest
    task would dominate the mean over tasks. Means are of absolute values, so that rewards around 0
    have a scale too.

    Args:
        scores: the table.
        baseline: name of a method.
        margins: one or several, each a number, a per cent of the baseline's mean ("2%"), or either
            for one task ("TASK=0.5").
        unit: one of `UNITS`; by default inferred.

    Raises:
        InputError: a margin that is not a finite number above 0, is the metric's whole range or is
            of an unknown task; scores on different scales, which have no common mean; or an
            unknown unit.
    """
    if unit not in (None, *UNITS):
        raise InputError(f"unit is {unit!r}; expected one of {join(UNITS)}")
    margins = [margins] if isinstance(margins, (str, int, float)) else list(margins or ())
    of_baseline = scores.frame[scores.frame["method"] == baseline]
    means = of_baseline["score"].abs().groupby(of_baseline["task"]).mean()
    notes: list[str] = []
    _refuse_other_unit(scores, unit)
    if unit is None:
        unit, notes = _infer_unit(scores, baseline, means)
    divisors = dict.fromkeys(scores.frame["task"].unique().tolist(), 1.0)
    if unit in ("fraction", "percent"):
        printed = POINTS if unit == "fraction" else _PERCENT_POINTS
        by_task = _parse_margins(margins, means, divisors, 1 / printed.factor)
        refuse_whole_range("margin", max(by_task.values()), printed)
        return Scale(printed, printed, divisors, by_task, _words(by_task, printed, margins))
    digits = 2 - math.floor(math.log10(means[means > 0].min())) if (means > 0).any() else 3
    raw = Unit(scores.metric, digits=max(3, digits))
    if unit == "relative":
        if (means == 0).any():
            raise InputError(
                f"{baseline}'s mean in {means.idxmin()} is 0, and no difference is a per cent of "
                "that: choose tasks by --task, or --unit raw"
            )
        divisors = {task: float(means.get(task, 1.0)) for task in divisors}
        printed = Unit(f"% of {baseline}'s {scores.metric}", factor=100.0)
        _refuse_absolute(margins, baseline, means)
        by_task = _parse_margins(margins, means, divisors, 0.01)
        parts = (f"{task} {by_task[task] * divisors[task]:.3g}" for task in means.index)
        words = f"{_words(by_task, printed, margins)}; these are {join(parts)}"
        return Scale(printed, raw, divisors, by_task, words, tuple(notes))
    by_task = _parse_margins(margins or ["1%"], means, divisors, 0.01)
    words = _words(by_task, raw, margins)
    if not margins:
        words = f"1 % of {baseline}'s mean: {words}"
    return Scale(raw, raw, divisors, by_task, words, tuple(notes))


def _infer_unit(
    scores: ScoreTable, baseline: str, means: "pd.Series[float]"
) -> tuple[str, list[str]]:
    """One of `UNITS`, and notes on it."""
    values = scores.frame["score"]
    if is_bounded(scores.metric):
        _refuse_different_runs(scores.frame, scores.metric)
        _refuse_different_scales(scores.frame, scores.metric)
        if values.abs().max() <= 1:
            return "fraction", []
        smallest = RATING if metric_key(scores.metric) == "score" else 1
        if smallest < values.abs().max() <= 100 and values.min() >= 0:
            return "percent", []
    notes = []
    by_method = values.abs().groupby([scores.frame["task"], scores.frame["method"]]).mean()
    for task, method, mean in by_method.reset_index().itertuples(index=False):
        if (of_baseline := means.get(task, 0.0)) and mean and method != baseline:
            ratio = mean / of_baseline
            if not 1 / SUSPECT_RATIO < ratio < SUSPECT_RATIO:
                notes.append(
                    f"{task}: {method}'s mean is {ratio:.3g} times {baseline}'s: are both on one "
                    "scale?"
                )
    known = means[means > 0]
    if len(known) and len(means) > 1 and known.max() > POOLED_RATIO * known.min():
        notes.append(
            f"the scales of tasks differ: {baseline}'s mean is {known.min():.3g} in "
            f"{known.idxmin()} and {known.max():.3g} in {known.idxmax()}; so all differences are "
            "in % of the task's mean (--unit raw pools them as they are)"
        )
        return "relative", notes
    return "raw", notes


def _refuse_other_unit(scores: ScoreTable, unit: str | None) -> None:
    """Raise InputError if scores cannot be in the unit that is named for them."""
    sizes, bounded = scores.frame["score"].abs(), is_bounded(scores.metric)
    size = sizes.max() if bounded else sizes.mean()  # some error rates of items are above 1
    if unit == "fraction" and size > 1:
        expected = "scores in 0 to 1; choose --unit percent or raw"
    elif unit == "percent" and bounded and size <= 1:
        expected = "scores in 0 to 100; choose --unit fraction or raw"
    else:
        return
    raise InputError(
        f"unit is {unit!r}, but {scores.metric} goes up to {size:.3g}: expected {expected}"
    )


def _refuse_different_runs(frame: pd.DataFrame, metric: str) -> None:
    """Raise InputError if one run of a method lies in 0..1 and another is far above it."""
    runs = frame["score"].abs().groupby([frame[name] for name in ("task", "method", "seed")])
    sizes = runs.max().reset_index()
    small, large = sizes[sizes["score"].between(0, 1, "right")], sizes[sizes["score"] > 1]
    pairs = small.merge(large, on=["task", "method"])
    far = pairs[pairs["score_y"] > SUSPECT_RATIO * pairs["score_x"]]
    for task, method, seed, score, other_seed, other in far.head(1).itertuples(index=False):
        raise InputError(
            f"{metric} of {task}: {method} has {score:.3g} with seed {seed} and {other:.3g} with "
            f"seed {other_seed}: expected one scale; if it is one, say which by --unit percent or "
            "raw"
        )


def _refuse_different_scales(frame: pd.DataFrame, metric: str) -> None:
    """Raise InputError if only some scores lie in 0..1: the others would dominate every mean."""
    ends = frame.groupby(["task", "method"])["score"].agg(["min", "max"]).reset_index()
    largest = ends[["min", "max"]].abs().max(axis=1)
    small, large = ends[(largest <= 1) & (largest > 0)], ends[largest > 1]
    if small.empty or large.empty:
        return
    mixed = set(small["task"]) & set(large["task"])
    if mixed:
        task = min(mixed)
        first, second = (part[part["task"] == task].iloc[0] for part in (small, large))
        raise InputError(
            f"{metric} of {task}: {first['method']} lies in {_range(first)} and "
            f"{second['method']} in {_range(second)}: expected one scale; if it is one, say which "
            "by --unit percent or raw"
        )
    options = " ".join(f"--task {task}" for task in small["task"].unique())
    raise InputError(
        f"{metric} lies on one scale in some tasks and on another in others: {_span(large)}; "
        f"{_span(small)}: expected one; choose tasks by --task, as in {options}, or say which by "
        "--unit percent"
    )


def _span(ends: pd.DataFrame) -> str:
    names = join(ends["task"].unique(), 8)
    return f"{names} from {_range(ends.agg({'min': 'min', 'max': 'max'}))}"


def _range(ends: "pd.Series[float]") -> str:
    low, high = sorted((ends["min"] + 0.0, ends["max"] + 0.0))  # no minus zero
    return f"{low:.3g} to {high:.3g}"


def refuse_whole_range(option: str, difference: float, unit: Unit) -> None:
    """Raise InputError if a difference is 100 points or more: a per cent was probably meant."""
    if unit.name == "points" and difference * unit.factor >= 100:
        raise InputError(
            f"{option} is {difference:g}, all of the metric's range; expected it in the unit of "
            f"the score, such as {1 / unit.factor:g} for 1 point"
        )


def _refuse_absolute(
    margins: Sequence[str | float], baseline: str, means: "pd.Series[float]"
) -> None:
    for margin in margins:
        if "=" not in str(margin) and not str(margin).endswith("%"):
            raise InputError(
                f"margin {margin} is one number for tasks of different scales ({baseline}'s mean "
                f"is {means.min():.3g} to {means.max():.3g}): give a per cent of the mean, such as "
                "--margin 1%, or one for each task, --margin TASK=NUMBER"
            )


def _parse_margins(
    margins: Sequence[str | float],
    means: "pd.Series[float]",
    divisors: Mapping[str, float],
    default: float,
) -> dict[str, float]:
    """The margin of each task, in the unit of the divided scores."""
    result = dict.fromkeys(divisors, default)
    for margin in map(str, margins):
        tasks, text = split_task("margin", margin, list(divisors))
        number = parse_number(text.removesuffix("%"))
        if not 0 < number < math.inf:
            raise InputError(
                f"margin is {text}; it must be above 0 and finite, in the unit of the score or as "
                "a per cent of the baseline's mean"
            )
        for name in tasks:
            mean = float(means.get(name, 0.0))
            if text.endswith("%"):  # of a mean of 0: the only positive number at hand
                result[name] = number / 100 * (mean or 1.0) / divisors[name]
            else:
                result[name] = number / divisors[name]
    return result


def split_task(option: str, text: str, tasks: Sequence[str]) -> tuple[Sequence[str], str]:
    """The tasks that "TASK=VALUE" or "VALUE" is for, and the value.

    Raises:
        InputError: an unknown task.
    """
    task, _, value = text.rpartition("=")
    if task and task not in tasks:
        raise InputError(f"{option} {text!r}: no task {task!r}; the tasks are {join(tasks)}")
    return [task] if task else tasks, value


def parse_number(text: str) -> float:
    """The number that a text spells, nan if it spells none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _words(margins: Mapping[str, float], unit: Unit, margin_options: Sequence[str | float]) -> str:
    """The margin with its number; task by task where they differ."""
    texts = {task: f"{value * unit.factor:.3g}" for task, value in margins.items()}
    if len(set(texts.values())) == 1:
        number = next(iter(texts.values()))
        words = "1 point" if (number, unit.name) == ("1", "points") else f"{number} {unit.name}"
    else:
        words = join(f"{task} {text}" for task, text in texts.items())
    return words if margin_options else f"{words} (default; choose yours by --margin)"
