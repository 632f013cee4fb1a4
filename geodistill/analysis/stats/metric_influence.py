"""Metrics that are no mean over items: their value on weighted items, and each item's influence.

A metric T is a function of the distribution of (label, prediction) pairs. The influence of item i
is its derivative with respect to the item's weight, IF_i = d/dε T((1 − ε)F + ε·i) at ε = 0, with
mean 0 over items. Then T + IF_i is an item score whose mean is T itself and whose variance is that
of T to first order (the infinitesimal jackknife: Efron, *The Jackknife, the Bootstrap and Other
Resampling Plans*, ch. 6), so the primary analysis applies to it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.types import is_numeric_dtype

from geodistill.analysis.stats.crossed_anova import Array
from geodistill.errors import InputError

Column = npt.NDArray[np.generic]
STEP = 1e-6  # of the central difference, between truncation (h²) and rounding (1e-16/h)


@dataclass(frozen=True)
class MetricOfMeans:
    """A metric that is a function of means over items.

    Where it is undefined (0/0, a constant prediction) it is 0 and no item has influence.

    Attributes:
        features: maps labels and predictions to (items, K) features.
        of_means: maps the (..., K) means of the features to the metric.
    """

    features: Callable[[Column, Column], Array]
    of_means: Callable[[Array], Array]

    def values(self, label: Column, prediction: Column, weights: Array) -> Array:
        """The metric of (items,) labels and predictions under R weightings.

        Args:
            label: (items,).
            prediction: (items,).
            weights: (R, items), ≥ 0.

        Returns:
            (R,).
        """
        means = weights @ self.features(label, prediction) / weights.sum(1, keepdims=True)
        return np.nan_to_num(self._at(means))

    def influence(self, label: Column, prediction: Column) -> Array:
        """(items,) influences at equal weights."""
        features = self.features(label, prediction)
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
    """Rank correlation with mid-ranks, which change with the weights; the influence includes it."""

    def values(self, label: Column, prediction: Column, weights: Array) -> Array:
        """As `MetricOfMeans.values`."""
        weights = weights / weights.sum(1, keepdims=True)
        u, v = (_ranks(x, weights) - 0.5 for x in (label, prediction))
        up, down = (weights * u * v).sum(1), (weights * u**2).sum(1) * (weights * v**2).sum(1)
        return np.asarray(np.divide(up, np.sqrt(down), out=np.zeros_like(up), where=down > 0))

    def influence(self, label: Column, prediction: Column) -> Array:
        """(items,) influences at equal weights."""
        equal = np.full((1, len(label)), 1 / len(label))
        u, v = _ranks(label, equal)[0], _ranks(prediction, equal)[0]
        ties = [_tied_share(x) for x in (label, prediction)]
        var_u, var_v = ((1 - (p**2).mean()) / 12 for p in ties)
        if var_u * var_v == 0:
            return np.zeros(len(u))
        # An item changes the product by its own ranks and by the ranks of all items above it.
        product = (u * v).mean()
        change = u * v + _mean_above(label, v) + _mean_above(prediction, u) - 3 * product
        spread = [-(p**2 - (p**2).mean()) / 4 for p in ties]
        rho = (product - 0.25) / np.sqrt(var_u * var_v)
        scale = spread[0] / var_u + spread[1] / var_v
        return np.asarray(change / np.sqrt(var_u * var_v) - rho / 2 * scale)


def _ranks(x: Column, weights: Array) -> Array:
    """(R, items): weight below each value plus half the weight at it."""
    _, code, counts = np.unique(x, return_inverse=True, return_counts=True)
    starts = counts.cumsum() - counts
    mass = np.add.reduceat(weights[:, np.argsort(code, kind="stable")], starts, axis=1)
    return np.asarray((mass.cumsum(1) - mass / 2)[:, code])


def _tied_share(x: Column) -> Array:
    """(items,): share of all items that have this value."""
    _, code, counts = np.unique(x, return_inverse=True, return_counts=True)
    return np.asarray(counts[code] / len(x))


def _mean_above(x: Column, v: Array) -> Array:
    """(items,): mean over j of v_j · (1 where x_j > x_i, ½ where equal)."""
    _, code = np.unique(x, return_inverse=True)
    mass = np.bincount(code, weights=v) / len(v)
    return np.asarray((mass.sum() - mass.cumsum() + mass / 2)[code])


def _confusion(label: Column, prediction: Column) -> Array:
    classes = np.union1d(label, prediction)
    if len(classes) > 100:
        raise InputError(f"{len(classes)} classes in label and prediction; matthews takes ≤ 100")
    pair = np.searchsorted(classes, label) * len(classes) + np.searchsorted(classes, prediction)
    return np.asarray(np.eye(len(classes) ** 2)[pair])


def _matthews(means: Array) -> Array:
    """Gorodkin's R_K of a confusion table with shares in the last axis; for K = 2 Matthews' MCC."""
    k = int(np.sqrt(means.shape[-1]))
    table = means.reshape(*means.shape[:-1], k, k)
    total = means.sum(-1)
    label, guess = table.sum(-1), table.sum(-2)
    right = np.trace(table, axis1=-2, axis2=-1) * total - (label * guess).sum(-1)
    spread = (total**2 - (label**2).sum(-1)) * (total**2 - (guess**2).sum(-1))
    return np.asarray(right / np.sqrt(spread))


def _hits(label: Column, prediction: Column) -> Array:
    values = np.union1d(label, prediction).tolist()
    if not set(values) <= {0, 1}:
        raise InputError(f"f1 needs labels and predictions of 0 and 1; got {values[:5]}")
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


METRICS: dict[str, MetricOfMeans | Spearman] = {
    "matthews": MetricOfMeans(_confusion, _matthews),
    "f1": MetricOfMeans(_hits, lambda m: 2 * m[..., 0] / (m[..., 1] + m[..., 2])),
    "pearson": MetricOfMeans(_products, _pearson),
    "spearman": Spearman(),
}


def score_by_influence(items: pd.DataFrame, name: str) -> pd.DataFrame:
    """Items whose `score` is the run's metric plus the item's influence on it.

    Args:
        items: `task, method, seed, label, prediction`.
        name: of the metric: "matthews", "f1", "pearson" or "spearman".

    Raises:
        InputError: an unknown metric, items without labels or predictions, or texts where the
            metric needs numbers.
    """
    if name not in METRICS:
        raise InputError(f"unknown metric {name!r}; known, higher better: {', '.join(METRICS)}")
    absent = [column for column in ("label", "prediction") if column not in items]
    if absent:
        raise InputError(f"{name} needs label and prediction; the items lack {', '.join(absent)}")
    if name in ("pearson", "spearman"):
        for column in ("label", "prediction"):
            _refuse_texts(items[column], name)
    metric, scores = METRICS[name], np.zeros(len(items))
    for index in items.groupby(["task", "method", "seed"]).indices.values():
        label, prediction = (items[c].to_numpy()[index] for c in ("label", "prediction"))
        value = metric.values(label, prediction, np.ones((1, len(index))))[0]
        scores[index] = value + metric.influence(label, prediction)
    return items.assign(score=scores)


def _refuse_texts(values: "pd.Series[Any]", name: str) -> None:
    """InputError if some values are no numbers: texts would be ranked by their letters."""
    texts = values[pd.to_numeric(values, errors="coerce").isna()]
    if len(texts) or not is_numeric_dtype(values):
        first = next(iter(texts), values.iloc[0])
        raise InputError(f"{name} needs numbers as {values.name}; got {first!r}")
