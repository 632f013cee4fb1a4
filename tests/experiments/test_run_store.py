"""Runs on disk: whole or not at all, found again, merged, with where they come from."""

import errno
import json
import os
import re
import subprocess
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from support.tiny_study import CONFIG, run_of

from geodistill import paths
from geodistill.errors import InputError
from geodistill.experiments import provenance as provenance_module
from geodistill.experiments.provenance import provenance
from geodistill.experiments.run_store import finished_runs, merge_runs, write_run
from geodistill.experiments.settings import config_hash, run_id


def stored(folder, kind):
    return pd.read_parquet(folder / f"{kind}.parquet")


def test_a_run_comes_back_as_it_was(tmp_path):
    run = run_of(3)
    write_run(tmp_path, run)
    merge_runs(tmp_path)
    rows, items = stored(tmp_path, "rows"), stored(tmp_path, "items")
    assert dict(zip(rows["metric"], rows["value"], strict=True)) == run.metrics
    assert len(rows) == 2
    first = rows.iloc[0]
    assert (first["study"], first["task"], first["method"], first["seed"]) == (
        "tiny/first", "toy", "kd", 3,
    )  # fmt: skip
    assert json.loads(first["config"]) == CONFIG
    assert first["config_hash"] == config_hash(CONFIG)
    assert (first["n_train"], first["data_hash"]) == (3, "d")
    assert first["wall_seconds"] == 60
    assert pd.Timestamp(first["finished_at"]).tzinfo is not None
    columns = list(run.items.columns)
    pd.testing.assert_frame_equal(items[columns], run.items, check_dtype=False)
    assert set(items["run_id"]) == set(rows["run_id"]) == {run.run_id}
    assert {"task", "method", "seed"} <= set(items.columns)


def test_items_may_be_of_further_tasks(tmp_path):
    run = run_of(3)
    tasks = ["toy"] * (len(run.items) - 1) + ["further"]
    write_run(tmp_path, replace(run, items=run.items.assign(task=tasks)))
    merge_runs(tmp_path)
    items = stored(tmp_path, "items")
    assert dict(zip(items["item"], items["task"], strict=True)) == dict(
        zip(run.items["item"], tasks, strict=True)
    )
    assert set(stored(tmp_path, "rows")["task"]) == {"toy"}
    assert not items.isna().any(axis=None)


def test_rows_say_where_they_come_from(tmp_path):
    write_run(tmp_path, run_of(0))
    merge_runs(tmp_path)
    row = stored(tmp_path, "rows").iloc[0]
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=paths.SOURCE_ROOT, capture_output=True, text=True
    ).stdout.strip()
    assert row["commit"] == (head or "unknown")
    assert row["dirty"] in (True, False)
    assert row["device"].startswith(("cpu: ", "cuda: "))
    versions = json.loads(row["versions"])
    assert {"torch", "transformers", "geodistill", "python"} <= set(versions)


def test_a_run_made_elsewhere_keeps_that_provenance(tmp_path):
    elsewhere = {**provenance(), "device": "cuda: another machine's", "commit": "c" * 40}
    write_run(tmp_path, run_of(0, provenance=elsewhere))
    merge_runs(tmp_path)
    row = stored(tmp_path, "rows").iloc[0]
    assert {name: row[name] for name in elsewhere} == elsewhere


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with one commit, in the place of the project's."""

    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "code.py").write_text("1\n")
    git("add", "code.py")
    git("commit", "-m", "first")
    monkeypatch.setattr(provenance_module, "SOURCE_ROOT", tmp_path)
    provenance.cache_clear()
    yield tmp_path
    provenance.cache_clear()


def test_changed_code_is_dirty_new_rows_are_not(checkout):
    assert len(provenance()["commit"]) == 40
    assert provenance()["dirty"] is False
    (checkout / "data" / "results").mkdir(parents=True)
    (checkout / "data" / "results" / "rows.parquet").write_text("x")
    provenance.cache_clear()
    assert provenance()["dirty"] is False
    (checkout / "code.py").write_text("2\n")
    provenance.cache_clear()
    assert provenance()["dirty"] is True


def test_without_git_a_run_is_stored_as_dirty(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    provenance.cache_clear()
    try:
        assert (provenance()["commit"], provenance()["dirty"]) == ("unknown", True)
    finally:
        provenance.cache_clear()


def test_finished_sees_runs_before_and_after_they_are_collected(tmp_path):
    assert finished_runs(tmp_path) == {}
    write_run(tmp_path, run_of(0))
    merge_runs(tmp_path)
    write_run(tmp_path, replace(run_of(1), wall_seconds=30.0))
    expected = {run_of(0).run_id: 60.0, run_of(1).run_id: 30.0}
    assert finished_runs(tmp_path) == expected
    merge_runs(tmp_path)
    for path in (tmp_path / "runs").iterdir():
        path.unlink()
    assert finished_runs(tmp_path) == expected


def test_collecting_again_changes_nothing(tmp_path):
    for seed in (1, 0):
        write_run(tmp_path, run_of(seed))
    merge_runs(tmp_path)
    before = stored(tmp_path, "rows"), stored(tmp_path, "items")
    assert [len(table) for table in before] == [4, 8]
    merge_runs(tmp_path)
    pd.testing.assert_frame_equal(stored(tmp_path, "rows"), before[0])
    pd.testing.assert_frame_equal(stored(tmp_path, "items"), before[1])


def test_a_newer_run_replaces_its_elder_and_no_other(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, run_of(seed))
    merge_runs(tmp_path)
    for path in (tmp_path / "runs").iterdir():
        path.unlink()
    changed = run_of(0, metrics={"accuracy": 0.0}, items=run_of(0).items.assign(nll=9.0).head(2))
    write_run(tmp_path, changed)
    merge_runs(tmp_path)
    rows = stored(tmp_path, "rows").set_index(["seed", "metric"])["value"]
    assert rows.to_dict() == {
        (0, "accuracy"): 0.0,
        (1, "accuracy"): run_of(1).metrics["accuracy"],
        (1, "nll"): run_of(1).metrics["nll"],
    }
    items = stored(tmp_path, "items").groupby("seed")["nll"]
    assert items.size().to_dict() == {0: 2, 1: 4}
    assert items.max().to_dict() == {0: 9.0, 1: 1.1}


def test_nothing_to_collect_makes_no_tables(tmp_path):
    merge_runs(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_a_hidden_file_is_a_run(tmp_path):
    """Data of your own may be `.h.csv`; unfinished files have another ending."""
    hidden = replace(run_of(0), task=".h")
    write_run(tmp_path, hidden)
    merge_runs(tmp_path)
    assert finished_runs(tmp_path) == {hidden.run_id: 60.0}
    assert set(stored(tmp_path, "rows")["run_id"]) == {hidden.run_id}


@pytest.mark.parametrize("write", [0, 1])
def test_a_write_that_breaks_leaves_no_half_run(tmp_path, monkeypatch, write):
    """Broken at the items, or at the rows after them: the run is not finished, tables are whole."""
    write_run(tmp_path, run_of(0))
    whole, calls = pd.DataFrame.to_parquet, []

    def breaks(table, path, **settings):
        calls.append(path)
        if len(calls) == write + 1:
            path.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(table, path, **settings)

    monkeypatch.setattr(pd.DataFrame, "to_parquet", breaks)
    kind = ("items", "rows")[write]
    told = rf"{kind}\.parquet can't be written \(No space left on device\); finished runs"
    with pytest.raises(InputError, match=told):
        write_run(tmp_path, run_of(1))
    monkeypatch.undo()
    assert not list(tmp_path.rglob("*.partial"))
    assert len(calls) == write + 1
    assert finished_runs(tmp_path) == {run_of(0).run_id: 60.0}
    merge_runs(tmp_path)
    for kind in ("rows", "items"):
        assert set(stored(tmp_path, kind)["run_id"]) == {run_of(0).run_id}
    write_run(tmp_path, run_of(1))
    merge_runs(tmp_path)
    assert set(stored(tmp_path, "items")["run_id"]) == {run_of(0).run_id, run_of(1).run_id}


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize("kind", ["rows", "items"])
@pytest.mark.parametrize("harm", [cut, Path.unlink])
def test_a_damaged_run_is_left_out_with_a_warning_until_it_is_made_again(tmp_path, kind, harm):
    for seed in (0, 1):
        write_run(tmp_path, run_of(seed))
    one, other = run_of(0).run_id, run_of(1).run_id
    path = tmp_path / "runs" / f"{one}.{kind}.parquet"
    harm(path)
    told = rf"run {re.escape(one)} is left out: .*{re.escape(path.name)} can't be read \("
    known = nullcontext() if (kind, harm) == ("rows", Path.unlink) else pytest.warns(match=told)
    for _ in range(2):
        with known:
            assert finished_runs(tmp_path) == {other: 60.0}
        with known:
            merge_runs(tmp_path)
        for table in ("rows", "items"):
            assert set(stored(tmp_path, table)["run_id"]) == {other}
    write_run(tmp_path, run_of(0))
    assert set(finished_runs(tmp_path)) == {one, other}
    merge_runs(tmp_path)
    assert set(stored(tmp_path, "items")["run_id"]) == {one, other}


@pytest.mark.parametrize("kind", ["rows", "items"])
def test_a_damaged_table_is_told_and_once_deleted_its_runs_are_made_again(tmp_path, kind):
    write_run(tmp_path, run_of(0))
    merge_runs(tmp_path)
    for path in (tmp_path / "runs").iterdir():
        path.unlink()
    write_run(tmp_path, run_of(1))
    table = tmp_path / f"{kind}.parquet"
    cut(table)
    told = rf"{kind}\.parquet is damaged or was changed: its SHA-256 is .*; restore it by `git chec"
    for look in (finished_runs, merge_runs):
        with pytest.raises(InputError, match=told) as error:
            look(tmp_path)
        assert "\n" not in str(error.value)
    table.unlink()
    assert set(finished_runs(tmp_path)) == {run_of(1).run_id}
    write_run(tmp_path, run_of(0))
    merge_runs(tmp_path)
    assert set(stored(tmp_path, kind)["seed"]) == {0, 1}


def test_a_run_of_other_data_is_not_stored_beside_its_likes(tmp_path):
    write_run(tmp_path, run_of(0))
    merge_runs(tmp_path)
    other = run_of(1, data_hash="another")
    told = f"{tmp_path} holds runs of toy on other data: their data_hash is d, of {other.run_id} it"
    with pytest.raises(InputError, match=re.escape(f"{told} is another; expected the same data")):
        write_run(tmp_path, other)
    assert set(finished_runs(tmp_path)) == {run_of(0).run_id}
    write_run(tmp_path, run_of(1, task="other toy", data_hash="another"))
    assert len(finished_runs(tmp_path)) == 2


def test_a_run_is_named_by_everything_that_it_depends_on():
    base = ("toy", "kd", 0, {"a": 1, "b": {"c": 2}})
    others = [
        ("other", "kd", 0, base[3]),
        ("toy", "ce", 0, base[3]),
        ("toy", "kd", 1, base[3]),
        ("toy", "kd", 0, {"a": 2, "b": {"c": 2}}),
        ("toy", "kd", 0, {"a": 1, "b": {"c": 3}}),
        ("toy", "kd", 0, {"a": 1, "b": {"c": 2}, "d": None}),
    ]
    names = {run_id(*given) for given in (base, *others)}
    assert len(names) == 7
    assert run_id("toy", "kd", 0, {"b": {"c": 2}, "a": 1}) == run_id(*base)
    assert run_id(*base) == f"toy-kd-s0-{config_hash(base[3])}"
    assert len(config_hash(base[3])) == 12


def test_results_are_those_of_the_checkout_unless_named(monkeypatch, tmp_path):
    monkeypatch.delenv("GEODISTILL_RESULTS", raising=False)
    assert paths.results_dir() == paths.SOURCE_ROOT / "data" / "results"
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    assert paths.results_dir() == tmp_path
    monkeypatch.setenv("GEODISTILL_RESULTS", "~/results")
    assert paths.results_dir() == Path.home() / "results"


def test_outside_a_checkout_the_way_to_one_is_told(monkeypatch, tmp_path):
    monkeypatch.delenv("GEODISTILL_RESULTS", raising=False)
    monkeypatch.setattr(paths, "SOURCE_ROOT", tmp_path / "site-packages")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no checkout of geodistill at or above .*; run this in"):
        paths.results_dir()


def test_a_package_that_is_installed_elsewhere_finds_the_checkout_around(monkeypatch, tmp_path):
    monkeypatch.delenv("GEODISTILL_RESULTS", raising=False)
    checkout = paths.SOURCE_ROOT
    monkeypatch.setattr(paths, "SOURCE_ROOT", tmp_path / "site-packages")
    monkeypatch.chdir(checkout / "notebooks")
    assert paths.results_dir() == checkout / "data" / "results"
