"""The layer map of two models: most similar layers, heat map, and a description in words."""

from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from geodistill.errors import InputError

MEASURE_LABELS = {
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
"""Measures whose large values mean similar; the others are distances."""
ALPHA = 0.05


def closest_layers(
    table: pd.DataFrame, measure: str, by: Literal["beyond_chance", "value"] = "beyond_chance"
) -> pd.DataFrame:
    """For each layer of A, the row of `table` with the most similar layer of B; of ties, the first.

    Args:
        table: `LayerMap.table`, or the `layers.csv` that the command wrote.
        measure: one of `MEASURE_LABELS`.
        by: "beyond_chance" corrects each pair for the value that its spectra give to unrelated
            rows; by "value" a layer with many directions may be the closest to all.

    Raises:
        InputError: no such measure, or no pair of layers has a value of it.
    """
    if measure not in MEASURE_LABELS:
        raise InputError(f"measure is {measure!r}: expected one of {', '.join(MEASURE_LABELS)}")
    known = table[(table["measure"] == measure) & table["value"].notna()]
    if known.empty:
        raise InputError(
            f"table has no value of measure {measure!r}: it needs more rows than a layer is wide"
        )
    ascending = by == "value" and measure not in SIMILARITIES
    order = known["layer_a"].unique()  # of depth: names do not sort by it
    known = known.sort_values(by, ascending=ascending, kind="stable").drop_duplicates("layer_a")
    return known.set_index("layer_a").loc[order].reset_index()[list(table.columns)]


def layer_map(
    table: pd.DataFrame,
    measure: str,
    ax: Axes | None = None,
    names: tuple[str, str] = ("A", "B"),
) -> Axes:
    """Heat map of all pairs of layers, bright where similar, with the closest layers marked.

    A circle marks the layer of B that is closest beyond chance to each layer of A, filled if it is
    significant after the search over all pairs (p_search at most 0.05). A cross marks the closest
    layer by value if it differs.

    Args:
        table: as for `closest_layers`.
        measure: one of `MEASURE_LABELS`.
        ax: axes to draw on; None for a new figure.
        names: of the two models, for the axes.

    Raises:
        InputError: no such measure, or no values of it.
    """
    matches = closest_layers(table, measure)
    rows = table[table["measure"] == measure]
    values = rows.pivot(index="layer_b", columns="layer_a", values="value")
    values = values.reindex(rows["layer_b"].unique(), columns=rows["layer_a"].unique())
    ax = ax if ax is not None else plt.subplots(layout="constrained")[1]
    palette = plt.get_cmap("viridis" if measure in SIMILARITIES else "viridis_r")
    image = ax.imshow(
        np.ma.masked_invalid(values.to_numpy(float)),
        palette.with_extremes(bad="#CCCCCC"),
        origin="lower",
        aspect="auto",  # seven layers against thirty-one would be a narrow strip
    )
    at_column, at_row = (
        {str(layer): index for index, layer in enumerate(side)}
        for side in (values.columns, values.index)
    )

    def mark(pairs: pd.DataFrame, label: str, **style: Any) -> None:
        x, y = pairs["layer_a"].astype(str).map(at_column), pairs["layer_b"].astype(str).map(at_row)
        ax.scatter(x, y, label=label if len(pairs) else None, **style)

    significant = matches["p_search"] <= ALPHA
    filled = {"facecolors": "black", "edgecolors": "white"}
    mark(matches[significant], f"closest, p_search ≤ {ALPHA:g}", **filled)
    hollow = {"facecolors": "none", "edgecolors": "black"}
    mark(matches[~significant], "closest, may be chance", **hollow)
    by_value = _different_by_value(table, measure)
    if len(by_value):
        mark(by_value, "closest by value, if different", marker="x", color="black")
    _label_axes(ax, at_column, at_row, names)
    bar = ax.figure.colorbar(image, ax=ax, label=MEASURE_LABELS[measure])
    bar.ax.grid(visible=False)
    return ax


def _different_by_value(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The closest layers by value, where they differ from those beyond chance."""
    by_value = closest_layers(table, measure, by="value")
    return by_value[by_value["layer_b"] != closest_layers(table, measure)["layer_b"]]


def _label_axes(
    ax: Axes, columns: dict[str, int], rows: dict[str, int], names: tuple[str, str]
) -> None:
    for axis, layers, name in ((ax.xaxis, columns, names[0]), (ax.yaxis, rows, names[1])):
        step = max(1, len(layers) // 10)
        axis.set_ticks(list(layers.values())[::step], list(layers)[::step])
        shown = name.rstrip("/").rpartition("/")[2].replace("$", r"\$")
        axis.set_label_text(f"layer of {shown}" + (" (0: embeddings)" if "0" in layers else ""))
    if max(map(len, columns)) > 3:
        ax.tick_params(axis="x", rotation=90)
    ax.grid(visible=False)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=1)


def describe_map(table: pd.DataFrame, measure: str) -> str:
    """The map in words, for its alternative text; arguments and errors as in `closest_layers`."""

    def describe(pairs: pd.DataFrame) -> str:
        columns = pairs[["layer_a", "layer_b", "value"]].itertuples(index=False)
        return ", ".join(f"{a}–{b} ({value:.2f})" for a, b, value in columns)

    matches, different = closest_layers(table, measure), _different_by_value(table, measure)
    note = f" By value alone another is closer: {describe(different)}." if len(different) else ""
    n_significant = int((matches["p_search"] <= ALPHA).sum())
    return (
        f"Heat map of {MEASURE_LABELS[measure]} between layers of A and layers of B. Closest layer "
        f"of B, beyond chance, for each of A: {describe(matches)}; {n_significant} of "
        f"{len(matches)} are significant at {ALPHA:g}.{note}"
    )
