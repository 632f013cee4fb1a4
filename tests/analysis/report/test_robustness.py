"""Verdicts that one seed, one item or one task carries are said to be so."""

import numpy as np
import pandas as pd
import pytest
from support.paired_items import two_methods

from geodistill.analysis import compare_all, read_scores


def notes(differences, tmp_path, items=True, **options):
    """The notes on (seeds, items) differences of each task that say what carries the verdict."""
    rng = np.random.default_rng(0)
    rows = pd.concat([two_methods(table, rng, task) for task, table in differences.items()])
    rows = rows.rename(columns={"score": "reward", "source": "cluster"})
    rows["cluster"] = rows["task"] + rows["item"]
    if not items:
        rows = rows.groupby(["task", "method", "seed"])["reward"].mean().reset_index()
    rows.to_parquet(tmp_path / "x.parquet")
    scores = read_scores(tmp_path / "x.parquet", "kd", metric="reward")
    report = compare_all(scores, "kd", margin=0.01, **options)
    return report, [note for note in report.notes if ": the verdict, " in note]


def noise(n_seeds=6, n_items=30):
    return 0.05 * np.random.default_rng(1).standard_normal((n_seeds, n_items))


def test_a_clear_difference_rests_on_nothing(tmp_path):
    report, lines = notes({"t": 1.0 + noise()}, tmp_path)
    assert (report.rows[0].verdict.word, lines) == ("better", [])


@pytest.mark.parametrize("items", [True, False])
def test_one_seed_that_hides_a_difference(tmp_path, items):
    table = 0.1 + noise()
    table[2] -= 0.9
    report, lines = notes({"t": table}, tmp_path, items)
    assert report.rows[0].verdict.word == "inconclusive"
    assert lines == ["m: the verdict, inconclusive, becomes better without seed 2"]


def test_one_item_that_hides_a_difference(tmp_path):
    table = noise(4, 12)
    table -= table.mean()
    table[:, 7] += 5.0
    report, lines = notes({"t": 0.01 * table}, tmp_path)
    assert lines == ["m: the verdict, inconclusive, becomes equivalent without item ti7"]
    assert report.rows[0].comparison.n_items == 12


def test_one_task_that_is_the_whole_gain(tmp_path):
    tables = {"a": noise(), "b": noise()[::-1], "c": 0.2 + noise()}
    report, lines = notes(tables, tmp_path, items=False)
    assert report.rows[0].verdict.word == "better"
    assert any("without task c" in line for line in lines)
