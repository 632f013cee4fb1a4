"""Differences with a known truth, to judge the judges: coverage and errors of any interval."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from geodistill.analysis.stats import sensitivity
from geodistill.analysis.stats.bootstrap import bootstrap_means
from geodistill.analysis.stats.crossed_anova import Array, estimate
from geodistill.errors import InputError

COMMAND = "python -m geodistill.experiments.coverage"
STORED = Path(__file__).resolve().parents[3] / "data" / "results" / "coverage" / "rows.csv"
Interval = Callable[[Array], tuple[float, float]]


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
    interval: Interval,
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


def power(
    truth: Truth, n_seeds: int, n_items: int, repeats: int, rng: np.random.Generator
) -> float:
    """Share of `repeats` new experiments whose primary test rejects no difference at 5 %."""
    draws = (truth.draw(rng, n_seeds, n_items) for _ in range(repeats))
    return sum(estimate([table]).p <= 0.05 for table in draws) / repeats


def _primary(table: Array) -> tuple[float, float]:
    found = estimate([table])
    return found.low, found.high


def _seeds_only(table: Array) -> tuple[float, float]:
    found = sensitivity.over_seeds(table)
    return found.low, found.high


def _items_only(table: Array) -> tuple[float, float]:
    found = sensitivity.over_items(table)
    return found.low, found.high


INTERVALS: dict[str, Interval] = {
    "primary": _primary,
    "seeds only": _seeds_only,
    "items only": _items_only,
    "bootstrap, naive": lambda table: bootstrap_means([table], 300).interval(corrected=False),
    "bootstrap, corrected": lambda table: bootstrap_means([table], 300).interval(),
}
N_ITEMS, N_SEEDS = 100, (5, 10)
# Seeds of no, little, like and large weight beside 100 items; and mostly seed × item noise, where
# the naive bootstrap triples it.
TRUTHS = (
    *(Truth(seed=seed) for seed in (0.0, 0.01, 0.05, 0.2)),
    Truth(seed=0.02, item=0.05, residual=0.3),
)
EFFECTS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.14)


def rows(repeats: int = 2000, effects: tuple[float, ...] = EFFECTS) -> Iterator[dict[str, object]]:
    """The committed rows: coverage by interval, design and truth, then a power curve.

    Each has its own random stream, named by what it measures; `error` is the binomial standard
    error of `share`. The bootstraps are tried in a quarter of the repeats.
    """
    for n_seeds in N_SEEDS:
        for truth in TRUTHS:
            for name, interval in INTERVALS.items():
                times = repeats // 4 if name.startswith("bootstrap") else repeats
                rng = _stream(name, n_seeds, truth)
                share = coverage(interval, truth, n_seeds, N_ITEMS, times, rng)
                yield _row("coverage", name, n_seeds, truth, times, share)
        for effect in effects:
            truth = Truth(effect=effect, seed=0.03)
            rng = _stream("power", n_seeds, truth)
            share = power(truth, n_seeds, N_ITEMS, repeats, rng)
            yield _row("power", "primary", n_seeds, truth, repeats, share)


def _stream(name: str, n_seeds: int, truth: Truth) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(f"{name} {n_seeds} {truth}".encode()))


def _row(
    quantity: str, interval: str, n_seeds: int, truth: Truth, repeats: int, share: float
) -> dict[str, object]:
    error = round((share * (1 - share) / repeats) ** 0.5, 5)
    design = {"n_seeds": n_seeds, "n_items": N_ITEMS, **asdict(truth)}
    outcome = {"repeats": repeats, "share": share, "error": error}
    return {"quantity": quantity, "interval": interval, **design, **outcome}


def stored() -> pd.DataFrame:
    """The committed simulation of this checkout, as `rows` makes it.

    Raises InputError where the package lies apart from its checkout.
    """
    if not STORED.is_file():
        raise InputError(f"no simulated rows at {STORED}: make them with `{COMMAND}`")
    return pd.read_csv(STORED)
