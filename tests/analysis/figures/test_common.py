"""Figures draw what they are given, in the method's own look, and leave matplotlib as it was."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from geodistill.analysis.figures import common
from geodistill.analysis.figures.style import METHOD_STYLE, geodistill_style, method_style, comparison_label
from geodistill.analysis.report.format import (
    NATS,
    POINTS,
    comparison_caption,
    comparison_table,
    describe_comparisons,
    estimates_table,
)
from geodistill.analysis.stats.compare import compare_family

METHODS = ["kd+procrustes", "kd+gram"]


@pytest.fixture
def items():
    rng = np.random.default_rng(0)
    index = pd.MultiIndex.from_product(
        [["movie", "product"], ["kd", *METHODS], range(5), [f"i{i}" for i in range(40)]],
        names=["task", "method", "seed", "item"],
    )
    frame = index.to_frame(index=False)
    gain = frame["method"].map({"kd": 0.0, "kd+procrustes": 0.6, "kd+gram": 0.0})
    frame["score"] = (rng.random(len(frame)) < 0.3 + gain).astype(float)
    run_id = frame["task"] + frame["method"] + frame["seed"].astype(str)
    return frame.assign(source=frame["item"], run_id=run_id)


@pytest.fixture
def answers(items):
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


def test_methods_differ_in_marker_or_colour():
    looks = {name: (s.color, s.marker) for name, s in METHOD_STYLE.items()}
    added = [looks[name] for name in looks if name.startswith("kd") or name == "ce"]
    assert len(set(added)) == len(added) > 8
    assert looks["gram"] == looks["kd+gram"]


def test_a_method_that_is_not_ours_keeps_its_name_and_its_look():
    assert method_style("theirs").label == "theirs"
    assert method_style("theirs") == method_style("theirs")
    assert len({(method_style(f"m{i}").color, method_style(f"m{i}").marker) for i in range(40)}) > 20
    assert comparison_label("theirs", "kd") == "theirs vs KD"


def test_forest_draws_each_interval_in_the_methods_colour(ax, answers):
    data = estimates_table(answers, POINTS)
    assert common.forest(ax, data, "points", margin=1.0) is ax
    lines = [line for line in ax.lines if line.get_linewidth() == 2.4]
    assert len(lines) == 2
    for line, row in zip(lines, data.itertuples(), strict=True):
        assert list(line.get_xdata()) == [row.low, row.high]
        assert to_hex(line.get_color()).upper() == method_style(row.method).color
    assert ax.get_yticklabels()[0].get_text() == "KD + Procrustes\nvs KD, pooled"
    assert "points" in ax.get_xlabel()


def test_seed_dots_show_every_seed(ax):
    data = pd.DataFrame(
        {"method": METHODS * 3, "seed": [0, 0, 1, 1, 2, 2], "difference": np.arange(6.0)}
    )
    common.seed_dots(ax, data, "points")
    dots = np.concatenate([line.get_ydata() for line in ax.lines[1:]])
    assert sorted(dots) == list(range(6))


def test_kept_against_score_marks_the_mean(ax):
    runs = pd.DataFrame({"method": METHODS * 2, "kept": [0, 1, 2, 3], "accuracy": [4, 5, 6, 7]})
    common.kept_against_score(ax, runs, "kept", "accuracy")
    means = [line for line in ax.lines if line.get_markersize() == 9]
    assert [(*m.get_xdata(), *m.get_ydata()) for m in means] == [(1, 5), (2, 6)]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [method_style(m).label for m in METHODS]


def test_table_and_caption_say_what_was_done(answers):
    table = comparison_table(answers, 0.01, POINTS)
    assert table["verdict"].tolist() == ["better", "inconclusive"]
    shown = float(table["points (95% interval)"][0].split()[0])
    assert shown == pytest.approx(100 * answers[0].estimate, abs=0.051)
    text = comparison_caption(answers, 0.01, POINTS)
    assert text.startswith("5 seeds; 80 test items from 80 sources. Test: paired")
    for part in ("crossed", "Holm over 2", "Margin: 1 (points)", "not adjusted", "30 runs"):
        assert part in text


def test_units_scale_and_round():
    assert POINTS.format(0.0123) == "+1.2"
    assert NATS.format(-0.01234) == "-0.012"


def test_repeated_intervals_show_the_misses(ax):
    ends = np.array([[-1.0, 1.0], [0.5, 2.0], [-3, -1], [0, 2]])
    common.repeated_intervals(ax, ends, 0, "points", "items only")
    assert ax.get_title("left") == "items only: 2 of 4 miss"
    red = [tuple(line.get_xdata()) for line in ax.lines if line.get_color() == "#D55E00"]
    assert sorted(red) == [(-3, -1), (0.5, 2)]


def test_alternative_text_holds_the_numbers(answers):
    text = describe_comparisons(answers, POINTS)
    assert f"KD + Gram vs KD, pooled: {POINTS.format(answers[1].estimate)} (" in text
    assert POINTS.format(answers[0].high) in text


def test_smallest_gains_draw_one_line_a_number_of_seeds(ax):
    data = pd.DataFrame({"seeds": [3, 3, 5, 5], "items": [10, 99] * 2, "gain": [4.0, 3, 2, 1]})
    common.smallest_gains(ax, data, "points")
    assert [list(line.get_ydata()) for line in ax.lines] == [[4, 3], [2, 1]]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["3 seeds", "5 seeds"]
    assert "points" in ax.get_ylabel()


def test_false_alarms_beyond_the_promise_are_red(ax):
    data = pd.DataFrame(
        {"way": ["a", "b"], "rate": [0.05, 0.4], "low": [0.02, 0.3], "high": [0.1, 0.5]}
    )
    common.type1_error_rates(ax, data, 0.05)
    assert [line.get_color() for line in ax.lines[1:]] == ["#7F7F7F"] * 2 + ["#D55E00"] * 2
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]
