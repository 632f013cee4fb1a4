"""Figures of the instruction study; as in `figures`, each takes an `ax` and tidy data."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from geodistill.analysis.figures.common import side_by_side
from geodistill.analysis.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    look,
)

STARTS = ((BLUE, "o"), (VERMILLION, "s"), (GREEN, "^"), (ORANGE, "D"), (SKY, "v"), (PURPLE, "P"))


def tuning_curves(
    ax: Axes, runs: pd.DataFrame, chosen: dict[str, float], plain: Sequence[str] = ("kd",)
) -> Axes:
    """Validation NLL against a term's weight: a small mark a seed, a line through the means.

    Args:
        ax: where to draw.
        runs: one row a run: `method, factor, seed, nll`.
        chosen: weight by method; ringed. Methods that are not named are not drawn.
        plain: methods without a term, drawn as lines across.
    """
    for place, method in enumerate(chosen):
        style, own = look(method), runs[runs["method"] == method]
        shift = 1.05 ** (place - (len(chosen) - 1) / 2)  # side by side
        mean = own.groupby("factor")["nll"].mean()
        ax.plot(own["factor"] * shift, own["nll"], style.marker, color=style.color, alpha=0.4, ms=4)
        ax.plot(mean.index * shift, mean, marker=style.marker, color=style.color, label=style.label)
        ring = chosen[method]
        ax.plot(ring * shift, mean[ring], "o", ms=13, color=style.color, fillstyle="none")
    for method, line in zip(plain, ("-", "--", ":"), strict=False):
        level = runs.loc[runs["method"] == method, "nll"].mean()
        ax.axhline(level, color="black", linewidth=0.8, linestyle=line, label=look(method).label)
    weights = sorted(runs.loc[runs["method"].isin(chosen), "factor"].unique())
    ax.set(xscale="log", xlabel="weight of the term (ring: chosen)")
    ax.set_ylabel("validation NLL\n(nats a token; lower is better)")
    ax.set_xticks(weights, [f"{weight:g}" for weight in weights])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def gains_in_groups(ax: Axes, gains: pd.DataFrame, unit: str, margin: float | None = None) -> Axes:
    """Gains with their intervals, groups along the axis, methods of a group side by side.

    Terms have one look and one entry in the legend, whatever base they are added to.

    Args:
        ax: where to draw.
        gains: `group, method, estimate, low, high`, as `gains.grouped` makes them.
        unit: of the gains, for the axis label.
        margin: half width of the shaded band of equivalence.
    """
    if margin is not None:
        ax.axhspan(-margin, margin, color="#EFEFEF", zorder=0)
    ax.axhline(0, color="black", linewidth=0.8)
    terms = dict.fromkeys(gains["method"].map(_term))
    series = {term: gains[gains["method"].map(_term) == term] for term in terms}
    groups = list(dict.fromkeys(gains["group"]))
    side_by_side(ax, series, "group", groups, min(0.16, 0.8 / len(terms)))
    ax.set_xlim(-0.6, len(groups) - 0.4)
    ax.set_ylabel(f"gain, {unit}\n(line: 95 % interval)")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def _term(method: str) -> str:
    return method.partition("+")[2] or method


def spread_over_training(ax: Axes, spread: pd.DataFrame, teacher: float) -> Axes:
    """The participation ratio over the training, a line a method, a band for its seeds.

    Args:
        ax: where to draw.
        spread: `method, share, mean, low, high`, as `means.on_the_way` makes it; no band for nan.
        teacher: its own ratio, on the same tokens.
    """
    for method, line in spread.groupby("method", sort=False):
        style = look(str(method))
        ax.fill_between(
            line["share"], line["low"], line["high"], color=style.color, alpha=0.15, linewidth=0
        )
        ax.plot(
            line["share"], line["mean"], color=style.color, marker=style.marker, label=style.label
        )
    ax.axhline(teacher, color="black", linestyle=":", linewidth=0.8, label="teacher")
    ax.set(xlabel="share of the training (%)", ylabel="participation ratio (directions)")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def distance_parts(ax: Axes, parts: pd.DataFrame) -> Axes:
    """The two parts of the squared Procrustes distance, end to end, a bar a method.

    Args:
        ax: where to draw.
        parts: indexed by method; columns `spectrum` and `alignment`, no unit.
    """
    names = [look(str(method)).label for method in parts.index]
    y = np.arange(len(parts))
    ax.barh(y, parts["spectrum"], color=SKY, label="spectrum: which variances")
    ax.barh(
        y, parts["alignment"], left=parts["spectrum"], color=ORANGE, hatch="//",
        edgecolor="white", label="alignment: which rows carry them",
    )  # fmt: skip
    ax.set_yticks(y, names)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("squared Procrustes distance to the teacher (features of unit norm)")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return ax


def trainings(ax: Axes, marks: pd.DataFrame, unit: str) -> Axes:
    """Every decoding of every training: a column a training, starts side by side.

    Args:
        ax: where to draw.
        marks: `start, order, value`, a row a decoding.
        unit: of the values, for the axis label.
    """
    starts = list(dict.fromkeys(sorted(marks["start"])))
    cells = marks.groupby(["start", "order"])
    width = marks["order"].nunique() + 1
    for place, ((start, order), rows) in enumerate(cells):
        number = starts.index(start)
        color, marker = STARTS[number % len(STARTS)]
        x = place + number  # a gap between starts
        label = f"start {start}" if order == marks["order"].min() else None
        ax.plot([x] * len(rows), rows["value"], marker, color=color, alpha=0.6, ms=4, label=label)
        ax.hlines(rows["value"].mean(), x - 0.4, x + 0.4, color=color, linewidth=2)
    middles = [number * width + (width - 2) / 2 for number in range(len(starts))]
    ax.set_xticks(middles, [f"start {start}" for start in starts])
    ax.grid(axis="x", visible=False)
    ax.set_xlabel("a column: one training; dots: its decodings; bar: mean")
    ax.set_ylabel(unit)
    return ax


def deviations(ax: Axes, table: pd.DataFrame, unit: str) -> Axes:
    """Standard deviations with their intervals, a line each; the decodings' own are grey.

    Args:
        ax: where to draw.
        table: `what, deviation, low, high`, as `luck.luck_table` makes it.
        unit: of the deviations, for the axis label.
    """
    for y, row in enumerate(table.to_dict("records")):
        own = "the same model" in row["what"] or row["what"].startswith("one model")
        color = GREY if own else VERMILLION
        ax.plot([row["low"], row["high"]], [y, y], color=color)
        ax.plot(row["deviation"], y, "o", color=color)
    ax.set_yticks(range(len(table)), list(table["what"]))
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(f"standard deviation, {unit} (line: 95 % interval)")
    return ax
