"""The layer × layer map of two models, from summed moments and from rows to permute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]
import torch
from torch import Tensor

from geodistill.errors import InputError
from geodistill.layers.mapping import mappable_from, suggest_mappings
from geodistill.layers.moments import Layer, LayerMoments
from geodistill.layers.statistics import layer_table, pvalue_columns, value_columns

if TYPE_CHECKING:
    import pandas as pd

MIN_ROWS = 4  # of debiased CKA


@dataclass(frozen=True)
class LayerMap:
    """Similarity of each pair of layers of two models.

    Attributes:
        table: one row per measure and pair. `layer_a`, `layer_b`: 0 is the embedding output.
            `value`. `null`: the value for unrelated rows with these spectra and sample size.
            `beyond_chance`: 0 at the null, 1 for equal features; it ranks the layers, since by
            `value` a layer with many directions is close to every other. `geometry_kept`: of b as
            the student of a (procrustes, gram, cka). `z`: against permuted rows, at most
            permutations/√(1 + permutations). `p`: of this pair alone. `p_search`: of its z as the
            largest of all pairs. `n`: number of rows. `pooling`: what a row is: "token", "text",
            "image" or "row". NaN where a number is undefined, as for a least-squares fit with no
            more rows than dimensions.
        truncated: number of texts longer than the models' positions, which were truncated.
        dropped: number of tokens of model a and of model b left out as outliers.
        mapping: for each measure that is defined everywhere and each layer of b but the embeddings,
            a layer of a, deeper for deeper ones, such that the mean of `beyond_chance` is largest:
            `measure, layer_a, layer_b, beyond_chance, p_map` (against permuted rows).

    Example:
        >>> import pandas as pd
        >>> LayerMap(pd.DataFrame({"layer_a": [0], "layer_b": [1]})).table.shape
        (1, 2)
    """

    table: pd.DataFrame
    truncated: int = 0
    dropped: tuple[int, int] = (0, 0)
    mapping: pd.DataFrame | None = None


def finish_map(
    moments: LayerMoments,
    layers: tuple[list[Layer], list[Layer]],
    rows: tuple[Tensor, Tensor],
    names: tuple[Sequence[int | str], Sequence[int | str]],
    permutations: int,
    seed: int,
    progress: bool,
    pooling: str,
) -> LayerMap:
    """The map of summed moments and of the rows to be permuted.

    Args:
        moments: of all rows.
        layers: of both models, by these moments.
        rows: of model a and b, the layers concatenated (n, Σ d).
        names: of the layers, or their indices.
        permutations: random orders of the rows of b.
        seed: of the orders.
        progress: whether to show progress bars.
        pooling: what a row is.
    """
    columns = value_columns(moments, layers, seed, progress)
    first = mappable_from(names)
    tests, p_map = pvalue_columns(*rows, moments.widths, permutations, seed, progress, first)
    table = layer_table(*names, columns | tests).assign(n=moments.n, pooling=pooling)
    return LayerMap(table, mapping=suggest_mappings(table, p_map, first))


def widths_of(hidden: list[Tensor]) -> list[int]:
    return [h.shape[-1] for h in hidden]


def empty_moments(hidden: list[list[Tensor]]) -> LayerMoments:
    """Moments of these layers, on their device; InputError if memory is too small."""
    a, b = map(widths_of, hidden)
    device = hidden[0][0].device
    if device.type == "mps":  # has no float64
        device = torch.device("cpu")
    on_gpu = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if on_gpu else psutil.virtual_memory().available
    if (needed := LayerMoments.bytes((a, b))) > free:
        raise InputError(
            f"the sums of {len(a)} × {len(b)} layers need {needed / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB are free: expected fewer layers in layers_a or layers_b"
        )
    return LayerMoments((a, b), device)
