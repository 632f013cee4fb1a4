"""A section is shown when it is whole, and beside rows of its own device alone."""

import shutil

import pandas as pd
import pytest
from support import simulated_results

from geodistill.errors import InputError
from geodistill.experiments.classification.grid import FOLDER
from geodistill.experiments.stored_sections import Sections

MADE = ("gpu", "primary", "memory", "size", "batch", "efficiency", "curve")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEODISTILL_RESULTS", str(folder))
        simulated_results.write_sections(folder, MADE, n_items=6)
    return folder


@pytest.fixture
def results(made, tmp_path, monkeypatch):
    """A copy of the sections, to be spoilt."""
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "classification"


def change(results, section, edit):
    path = results / section / "rows.parquet"
    rows = pd.read_parquet(path)
    edit(rows).to_parquet(path)


def whole(name):
    """The section as it is stored now."""
    return Sections(FOLDER)[name]


def told(name):
    """What is said of a section that is not shown."""
    lines = []
    study = Sections(FOLDER, lines.append)
    assert not study.whole(name)
    (line,) = lines
    with pytest.raises(InputError) as refused:
        study[name]
    assert str(refused.value) == line
    return line


def test_a_section_that_is_not_there_is_named_in_one_line(results):
    assert told("variance") == "section variance: 0 of 80 runs are stored; not shown"
    with pytest.raises(InputError, match="section is 'sizes'; expected one of tuning, primary"):
        whole("sizes")


def test_runs_that_lack_or_do_not_count_keep_it_from_being_shown(results):
    change(results, "size", lambda rows: rows[rows["seed"] != 101])
    assert told("size") == "section size: 36 of 54 runs are stored; not shown"
    one = pd.read_parquet(results / "memory" / "rows.parquet")["run_id"].iloc[0]
    change(results, "memory", lambda rows: rows.assign(dirty=rows["run_id"] == one))
    assert told("memory") == "section memory: 19 of 20 runs are stored; not shown"


def test_a_run_that_nobody_planned_is_left_out(results):
    def with_another(rows):
        more = rows[rows["seed"] == 100].assign(seed=99)
        return pd.concat([rows, more.assign(run_id="theirs-" + more["run_id"])])

    change(results, "memory", with_another)
    found = whole("memory")
    assert len(found.run_ids) == 20
    assert set(found.items["seed"]) == set(range(100, 105))


def test_what_is_tuned_waits_for_its_tuning(results):
    line = told("others")
    assert line == "section others: 0 of 30 runs are stored; not shown"
    (results / "others").mkdir()
    pd.DataFrame({"run_id": ["a", "b"]}).to_parquet(results / "others" / "rows.parquet")
    line = told("others")
    assert "2 of 30 runs are stored (the tuning-others section lacks" in line


def test_rows_of_a_gpu_are_compared_with_the_section_gpu(results):
    memory = whole("memory")
    against = memory.compared_with()
    assert (memory.reference.name, memory.device) == ("gpu", "cuda")
    assert set(against["run_id"]) <= set(pd.read_parquet(results / "gpu/rows.parquet")["run_id"])
    assert set(against["task"]) == {"movie-b", "product-b"}
    assert {"kd", "kd+procrustes"} < set(against["method"])


def test_rows_of_a_cpu_are_compared_with_primary_on_the_same_seeds_and_tasks(results):
    change(results, "memory", lambda rows: rows.assign(device="cpu: x"))
    memory = whole("memory")
    against = memory.compared_with()
    assert memory.reference.name == "primary"
    assert set(against["seed"]) == set(range(100, 105))  # of primary's ten
    assert set(against["task"]) == {"movie-b", "product-b"}  # of its four


def test_devices_are_never_mixed(results):
    mixed = "section memory mixes devices .cpu: x, cuda: a GPU.: dropout"
    seed = 100
    change(
        results,
        "memory",
        lambda rows: rows.assign(device=rows["device"].where(rows["seed"] != seed, "cpu: x")),
    )
    with pytest.raises(InputError, match=mixed):
        whole("memory")
    change(results, "gpu", lambda rows: rows.assign(device="cpu: x"))
    with pytest.raises(InputError, match="section gpu has rows of the device that primary is made"):
        whole("gpu")
    with pytest.raises(InputError, match="gpu has rows of a cpu; size, which is compared with it,"):
        whole("size")


def test_without_rows_to_compare_with_nothing_is_shown_unless_it_has_its_own(results):
    change(results, "gpu", lambda rows: rows[rows["seed"] != 100])
    line = told("memory")
    assert line == (
        "section memory is whole, but gpu, which it is compared with, is not: "
        "48 of 60 runs are stored"
    )
    size = whole("size")
    assert size.reference is None
    assert set(size.beside_its_like()["width"]) == {64, 128, 256}
    with pytest.raises(InputError, match="section size has no whole section to be compared with"):
        size.compared_with()


def test_the_middle_of_a_setting_comes_from_the_section_of_the_same_device(results):
    size = whole("size").beside_its_like()
    shapes = size.groupby(["layers", "width"])["method"].agg(set)
    assert set(shapes.index) == {(3, 128), *((n, d) for n in (2, 4) for d in (64, 128, 256))}
    assert all(methods == {"kd", "kd+procrustes", "kd+gram"} for methods in shapes)
    assert size.groupby(["layers", "width"])["seed"].nunique().eq(3).all()
    curve = whole("efficiency").beside_its_like()
    assert sorted(curve["n_train"].unique()) == [125, 250, 500, 1000, 2000]
    assert set(whole("batch").items["memory"]) == {0.0}  # a default: no stored setting has it


def test_validation_rows_stand_alone_and_tasks_of_scores_are_not_pooled(results):
    assert whole("curve").reference is None
    primary = whole("primary")
    assert "stsb" in set(primary.rows["task"])
    assert "stsb" not in set(primary.items["task"])
    assert set(primary.apart["task"]) == {"stsb"}
    assert set(primary.items["run_id"]) | set(primary.apart["run_id"]) == set(primary.run_ids)


def test_a_figure_names_every_section_it_is_drawn_from(results):
    said = Sections(FOLDER).source("memory", "gpu")
    command = "geodistill grid classification --section"
    assert said["made_by"] == f"{command} memory && {command} gpu"
    assert said["rows"].endswith("data/results/classification/gpu")
    assert len(said["run_ids"]) == 20 + 60
