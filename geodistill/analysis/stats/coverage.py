"""Simulated differences with a known effect: coverage and error rates of the intervals."""

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from geodistill.analysis.stats import sensitivity
from geodistill.analysis.stats.bootstrap import two_way_bootstrap
from geodistill.analysis.stats.crossed_anova import Array, Estimate, estimate
from geodistill.errors import InputError
from geodistill.paths import data_dir

COMMAND = "python -m geodistill.experiments.coverage"
"""Makes the stored simulation."""
Interval = Callable[[Array], tuple[float, float]]
"""Maps a (seeds, items) table of differences to the ends of an interval."""


@dataclass(frozen=True)
class SimulationTruth:
    """The model D_si = effect + A_s + B_i + E_si with independent normal terms.

    Attributes:
        effect: true mean difference.
        seed: standard deviation of A, in the unit of the effect.
        item: standard deviation of B.
        residual: standard deviation of E.
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


def simulate_items(
    effects: Mapping[str, float], n_seeds: int = 5, n_items: int = 100, seed: int = 0
) -> pd.DataFrame:
    """Item scores of methods with known effects, for examples and trials of a planned analysis.

    Args:
        effects: true mean score by method.
        n_seeds: number of runs of each method.
        n_items: number of test items, the same for all methods.
        seed: of the random numbers.

    Returns:
        `run_id, task, method, seed, item, source, score`, one row per run and item.

    Example:
        >>> from geodistill.analysis import simulate_items
        >>> items = simulate_items({"kd": 0.0, "new": 0.1}, n_seeds=5, n_items=100)
        >>> items.groupby("method")["score"].agg(["size", "mean"]).round(1).loc["new"].tolist()
        [500.0, 0.1]
    """
    rng = np.random.default_rng(seed)
    axes = [list(effects), range(n_seeds), range(n_items)]
    index = pd.MultiIndex.from_product(axes, names=["method", "seed", "item"])
    items = index.to_frame(index=False)
    scores = [SimulationTruth(effect).draw(rng, n_seeds, n_items) for effect in effects.values()]
    run_id = items["method"] + "-" + items["seed"].astype(str)
    return items.assign(
        run_id=run_id, task="simulated", source=items["item"], score=np.ravel(scores)
    )


def interval_coverage(
    interval: Interval,
    truth: SimulationTruth,
    n_seeds: int,
    n_items: int,
    repeats: int,
    rng: np.random.Generator,
) -> float:
    """Share of simulated experiments whose interval contains the true effect, in [0, 1].

    Its Monte Carlo standard error at 95 % is √(0.95 · 0.05 / repeats). With effect 0, one minus it
    is the type I error rate.

    Args:
        interval: under test.
        truth: model of the differences.
        n_seeds: of each experiment.
        n_items: of each experiment.
        repeats: number of experiments.
        rng: random numbers.
    """
    hits = 0
    for _ in range(repeats):
        low, high = interval(truth.draw(rng, n_seeds, n_items))
        hits += low <= truth.effect <= high
    return hits / repeats


def rejection_rate(
    truth: SimulationTruth, n_seeds: int, n_items: int, repeats: int, rng: np.random.Generator
) -> float:
    """Share of simulated experiments in which the primary test rejects no difference at 5 %."""
    draws = (truth.draw(rng, n_seeds, n_items) for _ in range(repeats))
    return sum(estimate([table]).p <= 0.05 for table in draws) / repeats


def _ends(result: Estimate | sensitivity.TestResult) -> tuple[float, float]:
    return result.low, result.high


INTERVALS: dict[str, Interval] = {
    "primary": lambda table: _ends(estimate([table])),
    "seeds only": lambda table: _ends(sensitivity.paired_t_seeds(table)),
    "items only": lambda table: _ends(sensitivity.paired_t_items(table)),
    "bootstrap, naive": lambda table: two_way_bootstrap([table], 300).interval(corrected=False),
    "bootstrap, corrected": lambda table: two_way_bootstrap([table], 300).interval(),
}
N_ITEMS, N_SEEDS = 100, (5, 10)
# Seed effects of zero, small, similar and large weight beside 100 items; and mostly seed × item
# noise, which the naive bootstrap triples.
TRUTHS = (
    *(SimulationTruth(seed=seed) for seed in (0.0, 0.01, 0.05, 0.2)),
    SimulationTruth(seed=0.02, item=0.05, residual=0.3),
)
EFFECTS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.14)


def simulate_rows(
    repeats: int = 2000, effects: tuple[float, ...] = EFFECTS
) -> Iterator[dict[str, object]]:
    """The stored rows: coverage by interval, design and truth, then a power curve.

    Each has its own random stream; `error` is the binomial standard error of `share`.

    Args:
        repeats: experiments per row; a quarter of it for the bootstraps.
        effects: true effects of the power curve.
    """
    for n_seeds in N_SEEDS:
        for truth in TRUTHS:
            for name, interval in INTERVALS.items():
                times = repeats // 4 if name.startswith("bootstrap") else repeats
                rng = _stream(name, n_seeds, truth)
                share = interval_coverage(interval, truth, n_seeds, N_ITEMS, times, rng)
                yield _row("coverage", name, n_seeds, truth, times, share)
        for effect in effects:
            truth = SimulationTruth(effect=effect, seed=0.03)
            rng = _stream("power", n_seeds, truth)
            share = rejection_rate(truth, n_seeds, N_ITEMS, repeats, rng)
            yield _row("power", "primary", n_seeds, truth, repeats, share)


def _stream(name: str, n_seeds: int, truth: SimulationTruth) -> np.random.Generator:
    former_name = repr(truth).removeprefix("Simulation")  # the stored rows were drawn under it
    return np.random.default_rng(zlib.crc32(f"{name} {n_seeds} {former_name}".encode()))


def _row(
    quantity: str, interval: str, n_seeds: int, truth: SimulationTruth, repeats: int, share: float
) -> dict[str, object]:
    error = round((share * (1 - share) / repeats) ** 0.5, 5)
    design = {"n_seeds": n_seeds, "n_items": N_ITEMS, **asdict(truth)}
    outcome = {"repeats": repeats, "share": share, "error": error}
    return {"quantity": quantity, "interval": interval, **design, **outcome}


def stored_path() -> Path:
    """Where the stored simulation is."""
    return data_dir() / "results" / "coverage" / "rows.csv"


def load_simulation() -> pd.DataFrame:
    """The stored simulation, with the columns of `simulate_rows`.

    Raises:
        InputError: there is none.
    """
    if not stored_path().is_file():
        raise InputError(f"no simulated rows at {stored_path()}: make them with `{COMMAND}`")
    return pd.read_csv(stored_path())
