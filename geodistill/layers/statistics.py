"""The layer map's numbers: values and nulls from the sums, p-values from permuted rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from geodistill.geometry.permutation_test import against_chance
from geodistill.layers.moments import (
    CALIBRATED,
    FORMULAS,
    Layer,
    LayerSums,
    aligned,
    best_student,
    evaluate,
    fast_nuclear,
    is_similarity,
    permuted,
    principal_scores,
    rotations,
    unrelated,
)

if TYPE_CHECKING:
    import pandas as pd

Columns = dict[str, dict[str, Any]]  # column -> measure -> array (layers of a, layers of b)
_DRAWS = 4  # of the null; their mean is within a few hundredths even for spectra of one direction


def read_out(sums: LayerSums, seed: int, progress: bool) -> Columns:
    """`value`, `null`, `beyond_chance` and `geometry_kept` of every measure and pair.

    No geometry kept where null and best can't be told apart, or b's rows are all equal.
    """
    a, b = sums.layers(0), sums.layers(1)
    shape = (len(a), len(b))
    columns: Columns = {
        column: {name: np.full(shape, np.nan) for name in FORMULAS}
        for column in ("value", "null", "geometry_kept")
    }
    ranks = tuple(max(len(layer.spectrum) for layer in side) for side in (a, b))
    # The best student of a layer may have as many directions as the layer itself.
    corners = rotations(sums.n, (ranks[0], max(ranks)), _DRAWS, seed)
    reach: dict[tuple[int, int, str], tuple[float, float]] = {}
    for i, j in tqdm(
        list(np.ndindex(shape)), "pairs", leave=False, disable=None if progress else True
    ):
        names = defined(sums.n, a[i].width, b[j].width)
        values = evaluate(sums.pair(i, j, a[i], b[j]), names)
        draws = [evaluate(unrelated(sums.n, a[i], b[j], c), names, fast_nuclear) for c in corners]
        for k, name in enumerate(names):
            columns["value"][name][i, j] = float(values[k])
            columns["null"][name][i, j] = np.mean([float(draw[k]) for draw in draws])
        for name in CALIBRATED:
            key = (i, b[j].width, name)
            if key not in reach:
                reach[key] = _reach(sums.n, name, a[i], b[j].width, corners)
            best, null = reach[key]
            if abs(null - best) > 1e-6 and b[j].size > 0:
                value = columns["value"][name][i, j]
                columns["geometry_kept"][name][i, j] = (null - value) / (null - best)
    return columns | {"beyond_chance": {name: _beyond_chance(name, columns) for name in FORMULAS}}


def _beyond_chance(name: str, columns: Columns) -> np.ndarray:
    """(null − value)/(null − equality), each pair with its own null; NaN where those are equal."""
    value, null = columns["value"][name], columns["null"][name]
    span = null - float(is_similarity(name))
    beyond: np.ndarray = (null - value) / np.where(np.abs(span) > 1e-6, span, np.nan)
    return beyond


def _reach(
    n: int, name: str, teacher: Layer, width: int, corners: list[Tensor]
) -> tuple[float, float]:
    """Best value of a student of this width, and that student's with unrelated rows."""
    student = best_student(name, teacher, width)
    (best,) = evaluate(aligned(n, teacher, student), [name], fast_nuclear)
    nulls = [
        float(evaluate(unrelated(n, teacher, student, c), [name], fast_nuclear)[0]) for c in corners
    ]
    return float(best), float(np.mean(nulls))


def defined(n: int, width_a: int, width_b: int) -> list[str]:
    """The measures that mean something: least squares need more centred rows than dimensions."""
    fitted_by = {"a": width_b, "b": width_a}
    return [name for name in FORMULAS if "_to_" not in name or n - 1 > fitted_by[name[-1]]]


def chance(
    rows_a: Tensor,
    rows_b: Tensor,
    widths: tuple[list[int], list[int]],
    permutations: int,
    seed: int,
    progress: bool,
) -> Columns:
    """`z`, `p` of each pair alone, and `p_search` as the best of all: `against_chance`."""
    a, b = (principal_scores(r, w) for r, w in zip((rows_a, rows_b), widths, strict=True))
    n = len(rows_a)
    pairs = [defined(n, wide, narrow) for wide in widths[0] for narrow in widths[1]]
    meant = torch.tensor([[name in pair for pair in pairs] for name in FORMULAS])
    generator = torch.Generator().manual_seed(seed)
    drawn = [_likeness(a, b, torch.arange(n), meant)]
    for _ in tqdm(
        range(permutations), "permutations", leave=False, disable=None if progress else True
    ):
        drawn.append(_likeness(a, b, torch.randperm(n, generator=generator), meant))
    found = against_chance(torch.stack(drawn))
    shape = (len(FORMULAS), len(widths[0]), len(widths[1]))
    return {
        column: dict(zip(FORMULAS, one.reshape(shape).numpy(), strict=True))
        for column, one in (("z", found.z), ("p", found.p), ("p_search", found.p_search))
    }


def _likeness(a: Tensor, b: Tensor, order: Tensor, meant: Tensor) -> Tensor:
    """(measures, pairs) of b's rows in this order, large where alike, NaN where not meant."""
    values = evaluate(permuted(a, b, order), FORMULAS, fast_nuclear)
    signs = [1 if is_similarity(name) else -1 for name in FORMULAS]
    shape = (len(a), len(b))
    alike = [sign * v.expand(shape).flatten() for sign, v in zip(signs, values, strict=True)]
    return torch.stack(alike).masked_fill(~meant, torch.nan)


def tidy(layers_a: list[int], layers_b: list[int], columns: Columns) -> pd.DataFrame:
    """One line a measure and pair."""
    import pandas as pd

    parts = [
        pd.DataFrame(
            {
                "layer_a": np.repeat(layers_a, len(layers_b)),
                "layer_b": np.tile(layers_b, len(layers_a)),
                "measure": name,
                **{column: columns[column][name].ravel() for column in columns},
            }
        )
        for name in FORMULAS
    ]
    return pd.concat(parts, ignore_index=True)
