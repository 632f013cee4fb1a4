"""Coverage of the 95 % intervals of `compare` for 2 to 10 seeds, in worlds that are not ideal.

Writes tests/montecarlo/few_seeds.csv and prints the table of book/compare.md (2 minutes):
`PYTHONPATH=tests python -m support.few_seeds`. tests/montecarlo/test_few_seeds.py checks both.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from geodistill.analysis.stats.crossed_anova import cluster_df, collapse_clusters, estimate
from support.montecarlo import binomial_error

STORED = Path(__file__).parents[1] / "montecarlo" / "few_seeds.csv"
N_SEEDS = (2, 3, 4, 5, 7, 10)
REPEATS = 2000
SEED_SD, ITEM_SD, RESIDUAL_SD = 0.05, 0.2, 0.3
COLLAPSE_RATE, COLLAPSE_LOSS = 0.1, 0.3


@dataclass(frozen=True)
class World:
    """A table of paired differences with the true mean 0.

    Attributes:
        sources: number of items of each source; one item each by default.
        n_tasks: tasks with the same items.
        has_items: whether scores are of items, not of runs.
        collapses: whether one run in ten loses much; the true mean includes them.
    """

    sources: tuple[int, ...] = (1,) * 60
    n_tasks: int = 1
    has_items: bool = True
    collapses: bool = False

    def draw(self, rng: np.random.Generator, n_seeds: int) -> np.ndarray:
        """Differences (tasks, seeds, items); of runs alone their means over fixed items."""
        n_items = sum(self.sources)
        by_source = ITEM_SD * rng.standard_normal(len(self.sources))
        seeds = SEED_SD * rng.standard_normal((self.n_tasks, n_seeds, 1))
        if self.collapses:
            collapsed = rng.random((1, n_seeds, 1)) < COLLAPSE_RATE
            seeds = seeds - COLLAPSE_LOSS * (collapsed - COLLAPSE_RATE)
        residual = RESIDUAL_SD * rng.standard_normal((self.n_tasks, n_seeds, n_items))
        if not self.has_items:
            return seeds + residual.mean(-1, keepdims=True)
        return seeds + np.repeat(by_source, self.sources) + residual


WORLDS = {
    "seeds × items": World(),
    "sources of 1 to 20 items": World(sources=(1,) * 10 + (2,) * 5 + (5,) * 4 + (20,)),
    "three prompts, one set of items": World(sources=(1,) * 30, n_tasks=3),
    "one run in ten collapses": World(collapses=True),
    "runs alone": World(has_items=False),
    "runs alone, one in ten collapses": World(has_items=False, collapses=True),
}


def interval(world: World, differences: np.ndarray) -> tuple[float, float]:
    """The interval that `compare` gives for (tasks, seeds, items), without its tables."""
    table = differences.mean(0)  # prompts that share items are averaged
    if not world.has_items:
        ends = stats.ttest_1samp(table[:, 0], 0).confidence_interval()
        return float(ends.low), float(ends.high)
    names = np.repeat(np.arange(len(world.sources)), world.sources).astype(str).tolist()
    result = estimate([collapse_clusters(table, names)], df_items=[cluster_df(names)])
    return result.low, result.high


def coverage(name: str, n_seeds: int, repeats: int) -> float:
    """Share of simulated tables whose interval contains the true difference, 0."""
    world = WORLDS[name]
    rng, hits = np.random.default_rng(zlib.crc32(f"{name} {n_seeds}".encode())), 0
    for _ in range(repeats):
        low, high = interval(world, world.draw(rng, n_seeds))
        hits += low <= 0 <= high
    return hits / repeats


def simulate(repeats: int = REPEATS) -> Iterator[dict[str, object]]:
    """One row per world and number of seeds; `error` is the binomial standard error."""
    for name in WORLDS:
        for n_seeds in N_SEEDS:
            share = coverage(name, n_seeds, repeats)
            error = round(binomial_error(share, repeats), 4)
            yield {"world": name, "n_seeds": n_seeds, "repeats": repeats, "coverage": share,
                   "error": error}  # fmt: skip


def page_table() -> str:
    """The stored coverage as the Markdown table of the page."""
    stored = pd.read_csv(STORED)
    wide = stored.pivot(index="world", columns="n_seeds", values="coverage").loc[list(WORLDS)]
    head = ["differences", *(f"{n} seeds" for n in wide.columns)]
    lines = [head, ["---"] * len(head)]
    lines += [[str(world), *(f"{share:.3f}" for share in row)] for world, row in wide.iterrows()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    pd.DataFrame(simulate()).to_csv(STORED, index=False)
    print(page_table())
