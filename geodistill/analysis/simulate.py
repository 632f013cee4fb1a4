"""Differences with a known truth, to judge the judges: coverage and errors of any interval."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from geodistill.analysis.crossed import Array


@dataclass(frozen=True)
class Truth:
    """A world in which the answer is known: D_si = effect + A_s + B_i + E_si, all normal.

    seed, item, residual: standard deviations of A, B and E, in the unit of the effect.
    """

    effect: float = 0.0
    seed: float = 0.01
    item: float = 0.2
    residual: float = 0.3

    def draw(self, rng: np.random.Generator, n_seeds: int, n_items: int) -> Array:
        """One (seeds, items) table of paired differences."""
        seeds = self.seed * rng.standard_normal((n_seeds, 1))
        items = self.item * rng.standard_normal((1, n_items))
        rest = self.residual * rng.standard_normal((n_seeds, n_items))
        return np.asarray(self.effect + seeds + items + rest)


def coverage(
    interval: Callable[[Array], tuple[float, float]],
    truth: Truth,
    n_seeds: int,
    n_items: int,
    repeats: int,
    rng: np.random.Generator,
) -> float:
    """Share of `repeats` new experiments whose interval holds the true effect, in [0, 1].

    Its Monte Carlo standard error at 95 % is √(0.95 · 0.05 / repeats). With effect 0, one minus it
    is the rate of false alarms.
    """
    hits = 0
    for _ in range(repeats):
        low, high = interval(truth.draw(rng, n_seeds, n_items))
        hits += low <= truth.effect <= high
    return hits / repeats
