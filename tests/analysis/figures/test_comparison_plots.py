"""Figures draw what they are given, in the style of each method, and restore matplotlib."""

from dataclasses import replace
from itertools import combinations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb
from support.paired_items import crossed_rows

from geodistill.analysis.figures import comparison_plots
from geodistill.analysis.figures.style import (
    METHOD_STYLE,
    comparison_label,
    geodistill_style,
    method_style,
)
from geodistill.analysis.report.format import (
    NATS,
    POINTS,
    comparison_caption,
    comparison_table,
    estimates_table,
    format_p,
)
from geodistill.analysis.stats.compare import compare_family
from geodistill.experiments.methods import (
    CLASSIFICATION_METHODS,
    INSTRUCTION_METHODS,
    INSTRUCTION_REFERENCES,
    base_of,
    term_of,
)
from geodistill.experiments.synthetic.settings import OBJECTIVES

METHODS = ["kd+procrustes", "kd+gram"]


@pytest.fixture
def items():
    rng = np.random.default_rng(0)
    methods, names = ["kd", *METHODS], [f"i{i}" for i in range(40)]
    frame = crossed_rows(task=["movie", "product"], method=methods, seed=range(5), item=names)
    gain = frame["method"].map({"kd": 0.0, "kd+procrustes": 0.6, "kd+gram": 0.0})
    frame["score"] = (rng.random(len(frame)) < 0.3 + gain).astype(float)
    run_id = frame["task"] + frame["method"] + frame["seed"].astype(str)
    return frame.assign(source=frame["item"], run_id=run_id)


@pytest.fixture
def comparisons(items):
    return compare_family(items, [(m, "kd") for m in METHODS])


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_style_is_applied_and_restored():
    before = dict(mpl.rcParams)
    with geodistill_style():
        assert mpl.rcParams["axes.spines.top"] is False
        assert dict(mpl.rcParams) != before
    assert dict(mpl.rcParams) == before
    with pytest.raises(RuntimeError), geodistill_style():
        raise RuntimeError
    assert dict(mpl.rcParams) == before


FIGURES = {
    "classification": CLASSIFICATION_METHODS,
    "instruction": (
        *(m for m in INSTRUCTION_METHODS if base_of(m) == "kd"),
        *("sft", "seqkd"),
        *INSTRUCTION_REFERENCES,
    ),
    "instruction, skew": [m for m in INSTRUCTION_METHODS if base_of(m) == "skew"],
    "synthetic": list(OBJECTIVES),
}


@pytest.mark.parametrize("study", FIGURES)
def test_methods_of_one_figure_never_share_a_colour(study):
    methods = FIGURES[study]
    colors = {METHOD_STYLE[method].color for method in methods}
    assert len(colors) == len(methods) >= 7


def test_colour_and_marker_belong_to_one_method():
    """A loss looks the same alone and added to a base loss."""
    owners = {}
    for name, style in METHOD_STYLE.items():
        owners.setdefault((style.color, style.marker), set()).add(term_of(name) or name)
    assert {len(names) for names in owners.values()} == {1}
    assert len(owners) > 25
    assert method_style("gram").color == method_style("kd+gram").color


def lab_distance(first, second):
    """Euclidean distance of two colours in CIE Lab (D65)."""
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    lab = []
    for color in (first, second):
        rgb = np.array(to_rgb(color))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        x, y, z = np.cbrt(to_xyz @ linear / [0.9505, 1, 1.089])
        lab.append([116 * y - 16, 500 * (x - y), 200 * (y - z)])
    return float(np.linalg.norm(np.subtract(*lab)))


def test_the_losses_of_a_study_differ_at_a_glance():
    terms = [m for m in CLASSIFICATION_METHODS if term_of(m)]
    pairs = list(combinations([METHOD_STYLE[m].color for m in terms], 2))
    assert min(lab_distance(*pair) for pair in pairs) > 25
    assert lab_distance("#FF0000", "#0000FF") == pytest.approx(176.3, abs=0.2)


def test_an_unknown_method_keeps_its_name_and_has_a_style():
    assert method_style("unknown").label == "unknown"
    assert method_style("unknown") == method_style("unknown")
    assert (
        len({(method_style(f"m{i}").color, method_style(f"m{i}").marker) for i in range(40)}) > 20
    )
    assert comparison_label("unknown", "kd") == "unknown vs KD"


def test_forest_draws_each_interval_in_the_methods_colour(ax, comparisons):
    data = estimates_table(comparisons, POINTS)
    assert comparison_plots.forest(ax, data, "points", margin=1.0) is ax
    lines = [line for line in ax.lines if line.get_linewidth() == 2.4]
    assert len(lines) == 2
    for line, row in zip(lines, data.itertuples(), strict=True):
        assert list(line.get_xdata()) == [row.low, row.high]
        assert to_hex(line.get_color()).upper() == method_style(row.method).color
    assert ax.get_yticklabels()[0].get_text() == "KD + Procrustes"
    assert ax.get_xlabel() == "difference from KD, points (line: 95 % interval)"


def test_table_and_caption_say_what_was_done(comparisons):
    table = comparison_table(comparisons, 0.01, POINTS)
    assert table["verdict"].tolist() == ["better", "inconclusive"]
    shown = float(table["points (95 % interval)"][0].split()[0])
    assert shown == pytest.approx(100 * comparisons[0].estimate, abs=0.051)
    text = comparison_caption(comparisons, 0.01, POINTS)
    assert text.startswith("5 seeds; 80 test items of 2 tasks from 40 sources. Test: paired")
    for part in ("crossed", "Holm over 2", "Margin: 1 (points)", "not adjusted", "30 runs"):
        assert part in text


def test_units_scale_and_round():
    assert POINTS.format(0.0123) == "+1.2"
    assert NATS.format(-0.01234) == "-0.012"


def test_repeated_intervals_show_the_misses(ax):
    ends = np.array([[-1.0, 1.0], [0.5, 2.0], [-3, -1], [0, 2]])
    comparison_plots.repeated_intervals(ax, ends, 0, "points", "items only")
    assert ax.get_title("left") == "items only: 2 of 4 miss"
    red = [tuple(line.get_xdata()) for line in ax.lines if line.get_color() == "#D55E00"]
    assert sorted(red) == [(-3, -1), (0.5, 2)]


def test_smallest_gains_draw_one_line_a_number_of_seeds(ax):
    data = pd.DataFrame({"seeds": [3, 3, 5, 5], "items": [10, 99] * 2, "gain": [4.0, 3, 2, 1]})
    comparison_plots.smallest_gains(ax, data, "points")
    assert [list(line.get_ydata()) for line in ax.lines] == [[4, 3], [2, 1]]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["3 seeds", "5 seeds"]
    assert "points" in ax.get_ylabel()


def test_false_alarms_beyond_the_promise_are_red(ax):
    data = pd.DataFrame(
        {"analysis": ["a", "b"], "rate": [0.05, 0.4], "low": [0.02, 0.3], "high": [0.1, 0.5]}
    )
    comparison_plots.type1_error_rates(ax, data, 0.05)
    assert ax.get_xlim() == (0, 1)
    assert [line.get_color() for line in ax.lines[1:]] == ["#7F7F7F"] * 2 + ["#D55E00"] * 2
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]


def test_groups_are_drawn_with_their_methods_side_by_side(ax):
    table = pd.DataFrame(
        [(g, m, v, v - 1, v + 2) for g, v in (("KD", 1.0), ("SFT", 3.0)) for m in METHODS],
        columns=["group", "method", "estimate", "low", "high"],
    )
    comparison_plots.grouped_errorbars(ax, table)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["KD", "SFT"]
    first, second = ax.containers
    assert first.lines[0].get_ydata().tolist() == [1.0, 3.0]
    assert first.lines[0].get_xdata() == pytest.approx([-0.07, 0.93])
    assert second.lines[0].get_xdata() == pytest.approx([0.07, 1.07])
    assert to_hex(first.lines[0].get_color()).upper() == method_style(METHODS[0]).color
    segments = first.lines[2][0].get_segments()
    assert [segment[:, 1].tolist() for segment in segments] == [[0.0, 3.0], [2.0, 5.0]]


def test_the_forest_fills_pooled_marks_and_shades_the_margin(ax):
    row = {"method": "kd+gram", "baseline": "kd", "estimate": 1.0, "low": 0.0, "high": 2.0}
    data = pd.DataFrame([{**row, "task": "pooled"}, {**row, "task": "movie"}])
    comparison_plots.forest(ax, data, "points", margin=0.5)
    marks = [line for line in ax.lines if line.get_marker() == "s"]
    assert [mark.get_markerfacecolor() for mark in marks] == [
        method_style("kd+gram").color,
        "white",
    ]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["KD + Gram, pooled", "KD + Gram, movie"]
    (band,) = ax.patches
    assert (band.get_x(), band.get_width()) == (-0.5, 1.0)
    assert ax.get_ylim() == (1.5, -0.5)  # the first row on top


def test_ranges_of_seeds_stand_in_the_caption(comparisons):
    fewer = [comparisons[0], replace(comparisons[1], n_seeds=3, n_items=1200)]
    text = comparison_caption(fewer, 0.01, POINTS)
    assert text.startswith("3 to 5 seeds; 80 to 1,200 test items")
    single = comparison_table([replace(c, family=1) for c in comparisons], 0.01, POINTS)
    assert "p" in single
    assert "p (Holm)" in comparison_table(comparisons, 0.01, POINTS)


@pytest.mark.parametrize(
    ("p", "text"), [(0.0449, "0.045"), (1e-4, "0.0001"), (9.9e-5, "< 0.0001"), (1.0, "1")]
)
def test_p_values_have_two_digits(p, text):
    assert format_p(p) == text
