"""Planning: how many seeds and items show a gain, and the least gain that a design can see.

Everything follows from `Components`, the three parts of the variance of a paired difference: given
as standard deviations, or measured on pilot rows. More items remove the item and the residual
part, more seeds the seed and the residual part; nothing removes a part by the other's means.
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
RTE_DEV = 277  # sentence pairs in RTE's development set, on which GLUE papers compare methods
MOST_ITEMS, MOST_SEEDS = 10_000_000, 10_000  # beyond these no number is said


@dataclass(frozen=True)
class Design:
    """A planned comparison: `seeds` shared runs of both methods, `items` test items over all tasks.

    components: as measured at `measured` items; tests: how many superiority tests share the error
    (each is planned at alpha / tests, Holm's first and hardest step); power: wanted, in (0, 1).
    """

    components: Components
    measured: int
    seeds: int
    items: int
    tests: int = 1
    power: float = 0.8
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if self.seeds < 2 or self.items < 2 or self.tests < 1:
            raise InputError(
                f"a design needs 2 or more seeds and items and 1 or more tests; got {self.seeds} "
                f"seeds, {self.items} items, {self.tests} tests"
            )
        for name in ("power", "alpha"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")

    def se(self, seeds: int, items: int) -> float:
        """Standard error of the mean difference of so many seeds and items."""
        return math.sqrt(self.components.variance(seeds, items / self.measured))

    def chance(self, gain: float, seeds: int, items: int) -> float:
        """Power of the two-sided t-test against a true `gain` > 0, in [0, 1].

        By noncentral F, the law of t²: scipy's noncentral t gives nan far out.
        """
        df = self.components.df(seeds, items / self.measured)
        edge = stats.t.ppf(1 - self.alpha / (2 * self.tests), df)
        return float(stats.ncf.sf(edge**2, 1, df, (gain / self.se(seeds, items)) ** 2))

    def smallest_gain(self) -> float:
        """The least true difference found with the wanted power; inf beyond 1,000 se."""
        se = self.se(self.seeds, self.items)

        def lacking(times: float) -> float:
            return self.chance(times * se, self.seeds, self.items) - self.power

        return (
            float(optimize.brentq(lacking, 0.01, 1000.0)) * se if lacking(1000.0) > 0 else math.inf
        )

    def items_for(self, gain: float, seeds: int) -> int | None:
        """The least items that show `gain` with `seeds` seeds; None where no number does."""
        return _least(lambda n: self.chance(gain, seeds, n) >= self.power, MOST_ITEMS)

    def seeds_for(self, gain: float, items: int) -> int | None:
        """The least seeds that show `gain` on `items` items; None where no number does."""
        return _least(lambda n: self.chance(gain, n, items) >= self.power, MOST_SEEDS)


def from_deviations(seed: float, item: float, residual: float) -> Components:
    """Components at one item from the standard deviations σ_A, σ_B, σ_E of the paired difference.

    Raises:
        InputError: a deviation below 0, or all of them 0.
    """
    given = {"seed": seed, "item": item, "residual": residual}
    for name, value in given.items():
        if not value >= 0:
            raise InputError(f"the {name} deviation is {value}; it must be 0 or more")
    if not any(given.values()):
        raise InputError("the deviations are all 0: nothing varies, so there is nothing to plan")
    return Components(seed**2, item**2, residual**2, df_item=1.0)


def from_pilot(answers: Sequence[Comparison]) -> tuple[Components, int]:
    """Components of the noisiest of some pilot comparisons, and the items they were measured at.

    A plan for a family has to serve its noisiest member. Five pilot seeds know σ²_A badly (a 95 %
    interval of its mean square spans a factor of 23), so a plan from them is a rough one.
    """
    noisiest = max(answers, key=lambda answer: answer.se)
    return noisiest.components, noisiest.n_items


def needed(design: Design, gains: Sequence[float] = GAINS) -> pd.DataFrame:
    """What shows each gain: `gain, power` of the design itself, `seeds` on its items, `items` with
    its seeds; NA where no number is enough.
    """
    lines = [
        {
            "gain": gain,
            "power": design.chance(gain, design.seeds, design.items),
            "seeds": design.seeds_for(gain, design.items),
            "items": design.items_for(gain, design.seeds),
        }
        for gain in gains
    ]
    return pd.DataFrame(lines).astype({"seeds": "Int64", "items": "Int64"})


def items_for_one_pair(
    gain: float, discordant: float = 0.15, power: float = 0.8, alpha: float = 0.05
) -> int:
    """Items at which McNemar's test of *two trained models* finds an accuracy `gain`.

    discordant: share of items on which exactly one of the two is right. Connor 1987, Biometrics 43,
    207-211. No seed is in it: it is the least that any comparison of accuracies must pay.

    Raises:
        InputError: a gain that such a share of discordant items cannot make.
    """
    if not 0 < gain <= discordant <= 1:
        raise InputError(
            f"gain is {gain} and discordant {discordant}; expected 0 < gain <= discordant <= 1"
        )
    wide, narrow = stats.norm.ppf(1 - alpha / 2), stats.norm.ppf(power)
    root = wide * math.sqrt(discordant) + narrow * math.sqrt(discordant - gain**2)
    return math.ceil(float(root / gain) ** 2)


def rule_of_thumb(gain: float = 0.02, discordant: float = 0.15) -> str:
    """The reckoning to do before any run, in words."""
    items = items_for_one_pair(gain, discordant)
    return (
        f"Rule of thumb: one pair of runs that disagree on {discordant:.0%} of the items needs "
        f"{items:,} items to show {100 * gain:g} points at 80 %; RTE's development set has "
        f"{RTE_DEV}. Averaging over seeds removes only the seed and the seed × item part of the "
        "noise; the items' own part needs items."
    )


def _least(enough: Callable[[int], bool], most: int) -> int | None:
    """The smallest n in 2..most with `enough(n)`; None if none.

    Power may fall again: with few seeds more items leave fewer degrees of freedom. So the first n
    on a geometric grid is sought, and then the least between it and its neighbour.
    """
    below = 1
    for step in range(math.ceil(math.log(most / 2, 1.2)) + 1):
        n = min(most, round(2 * 1.2**step))
        if enough(n):
            between = range(below + 1, n + 1)
            return between[bisect_left(between, True, key=enough)]
        below = n
    return None
