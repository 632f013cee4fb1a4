"""The instruction study's figures draw what they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from geodistill.analysis.figures import instruction as drawn
from geodistill.analysis.figures.style import GREY, look


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_chosen_weight_is_ringed_at_its_mean(ax):
    lines = [("kd", 1.0, 3.0, 3.0), ("kd+gram", 0.1, 2.9, 3.1), ("kd+gram", 1.0, 2.5, 2.7)]
    runs = pd.DataFrame(
        [{"method": m, "factor": w, "seed": s, "nll": v} for m, w, *two in lines
         for s, v in enumerate(two)]
    )  # fmt: skip
    drawn.tuning_curves(ax, runs, {"kd+gram": 1.0}, ("kd",))
    (ring,) = [line for line in ax.lines if line.get_markersize() == 13]
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == pytest.approx((1.0, 2.6))
    assert legend(ax) == ["KD + Gram", "KD"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0.1", "1"]
    assert "nats a token" in ax.get_ylabel()


def test_terms_keep_their_look_on_every_base(ax):
    table = pd.DataFrame(
        [(g, f"{b}+{t}", v, v - 1, v + 2) for g, b, v in (("KD", "kd", 1.0), ("SFT", "sft", 3.0))
         for t in ("gram", "cka")],
        columns=["group", "method", "estimate", "low", "high"],
    )  # fmt: skip
    drawn.gains_in_groups(ax, table, "nats", margin=0.5)
    assert legend(ax) == ["Gram", "CKA"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["KD", "SFT"]
    gram, cka = (container for container in ax.containers)
    assert gram.lines[0].get_ydata().tolist() == [1.0, 3.0]
    assert to_hex(gram.lines[0].get_color()).upper() == look("gram").color
    assert (gram.lines[0].get_xdata() < cka.lines[0].get_xdata()).all()
    segments = gram.lines[2][0].get_segments()
    assert [s[:, 1].tolist() for s in segments] == [[0.0, 3.0], [2.0, 5.0]]


def test_the_spread_has_a_line_a_method_and_the_teachers(ax):
    spread = pd.DataFrame(
        {"method": ["kd", "kd"], "share": [0, 100], "mean": [5.0, 9.0], "low": [4.0, np.nan],
         "high": [6.0, np.nan]}
    )  # fmt: skip
    drawn.spread_over_training(ax, spread, 7.0)
    assert legend(ax) == ["KD", "teacher"]
    assert ax.lines[0].get_ydata().tolist() == [5.0, 9.0]
    assert set(ax.lines[1].get_ydata()) == {7.0}


def test_the_two_parts_stand_end_to_end(ax):
    parts = pd.DataFrame({"spectrum": [0.2, 0.3], "alignment": [0.5, 0.1]}, index=["kd", "sft"])
    drawn.distance_parts(ax, parts)
    ends = [patch.get_x() + patch.get_width() for patch in ax.patches]
    assert ends == pytest.approx([0.2, 0.3, 0.7, 0.4])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["KD", "SFT"]


def test_every_decoding_is_a_dot_and_every_training_a_column(ax):
    index = pd.MultiIndex.from_product([[0, 1], [100, 101, 102], [10, 20]])
    marks = index.to_frame(index=False, name=["start", "order", "decoding"])
    marks["value"] = np.arange(12.0)
    drawn.trainings(ax, marks, "points")
    assert len(ax.lines) == 6
    dots = np.concatenate([line.get_ydata() for line in ax.lines])
    assert sorted(dots) == list(range(12))
    columns = [line.get_xdata()[0] for line in ax.lines]
    assert columns == [0, 1, 2, 4, 5, 6]  # a gap between the starts
    assert ax.get_xticks().tolist() == [1, 5]


def test_decodings_of_one_model_are_grey(ax):
    table = pd.DataFrame(
        {"what": ["one model, decoded again", "another start"], "deviation": [1.0, 2.0],
         "low": [0.5, 1.0], "high": [2.0, 9.0]}
    )  # fmt: skip
    drawn.deviations(ax, table, "points")
    assert ax.lines[0].get_color() == GREY
    assert ax.lines[2].get_color() != GREY
    assert list(ax.lines[2].get_xdata()) == [1.0, 9.0]
    assert ax.get_xlim()[0] == 0
