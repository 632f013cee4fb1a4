"""Figures as functions: each takes an `ax` and tidy data, draws, and returns the `ax`."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

from geodistill.analysis.figures.style import GREY, VERMILLION, look
from geodistill.analysis.stats.crossed_anova import Array


def forest(ax: Axes, answers: pd.DataFrame, unit: str, margin: float | None = None) -> Axes:
    """Differences with their intervals, one line a comparison and task; pooled ones are filled.

    Args:
        ax: where to draw.
        answers: `method, baseline, task, estimate, low, high`, as `report.tidy` makes them; and
            `label`, where a line is to be named by it.
        unit: of the differences, for the axis label.
        margin: half width of the shaded band of equivalence, in that unit.
    """
    if margin is not None:
        ax.axvspan(-margin, margin, color="#EFEFEF", zorder=0)
    ax.axvline(0, color="black", linewidth=0.8)
    names = []
    for y, row in enumerate(answers.to_dict("records")):
        style, pooled = look(row["method"]), row["task"] == "pooled"
        width = 2.4 if pooled else 1.2
        ax.plot([row["low"], row["high"]], [y, y], color=style.color, linewidth=width)
        face = style.color if pooled else "white"
        ax.plot(row["estimate"], y, style.marker, color=style.color, markerfacecolor=face)
        usual = f"{style.label}\nvs {look(row['baseline']).label}, {row['task']}"
        names.append(row.get("label", usual))
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(f"difference, {unit} (line: 95 % interval)")
    return ax


def side_by_side(
    ax: Axes, series: Mapping[str, pd.DataFrame], column: str, places: list[str], step: float
) -> Axes:
    """Estimates with their intervals over the values of `column`, methods beside each other.

    Args:
        ax: where to draw.
        series: by method, in order, its `estimate, low, high` and `column`.
        column: says at which of the places an estimate stands.
        places: along the axis.
        step: between two methods of one place.
    """
    for number, (method, own) in enumerate(series.items()):
        style = look(method)
        x = own[column].map(places.index) + step * (number - (len(series) - 1) / 2)
        error = [own["estimate"] - own["low"], own["high"] - own["estimate"]]
        ax.errorbar(
            x, own["estimate"], error, fmt=style.marker, color=style.color, label=style.label
        )
    ax.set_xticks(range(len(places)), places)
    ax.grid(axis="x", visible=False)
    return ax


def seed_dots(ax: Axes, differences: pd.DataFrame, unit: str) -> Axes:
    """One dot a seed: its paired difference; a bar marks the mean over seeds.

    Args:
        ax: where to draw.
        differences: `method, seed, difference`, methods in the order to draw them.
        unit: of the differences, for the axis label.
    """
    ax.axhline(0, color="black", linewidth=0.8)
    methods = list(dict.fromkeys(differences["method"]))
    for x, method in enumerate(methods):
        style = look(method)
        values = differences.loc[differences["method"] == method, "difference"].to_numpy()
        shift = np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else np.zeros(1)
        ax.plot(x + shift, values, style.marker, color=style.color, alpha=0.8)
        ax.hlines(values.mean(), x - 0.25, x + 0.25, color=style.color, linewidth=2.4)
    labels = [look(method).label for method in methods]
    ax.set_xticks(range(len(methods)), labels, rotation=25, ha="right", rotation_mode="anchor")
    ax.grid(axis="x", visible=False)
    ax.set_ylabel(f"difference, {unit}")
    return ax


def repeated_intervals(ax: Axes, intervals: Array, truth: float, unit: str, name: str) -> Axes:
    """Intervals of repeated experiments, one line each; those that miss the truth are red.

    Args:
        ax: where to draw.
        intervals: (n, 2), the lower and upper ends.
        truth: the value that each should hold.
        unit: of the ends, for the axis label.
        name: of the analysis, for the title, which counts the misses.
    """
    order = intervals.mean(1).argsort()
    missed = (intervals[order, 0] > truth) | (intervals[order, 1] < truth)
    for y, (low, high) in enumerate(intervals[order]):
        ax.plot([low, high], [y, y], color=VERMILLION if missed[y] else GREY, linewidth=1.2)
    ax.axvline(truth, color="black", linewidth=0.8)
    ax.set_yticks([])
    ax.set_xlabel(f"difference, {unit}")
    ax.set_title(f"{name}: {missed.sum()} of {len(intervals)} miss", loc="left")
    return ax


def kept_against_score(ax: Axes, runs: pd.DataFrame, kept: str, score: str) -> Axes:
    """Geometry kept against the score: a small mark a run, a large one the method's mean.

    The legend stands on the right; of panels side by side, remove all but the last one's.

    Args:
        ax: where to draw.
        runs: one row a run, with `method` and the two columns named below.
        kept: column of the geometry kept.
        score: column of the score.
    """
    for method, rows in runs.groupby("method", sort=False):
        style = look(str(method))
        ax.plot(rows[kept], rows[score], style.marker, color=style.color, alpha=0.35, markersize=4)
        mean = rows[[kept, score]].mean()
        ax.plot(
            mean[kept],
            mean[score],
            style.marker,
            color=style.color,
            markersize=9,
            markeredgecolor="white",
            linestyle="none",
            label=style.label,
        )
    ax.set_xlabel(kept)
    ax.set_ylabel(score)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def weight_curves(ax: Axes, gains: pd.DataFrame, chosen: dict[str, float], unit: str) -> Axes:
    """Gain against the weight factor, one line a method; the factor in use is ringed.

    Args:
        ax: where to draw.
        gains: `method, factor, gain, low, high`, as `anatomy.gain_by_factor` makes them.
        chosen: factor by method.
        unit: of the gain, for the axis label.
    """
    ax.axhline(0, color="black", linewidth=0.8)
    methods = list(dict.fromkeys(gains["method"]))
    for place, method in enumerate(methods):
        style, line = look(method), gains[gains["method"] == method].sort_values("factor")
        x = line["factor"] * 1.06 ** (place - (len(methods) - 1) / 2)  # side by side
        error = [line["gain"] - line["low"], line["high"] - line["gain"]]
        ax.errorbar(
            x, line["gain"], error, color=style.color, marker=style.marker, label=style.label
        )
        ring = (line["factor"] == chosen[method]).to_numpy()
        ax.plot(
            x[ring], line["gain"][ring], "o", markersize=12, color=style.color, fillstyle="none"
        )
    ax.set(xscale="log", xlabel="weight factor (ring: in use)", ylabel=f"gain, {unit}")
    factors = sorted(gains["factor"].unique())
    ax.set_xticks(factors, [f"{factor:g}" for factor in factors])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def smallest_gains(ax: Axes, gains: pd.DataFrame, unit: str) -> Axes:
    """The least gain that a design can see against its items, one line a number of seeds.

    Args:
        ax: where to draw.
        gains: `seeds, items, gain`.
        unit: of the gain, for the axis label.
    """
    shades = plt.get_cmap("viridis")(np.linspace(0.0, 0.8, gains["seeds"].nunique()))
    for (seeds, line), color in zip(gains.groupby("seeds"), shades, strict=True):
        ax.plot(line["items"], line["gain"], color=color, marker=".", label=f"{seeds} seeds")
    ax.set(xscale="log", yscale="log", xlabel="test items", ylabel=f"smallest gain seen, {unit}")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(ScalarFormatter())
    ax.yaxis.set_minor_locator(NullLocator())
    ax.legend()
    return ax


def false_alarms(ax: Axes, alarms: pd.DataFrame, level: float) -> Axes:
    """How often each way of testing finds a difference where there is none.

    Args:
        ax: where to draw.
        alarms: `way, rate, low, high`, shares in [0, 1] with their interval.
        level: the rate that was promised.
    """
    ax.axvline(level, color="black", linewidth=0.8)
    for y, row in enumerate(alarms.to_dict("records")):
        color = VERMILLION if row["low"] > level else GREY
        ax.plot([row["low"], row["high"]], [y, y], color=color, linewidth=2.4)
        ax.plot(row["rate"], y, "o", color=color)
    ax.set_yticks(range(len(alarms)), list(alarms["way"]))
    ax.set_ylim(len(alarms) - 0.5, -0.5)
    ax.set_xlim(0, 1)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("false alarms, share of null experiments (line: 95 % interval)")
    return ax
