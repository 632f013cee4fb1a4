"""Answers of autorank, baycomp, scipy and statsmodels on the same small tables (reference/peers).

`reference/peers/peers.py` made them, in an environment of its own.
"""

import json
from pathlib import Path

import pytest
from scipy import stats

from geodistill.analysis import compare_all, read_scores
from geodistill.analysis.report.comparison_report import task_means
from geodistill.analysis.stats.ranks import rank_table

PEERS = Path(__file__).parent / "reference" / "peers"
ANSWERS = json.loads((PEERS / "answers.json").read_text(encoding="utf-8"))
METHODS = ["forest", "boosting", "nearest"]


@pytest.fixture(scope="module")
def over_tasks():
    scores = read_scores(PEERS / "datasets.csv", "tree", metric="accuracy")
    return compare_all(scores, "tree", METHODS, over_tasks=True)


def test_over_tasks_is_the_paired_t_test_with_holms_correction(over_tasks):
    peer = ANSWERS["datasets"]
    assert [c.method for c in over_tasks.comparisons] == METHODS
    assert [c.p for c in over_tasks.comparisons] == pytest.approx(peer["scipy p"])
    intervals = [bound for c in over_tasks.comparisons for bound in (c.low, c.high)]
    assert intervals == pytest.approx([x for ends in peer["scipy interval"] for x in ends])
    corrected = [row.p_adjusted for row in over_tasks.rows]
    assert corrected == pytest.approx(peer["statsmodels p_holm"])


def test_rank_tests_are_those_of_the_field(over_tasks):
    peer, margin = ANSWERS["datasets"], over_tasks.margin
    table = rank_table(task_means(over_tasks), "tree", margin).set_index("method")
    assert margin == 0.01
    assert table["p_friedman"].tolist() == pytest.approx([peer["autorank p_friedman"]] * 3)
    ranks = peer["autorank mean ranks"]
    assert table["rank"].to_dict() == pytest.approx({name: ranks[name] for name in table.index})
    assert table["p_wilcoxon"].to_dict() == pytest.approx(peer["scipy p_wilcoxon"])
    forest = table.loc["forest", ["p_worse", "p_equivalent", "p_better"]].tolist()
    drawn = peer["baycomp forest worse, equivalent, better"]
    assert forest == pytest.approx(drawn, abs=0.01)  # both are Monte Carlo


def test_folds_have_the_variance_of_the_correlated_t_test():
    scores = read_scores(PEERS / "folds.csv", "tree")
    (row,) = compare_all(scores, "tree").rows
    c, peer = row.comparison, ANSWERS["folds"]
    # with a flat prior the posterior probabilities are one-sided p-values
    worse = stats.t.cdf(-c.estimate / c.se, c.df)
    assert [worse, 1 - worse] == pytest.approx(peer["baycomp worse, better"])
    assert c.p == pytest.approx(2 * min(peer["baycomp worse, better"]))
    below, _, above = peer["baycomp worse, equivalent, better"]
    assert row.verdict.p_equivalent == pytest.approx(max(below, above))


def test_seeds_and_items_have_the_standard_error_of_reml():
    report = compare_all(read_scores(PEERS / "items.csv", "kd"), "kd", margin=0.3)
    (c,), peer = report.comparisons, ANSWERS["items"]["statsmodels reml"]
    assert (c.n_seeds, c.n_items) == (5, 15)
    assert c.estimate == pytest.approx(peer["estimate"])
    assert c.se == pytest.approx(peer["se"], rel=1e-4)


def test_one_seed_is_the_paired_t_test_and_its_equivalence_test(tmp_path):
    lines = (PEERS / "items.csv").read_text().splitlines()
    first = [line for line in lines if line.split(",")[1] in ("seed", "0")]
    (tmp_path / "x.csv").write_text("\n".join(first))
    (row,) = compare_all(read_scores(tmp_path / "x.csv", "kd"), "kd", margin=0.3).rows
    assert row.comparison.p == pytest.approx(ANSWERS["items"]["scipy first seed p"])
    expected = ANSWERS["items"]["statsmodels first seed p_equivalent"]
    assert row.verdict.p_equivalent == pytest.approx(expected)
