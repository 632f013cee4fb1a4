"""Tables of gains by outcome and of means with intervals, against numpy and scipy."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.paired_items import two_methods

from geodistill.analysis.report import tables
from geodistill.analysis.report.format import POINTS
from geodistill.analysis.stats.compare import compare
from geodistill.errors import InputError


@pytest.fixture
def items():
    rng = np.random.default_rng(0)
    return two_methods(0.5 + 0.05 * rng.standard_normal((4, 30)), rng)


def test_a_column_becomes_the_score_and_items_without_it_are_left_out(items):
    items = items.assign(rougeL=0.25, sparse=np.nan)
    assert (tables.as_score(items, "rougeL")["score"] == 0.25).all()
    items.loc[items["item"] == "i3", "sparse"] = 7
    scored = tables.as_score(items, "sparse")
    assert set(scored["item"]) == {"i3"}
    assert (scored["score"] == 7.0).all()
    with pytest.raises(InputError, match=r"no score 'bleu'; their columns are run_id, task"):
        tables.as_score(items, "bleu")


def test_a_table_of_outcomes_shows_where_nothing_differs(items):
    items = items.assign(exact_match=1.0)
    outcomes = {
        "score": lambda frame: frame,
        "exact": lambda frame: tables.as_score(frame, "exact_match"),
    }
    table = tables.gain_table(items, [("m", "kd"), ("kd", "m")], outcomes, POINTS)
    result = compare(items, "m", "kd")
    assert table["score"][0] == POINTS.format_difference(result)
    assert table["score"][0].startswith(f"{100 * result.estimate:+.1f} ({100 * result.low:+.1f} to")
    assert table["exact"].tolist() == ["equal on every item"] * 2
    assert table["difference, points"].tolist() == ["m vs KD", "KD vs m"]


def test_means_have_the_t_interval_of_their_runs():
    values = [0.1, 0.2, 0.4]
    runs = pd.DataFrame(
        {"method": ["kd"] * 3 + ["teacher"], "seed": [0, 1, 2, 0], "nll": [*values, 0.5]}
    ).assign(rougeL=np.nan)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    table = tables.mean_table(runs, {"nll": "NLL", "rougeL": "Rouge-L"})
    assert table["student"].tolist() == ["KD", "teacher"]
    assert table["NLL"].tolist() == [f"{np.mean(values):.3f} ({low:.3f} to {high:.3f})", "0.500"]
    assert table["Rouge-L"].tolist() == ["–", "–"]
    assert tables.mean_table(runs[3:], {"nll": "NLL"})["NLL"].tolist() == ["0.500"]
