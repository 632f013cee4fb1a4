"""The columns of a layer map: values and nulls from moments, p-values from permuted rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from geodistill.geometry.permutation import permutation_pvalues
from geodistill.layers.mapping import mapping_p
from geodistill.layers.moments import (
    FORMULAS,
    NORMALIZABLE,
    Layer,
    LayerMoments,
    Widths,
    aligned_moments,
    best_student_layer,
    haar_corners,
    is_similarity,
    layer_scores,
    measure_values,
    nuclear_norm_fast,
    null_moments,
    permuted_moments,
)
from geodistill.layers.progress import progress_bar

if TYPE_CHECKING:
    import pandas as pd

Columns = dict[str, dict[str, Any]]
"""By column and measure, an array (layers of a, layers of b)."""
_N_DRAWS = 4  # of the null; their mean is within a few hundredths even for one-direction spectra


def value_columns(
    moments: LayerMoments, layers: tuple[list[Layer], list[Layer]], seed: int, progress: bool
) -> Columns:
    """`value`, `null`, `beyond_chance` and `geometry_kept` of every measure and pair.

    Geometry kept is NaN where the null equals the best value, or b's rows are all equal.
    """
    n, (a, b) = moments.n, layers
    shape = (len(a), len(b))
    columns: Columns = {
        column: {name: np.full(shape, np.nan) for name in FORMULAS}
        for column in ("value", "null", "geometry_kept")
    }
    ranks = tuple(max(len(layer.spectrum) for layer in side) for side in (a, b))
    # The best student of a layer may have as many directions as the layer itself.
    corners = haar_corners(n, (ranks[0], max(ranks)), _N_DRAWS, seed)
    ranges: dict[tuple[int, int, str], tuple[float, float]] = {}
    for i, j in progress_bar(list(np.ndindex(shape)), "pairs", progress):
        names = defined_measures(n, a[i].width, b[j].width)
        values = measure_values(moments.pair(i, j, a[i], b[j]), names)
        nulls = _null_values(n, a[i], b[j], names, corners)
        for name, value, null in zip(names, values, nulls, strict=True):
            columns["value"][name][i, j] = float(value)
            columns["null"][name][i, j] = null
        for name in NORMALIZABLE:
            key = (i, b[j].width, name)
            if key not in ranges:
                ranges[key] = _best_and_null(n, name, a[i], b[j].width, corners)
            best, null = ranges[key]
            if abs(null - best) > 1e-6 and b[j].size > 0:
                value = columns["value"][name][i, j]
                columns["geometry_kept"][name][i, j] = (null - value) / (null - best)
    columns["beyond_chance"] = {}
    for name in FORMULAS:
        value, null = columns["value"][name], columns["null"][name]
        span = null - float(is_similarity(name))  # null − value at equality
        columns["beyond_chance"][name] = (null - value) / np.where(abs(span) > 1e-6, span, np.nan)
    return columns


def _null_values(
    n: int, a: Layer, b: Layer, names: list[str], corners: list[Tensor]
) -> list[float]:
    """Mean of each measure over unrelated rows."""
    draws = [
        [float(x) for x in measure_values(null_moments(n, a, b, c), names, nuclear_norm_fast)]
        for c in corners
    ]
    return [float(mean) for mean in np.mean(draws, axis=0)]


def _best_and_null(
    n: int, name: str, teacher: Layer, width: int, corners: list[Tensor]
) -> tuple[float, float]:
    """Value of the best student with this width, and that student's with unrelated rows."""
    student = best_student_layer(name, teacher, width)
    (best,) = measure_values(aligned_moments(n, teacher, student), [name], nuclear_norm_fast)
    (null,) = _null_values(n, teacher, student, [name], corners)
    return float(best), null


def defined_measures(n: int, width_a: int, width_b: int) -> list[str]:
    """Measures that are defined: least squares need more centred rows than dimensions."""
    fitted_by = {"a": width_b, "b": width_a}
    return [name for name in FORMULAS if "_to_" not in name or n - 1 > fitted_by[name[-1]]]


def pvalue_columns(
    rows_a: Tensor,
    rows_b: Tensor,
    widths: Widths,
    permutations: int,
    seed: int,
    progress: bool,
    first: tuple[int, int] = (0, 0),
) -> tuple[Columns, dict[str, float]]:
    """`z`, `p` of each pair alone and `p_search` of the search; and p of each measure's mapping.

    Args:
        rows_a: concatenated layers of model a (n, Σ d_a).
        rows_b: of model b (n, Σ d_b).
        widths: of the layers.
        permutations: random orders of the rows of b.
        seed: of the orders.
        progress: whether to show a progress bar.
        first: index of the first layer of a and of b that may be mapped.
    """
    a, b = (layer_scores(r, w) for r, w in zip((rows_a, rows_b), widths, strict=True))
    n = len(rows_a)
    names = [defined_measures(n, d_a, d_b) for d_a in widths[0] for d_b in widths[1]]
    defined = torch.tensor([[name in pair for pair in names] for name in FORMULAS])
    generator = torch.Generator().manual_seed(seed)
    similarities = [_similarities(a, b, torch.arange(n), defined)]
    for _ in progress_bar(range(permutations), "permutations", progress):
        order = torch.randperm(n, generator=generator)
        similarities.append(_similarities(a, b, order, defined))
    orders = torch.stack(similarities)
    result = permutation_pvalues(orders)
    shape = (len(FORMULAS), len(widths[0]), len(widths[1]))
    p_map = {
        name: mapping_p(orders[:, i].reshape(-1, *shape[1:]), float(is_similarity(name)), first)
        for i, name in enumerate(FORMULAS)
    }
    return {
        column: dict(zip(FORMULAS, x.reshape(shape).numpy(), strict=True))
        for column, x in (("z", result.z), ("p", result.p), ("p_search", result.p_search))
    }, p_map


def _similarities(a: Tensor, b: Tensor, order: Tensor, defined: Tensor) -> Tensor:
    """(measures, pairs) with b's rows in this order, signed so that larger is more similar."""
    values = measure_values(permuted_moments(a, b, order), FORMULAS, nuclear_norm_fast)
    signs = [1 if is_similarity(name) else -1 for name in FORMULAS]
    shape = (len(a), len(b))
    signed = [sign * v.expand(shape).flatten() for sign, v in zip(signs, values, strict=True)]
    return torch.stack(signed).masked_fill(~defined, torch.nan)


def layer_table(
    layers_a: Sequence[int | str], layers_b: Sequence[int | str], columns: Columns
) -> pd.DataFrame:
    """One row per measure and pair of layers."""
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
