"""Figures of comparisons: each function draws tidy data on an `ax` and returns the `ax`."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

from geodistill.analysis.figures.style import GREY, VERMILLION, method_style
from geodistill.analysis.stats.crossed_anova import Array


def forest(ax: Axes, estimates: pd.DataFrame, unit: str, margin: float | Sequence[float]) -> Axes:
    """Differences with their intervals, one line per comparison and task; pooled ones are filled.

    Lines are labelled by method, and by baseline and task where these are not the same for all.

    Args:
        ax: where to draw.
        estimates: `method, baseline, task, estimate, low, high`, as `estimates_table` gives them.
        unit: of the differences, for the axis label.
        margin: half width of the shaded band of equivalence, in that unit; or one per line.
    """
    half = np.atleast_1d(margin)
    if len(set(half)) > 1:
        ax.barh(range(len(half)), 2 * half, left=-half, height=1, color="#EFEFEF", zorder=0)
    else:
        ax.axvspan(-half[0], half[0], color="#EFEFEF", zorder=0)
    ax.axvline(0, color="black", linewidth=0.8)
    labels, several = [], {name: estimates[name].nunique() > 1 for name in ("baseline", "task")}
    for y, row in enumerate(estimates.to_dict("records")):
        style, pooled = method_style(row["method"]), row["task"] == "pooled"
        width = 2.4 if pooled else 1.2
        ax.plot([row["low"], row["high"]], [y, y], color=style.color, linewidth=width)
        face = style.color if pooled else "white"
        ax.plot(row["estimate"], y, style.marker, color=style.color, markerfacecolor=face)
        label = style.label
        if several["baseline"]:
            label += f"\nvs {method_style(row['baseline']).label}"
        if several["task"]:
            label += f", {row['task']}"
        labels.append(label.replace("$", r"\$"))  # no formula
    difference = "difference"
    if not several["baseline"]:
        difference += f" from {method_style(estimates['baseline'].iloc[0]).label}"
    ax.set_xlabel(f"{difference}, {unit} (line: 95 % interval)".replace("$", r"\$"))
    return _label_rows(ax, labels)


def grouped_errorbars(ax: Axes, estimates: pd.DataFrame) -> Axes:
    """Estimates with their intervals, groups along the axis and methods side by side.

    Args:
        ax: where to draw.
        estimates: `group, method, estimate, low, high`; groups and methods in order of their rows.
    """
    groups, n_methods = list(estimates["group"].unique()), estimates["method"].nunique()
    for number, (method, rows) in enumerate(estimates.groupby("method", sort=False)):
        style = method_style(str(method))
        x = rows["group"].map(groups.index) + 0.14 * (number - (n_methods - 1) / 2)
        error = [rows["estimate"] - rows["low"], rows["high"] - rows["estimate"]]
        ax.errorbar(
            x, rows["estimate"], error, fmt=style.marker, color=style.color, label=style.label
        )
    ax.set_xticks(range(len(groups)), groups)
    ax.grid(axis="x", visible=False)
    return ax


def repeated_intervals(ax: Axes, intervals: Array, truth: float, unit: str, name: str) -> Axes:
    """Intervals of repeated experiments, one line each; those that miss the truth are red.

    Args:
        ax: where to draw.
        intervals: (n, 2), lower and upper ends.
        truth: the value that each should contain.
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


def smallest_gains(ax: Axes, gains: pd.DataFrame, unit: str) -> Axes:
    """The smallest gain that a design detects against its items, one line per number of seeds.

    Args:
        ax: where to draw.
        gains: `seeds, items, gain`.
        unit: of the gain, for the axis label.
    """
    shades = plt.get_cmap("viridis")(np.linspace(0.0, 0.8, gains["seeds"].nunique()))
    for (seeds, line), color in zip(gains.groupby("seeds"), shades, strict=True):
        ax.plot(line["items"], line["gain"], color=color, marker=".", label=f"{seeds} seeds")
    ax.set(xscale="log", yscale="log", xlabel="test items", ylabel=f"smallest gain, {unit}")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(ScalarFormatter())
    ax.yaxis.set_minor_locator(NullLocator())
    ax.legend()
    return ax


def type1_error_rates(ax: Axes, rates: pd.DataFrame, level: float) -> Axes:
    """How often each analysis finds a difference where there is none.

    Args:
        ax: where to draw.
        rates: `analysis, rate, low, high`, shares in [0, 1] with their interval.
        level: nominal rate.
    """
    ax.axvline(level, color="black", linewidth=0.8)
    for y, row in enumerate(rates.to_dict("records")):
        color = VERMILLION if row["low"] > level else GREY
        ax.plot([row["low"], row["high"]], [y, y], color=color, linewidth=2.4)
        ax.plot(row["rate"], y, "o", color=color)
    ax.set_xlim(0, 1)
    ax.set_xlabel("false alarms, share of null experiments (line: 95 % interval)")
    return _label_rows(ax, list(rates["analysis"]))


def _label_rows(ax: Axes, labels: list[str]) -> Axes:
    """One label per row, the first row on top."""
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    return ax
