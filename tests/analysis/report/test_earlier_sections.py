"""The table of earlier studies, against counts and gains that are computed another way."""

import shutil

import numpy as np
import pandas as pd
import pytest

from geodistill.analysis.report.earlier_sections import earlier_sections, format_earlier
from geodistill.errors import InputError
from geodistill.paths import data_dir

RESULTS = data_dir() / "results"
EARLIER = RESULTS / "earlier"


@pytest.fixture(scope="module")
def table():
    return earlier_sections(RESULTS)


def folders():
    return sorted(path.parent for path in EARLIER.rglob("rows.parquet"))


def stored_runs(folder):
    return pd.read_parquet(folder / "rows.parquet", columns=["run_id", "method"]).drop_duplicates()


def test_every_stored_run_and_method_is_listed(table):
    sections = {(study, name): rows for (study, name), rows in table.groupby(["study", "section"])}
    assert set(sections) == {(folder.parent.name, folder.name) for folder in folders()}
    for folder in folders():
        stored = stored_runs(folder)
        listed = sections[folder.parent.name, folder.name].explode("run_ids")
        pairs = set(zip(listed["run_ids"], listed["method"], strict=True))
        assert pairs == set(stored.itertuples(index=False, name=None)), folder


def test_the_runs_are_all_that_no_claim_uses():
    """1,208 were set aside, then 600 of classification, 146 of instruction; T0 got two lookups."""
    assert sum(len(stored_runs(folder)) for folder in folders()) == 1208 + 600 + 146 + 2


def gain_by_hand(folder, method, kd_folder=None, query="seed >= 0"):
    """Difference of means over items, seeds and then tasks, for runs that share no settings."""
    means = []
    for part, wanted in ((folder, method), (kd_folder or folder, "kd")):
        items = pd.read_parquet(EARLIER.parent / part / "items.parquet")
        config = pd.read_parquet(EARLIER.parent / part / "rows.parquet").drop_duplicates("run_id")
        items = items[items["method"] == wanted]
        config = config.set_index("run_id")["config"]
        epochs = items["run_id"].map(config.str.extract(r'"epochs": ([\d.]+)')[0].astype(float))
        items = items.assign(epochs=epochs).query(query)
        means.append(items.groupby(["task", "seed"])["score"].mean())
    method_means, kd_means = means
    difference = (method_means - kd_means).dropna()
    assert len(difference) == len(method_means)
    return difference.groupby("task").mean().mean()


def listed_gain(table, section, method, setting=""):
    rows = table.query("section == @section and method == @method and setting == @setting")
    (gain,) = rows["gain"]
    return gain


def test_a_section_with_kd_of_its_own(table):
    expected = gain_by_hand("earlier/classification/length", "kd+spectrum", query="epochs == 45")
    assert np.isclose(listed_gain(table, "length", "kd+spectrum", "epochs 45"), expected)
    assert expected < -0.02


def test_a_section_whose_kd_is_in_another(table):
    primary = "earlier/classification/primary"
    for name, method in (("equal-cost", "kd+gram"), ("first-token", "kd+procrustes")):
        expected = gain_by_hand(f"earlier/classification/{name}", method, primary)
        assert np.isclose(listed_gain(table, name, method), expected)
    expected = gain_by_hand("earlier/instruction/seqkd", "seqkd", "earlier/instruction/primary")
    assert np.isclose(listed_gain(table, "seqkd", "seqkd"), expected)


def test_collapsed_runs_by_the_stated_rule(table):
    items = pd.read_parquet(EARLIER / "classification" / "length" / "items.parquet")
    collapsed = 0
    for _, run in items.query("method == 'kd+spectrum'").groupby("run_id"):
        majority = run["label"].value_counts().max() / len(run)
        one_class = run["prediction"].value_counts().max() / len(run)
        collapsed += run["score"].mean() <= majority + 0.02 or one_class >= 0.97
    listed = table.query("section == 'length' and method == 'kd+spectrum'")
    assert listed["collapsed"].sum() == collapsed == 12


def test_what_has_no_gain_says_why(table):
    without = table[table["gain"].isna()]
    assert (without["reason"] != "").all()
    assert (table.loc[table["gain"].notna(), "reason"] == "").all()
    sections = {
        reason: set(rows["section"])
        for reason, rows in without[without["method"] != "kd"].groupby("reason")
    }
    assert sections == {
        "KD ran on another device (CPU, not GPU)": {"tuning-others", "tuning-rkd"},
        "one run, no interval": {"lookups", "references"},
    }
    assert (table["low"] <= table["gain"])[table["gain"].notna()].all()


def test_the_text_for_a_page_drops_nothing(table):
    text = format_earlier(table)
    assert len(text) == len(table)
    assert (text["section"] != "").sum() == len(folders())
    shown = text[(table["section"] == "rkd").to_numpy()].iloc[0]
    assert shown["gain over KD"].endswith(" points")
    assert shown["collapsed"] == "0 of 10"
    not_pooled = text[table["setting"].str.contains("not pooled").to_numpy()]
    assert set(not_pooled["collapsed"]) == {"not defined"}


def test_a_section_that_is_not_described_is_refused(tmp_path):
    shutil.copytree(EARLIER / "instruction" / "seqkd", tmp_path / "earlier/instruction/seqkd")
    (tmp_path / "earlier" / "sections.yaml").write_text("instruction: {}\n")
    with pytest.raises(InputError, match="differ in \\['instruction/seqkd'\\]"):
        earlier_sections(tmp_path)
