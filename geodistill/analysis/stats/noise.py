"""What the noise of a comparison is made of: which sentences were drawn, and which start was.

Subsamples a and starts b of a task are crossed, one run a cell:

    y_ab = μ + A_a + B_b + E_ab,   variances σ²_A, σ²_B, σ²_E,

E with the interplay of both and all else that a run draws. The mean squares of the balanced table
give the three (method of moments; Searle, Casella, McCulloch, *Variance Components*, ch. 4). Test
items are the same in all runs: their noise comes on top.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from geodistill.analysis.stats.crossed_anova import mean_squares
from geodistill.errors import InputError

PARTS = ("subsample", "start", "rest")


@dataclass(frozen=True)
class Noise:
    """Variances of a run's score by what draws it, averaged over tasks; negative ones are set to 0.

    p_subsample, p_start: of the F tests that the part is 0; df: degrees of freedom of the three
    mean squares (subsample, start, rest).
    """

    subsample: float
    start: float
    rest: float
    p_subsample: float
    p_start: float
    df: tuple[int, int, int]

    @property
    def total(self) -> float:
        """Variance of one run whose subsample and start are both new."""
        return self.subsample + self.start + self.rest

    def say(self, factor: float) -> str:
        """The three variances of the score times `factor`, in words."""
        return ", ".join(f"{part} {factor**2 * getattr(self, part):.2f}" for part in PARTS)

    def of_mean(self, subsamples: int, starts: int) -> float:
        """Variance of the mean over a crossed design of that size."""
        return self.subsample / subsamples + self.start / starts + self.rest / (subsamples * starts)


def noise(runs: pd.DataFrame) -> Noise:
    """The parts of the variance of `score`, from crossed subsamples and starts.

    Args:
        runs: `task, seed, start_seed, score`: one row a run; the seed draws the subsample.

    Raises:
        InputError: a cell without a run, or with two; fewer than two subsamples or starts.
    """
    squares = []
    for task, own in runs.groupby("task"):
        if own.duplicated(["seed", "start_seed"]).any():
            raise InputError(f"{task} has two runs of one subsample and start; give one method's")
        table = own.pivot(index="seed", columns="start_seed", values="score")
        if table.isna().any(axis=None) or min(table.shape) < 2:
            raise InputError(
                f"{task} has {len(own)} runs in a table of {table.shape[0]} subsamples × "
                f"{table.shape[1]} starts; it needs every cell, and two or more of each"
            )
        squares.append(mean_squares(table.to_numpy(np.float64)))
    by_a, by_b, rest = (
        float(np.mean([getattr(one, name) for one in squares]))
        for name in ("seed", "item", "residual")
    )
    df_a = sum(one.n_seeds - 1 for one in squares)
    df_b = sum(one.n_items - 1 for one in squares)
    df_e = sum((one.n_seeds - 1) * (one.n_items - 1) for one in squares)
    return Noise(
        subsample=max(0.0, (by_a - rest) / squares[0].n_items),
        start=max(0.0, (by_b - rest) / squares[0].n_seeds),
        rest=rest,
        p_subsample=float(stats.f.sf(by_a / rest, df_a, df_e)),
        p_start=float(stats.f.sf(by_b / rest, df_b, df_e)),
        df=(df_a, df_b, df_e),
    )


def noise_of_comparison(
    items: pd.DataFrame, methods: Sequence[str], baseline: str = "kd"
) -> dict[str, Noise]:
    """The noise of each method's score, and that of its paired difference to the baseline.

    Args:
        items: as in `compare`, and `start_seed`.
        methods: besides the baseline.
        baseline: its name.

    Returns:
        By method its own; by `(method) − (baseline)` that of the difference.
    """
    keys = ["task", "seed", "start_seed"]
    means = items.groupby([*keys, "method"])["score"].mean().unstack()
    found = {
        name: noise(means[name].rename("score").reset_index()) for name in [baseline, *methods]
    }
    for name in methods:
        difference = (means[name] - means[baseline]).rename("score").reset_index()
        found[f"{name} − {baseline}"] = noise(difference)
    return found


def runs_needed(variance: float, half_width: float, level: float = 0.95, most: int = 1000) -> int:
    """The fewest pairs of runs whose t interval is at most that half width either way.

    Args:
        variance: of one paired difference; test items are not drawn anew.
        half_width: in the unit of the score.
        level: of the interval.
        most: number beyond which there is no answer.

    Raises:
        InputError: no number up to `most` is enough.
    """
    for n in range(2, most + 1):
        if stats.t.ppf((1 + level) / 2, n - 1) * np.sqrt(variance / n) <= half_width:
            return n
    raise InputError(f"more than {most} runs are needed for a half width of {half_width}")
