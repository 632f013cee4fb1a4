"""Scores that are no mean over items: their value on weighted items, and each item's influence.

A score T is a function of the distribution of (label, prediction) pairs. Item i's influence is its
derivative when i gains weight: IF_i = d/dε T((1 − ε)F + ε·i) at ε = 0, with mean 0 over items. Then
T + IF_i is an item score whose mean is T itself and whose variance is that of T to first order (the
infinitesimal jackknife: Efron, *The Jackknife, the Bootstrap and Other Resampling Plans*, ch. 6).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from geodistill.analysis.stats.crossed_anova import Array
from geodistill.errors import InputError

Column = npt.NDArray[np.generic]
STEP = 1e-6  # of the central difference, between truncation (h²) and rounding (1e-16/h)


class Score(Protocol):
    """A score in which higher is better."""

    @property
    def columns(self) -> tuple[str, str]:
        """The two item columns that it reads."""
        ...

    def values(self, first: Column, second: Column, weights: Array) -> Array:
        """(R,) scores under R weightings, weights (R, items) ≥ 0."""
        ...

    def influence(self, first: Column, second: Column) -> Array:
        """(items,) influences at equal weights."""
        ...


@dataclass(frozen=True)
class OfMeans:
    """A score that is a function of means over items, `of_means((..., K)) -> (...)`.

    Where it is undefined (0/0, a constant prediction) it counts as 0 and no item has influence.
    """

    features: Callable[[Column, Column], Array]
    of_means: Callable[[Array], Array]
    columns: tuple[str, str] = ("label", "prediction")

    def values(self, first: Column, second: Column, weights: Array) -> Array:
        means = weights @ self.features(first, second) / weights.sum(1, keepdims=True)
        return np.nan_to_num(self._at(means))

    def influence(self, first: Column, second: Column) -> Array:
        features = self.features(first, second)
        means = features.mean(0)
        if np.isnan(self._at(means)):
            return np.zeros(len(features))
        step = STEP * np.eye(len(means))
        slope = (self._at(means + step) - self._at(means - step)) / (2 * STEP)
        return np.asarray((features - means) @ slope)

    def _at(self, means: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.of_means(means), dtype=np.float64)


class Spearman:
    """Rank correlation with mid-ranks; ranks move with the weights, and the influence says so."""

    columns = ("label", "prediction")

    def values(self, first: Column, second: Column, weights: Array) -> Array:
        weights = weights / weights.sum(1, keepdims=True)
        u, v = (_ranks(x, weights) - 0.5 for x in (first, second))
        up, down = (weights * u * v).sum(1), (weights * u**2).sum(1) * (weights * v**2).sum(1)
        return np.asarray(np.divide(up, np.sqrt(down), out=np.zeros_like(up), where=down > 0))

    def influence(self, first: Column, second: Column) -> Array:
        even = np.full((1, len(first)), 1 / len(first))
        u, v = _ranks(first, even)[0], _ranks(second, even)[0]
        ties = [_share(x) for x in (first, second)]
        var_u, var_v = ((1 - (p**2).mean()) / 12 for p in ties)
        if var_u * var_v == 0:
            return np.zeros(len(u))
        # An item moves the product by its own ranks and by the ranks of all items above it.
        together = (u * v).mean()
        moved = u * v + _above(first, v) + _above(second, u) - 3 * together
        spread = [-(p**2 - (p**2).mean()) / 4 for p in ties]
        rho = (together - 0.25) / np.sqrt(var_u * var_v)
        scale = spread[0] / var_u + spread[1] / var_v
        return np.asarray(moved / np.sqrt(var_u * var_v) - rho / 2 * scale)


def _ranks(x: Column, weights: Array) -> Array:
    """(R, items): weight below each value plus half the weight at it."""
    values, code = np.unique(x, return_inverse=True)
    mass = np.add.reduceat(
        weights[:, np.argsort(code, kind="stable")],
        np.searchsorted(np.sort(code), np.arange(len(values))),
        axis=1,
    )
    return np.asarray((mass.cumsum(1) - mass / 2)[:, code])


def _share(x: Column) -> Array:
    """(items,): the share of all items that have this value."""
    _, code, counts = np.unique(x, return_inverse=True, return_counts=True)
    return np.asarray(counts[code] / len(x))


def _above(x: Column, v: Array) -> Array:
    """(items,): mean over j of v_j · (1 where x_j > x_i, ½ where equal)."""
    _, code = np.unique(x, return_inverse=True)
    mass = np.bincount(code, weights=v) / len(v)
    return np.asarray((mass.sum() - mass.cumsum() + mass / 2)[code])


def _confusion(label: Column, prediction: Column) -> Array:
    classes = np.unique(np.concatenate([label, prediction]))
    if len(classes) > 100:
        raise InputError(f"{len(classes)} classes in label and prediction; matthews takes ≤ 100")
    pair = np.searchsorted(classes, label) * len(classes) + np.searchsorted(classes, prediction)
    return np.asarray(np.eye(len(classes) ** 2)[pair])


def _matthews(means: Array) -> Array:
    """Gorodkin's R_K of a confusion table with shares in the last axis; K = 2 is Matthews'."""
    k = int(np.sqrt(means.shape[-1]))
    table = means.reshape(*means.shape[:-1], k, k)
    total = means.sum(-1)
    label, guess = table.sum(-1), table.sum(-2)
    right = np.trace(table, axis1=-2, axis2=-1) * total - (label * guess).sum(-1)
    spread = (total**2 - (label**2).sum(-1)) * (total**2 - (guess**2).sum(-1))
    return np.asarray(right / np.sqrt(spread))


def _hits(label: Column, prediction: Column) -> Array:
    kinds = sorted({*np.unique(label).tolist(), *np.unique(prediction).tolist()})
    if not set(kinds) <= {0, 1}:
        raise InputError(f"f1 needs labels and predictions of 0 and 1; got {kinds[:5]}")
    truth, guess = label.astype(np.float64), prediction.astype(np.float64)
    return np.stack([truth * guess, truth, guess], axis=-1)


def _products(x: Column, y: Column) -> Array:
    a, b = (_standard(np.asarray(z, dtype=np.float64)) for z in (x, y))
    return np.stack([a, b, a * a, b * b, a * b], axis=-1)


def _standard(x: Array) -> Array:
    centred = x - x.mean()
    spread = centred.std()
    return centred / spread if spread > 1e-12 * max(1.0, abs(x.mean())) else np.zeros_like(x)


def _pearson(m: Array) -> Array:
    a, b, aa, bb, ab = np.moveaxis(m, -1, 0)
    return np.asarray((ab - a * b) / np.sqrt((aa - a**2) * (bb - b**2)))


SCORES: dict[str, Score] = {
    "matthews": OfMeans(_confusion, _matthews),
    "f1": OfMeans(_hits, lambda m: 2 * m[..., 0] / (m[..., 1] + m[..., 2])),
    "pearson": OfMeans(_products, _pearson),
    "spearman": Spearman(),
    # A corpus score from per-item counts: Rouge F is Σ 2·overlap / Σ (answer + reference lengths).
    "ratio": OfMeans(
        lambda top, bottom: np.stack([top, bottom], axis=-1).astype(np.float64),
        lambda m: m[..., 0] / m[..., 1],
        columns=("numerator", "denominator"),
    ),
}


def score(name: str) -> Score:
    """The score of that name; higher is better in all of them.

    Raises:
        InputError: an unknown name.
    """
    if name not in SCORES:
        raise InputError(f"unknown score {name!r}; known, higher better: {', '.join(SCORES)}")
    return SCORES[name]
