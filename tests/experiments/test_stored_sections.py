"""A section is used when every run that its protocol asks for is stored with its items."""

import re
import shutil

import pandas as pd
import pytest
from support.simulated_sections import copy_sections

from geodistill.errors import InputError
from geodistill.experiments.protocol_grid import UnplannedError
from geodistill.experiments.registry import GRIDS
from geodistill.experiments.stored_sections import StoredSections
from geodistill.files import CHECKSUMS

STUDY = "classification"


@pytest.fixture
def results(simulated_results, tmp_path, monkeypatch):
    """A copy of some sections, to be spoilt."""
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    copy_sections(simulated_results, tmp_path, STUDY, ["full", "full-others"])
    return tmp_path / STUDY


def change(results, section, edit, table="rows"):
    path = results / section / f"{table}.parquet"
    edit(pd.read_parquet(path)).to_parquet(path)
    path.with_name(CHECKSUMS).unlink(missing_ok=True)


def why_not(name):
    """The line that says why a section is not used."""
    lines = []
    sections = StoredSections(STUDY, lines.append)
    assert not sections.is_complete(name)
    (line,) = lines
    with pytest.raises(InputError) as refused:
        sections[name]
    assert line == f"{refused.value}; not used"
    return str(refused.value)


def test_a_complete_section_has_every_planned_run_with_its_items(results):
    full = StoredSections(STUDY)["full"]
    assert list(full.run_ids) == sorted(run.run_id for run in GRIDS[STUDY].runs("full"))
    assert len(full.runs) == len(full.run_ids) == 2 * 7 * 10
    assert set(full.items["run_id"]) == set(full.run_ids)
    assert set(full.items["task"]) == {"news", "tweets"}


def test_the_pool_has_the_items_of_the_tasks_that_the_protocol_pools(results):
    kd = StoredSections(STUDY)["kd-tuning"]
    assert set(kd.rows["task"]) == set(kd.items["task"]) == {"news", "tweets", "stsb"}
    assert set(kd.pooled["task"]) == {"news", "tweets"}
    assert len(kd.pooled) == 2 / 3 * len(kd.items)
    assert len(kd.runs) == 54


@pytest.mark.parametrize("table", ["rows", "items"])
def test_one_run_less_and_it_is_not_complete(results, table):
    run = GRIDS[STUDY].runs("full-others")[0].run_id
    change(results, "full-others", lambda frame: frame[frame["run_id"] != run], table)
    assert why_not("full-others") == "section full-others: 49 of 50 runs are stored"


def test_a_run_of_changed_code_does_not_count(results):
    run = GRIDS[STUDY].runs("full-others")[0].run_id
    change(
        results,
        "full-others",
        lambda rows: rows.assign(dirty=rows["dirty"] | (rows["run_id"] == run)),
    )
    assert "49 of 50 runs" in why_not("full-others")


def test_an_absent_section_is_named_in_one_line(results):
    assert why_not("kd-length") == "section kd-length: 0 of 12 runs are stored"
    with pytest.raises(InputError, match="section is 'shorts'; expected one of baselines-val"):
        StoredSections(STUDY)["shorts"]
    with pytest.raises(InputError, match="study is 'glue'; expected one of classification, instr"):
        StoredSections("glue")


def test_a_run_that_nobody_planned_is_left_out(results):
    def with_another(rows):
        others = rows[rows["seed"] == 100].assign(seed=99)
        return pd.concat([rows, others.assign(run_id="other-" + others["run_id"])])

    change(results, "full-others", with_another)
    others = StoredSections(STUDY)["full-others"]
    assert len(others.run_ids) == 50
    assert set(others.items["seed"]) == set(range(100, 105))


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("kd-tuning", "section kd-tuning lacks 54 run"),
        ("term-tuning", "section term-tuning lacks 120"),
    ],
)
def test_without_the_tuning_section_nothing_is_complete(results, missing, reason):
    shutil.rmtree(results / missing)
    line = why_not("full")
    assert line.startswith(f"section full: 210 runs are planned ({reason}")
    assert f"geodistill experiments classification --section {missing}" in line


def test_the_weight_and_the_settings_that_vary_are_columns(results):
    sections = StoredSections(STUDY)
    tuning = sections["term-tuning"]
    assert tuning.items.groupby("weight")["run_id"].nunique().to_dict() == {
        0.5: 40, 2.0: 40, 8.0: 40,
    }  # fmt: skip
    assert {*tuning.runs.loc[tuning.runs["method"] == "kd+gram", "weight"]} == {0.5, 2.0, 8.0}
    assert "learning_rate" not in tuning.runs  # the same in all
    kd = sections["kd-tuning"].runs.groupby(["learning_rate", "temperature"]).size()
    assert kd.to_dict() == {(rate, t): 6 for rate in (1e-4, 3e-4, 9e-4) for t in (1, 2, 4)}


def test_sections_of_two_devices_are_not_compared(results):
    change(results, "full-others", lambda rows: rows.assign(device="cuda: a GPU"))
    lines = []
    sections = StoredSections(STUDY, lines.append)
    assert sections.is_complete("full-others")
    assert sections.is_complete("full")
    assert not sections.is_complete("full", "full-others")
    (line,) = lines
    assert line.startswith("sections made on cpu and cuda are not compared")


def test_provenance_names_commands_folders_and_runs(results):
    provenance = StoredSections(STUDY).provenance("full", "full-others")
    command = "geodistill experiments classification --section"
    assert provenance["source"] == "stored"
    assert provenance["made_by"] == f"for name in full full-others; do {command} $name; done"
    assert provenance["results"] == "data/results/classification/{full,full-others}"
    assert len(provenance["run_ids"]) == 140 + 50
    single = StoredSections(STUDY).provenance("full")
    assert single["made_by"] == f"{command} full"
    assert single["results"] == "data/results/classification/full"


def test_each_table_is_read_once(results, monkeypatch):
    sections = StoredSections(STUDY)
    first = sections["full"]
    shutil.rmtree(results / "full")
    assert sections["full"] is first
    assert sections.is_complete("full")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UnplannedError("no task passes the gate"), r"12 runs are planned \(no task"),
        (InputError("a table is damaged"), None),
    ],
)
def test_only_what_is_still_to_be_made_is_a_line(monkeypatch, error, reason):
    """A damaged table or an unknown setting is an error, not an incomplete section."""

    def runs(name):
        raise error

    monkeypatch.setattr(GRIDS[STUDY], "runs", runs)
    monkeypatch.setattr(GRIDS[STUDY], "n_planned", lambda name: 12)
    if reason:
        assert re.search(reason, why_not("full"))
    else:
        with pytest.raises(InputError, match="a table is damaged"):
            StoredSections(STUDY).is_complete("full")
