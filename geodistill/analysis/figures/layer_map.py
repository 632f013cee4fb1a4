"""The layer map of two models: closest layers, the heat map, and what it shows in words."""

from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from geodistill.errors import InputError

LABELS = {
    "procrustes": "Procrustes distance",
    "gram": "Gram distance",
    "cka": "CKA",
    "cka_debiased": "CKA, debiased",
    "projection_to_a": "residual of A fitted by B",
    "projection_to_b": "residual of B fitted by A",
    "r2_to_a": "R² of A fitted by B",
    "r2_to_b": "R² of B fitted by A",
}
SIMILARITIES = ("cka", "cka_debiased", "r2_to_a", "r2_to_b")
"""Measures whose large values mean alike; the others are distances."""
LEVEL = 0.05


def closest(
    rows: pd.DataFrame, measure: str, by: Literal["beyond_chance", "value"] = "beyond_chance"
) -> pd.DataFrame:
    """For each layer of A the line of `rows` with the closest layer of B; the first one of equals.

    Args:
        rows: `LayerMap.rows`, or the `rows.csv` that the command wrote.
        measure: one of `LABELS`.
        by: "beyond_chance" takes from each pair what its spectra give to unrelated rows; by "value"
            a layer of many directions, for its rows, may be the closest to all.

    Raises:
        InputError: no such measure, or no pair of layers has a value of it.
    """
    if measure not in LABELS:
        raise InputError(f"measure is {measure!r}: expected one of {', '.join(LABELS)}")
    known = rows[(rows["measure"] == measure) & rows["value"].notna()]
    if known.empty:
        raise InputError(
            f"rows have no value of measure {measure!r}: expected more rows than a layer is wide"
        )
    smallest = by == "value" and measure not in SIMILARITIES
    known = known.sort_values(by, ascending=smallest, kind="stable")
    return known.groupby("layer_a").head(1).sort_values("layer_a").reset_index(drop=True)


def layer_map(rows: pd.DataFrame, measure: str, ax: Axes | None = None) -> Axes:
    """Draw every pair of layers, bright where alike; a circle marks each layer of A's closest of B.

    The closest beyond chance; filled where it stands out from it after the search over all pairs
    (p_search at most 0.05). A cross marks the closest by value where that is another.

    Args:
        rows: as for `closest`, which raises for it.
        measure: one of `LABELS`.
        ax: where to draw; a new figure's where None.
    """
    matches = closest(rows, measure)
    values = rows[rows["measure"] == measure].pivot(
        index="layer_b", columns="layer_a", values="value"
    )
    ax = ax if ax is not None else plt.subplots(layout="constrained")[1]
    palette = plt.get_cmap("viridis" if measure in SIMILARITIES else "viridis_r")
    image = ax.imshow(
        np.ma.masked_invalid(values.to_numpy(float)),
        palette.with_extremes(bad="#CCCCCC"),
        origin="lower",
        aspect="auto",  # seven layers against thirty-one would be a stripe
    )
    at_a, at_b = (
        {str(layer): place for place, layer in enumerate(side)}
        for side in (values.columns, values.index)
    )
    for sure, name in ((True, f"closest, p_search ≤ {LEVEL:g}"), (False, "closest, may be chance")):
        some = matches[(matches["p_search"] <= LEVEL) == sure]
        ax.scatter(
            some["layer_a"].astype(str).map(at_a),
            some["layer_b"].astype(str).map(at_b),
            facecolors="black" if sure else "none",
            edgecolors="white" if sure else "black",
            label=name if len(some) else None,
        )
    _cross(ax, _by_value_elsewhere(rows, measure), at_a, at_b)
    _label(ax, at_a, at_b)
    bar = ax.figure.colorbar(image, ax=ax, label=LABELS[measure])
    bar.ax.grid(visible=False)
    return ax


def _by_value_elsewhere(rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The closest by value of those layers of A whose closest beyond chance is another."""
    nearest = closest(rows, measure, by="value")
    return nearest[nearest["layer_b"] != closest(rows, measure)["layer_b"]]


def _cross(ax: Axes, some: pd.DataFrame, at_a: dict[str, int], at_b: dict[str, int]) -> None:
    if some.empty:
        return
    places = [some["layer_a"].astype(str).map(at_a), some["layer_b"].astype(str).map(at_b)]
    ax.scatter(*places, marker="x", color="black", label="closest by value, where another")


def _label(ax: Axes, at_a: dict[str, int], at_b: dict[str, int]) -> None:
    for axis, at in ((ax.xaxis, at_a), (ax.yaxis, at_b)):
        step = max(1, len(at) // 10)
        axis.set_ticks(list(at.values())[::step], list(at)[::step])
    ax.grid(visible=False)
    ax.set_xlabel("layer of A (0: embeddings)")
    ax.set_ylabel("layer of B (0: embeddings)")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=1)


def map_in_words(rows: pd.DataFrame, measure: str) -> str:
    """The map as a sentence, for its alternative text; arguments and errors as `closest`."""
    matches, other = closest(rows, measure), _by_value_elsewhere(rows, measure)
    pairs, by_value = (
        ", ".join(
            f"{one['layer_a']}–{one['layer_b']} ({one['value']:.2f})"
            for one in some.to_dict("records")
        )
        for some in (matches, other)
    )
    elsewhere = f" By value alone another is closer: {by_value}." if by_value else ""
    sure = int((matches["p_search"] <= LEVEL).sum())
    return (
        f"Heat map of {LABELS[measure]} between layers of A and layers of B. Closest layer of B, "
        f"beyond chance, for each of A: {pairs}; {sure} of {len(matches)} stand out from chance at "
        f"{LEVEL:g}.{elsewhere}"
    )
