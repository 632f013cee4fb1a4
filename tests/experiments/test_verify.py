"""Stored runs made again: a tampered row, other data and a missing item are told."""

from dataclasses import replace

import pandas as pd
import pytest
from support.tiny_study import lines, of_other_data, run_all, run_of, tiny_study

from geodistill.errors import InputError
from geodistill.experiments.verify import verify_runs
from geodistill.files import CHECKSUMS


def verified(study, count):
    return list(verify_runs(study, count, workers=1, progress=lambda line: None))


def test_a_deterministic_study_verifies_in_full(log, results):
    study = tiny_study(log)
    run_all(study)
    tables = verified(study, 2)
    assert [table.index.name for table in tables] == [study.jobs[0].run_id, study.jobs[2].run_id]
    for table in tables:
        assert set(table.index) == {"accuracy", "nll", "same_items"}
        assert (table["stored"] == table["repeated"]).all()
        assert table.loc["same_items", "repeated"] == 1
    assert lines(log, "begin")[4:] == [0, 2]


def test_tampered_rows_and_items_are_told(log, results):
    study = tiny_study(log)
    run_all(study)
    for kind, column, value in (("rows", "value", 0.123), ("items", "prediction", 1)):
        table = pd.read_parquet(results / f"{kind}.parquet")
        table.loc[table["run_id"] == study.jobs[0].run_id, column] = value
        table.to_parquet(results / f"{kind}.parquet")
        (results / CHECKSUMS).unlink(missing_ok=True)
    changed, same = verified(study, 2)
    assert changed.loc["accuracy", "stored"] == 0.123
    assert changed.loc["accuracy", "repeated"] == run_of(0).metrics["accuracy"]
    assert changed.loc["same_items", "repeated"] == 0.5  # of predictions 0, 1, 0, 1
    assert same.loc["same_items", "repeated"] == 1


def test_other_data_are_reported(log, results):
    run_all(tiny_study(log, runs=2))
    told = []
    study = tiny_study(log, runs=2, work=of_other_data)
    tables = list(verify_runs(study, 2, workers=1, progress=told.append))
    assert len(tables) == 2
    assert told[1:] == [f"{job.run_id}: other data: stored d, now another" for job in study.jobs]
    same = []
    list(verify_runs(tiny_study(log, runs=2), 2, workers=1, progress=same.append))
    assert same == ["preparing 2"]


def test_items_without_predictions_agree_within_a_hundredth(log, results):
    study = tiny_study(log, work=without_predictions)
    run_all(study)
    items = pd.read_parquet(results / "items.parquet")
    items.loc[items["item"] == "i1", "nll"] *= 1.005
    items.loc[items["item"] == "i2", "nll"] *= 1.05
    items.to_parquet(results / "items.parquet")
    (results / CHECKSUMS).unlink(missing_ok=True)
    (table,) = verified(study, 1)
    assert table.loc["same_items", "repeated"] == 0.75


def without_predictions(log, seconds, seed):
    run = run_of(seed)
    return replace(run, items=run.items.drop(columns=["label", "prediction"]))


def test_an_item_that_is_gone_does_not_agree(log, results):
    study = tiny_study(log, runs=1)
    run_all(study)
    items = pd.read_parquet(results / "items.parquet")
    items.loc[items["item"] == "i3", "item"] = "elsewhere"
    items.to_parquet(results / "items.parquet")
    (results / CHECKSUMS).unlink(missing_ok=True)
    assert verified(study, 1)[0].loc["same_items", "repeated"] == 0.75


def test_what_cannot_be_verified(log, results):
    study = tiny_study(log)
    with pytest.raises(
        InputError, match=r"no stored rows at .*; run `geodistill experiments` first"
    ):
        verified(study, 1)
    run_all(study)
    with pytest.raises(InputError, match="verify is 5; expected 1 to 4, the stored runs"):
        verified(study, 5)
