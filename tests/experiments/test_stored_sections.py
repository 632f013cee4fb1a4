"""A section is used when every run that its protocol asks for is stored with its items."""

import shutil

import pandas as pd
import pytest
from support.simulated_sections import write_sections

from geodistill.errors import InputError
from geodistill.experiments.registry import GRIDS
from geodistill.experiments.stored_sections import StoredSections
from geodistill.files import CHECKSUMS

STUDY = "classification"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEODISTILL_RESULTS", str(folder))
        write_sections(folder, STUDY, ["primary", "placebos"], n_items=6)
    return folder


@pytest.fixture
def results(written, tmp_path, monkeypatch):
    """A copy of the sections, to be spoilt."""
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
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
    primary = StoredSections(STUDY)["primary"]
    assert list(primary.run_ids) == sorted(run.run_id for run in GRIDS[STUDY].runs("primary"))
    assert len(primary.runs) == len(primary.run_ids) == 240
    assert set(primary.items["run_id"]) | set(primary.unpooled_items["run_id"]) == set(
        primary.run_ids
    )
    assert set(primary.unpooled_items["task"]) == {"stsb"}
    assert "stsb" not in set(primary.items["task"])


@pytest.mark.parametrize("table", ["rows", "items"])
def test_one_run_less_and_it_is_not_complete(results, table):
    run = GRIDS[STUDY].runs("placebos")[0].run_id
    change(results, "placebos", lambda frame: frame[frame["run_id"] != run], table)
    assert why_not("placebos") == "section placebos: 89 of 90 runs are stored"


@pytest.mark.parametrize("column", [{"dirty": True}, {"status": "failed"}])
def test_a_run_of_changed_code_or_a_failed_one_does_not_count(results, column):
    run = GRIDS[STUDY].runs("placebos")[0].run_id
    ((name, value),) = column.items()
    change(
        results,
        "placebos",
        lambda rows: rows.assign(**{name: rows[name].mask(rows["run_id"] == run, value)}),
    )
    assert "89 of 90 runs" in why_not("placebos")


def test_an_absent_section_is_named_in_one_line(results):
    assert why_not("short") == "section short: 0 of 60 runs are stored"
    with pytest.raises(InputError, match="section is 'shorts'; expected one of tuning, primary"):
        StoredSections(STUDY)["shorts"]
    with pytest.raises(InputError, match="study is 'glue'; expected one of classification, instr"):
        StoredSections("glue")


def test_a_run_that_nobody_planned_is_left_out(results):
    def with_another(rows):
        others = rows[rows["seed"] == 100].assign(seed=99)
        return pd.concat([rows, others.assign(run_id="other-" + others["run_id"])])

    change(results, "placebos", with_another)
    placebos = StoredSections(STUDY)["placebos"]
    assert len(placebos.run_ids) == 90
    assert set(placebos.items["seed"]) == set(range(100, 105))


def test_without_the_tuning_section_nothing_is_complete(results):
    shutil.rmtree(results / "tuning")
    line = why_not("primary")
    assert line.startswith(
        "section primary: 300 runs are planned (the tuning section lacks 170 run"
    )
    assert "geodistill experiments classification --section tuning" in line


def test_the_weight_and_the_settings_that_vary_are_columns(results):
    placebos = StoredSections(STUDY)["placebos"]
    assert sorted(placebos.runs["weight"].unique()) == [5.0, 20.0, 80.0]
    assert placebos.items.groupby("weight")["run_id"].nunique().to_dict() == {
        5.0: 30, 20.0: 30, 80.0: 30,
    }  # fmt: skip
    assert "epochs" not in placebos.runs  # the same in all


def test_sections_of_two_devices_are_not_compared(results):
    change(results, "placebos", lambda rows: rows.assign(device="cuda: a GPU"))
    lines = []
    sections = StoredSections(STUDY, lines.append)
    assert sections.is_complete("placebos")
    assert sections.is_complete("primary")
    assert not sections.is_complete("primary", "placebos")
    (line,) = lines
    assert line.startswith("sections made on cpu and cuda are not compared")


def test_provenance_names_commands_folders_and_runs(results):
    provenance = StoredSections(STUDY).provenance("primary", "placebos")
    command = "geodistill experiments classification --section"
    assert provenance["source"] == "stored"
    assert provenance["made_by"] == f"{command} primary && {command} placebos"
    assert provenance["results"] == (
        "data/results/classification/primary, data/results/classification/placebos"
    )
    assert len(provenance["run_ids"]) == 240 + 90


def test_each_table_is_read_once(results, monkeypatch):
    sections = StoredSections(STUDY)
    first = sections["primary"]
    shutil.rmtree(results / "primary")
    assert sections["primary"] is first
    assert sections.is_complete("primary")
