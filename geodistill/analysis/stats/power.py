"""Planning: seeds and items needed to detect a gain, and the smallest gain a design detects.

Everything follows from `Components`, the three variance components of a paired difference, given
as standard deviations or measured on pilot results. More items reduce the item and the residual
part, more seeds the seed and the residual part; neither reduces the other's own part.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
from scipy import optimize, stats

from geodistill.analysis.stats.compare import Comparison
from geodistill.analysis.stats.crossed_anova import Components
from geodistill.errors import InputError

GAINS = (0.005, 0.01, 0.02)
"""True gains to plan for by default: 0.5, 1 and 2 points of accuracy."""
RTE_DEV = 277
"""Sentence pairs in RTE's development set, on which GLUE papers compare methods."""
_MAX_GAIN = 1e100  # squares of larger ones overflow
_MIN_DEVIATION, _MAX_DEVIATION = 1e-50, 1e50  # and fourth powers of these
MAX_ITEMS, MAX_SEEDS = 10_000_000, 10_000
"""Larger designs are not reported."""


@dataclass(frozen=True)
class Design:
    """A planned comparison of two methods.

    Attributes:
        components: variance components of the paired difference, measured at `measured` items.
        measured: number of items at which `components` hold.
        seeds: shared runs of both methods, at least 2.
        items: test items over all tasks, at least 2.
        tests: number of superiority tests in the family; each is planned at alpha / tests, the
            first and hardest step of Holm's method.
        power: wanted power, in (0, 1).
        alpha: two-sided level of the family, in (0, 1).

    Raises:
        InputError: a number outside its range.

    Example:
        >>> from geodistill.analysis import Design, components_from_sd
        >>> design = Design(components_from_sd(0.01, 0.2, 0.3), 1, seeds=5, items=1000)
        >>> round(design.smallest_gain(), 3), design.items_for(0.02, seeds=5)
        (0.026, 2776)
    """

    components: Components
    measured: int
    seeds: int
    items: int
    tests: int = 1
    power: float = 0.8
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if self.measured < 1:
            raise InputError(f"measured is {self.measured}; expected 1 or more items")
        self._check_size(self.seeds, self.items)
        for name in ("power", "alpha"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")

    def _check_size(self, seeds: int, items: int) -> None:
        if seeds < 2 or items < 2 or self.tests < 1:
            raise InputError(
                f"a design needs 2 or more seeds and items and 1 or more tests; got {seeds} "
                f"seeds, {items} items, {self.tests} tests"
            )

    def se(self, seeds: int, items: int) -> float:
        """Standard error of the mean difference with so many seeds and items."""
        return math.sqrt(self.components.variance(seeds, items / self.measured))

    def power_at(self, gain: float, seeds: int, items: int) -> float:
        """Power of the two-sided t-test against a true `gain` > 0, in [0, 1].

        By the noncentral F distribution of t²: scipy's noncentral t returns nan far out.
        """
        self._check_size(seeds, items)
        df = self.components.df(seeds, items / self.measured)
        critical = stats.t.ppf(1 - self.alpha / (2 * self.tests), df)
        return float(stats.ncf.sf(critical**2, 1, df, (gain / self.se(seeds, items)) ** 2))

    def smallest_gain(self) -> float:
        """The smallest true difference detected with the wanted power; inf beyond 1,000 se."""
        se = self.se(self.seeds, self.items)

        def excess(times: float) -> float:
            return self.power_at(times * se, self.seeds, self.items) - self.power

        if excess(1000.0) <= 0:
            return math.inf
        return float(optimize.brentq(excess, 0.01, 1000.0)) * se

    def items_for(self, gain: float, seeds: int) -> int | None:
        """The fewest items that detect `gain` with `seeds` seeds; None if no number does."""
        return smallest_sufficient(
            lambda n: self.power_at(gain, seeds, n) >= self.power, 2, MAX_ITEMS
        )

    def seeds_for(self, gain: float, items: int) -> int | None:
        """The fewest seeds that detect `gain` on `items` items; None if no number does."""
        return smallest_sufficient(
            lambda n: self.power_at(gain, n, items) >= self.power, 2, MAX_SEEDS
        )


def components_from_sd(seed: float, item: float, residual: float) -> Components:
    """Components at one item from the standard deviations σ_A, σ_B, σ_E of the paired difference.

    Args:
        seed: σ_A ≥ 0, in the unit of the score.
        item: σ_B ≥ 0.
        residual: σ_E ≥ 0, of the seed × item residual.

    Raises:
        InputError: a deviation below 0, too large or small for its square, or all of them 0.

    Example:
        >>> from geodistill.analysis import components_from_sd
        >>> parts = components_from_sd(0.01, 0.2, 0.3)
        >>> round(parts.variance(n_seeds=5, times_items=1000) ** 0.5, 4)
        0.0088
    """
    deviations = {"seed": seed, "item": item, "residual": residual}
    for name, value in deviations.items():
        if value and not _MIN_DEVIATION <= value <= _MAX_DEVIATION:
            raise InputError(
                f"the {name} deviation is {value}; it must be 0, or lie between "
                f"{_MIN_DEVIATION:g} and {_MAX_DEVIATION:g}"
            )
    if not any(deviations.values()):
        raise InputError("the deviations are all 0: nothing varies, so there is nothing to plan")
    return Components(seed**2, item**2, residual**2, df_item=1.0)


def pilot_components(comparisons: Sequence[Comparison]) -> tuple[Components, int]:
    """Components of the noisiest of some pilot comparisons, and the items they were measured at.

    A plan for a family has to serve its noisiest member. Five pilot seeds measure σ²_A poorly (the
    95 % interval of its mean square spans a factor of 23), so a plan from them is a rough one.
    """
    noisiest = max(comparisons, key=lambda comparison: comparison.se)
    return noisiest.components, noisiest.n_items


def required_sizes(design: Design, gains: Sequence[float]) -> pd.DataFrame:
    """What each gain requires.

    Args:
        design: planned.
        gains: true differences, in the unit of the score.

    Returns:
        `gain`, the `power` of the design itself, `seeds` on its items and `items` with its seeds;
        NA where no number is enough.

    Raises:
        InputError: a gain that is not a finite number above 0.
    """
    for gain in gains:
        if not 0 < gain < _MAX_GAIN:
            raise InputError(f"gain is {gain:g}; it must be above 0 and below {_MAX_GAIN:g}")
    rows = [
        {
            "gain": gain,
            "power": design.power_at(gain, design.seeds, design.items),
            "seeds": design.seeds_for(gain, design.items),
            "items": design.items_for(gain, design.seeds),
        }
        for gain in gains
    ]
    return pd.DataFrame(rows).astype({"seeds": "Int64", "items": "Int64"})


def mcnemar_sample_size(gain: float, discordant: float = 0.15) -> int:
    """Items at which McNemar's test of *two trained models* detects a gain in accuracy.

    At 80 % power and a two-sided level of 5 % (Connor 1987, Biometrics 43, 207-211). Seeds do not
    enter: it is a lower bound for any comparison of accuracies.

    Args:
        gain: true difference of the accuracies, in (0, discordant].
        discordant: share of items on which exactly one of the two is right.

    Raises:
        InputError: a gain that such a share of discordant items cannot make.
    """
    if not 0 < gain <= discordant <= 1:
        raise InputError(
            f"gain is {gain} and discordant {discordant}; expected 0 < gain <= discordant <= 1"
        )
    z_alpha, z_power = stats.norm.ppf(0.975), stats.norm.ppf(0.8)
    root = z_alpha * math.sqrt(discordant) + z_power * math.sqrt(discordant - gain**2)
    return math.ceil(float(root / gain) ** 2)


def rule_of_thumb() -> str:
    """A sentence on the items that one pair of runs needs, for use before any run."""
    gain, discordant = 0.02, 0.15
    return (
        f"Rule of thumb: one pair of runs that disagree on {discordant:.0%} of the items needs "
        f"{mcnemar_sample_size(gain, discordant):,} items to detect {100 * gain:g} points at 80 % "
        f"power; RTE's development set has {RTE_DEV}. Averaging over seeds removes only the "
        "seed and the seed × item part of the noise; the items' own part needs items."
    )


def smallest_sufficient(enough: Callable[[int], bool], start: int, stop: int) -> int | None:
    """The smallest n in start..stop with `enough(n)`; None if there is none.

    Power may fall again: with few seeds, more items leave fewer degrees of freedom. So the first
    sufficient n on a geometric grid is located, and then the smallest between it and its neighbour.
    """
    previous = start - 1
    for step in range(math.ceil(math.log(stop / start, 1.2)) + 1):
        n = min(stop, round(start * 1.2**step))
        if enough(n):
            between = range(previous + 1, n + 1)
            return between[bisect_left(between, True, key=enough)]
        previous = n
    return None
