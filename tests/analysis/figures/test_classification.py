"""Figures of gains against a setting draw what they are given; sentences say it."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.container import BarContainer, ErrorbarContainer

from geodistill.analysis.figures import classification
from geodistill.analysis.figures.style import in_order, look
from geodistill.analysis.report.format import POINTS
from geodistill.analysis.report.sentences import CHANGE, say, say_each, sentence, whence
from geodistill.analysis.stats.compare import compare
from geodistill.analysis.stats.noise import Noise


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def lines(key, values, methods=("kd+gram", "kd+procrustes")):
    table = pd.DataFrame([(m, v) for v in values for m in methods], columns=["method", key])
    table["estimate"] = np.arange(len(table), dtype=float)
    return table.assign(low=table["estimate"] - 1, high=table["estimate"] + 2, baseline="kd")


def intervals(ax):
    """(low, high) of each error bar, by the label of its colour's line."""
    bars = [c for c in ax.containers if isinstance(c, ErrorbarContainer)]
    return [s[:, 1].tolist() for bar in bars for s in bar[2][0].get_segments()]


def test_methods_have_one_order_everywhere():
    assert in_order(["mine", "kd+gram", "kd", "kd+procrustes", "kd"]) == [
        "kd",
        "kd+procrustes",
        "kd+gram",
        "mine",
    ]


def test_scores_over_sentences_keep_all_apart(ax):
    table = pd.DataFrame({"method": ["kd"] * 3, "n_train": [0, 500, 125], "score": [0.9, 0.7, 0.6]})
    classification.efficiency_scores(ax, table, "accuracy")
    joined, apart = ax.lines
    assert list(joined.get_xdata()) == [125, 500]
    assert list(joined.get_ydata()) == [0.6, 0.7]
    assert apart.get_xdata()[0] > 500
    assert [t.get_text() for t in ax.get_xticklabels()] == ["all", "125", "500"]
    assert ax.get_xscale() == "log"


def test_gains_over_sentences_have_their_intervals(ax):
    classification.efficiency_gains(ax, lines("n_train", [125, 500]), "points", 1.0)
    assert sorted(intervals(ax)) == [[-1, 2], [0, 3], [1, 4], [2, 5]]
    drawn = [line for line in ax.lines if line.get_label() == look("kd+gram").label]
    assert list(drawn[0].get_ydata()) == [0, 2]
    assert "points" in ax.get_ylabel()


def test_settings_stand_in_their_order_with_methods_side_by_side(ax):
    classification.by_setting(
        ax, lines("setting", ["2 × 64", "4 × 64"]), "the student", "points", 1
    )
    assert [t.get_text() for t in ax.get_xticklabels()] == ["2 × 64", "4 × 64"]
    assert sorted(intervals(ax)) == [[-1, 2], [0, 3], [1, 4], [2, 5]]
    names = [t.get_text() for t in ax.get_legend().get_texts()]
    assert names == [look("kd+procrustes").label, look("kd+gram").label]
    assert (ax.get_xlabel(), "points" in ax.get_ylabel()) == ("the student", True)


def test_figures_of_their_own_grow_with_their_lines():
    few = classification.forest_alone(lines("task", ["pooled"]), "points", 1.0)
    many = classification.forest_alone(lines("task", list("abcd")), "points", 1.0)
    assert many.get_figheight() > few.get_figheight()
    one = classification.settings_alone(lines("setting", ["x"]), "the student", 1.0)
    assert one.axes[0].get_xlabel() == "the student"
    plt.close("all")


def test_a_line_is_named_by_its_label():
    table = lines("task", ["pooled"]).assign(label=["first", "second"])
    figure = classification.forest_alone(table, "points", 1.0)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["first", "second"]
    plt.close(figure)


def test_noise_is_stacked_to_its_total(ax):
    parts = {
        "KD": Noise(9e-4, 4e-4, 3e-4, 0, 0, (4, 3, 12)),
        "gap": Noise(0, 0, 1e-4, 1, 1, (4, 3, 12)),
    }
    classification.noise_bars(ax, parts, "points", 100)
    bars = [c for c in ax.containers if isinstance(c, BarContainer)]
    widths = [bar.patches[0].get_width() for bar in bars]
    assert widths == pytest.approx([9, 4, 3, 0, 0, 1])
    assert [t.get_text().strip() for t in ax.texts] == [
        "standard deviation 4.0 points",
        "standard deviation 1.0 points",
    ]
    assert len(ax.get_legend().get_texts()) == 3


def answer(gain, seed=0):
    rng = np.random.default_rng(seed)
    index = pd.MultiIndex.from_product(
        [["t"], ["kd", "kd+gram"], range(6), range(300)], names=["task", "method", "seed", "item"]
    )
    frame = index.to_frame(index=False).assign(run_id="r")
    frame["score"] = 0.05 * rng.standard_normal(len(frame)) + gain * (frame["method"] != "kd")
    return compare(frame.assign(source=frame["item"]), "kd+gram", "kd")


def test_a_sentence_has_word_number_and_interval():
    better = answer(0.05)
    said = say(better, 0.01, POINTS)
    assert said.startswith("**better**, +")
    assert f"({POINTS.interval(better)})" in said
    assert say(answer(-0.05), 0.01, POINTS, CHANGE).startswith("**smaller**, -")
    assert say(answer(0.0), 0.05, POINTS).startswith("**as good within the margin**")
    assert "**better**, by less than the margin" in say(answer(0.02), 0.05, POINTS)
    unsure = say(answer(0.0), 0.0005, POINTS)
    assert unsure.startswith("**cannot tell**")
    assert "it would take" in unsure
    drawn = f"{better.n_seeds} seeds; {', '.join(better.tasks)}"
    assert say_each([better], 0.01, POINTS) == f"KD + Gram: {said} ({drawn})"
    fewer = replace(better, n_seeds=better.n_seeds - 1, tasks=("z",))
    both = f"{fewer.n_seeds} to {better.n_seeds} seeds; {', '.join([*better.tasks, 'z'])}"
    assert whence([better, fewer]) == both
    assert sentence("on a GPU") == "On a GPU."
