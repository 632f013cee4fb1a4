"""The ordered rule that assigns a verdict to a comparison.

0. More than one in ten runs of the baseline collapsed (`find_collapsed`): *no test: the control
   collapsed*. To beat runs that learned nothing shows nothing.
1. The superiority test at α, corrected over its family (Holm for the primary one, Benjamini and
   Hochberg for secondary ones): *better* or *worse*; with *by less than the margin* where the tests
   of step 2 reject too.
2. Otherwise two one-sided tests (Schuirmann 1987) at α, that the difference lies inside ± the
   margin: *equivalent*.
3. Otherwise *inconclusive*; `required_design` gives the seeds and items that would decide it.

Step 2 needs no correction for step 1: no difference is both 0 and beyond the margin, so at most one
of the two null hypotheses is true. Intervals shown beside a verdict are not adjusted.
"""

from dataclasses import dataclass

from scipy import stats

from geodistill.analysis.stats.collapse import TOLERATED
from geodistill.analysis.stats.compare import Comparison
from geodistill.analysis.stats.power import smallest_sufficient
from geodistill.errors import InputError

BETTER, WORSE, EQUIVALENT, INCONCLUSIVE = "better", "worse", "equivalent", "inconclusive"
SLIGHTLY_BETTER, SLIGHTLY_WORSE = (f"{word} by less than the margin" for word in (BETTER, WORSE))
NO_TEST = "no test: the control collapsed"
WORDS = (BETTER, WORSE, SLIGHTLY_BETTER, SLIGHTLY_WORSE, EQUIVALENT, INCONCLUSIVE, NO_TEST)
MAX_FACTOR = 10_000
"""Designs more than this many times as large as the present one are not reported."""


@dataclass(frozen=True)
class RequiredDesign:
    """Designs that rule out an inconclusive verdict, whatever the estimate.

    Attributes:
        seeds: number of seeds with the present items; None if no number within reach is enough.
        items: number of items with the present seeds; None likewise.
        both: (seeds, items) of the present design scaled in proportion; None likewise.
    """

    seeds: int | None
    items: int | None
    both: tuple[int, int] | None

    def __str__(self) -> str:
        options = {
            "seeds": self.seeds and f"{self.seeds:,} seeds with these items",
            "items": self.items and f"{self.items:,} items with these seeds",
            "both": self.both and f"{self.both[0]:,} seeds × {self.both[1]:,} items",
        }
        enough = [option for option in options.values() if option]
        if not enough:
            return "more than any number of seeds or items within reach"
        short = [f"more {name} alone" for name in ("seeds", "items") if not options[name]]
        note = f" ({' or '.join(short)}: not enough)" if short else ""
        return ", or ".join(enough) + note


@dataclass(frozen=True)
class Verdict:
    """The verdict on one comparison.

    Attributes:
        word: one of `WORDS`.
        p_equivalent: p of the two one-sided tests.
    """

    word: str
    p_equivalent: float


def p_equivalent(comparison: Comparison, margin: float) -> float:
    """TOST: the larger p of the two tests that the difference is beyond −margin or +margin."""
    nearest = (margin - abs(comparison.estimate)) / comparison.se
    return float(stats.t.sf(nearest, comparison.df))


def verdict(comparison: Comparison, margin: float, alpha: float = 0.05) -> Verdict:
    """The verdict of the rule on one comparison.

    Args:
        comparison: whose adjusted p-value counts, if it belongs to a family.
        margin: smallest difference that matters, above 0, in the unit of the score.
        alpha: level of each test, in (0, 1).

    Raises:
        InputError: a margin that is not above 0 and finite, or an alpha outside (0, 1).

    Example:
        >>> from geodistill.analysis import compare, simulate_items, verdict
        >>> items = simulate_items({"kd": 0.0, "new": 0.2})
        >>> verdict(compare(items, "new", "kd"), margin=0.01).word
        'better'
    """
    _check_rule(margin, alpha)
    p_tost = p_equivalent(comparison, margin)
    if comparison.baseline_collapsed > TOLERATED:
        return Verdict(NO_TEST, p_tost)
    if comparison.p_adjusted <= alpha:
        words = (SLIGHTLY_BETTER, SLIGHTLY_WORSE) if p_tost <= alpha else (BETTER, WORSE)
        return Verdict(words[0 if comparison.estimate > 0 else 1], p_tost)
    return Verdict(EQUIVALENT if p_tost <= alpha else INCONCLUSIVE, p_tost)


def required_design(comparison: Comparison, margin: float, alpha: float = 0.05) -> RequiredDesign:
    """The smallest designs whose intervals are too short to contain both 0 and a margin.

    That is t(1 − α/2m)·se + t(1 − α)·se ≤ margin for m tests in the family, from the variance
    components measured here: a plan with their uncertainty, not a guarantee.

    Args:
        comparison: with the present seeds, items and variance components.
        margin: smallest difference that matters, above 0, in the unit of the score.
        alpha: level of each test, in (0, 1).

    Raises:
        InputError: as `verdict`.

    Example:
        >>> from geodistill.analysis import compare, required_design, simulate_items
        >>> items = simulate_items({"kd": 0.0, "new": 0.0})
        >>> print(required_design(compare(items, "new", "kd"), margin=0.06))
        563 items with these seeds, or 16 seeds × 320 items (more seeds alone: not enough)
    """
    _check_rule(margin, alpha)
    parts, seeds, items = comparison.components, comparison.n_seeds, comparison.n_items

    def enough(n_seeds: int, times: float) -> bool:
        df = parts.df(n_seeds, times)
        t = stats.t.ppf(1 - alpha / (2 * comparison.family), df) + stats.t.ppf(1 - alpha, df)
        return bool(t * parts.variance(n_seeds, times) ** 0.5 <= margin)

    more_seeds = smallest_sufficient(lambda n: enough(n, 1.0), seeds, MAX_FACTOR * seeds)
    more_items = smallest_sufficient(lambda n: enough(seeds, n / items), items, MAX_FACTOR * items)
    scaled = smallest_sufficient(lambda n: enough(n, n / seeds), seeds, MAX_FACTOR * seeds)
    both = None if scaled is None else (scaled, -(-items * scaled // seeds))
    return RequiredDesign(more_seeds, more_items, both)


def _check_rule(margin: float, alpha: float) -> None:
    if not 0 < margin < float("inf"):
        raise InputError(
            f"margin is {margin}; it must be above 0 and finite, in the unit of the score"
        )
    if not 0 < alpha < 1:
        raise InputError(f"alpha is {alpha}; it must lie between 0 and 1, such as 0.05")
