"""Whose luck is a score: the start's, the order's, what is left of a training, the decoding's.

Starts and orders are crossed, and every trained model is decoded several times:

    y_sod = μ + S_s + O_o + R_so + D_sod,   variances σ²_S, σ²_O, σ²_R, σ²_D.

R is what start and order do together, with whatever else makes two trainings differ. In a balanced
table the expected mean squares are, with a starts, b orders and n decodings,

    E MS_D = σ²_D,                 E MS_R = σ²_D + n σ²_R,
    E MS_S = E MS_R + n b σ²_S,    E MS_O = E MS_R + n a σ²_O,

and the components follow by subtraction (Searle, Casella, McCulloch, *Variance Components*, ch. 4).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from geodistill.analysis.stats.crossed_anova import Array
from geodistill.errors import InputError

DRAWS = 20_000


@dataclass(frozen=True)
class Luck:
    """Variance components, negative estimates set to 0, and the sizes they come from.

    order: over `starts` × `orders` trainings with `decodings` each; decoding is 0 where there is
    one decoding, whose luck is then part of `rest`. draws: of each component (rows: start, order,
    rest, decoding), as wide as the data leave them.
    """

    start: float
    order: float
    rest: float
    decoding: float
    starts: int
    orders: int
    decodings: int
    draws: Array

    def deviation(self, *parts: str, decodings: int = 1) -> tuple[float, float, float]:
        """√ of the sum of these parts with its 95 % interval; the decodings' part is averaged.

        Args:
            parts: names of components.
            decodings: over which a score is averaged.
        """
        names = ("start", "order", "rest", "decoding")
        weights = np.array([(name in parts) / (decodings if name == "decoding" else 1)
                            for name in names])  # fmt: skip
        value = float(weights @ [getattr(self, name) for name in names])
        low, high = np.quantile(weights @ self.draws, (0.025, 0.975))
        return value**0.5, float(low) ** 0.5, float(high) ** 0.5


def luck(marks: pd.DataFrame, draws: int = DRAWS, seed: int = 0) -> Luck:
    """The components of a balanced table by the method of moments.

    Intervals: generalised confidence intervals (Weerahandi 1993), which draw each expected mean
    square as MS · df / χ²(df).

    Args:
        marks: `start, order, value`, a row a decoding; as many of each training.
        draws: of each component, for intervals.
        seed: of those draws.

    Raises:
        InputError: fewer than two starts or orders, or a table with holes.
    """
    sizes = marks.groupby(["start", "order"]).size().unstack(fill_value=0)
    counts = sizes.to_numpy()
    (a, b), n, most = counts.shape, int(counts.min()), int(counts.max())
    if n < 1 or n != most or min(a, b) < 2:
        raise InputError(
            f"{a} starts × {b} orders with {n} to {most} decodings each: variance components need "
            "2 or more of both, and as many in each cell"
        )
    squares, df = _mean_squares(marks, a, b, n)
    rng = np.random.default_rng(seed)
    drawn = squares[:, None] * df[:, None] / rng.chisquare(np.maximum(df, 1)[:, None], (4, draws))
    start, order, rest, decoding = (float(part) for part in _solve(squares, a, b, n))
    return Luck(start, order, rest, decoding, a, b, n, _solve(drawn, a, b, n))


def _mean_squares(marks: pd.DataFrame, a: int, b: int, n: int) -> tuple[Array, Array]:
    """Mean squares of start, order, rest, decoding and their degrees of freedom."""
    cells = marks.groupby(["start", "order"])["value"].mean().unstack()
    table = cells.to_numpy(np.float64)
    rows, columns = table.mean(1) - table.mean(), table.mean(0) - table.mean()
    rest = table - table.mean() - rows[:, None] - columns[None, :]
    own = marks.groupby(["start", "order"])["value"].transform("mean")
    within = float(((marks["value"] - own) ** 2).sum())
    df = np.array([a - 1, b - 1, (a - 1) * (b - 1), a * b * (n - 1)], dtype=np.float64)
    sums = [n * b * (rows @ rows), n * a * (columns @ columns), n * (rest**2).sum(), within]
    return np.array(sums) / np.maximum(df, 1), df


def _solve(squares: Array, a: int, b: int, n: int) -> Array:
    start, order, rest, decoding = squares
    parts = [(start - rest) / (n * b), (order - rest) / (n * a), (rest - decoding) / n, decoding]
    return np.asarray(np.maximum(parts, 0.0), dtype=np.float64)


def decoded(runs: pd.DataFrame, prefix: str, start: str = "start_seed") -> pd.DataFrame:
    """Runs with sampled decodings as `luck` takes them: `start, order, decoding, value`.

    Args:
        runs: one row a run; the columns that start with `prefix` end with the decoding's seed.
        prefix: of those columns.
        start: column of the start's seed; the run's own seed is the order's.
    """
    columns = [name for name in runs if str(name).startswith(prefix)]
    long = runs.rename(columns={start: "start", "seed": "order"}).melt(
        ["start", "order"], columns, "decoding", "value"
    )
    return long.assign(decoding=long["decoding"].str.removeprefix(prefix).astype(int))


def luck_table(found: Luck, factor: float = 1.0) -> pd.DataFrame:
    """The deviations that a reader asks for: `what, deviation, low, high`, times `factor`."""
    n = found.decodings
    training = ("start", "order", "rest")
    asked = {
        "one model, decoded again": found.deviation("decoding"),
        "another start": found.deviation("start"),
        "another order": found.deviation("order"),
        "start × order and the rest": found.deviation("rest"),
        f"mean of {n} decodings, the same model": found.deviation("decoding", decodings=n),
        f"mean of {n} decodings, trained again": found.deviation(
            *training, "decoding", decodings=n
        ),
    }
    lines = [(what, *(factor * value for value in values)) for what, values in asked.items()]
    return pd.DataFrame(lines, columns=["what", "deviation", "low", "high"])
