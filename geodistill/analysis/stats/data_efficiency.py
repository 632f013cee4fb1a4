"""Answers that are no difference of means: a term's worth in sentences, a part's share of a gain.

Both are found by asking a difference of means at each candidate value x, and keeping the values at
which it cannot be told from 0 (a confidence set by inversion of the test; for a ratio of two gains
that is Fieller's 1954 interval). The difference is linear in the items' scores, so it is judged as
every other: seeds and items crossed, Satterthwaite's t. Resampling five seeds would give shorter
intervals than five seeds can: the significance chapter counts how often those miss.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import brentq, isotonic_regression

from geodistill.analysis.figures.style import look
from geodistill.analysis.stats.compare import compare, paired_differences
from geodistill.analysis.stats.crossed_anova import (
    Array,
    Estimate,
    estimate,
    fold_sources,
    source_df,
)
from geodistill.errors import InputError

STEPS = 240
"""Candidates between the smallest and the largest number of sentences, equally far in its log."""
FARTHEST = 1e6


@dataclass(frozen=True)
class _Scores:
    """Folded scores of one method at one number of sentences, a (seeds, sources) table a task."""

    tables: list[Array]

    def mix(self, other: "_Scores", share: float) -> list[Array]:
        """(1 − share) of these scores and `share` of the others."""
        return [(1 - share) * a + share * b for a, b in zip(self.tables, other.tables, strict=True)]

    @property
    def mean(self) -> float:
        return float(np.mean([table.mean() for table in self.tables]))


def sentences_worth(
    items: pd.DataFrame,
    method: str,
    baseline: str = "kd",
    tasks: Sequence[str] | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """How many times the sentences the baseline needs to score as the method does with n of them.

    The baseline's curve is its mean score at each n, made monotone (isotonic regression) and joined
    by lines in log n. The interval holds the factors f at which the method at n and the baseline at
    f·n, between its neighbours on the raw curve, cannot be told apart.

    Args:
        items: as in `compare`, and `n_train`; both methods at two or more n with the same seeds.
        method: whose worth is asked.
        baseline: whose curve is the yardstick.
        tasks: to average over; all by default.
        level: of the two-sided interval.

    Returns:
        `n_train, factor, low, high, least, most`: a line an n. `least` and `most` are the factors
        that the measured curve reaches. `factor` is 0 where even the fewest sentences serve the
        baseline better, infinite where the most do not suffice; so are `low` and `high`.

    Raises:
        InputError: as `compare`; or fewer than two n.
    """
    names = sorted(items["task"].unique()) if tasks is None else list(tasks)
    sizes = sorted(items["n_train"].unique())
    if len(sizes) < 2:
        raise InputError(f"n_train is {sizes}; a curve needs at least two numbers of sentences")
    seeds, sources = _shared(items, (method, baseline), names)
    folded = {
        (one, n): _folded(items, one, n, names, seeds, sources)
        for one in (method, baseline)
        for n in sizes
    }
    dfs = [source_df(sources[name].tolist()) for name in names]
    curve = np.array([folded[baseline, n].mean for n in sizes])
    grid = np.exp(np.linspace(np.log(sizes[0]), np.log(sizes[-1]), STEPS + 1))
    yardstick = [_between(folded, baseline, sizes, x) for x in grid]
    lines = []
    for n in sizes:
        ours = folded[method, n].tables
        found = [
            estimate([a - b for a, b in zip(ours, theirs, strict=True)], level, dfs)
            for theirs in yardstick
        ]
        low, high = _confidence(grid, found)
        needed = _needed(np.array(sizes, dtype=float), curve, folded[method, n].mean)
        factors = (needed / n, low / n, high / n, sizes[0] / n, sizes[-1] / n)
        lines.append((n, *factors))
    return pd.DataFrame(lines, columns=["n_train", "factor", "low", "high", "least", "most"])


def say_factor(line: pd.Series) -> str:
    """A line of `sentences_worth` for a table: `2.1 (1.4 to more than 4)`."""

    def one(value: float) -> str:
        if np.isinf(value):
            return f"more than {line['most']:.3g}"
        return f"{value:.2g}" if value > 0 else f"less than {line['least']:.2g}"

    return f"{one(line['factor'])} ({one(line['low'])} to {one(line['high'])})"


def worth_table(items: pd.DataFrame, methods: Sequence[str], baseline: str = "kd") -> pd.DataFrame:
    """`sentences_worth` in words: a line a method and task, a column a number of sentences."""
    tasks = sorted(items["task"].unique())
    lines = []
    for method in methods:
        for name, asked in (("pooled", tasks), *((task, [task]) for task in tasks)):
            found = sentences_worth(items, method, baseline, asked)
            told = {f"with {line['n_train']:.0f}": say_factor(line) for _, line in found.iterrows()}
            lines.append({"method": look(method).label, "task": name, **told})
    return pd.DataFrame(lines)


@dataclass(frozen=True)
class Share:
    """A part's gain over the whole's. low, high: its interval, None where the whole's gain is not
    clearly above or below 0 and no share is said."""

    share: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.share is None or self.low is None or self.high is None:
            return "not said"
        return f"{self.share:.0%} ({self.low:.0%} to {self.high:.0%})"


def shares(
    controls: pd.DataFrame, against: pd.DataFrame, whole: str, baseline: str = "kd"
) -> pd.DataFrame:
    """`share_of_gain` in words, a line a control and weight factor.

    Args:
        controls: items of methods, and their `factor`.
        against: items of the whole and the baseline.
        whole: the method whose gain is the unit.
        baseline: over which all gain.
    """
    lines = []
    for (method, factor), rows in controls.groupby(["method", "factor"], sort=False):
        share = share_of_gain(pd.concat([rows, against]), str(method), whole, baseline)
        lines.append((look(str(method)).label, factor, str(share)))
    column = f"share of the gain of {look(whole).label}"
    table = pd.DataFrame(lines, columns=["control", "factor", column])
    return table.sort_values(["control", "factor"], ignore_index=True)


def share_of_gain(
    items: pd.DataFrame,
    part: str,
    whole: str,
    baseline: str = "kd",
    tasks: Sequence[str] | None = None,
    level: float = 0.95,
) -> Share:
    """Which share of the whole's gain over the baseline the part has.

    Args:
        items: as in `compare`.
        part: a method.
        whole: another one, whose gain is the unit.
        baseline: over which both gain.
        tasks: to average over; all by default.
        level: of the two-sided interval.

    Raises:
        InputError: as `compare`.
    """
    of_whole = compare(items, whole, baseline, tasks, level)
    if of_whole.low <= 0 <= of_whole.high:
        return Share(None)
    two = [paired_differences(items, name, baseline, tasks) for name in (part, whole)]
    seeds = set.intersection(*(set(next(iter(p.tables.values())).index) for p in two))
    kept = items[items["seed"].isin(seeds)]
    top, bottom = (paired_differences(kept, name, baseline, tasks) for name in (part, whole))
    dfs = list(top.df_sources.values())

    def outside(x: float) -> float:
        """Above 0 where the difference part − x · whole can be told from 0."""
        tables = [top.by_source[name] - x * bottom.by_source[name] for name in top.tables]
        found = estimate(tables, level, dfs)
        return max(found.low, -found.high)

    means = [np.mean([t.mean() for t in p.by_source.values()]) for p in (top, bottom)]
    ratio = float(means[0] / means[1])
    ends = [_end(outside, ratio, sign) for sign in (-1, 1)]
    return Share(ratio, *ends) if None not in ends else Share(None)


def _end(outside: Callable[[float], float], inside: float, sign: int) -> float | None:
    """Where `outside` turns positive on that side of a value inside; None if it never does."""
    step = 0.1
    while outside(inside + sign * step) < 0:
        step *= 2
        if step > FARTHEST:
            return None
    return float(brentq(outside, inside, inside + sign * step, xtol=1e-6))


def _shared(
    items: pd.DataFrame, methods: Sequence[str], tasks: Sequence[str]
) -> tuple[list[int], dict[str, pd.Series]]:
    """Seeds that every task, method and n has; and the source of each item, by task."""
    asked = items[items["method"].isin(methods) & items["task"].isin(tasks)]
    cells = asked.groupby(["task", "method", "n_train"])["seed"].agg(set)
    wanted = len(tasks) * len(methods) * asked["n_train"].nunique()
    if len(cells) < wanted:
        raise InputError(
            f"{' and '.join(methods)} have {len(cells)} of {wanted} cells of task, method and "
            "n_train; a curve needs them all"
        )
    seeds = sorted(set.intersection(*cells))
    if len(seeds) < 2:
        raise InputError(f"the methods share {len(seeds)} seeds; a curve needs at least 2")
    known = asked.drop_duplicates(["task", "item"]).set_index("item")
    return seeds, {name: known.loc[known["task"] == name, "source"].sort_index() for name in tasks}


def _folded(
    items: pd.DataFrame,
    method: str,
    n: int,
    tasks: Sequence[str],
    seeds: list[int],
    sources: dict[str, pd.Series],
) -> _Scores:
    here = items[(items["method"] == method) & (items["n_train"] == n)]
    tables = []
    for task in tasks:
        own = here[here["task"] == task].pivot(index="seed", columns="item", values="score")
        table = own.reindex(index=seeds, columns=sources[task].index)
        if table.isna().any(axis=None):
            raise InputError(f"{task}/{method} with {n} sentences lacks scores of some items")
        tables.append(fold_sources(table.to_numpy(np.float64), sources[task].tolist()))
    return _Scores(tables)


def _between(
    folded: dict[tuple[str, int], _Scores], baseline: str, sizes: Sequence[int], x: float
) -> list[Array]:
    """The baseline's scores at x sentences, on the line between its neighbours in log n."""
    logs = np.log(sizes)
    place = int(np.clip(np.searchsorted(logs, np.log(x)) - 1, 0, len(sizes) - 2))
    share = (np.log(x) - logs[place]) / (logs[place + 1] - logs[place])
    return folded[baseline, sizes[place]].mix(
        folded[baseline, sizes[place + 1]], float(np.clip(share, 0, 1))
    )


def _needed(sizes: Array, curve: Array, target: float) -> float:
    """The fewest sentences at which the monotone curve reaches the target; 0 or ∞ beyond it."""
    rising = np.asarray(isotonic_regression(curve).x)
    if target < rising[0]:
        return 0.0
    if target > rising[-1]:
        return float("inf")
    after = int(np.argmax(rising >= target))
    if after == 0:
        return float(sizes[0])
    share = (target - rising[after - 1]) / (rising[after] - rising[after - 1])
    logs = np.log(sizes)
    return float(np.exp(logs[after - 1] + share * (logs[after] - logs[after - 1])))


def _confidence(grid: Array, found: Sequence[Estimate]) -> tuple[float, float]:
    """From where on the falling difference may be 0, and up to where; 0 or ∞ beyond the ends."""
    lows = np.array([one.low for one in found])
    highs = np.array([one.high for one in found])
    from_here, so_far = np.flatnonzero(lows <= 0), np.flatnonzero(highs >= 0)
    low, high = float(grid[-1]), float(grid[0])  # where it never may be 0 on this side
    if len(from_here):
        low = _crossing(grid, lows, int(from_here[0]) - 1) if from_here[0] else 0.0
    if len(so_far):
        last = int(so_far[-1])
        high = _crossing(grid, highs, last) if last < len(grid) - 1 else float("inf")
    return low, high


def _crossing(grid: Array, values: Array, before: int) -> float:
    """Where a line from one candidate to the next crosses 0, in the log."""
    share = values[before] / (values[before] - values[before + 1])
    return float(grid[before] ** (1 - share) * grid[before + 1] ** share)
