"""A mapping of layers in order of depth: the monotone one with the largest gain over chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd


def best_monotone(gains: Tensor) -> tuple[Tensor, Tensor]:
    """One layer of a for each layer of b, deeper for deeper ones, with the largest sum of gains.

    Layers of a are used once if there are enough of them, else neighbours share one.

    Args:
        gains: (..., layers of a, layers of b).

    Returns:
        The mean gain (...), and the index of the layer of a for each layer of b (..., layers of b).

    Example:
        >>> gains = torch.tensor([[0.9, 0.8], [0.1, 0.2], [0.0, 0.7]])
        >>> best_monotone(gains)[1].tolist()
        [0, 2]
    """
    n_a, n_b = gains.shape[-2:]
    strict = int(n_a >= n_b)
    total, choices = gains[..., 0], []
    for b in range(1, n_b):
        best, at = total.cummax(-1)
        if strict:
            none = torch.full_like(best[..., :1], -torch.inf)
            best = torch.cat([none, best[..., :-1]], -1)
            at = torch.cat([at[..., :1], at[..., :-1]], -1)
        choices.append(at)
        total = best + gains[..., b]
    value, last = total.max(-1)
    layers = [last]
    for at in reversed(choices):
        layers.append(at.gather(-1, layers[-1][..., None])[..., 0])
    return value / n_b, torch.stack(layers[::-1], -1)


def mapping_p(similarities: Tensor, at_equality: float, first: tuple[int, int]) -> float:
    """The p-value of the best mapping's mean gain over chance, among those of permuted rows.

    Args:
        similarities: of one measure (orders, layers of a, layers of b), the true order first;
            larger is more similar.
        at_equality: similarity of equal features.
        first: index of the first layer of a and of b that may be mapped.

    Returns:
        (1 + number of random orders of at least this gain)/(number of orders); nan where a
        similarity is undefined.
    """
    mapped = similarities[:, first[0] :, first[1] :]
    if mapped.isnan().any():
        return float("nan")
    chance = mapped.mean(0)
    gains = (mapped - chance) / (at_equality - chance).clamp(min=1e-12)
    values = best_monotone(gains)[0]
    return float((values >= values[0] - 1e-9).double().mean())


def suggest_mappings(
    table: pd.DataFrame, p_values: dict[str, float], first: tuple[int, int]
) -> pd.DataFrame:
    """The best mapping of each measure, by `beyond_chance`.

    Args:
        table: one row per measure and pair, as `layer_table` gives it.
        p_values: by measure.
        first: index of the first layer of a and of b that may be mapped.

    Returns:
        `measure, layer_a, layer_b, beyond_chance, p_map`, one row per layer of b; none for a
        measure that is undefined.
    """
    import pandas as pd

    columns = ["measure", "layer_a", "layer_b", "beyond_chance", "p_map"]
    parts = []
    for measure, rows in table.groupby("measure", sort=False):
        wide = rows.pivot(index="layer_a", columns="layer_b", values="beyond_chance")
        wide = wide.reindex(index=rows["layer_a"].unique(), columns=rows["layer_b"].unique())
        wide = wide.iloc[first[0] :, first[1] :]
        if wide.isna().any(axis=None):
            continue
        indices = best_monotone(torch.tensor(wide.to_numpy()))[1].tolist()
        values = wide.to_numpy()[indices, range(wide.shape[1])]
        part = pd.DataFrame({"layer_a": wide.index[indices], "layer_b": wide.columns})
        part = part.assign(beyond_chance=values, p_map=p_values[str(measure)])
        parts.append(part.assign(measure=measure)[columns])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def mappable_from(layers: tuple[Sequence[int | str], Sequence[int | str]]) -> tuple[int, int]:
    """The first index of each side that is no embedding output, unless there is nothing else."""
    a, b = (int(side[0] == 0 and len(side) > 1) for side in layers)
    return a, b
