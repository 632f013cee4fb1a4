"""Figures of gains against a setting: the sentences at hand, the student, the batch, the luck."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from geodistill.analysis.figures.common import forest, side_by_side
from geodistill.analysis.figures.style import BLUE, GREY, ORANGE, geodistill_style, in_order, look
from geodistill.analysis.stats.noise import PARTS, Noise

APART = 2.2  # the place of "all" beyond the last number of sentences


def forest_alone(lines: pd.DataFrame, unit: str, margin: float) -> Figure:
    """`figures.forest` in the book's style, as high as its lines need; arguments as there."""
    with geodistill_style():
        fig, ax = plt.subplots(figsize=(7, 0.42 * len(lines) + 1))
        forest(ax, lines, unit, margin)
    return fig


def settings_alone(lines: pd.DataFrame, setting: str, margin: float) -> Figure:
    """`by_setting` in the book's style, in points; arguments as there."""
    with geodistill_style():
        fig, ax = plt.subplots(figsize=(7.6, 3.4))
        by_setting(ax, lines, setting, "points", margin)
    return fig


def efficiency_scores(ax: Axes, scores: pd.DataFrame, unit: str) -> Axes:
    """Score against the number of labelled sentences, one line a method.

    Args:
        ax: where to draw.
        scores: `method, n_train, score`; n_train 0 stands for all sentences, drawn apart.
        unit: of the score, for the axis label.
    """
    places = _places(scores["n_train"])
    for method in in_order(scores["method"]):
        rows = scores[scores["method"] == method]
        style, line = look(method), rows[rows["n_train"] > 0].sort_values("n_train")
        ax.plot(
            line["n_train"],
            line["score"],
            style.marker,
            ls="-",
            color=style.color,
            label=style.label,
        )
        rest = rows[rows["n_train"] == 0]
        ax.plot(rest["n_train"].map(places), rest["score"], style.marker, color=style.color)
    ax.set_ylabel(unit)
    return _over_sentences(ax, places)


def efficiency_gains(ax: Axes, gains: pd.DataFrame, unit: str, margin: float) -> Axes:
    """Gain over the baseline against the number of labelled sentences, with intervals.

    Args:
        ax: where to draw.
        gains: `method, n_train, estimate, low, high`; n_train 0 stands for all sentences.
        unit: of the gain, for the axis label.
        margin: half width of the shaded band of equivalence, in that unit.
    """
    places = _places(gains["n_train"])
    ax.axhspan(-margin, margin, color="#EFEFEF", zorder=0)
    ax.axhline(0, color="black", linewidth=0.8)
    methods = in_order(gains["method"])
    for place, method in enumerate(methods):
        style, line = look(method), gains[gains["method"] == method].sort_values("n_train")
        x = line["n_train"].map(places) * 1.07 ** (place - (len(methods) - 1) / 2)
        error = [line["estimate"] - line["low"], line["high"] - line["estimate"]]
        ax.errorbar(x, line["estimate"], error, fmt=style.marker, color=style.color)
        joined = (line["n_train"] > 0).to_numpy()
        ax.plot(x[joined], line["estimate"][joined], color=style.color, label=style.label)
    ax.set_ylabel(f"{unit} (line: 95 % interval)")
    return _over_sentences(ax, places)


def by_setting(ax: Axes, gains: pd.DataFrame, setting: str, unit: str, margin: float) -> Axes:
    """Gains at each value of a setting, methods side by side, with intervals.

    Args:
        ax: where to draw.
        gains: `method, estimate, low, high, setting`; the setting's values are names, in order.
        setting: what the values are, for the axis label.
        unit: of the gain, for the axis label.
        margin: half width of the shaded band of equivalence, in that unit.
    """
    ax.axhspan(-margin, margin, color="#EFEFEF", zorder=0)
    ax.axhline(0, color="black", linewidth=0.8)
    values, methods = list(dict.fromkeys(gains["setting"])), in_order(gains["method"])
    series = {method: gains[gains["method"] == method] for method in methods}
    side_by_side(ax, series, "setting", values, 0.6 / max(len(methods), 1))
    ax.set_xlim(-0.5, len(values) - 0.5)
    ax.set(xlabel=setting, ylabel=f"gain over KD, {unit}\n(line: 95 % interval)")
    if len(methods) > 1:
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def noise_bars(ax: Axes, parts: Mapping[str, Noise], unit: str, factor: float) -> Axes:
    """Variance of one run by what draws it, a bar a score or difference; its deviation beside it.

    Args:
        ax: where to draw.
        parts: by the bar's name.
        unit: of the score times `factor`, for the labels.
        factor: by which a score is multiplied.
    """
    colors = dict(zip(PARTS, (ORANGE, BLUE, GREY), strict=True))
    names = {"subsample": "which sentences", "start": "start and order", "rest": "the rest"}
    for y, one in enumerate(parts.values()):
        left = 0.0
        for part in PARTS:
            width = factor**2 * getattr(one, part)
            label = names[part] if y == 0 else None
            ax.barh(y, width, 0.6, left=left, color=colors[part], label=label)
            left += width
        ax.text(left, y, f"  standard deviation {np.sqrt(left):.1f} {unit}", va="center")
    most = max(factor**2 * one.total for one in parts.values())
    ax.set_xlim(0, 1.6 * most)
    ax.set_yticks(range(len(parts)), list(parts))
    ax.set_ylim(len(parts) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(f"variance of one run, {unit} squared")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return ax


def _places(n_train: pd.Series) -> dict[int, float]:
    """Where each number of sentences stands on the axis."""
    numbers = sorted(int(n) for n in n_train.unique())
    return {n: float(n) if n else APART * numbers[-1] for n in numbers}


def _over_sentences(ax: Axes, places: Mapping[int, float]) -> Axes:
    ax.set_xscale("log")
    ax.set_xticks(list(places.values()), [f"{n}" if n else "all" for n in places])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("labelled sentences")
    return ax
