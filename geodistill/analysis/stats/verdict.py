"""One ordered rule from a comparison to a word.

1. The superiority test at α, corrected over its family (Holm for the primary one, Benjamini and
   Hochberg for secondary ones): *better* or *worse*; "by less than the margin" is added where the
   tests of step 2 say so too.
2. Else two one-sided tests (Schuirmann 1987) at α, that the difference lies inside ± the margin:
   *equivalent*.
3. Else *cannot tell*, with the seeds and items that would settle it.

Step 2 needs no correction for step 1: no difference is both 0 and beyond the margin, so at most one
of the two null hypotheses is true. Intervals shown beside a verdict are not adjusted.
"""

from collections.abc import Callable
from dataclasses import dataclass

from scipy import stats

from geodistill.analysis.stats.compare import Comparison
from geodistill.errors import InputError

BETTER, WORSE, EQUIVALENT, CANNOT_TELL = "better", "worse", "equivalent", "cannot tell"
WORDS = (BETTER, WORSE, EQUIVALENT, CANNOT_TELL)
MOST_TIMES = 10_000  # beyond so many times the present design, no number is said


@dataclass(frozen=True)
class Settle:
    """Designs after which the rule cannot answer "cannot tell", whatever the estimate.

    seeds: with the present items; items: with the present seeds; both: (seeds, items), the present
    design scaled up alike. None: no number in reach is enough.
    """

    seeds: int | None
    items: int | None
    both: tuple[int, int] | None

    def __str__(self) -> str:
        ways = {
            "seeds": self.seeds and f"{self.seeds:,} seeds with these items",
            "items": self.items and f"{self.items:,} items with these seeds",
            "both": self.both and f"{self.both[0]:,} seeds × {self.both[1]:,} items",
        }
        enough = [way for way in ways.values() if way]
        short = [f"more {name} alone" for name in ("seeds", "items") if not ways[name]]
        if not enough:
            return "more than any number of seeds or items in reach"
        beside = f" ({' or '.join(short)} would not do)" if short else ""
        return ", or ".join(enough) + beside


@dataclass(frozen=True)
class Verdict:
    """word: of WORDS; reason: the step of the rule that gave it; settle: for "cannot tell".

    by_less: better or worse, yet inside ± the margin.
    """

    word: str
    reason: str
    p_equivalent: float
    margin: float
    settle: Settle | None = None
    by_less: bool = False

    def __str__(self) -> str:
        return f"{self.word} by less than the margin" if self.by_less else self.word


def p_equivalent(answer: Comparison, margin: float) -> float:
    """TOST: the larger p of the two tests that the difference is beyond −margin or +margin."""
    nearest = (margin - abs(answer.estimate)) / answer.se
    return float(stats.t.sf(nearest, answer.df))


def verdict(answer: Comparison, margin: float, alpha: float = 0.05) -> Verdict:
    """The rule above for one comparison; `margin` > 0 in the score's unit, the least that matters.

    Raises:
        InputError: a margin that is not above 0.
    """
    if not margin > 0:
        raise InputError(f"margin is {margin}; it must be above 0, in the unit of the score")
    p, same = answer.p_decisive, p_equivalent(answer, margin)
    if p <= alpha:
        word = BETTER if answer.estimate > 0 else WORSE
        less = ", by less than the margin" if same <= alpha else ""
        reason = f"differs from 0{less} (p = {p:.2g})"
        return Verdict(word, reason, same, margin, by_less=same <= alpha)
    if same <= alpha:
        return Verdict(EQUIVALENT, f"lies inside ± the margin (TOST p = {same:.2g})", same, margin)
    reason = (
        f"neither differs from 0 (p = {p:.2g}) nor lies inside ± the margin (TOST p = {same:.2g})"
    )
    return Verdict(CANNOT_TELL, reason, same, margin, settle(answer, margin, alpha))


def settle(answer: Comparison, margin: float, alpha: float = 0.05) -> Settle:
    """The least designs whose intervals are too short to hold both 0 and a margin.

    That is t(1 − α/2m)·se + t(1 − α)·se ≤ margin, m tests in the family, from the variance
    components measured here: a plan that inherits their uncertainty, not a promise.
    """
    parts, seeds, items = answer.components, answer.n_seeds, answer.n_items

    def enough(n_seeds: int, times: float) -> bool:
        df = parts.df(n_seeds, times)
        t = stats.t.ppf(1 - alpha / (2 * answer.family), df) + stats.t.ppf(1 - alpha, df)
        return bool(t * parts.variance(n_seeds, times) ** 0.5 <= margin)

    more_seeds = _least(lambda n: enough(n, 1.0), seeds)
    more_items = _least(lambda n: enough(seeds, n / items), items)
    alike = _least(lambda n: enough(n, n / seeds), seeds)
    both = None if alike is None else (alike, -(-items * alike // seeds))
    return Settle(more_seeds, more_items, both)


def _least(enough: Callable[[int], bool], present: int) -> int | None:
    """The smallest n ≥ `present` with `enough(n)`, found by doubling; None if none is in reach."""
    if enough(present):
        return present
    low, high = present, 2 * present
    while not enough(high):
        low, high = high, 2 * high
        if high > MOST_TIMES * present:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
